"""Programs for accelerators ask for the precision and type that configurations say."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from styleclip_jax.errors import UserError
from styleclip_jax.methods import mapper
from styleclip_jax.models import (
    clip,
    clip_input,
    e4e,
    inception,
    irse50,
    lpips,
    runtime,
    stylegan2,
    vgg16,
)
from styleclip_jax.models.network import Network
from styleclip_jax.models.runtime import PRECISIONS
from tests import tiny

# With a convolution that has a strided gradient, and one that is Winograd's on CPUs.
LARGE = stylegan2.GeneratorConfig(
    resolution=256,
    z_dim=4,
    w_dim=4,
    channels=(2, 2, 2, 128, 2, 2, 2),
    num_mapping_layers=1,
)
PRODUCT = re.compile(
    r"stablehlo\.(?:dot_general|convolution)\b.*?"
    r"precision(?:_config)? = \[(.*?)\].*?: \(tensor<[^>]*?(\w+)>, tensor<[^>]*?(\w+)>"
)


@functools.cache
def _samples() -> dict[str, tuple[Callable[..., Any], Any, Any]]:
    """Function, network and inputs by name."""

    def look(network: Network, image: jax.Array) -> Any:
        plain = clip_input.preprocess_styleclip(network, image)
        trained = clip_input.preprocess_clip(network, image)
        return clip.encode_image(network, plain) + clip.encode_image(network, trained)

    def read(network: Network, image: jax.Array) -> Any:
        tokens = jnp.zeros((1, network.config.context_length), jnp.int32)
        return look(network, image) + clip.encode_text(network, tokens)

    def describe(network: Network, image: jax.Array) -> Any:
        return lpips.features(network, image), vgg16.dense_features(network, image)

    def classify(network: Network, image: jax.Array) -> jax.Array:
        return inception.logits(network, inception.features(network, image))

    shapes = stylegan2.param_shapes(LARGE)
    large = Network(_zeros(shapes), LARGE)
    return {
        "generator": (stylegan2.synthesize, large, tiny.w_plus(1, LARGE)),
        "identity": (irse50.features, tiny.identity_network(), tiny.image(1, 16)),
        "vgg16": (describe, tiny.vgg16_network(), tiny.image(1, 16)),
        "inception": (classify, tiny.inception_network(), tiny.image(1, 16)),
        "encoder": (e4e.encode, tiny.encoder(), tiny.image(1, 16)),
        "mapper": (
            mapper.edit,
            tiny.mapper_network(mapper.of_generator(tiny.GENERATOR)),
            tiny.w_plus(1),
        ),
        "clip": (read, tiny.clip_network(), tiny.image(1, 16)),
        "siglip": (read, tiny.clip_network(tiny.SIGLIP), tiny.image(1, 16)),
        "resnet": (read, tiny.clip_network(tiny.RESNET_CLIP), tiny.image(1, 64)),
    }


def _zeros(shapes: Any) -> Any:
    return tiny.param_trees.unflatten({n: jnp.zeros(s) for n, s in shapes.items()})


def gradient(function: Callable[..., Any], network: Network, inputs: Any) -> Any:
    """The traced gradient by parameters and inputs, with the forward pass in it."""

    def total(network: Network, inputs: Any) -> jax.Array:
        results = function(network, inputs)
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(results))

    return jax.jit(jax.value_and_grad(total, (0, 1))).trace(network, inputs)


def products(traced: Any, platform: str) -> tuple[set[str], set[str], int]:
    """Precisions and types that a program asks for, and how many products it has."""
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    found = PRODUCT.findall(text)
    number = len(re.findall(r"stablehlo\.(?:dot_general|convolution)\b", text))
    assert len(found) == number, "a product without a precision"
    asked = {
        word
        for precision, *_ in found
        for word in re.findall(r"HIGHEST|HIGH|DEFAULT", precision)
    }
    return asked, {kind.split("x")[-1] for _, *kinds in found for kind in kinds}, number


@pytest.mark.parametrize("name", _samples())
def test_every_product_has_the_precision_of_the_network(name: str) -> None:
    function, network, inputs = _samples()[name]
    for precision in PRECISIONS:
        config = dataclasses.replace(network.config, precision=precision)
        traced = gradient(function, network.replace(config=config), inputs)
        for platform in ("cuda", "tpu"):
            asked, types, number = products(traced, platform)
            assert (asked, types) == ({precision.upper()}, {"f32"}), platform
            assert number > 5


def test_low_precision_begins_at_its_resolution() -> None:
    function, network, inputs = _samples()["generator"]
    config = dataclasses.replace(
        LARGE, dtype="bfloat16", low_precision_from=64, precision="high"
    )
    traced = jax.jit(function).trace(network.replace(config=config), inputs)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    # The first convolution to a resolution is that of its block; the next block may
    # upsample from there.
    found = re.findall(
        r"stablehlo\.convolution.*-> tensor<1x(\d+)x\1x\d+x(\w+)>$", text, re.MULTILINE
    )
    types = {int(size): kind for size, kind in reversed(found)}
    for resolution in (4 << i for i in range(len(LARGE.channels))):
        assert types[resolution] == ("bf16" if resolution >= 64 else "f32")
    for line in PRODUCT.finditer(text):
        low = line[2].endswith("bf16")
        assert ("DEFAULT" if low else "HIGH") in line[1]
        assert low == line[3].endswith("bf16")


def test_low_precision_from_the_first_resolution_is_that_of_all() -> None:
    draw = jax.jit(stylegan2.synthesize)
    whole, same, late = (
        draw(tiny.generator(dataclasses.replace(tiny.GENERATOR, **change)), w_plus)
        for w_plus in [tiny.w_plus(2)]
        for change in (
            {"dtype": "bfloat16"},
            {"dtype": "bfloat16", "low_precision_from": 4},
            {"dtype": "bfloat16", "low_precision_from": 8},
        )
    )
    exact = draw(tiny.generator(), tiny.w_plus(2))
    assert jnp.array_equal(whole, same)
    assert not jnp.array_equal(late, exact)
    assert jnp.abs(late - exact).mean() < jnp.abs(whole - exact).mean()
    assert late.dtype == jnp.float32


def test_mapping_is_exact_whatever_the_setting() -> None:
    config = dataclasses.replace(tiny.GENERATOR, precision="default", dtype="bfloat16")
    network = tiny.generator().replace(config=config)
    z = tiny.normal(0, 1, config.z_dim)
    asked, types, _ = products(gradient(stylegan2.map_latents, network, z), "tpu")
    assert (asked, types) == ({"HIGHEST"}, {"f32"})


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match="precision must be one of highest, high"):
        stylegan2.GeneratorConfig(precision="low")
    assert runtime.stored(tiny.ENCODER).keys().isdisjoint({"precision"})
