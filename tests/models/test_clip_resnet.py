"""CLIP with a ResNet: all that OpenAI's code computes; runs in other ways; refusals."""

import dataclasses
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import styleclip_jax as sc
from styleclip_jax.models import clip, clip_resnet
from styleclip_jax.models.network import Network
from styleclip_jax.ops import norms
from tests import golden_networks, tiny
from tests.golden_data import Case, assert_near, to_nchw, to_nhwc

RN50 = clip.ResnetClipConfig()
SMALL = tiny.clip_network(tiny.RESNET_CLIP)
CASES = {name: Case(f"clip_resnet/{name}") for name in golden_networks.RESNET_CLIPS}
# Configurations and parameters of OpenAI's further networks.
RELEASED = {
    "RN101": (
        dataclasses.replace(RN50, vision_layers=(3, 4, 23, 3), embed_dim=512),
        119_688_033,
    ),
    "RN50x4": (
        clip.ResnetClipConfig(
            image_size=288,
            vision_width=80,
            vision_layers=(4, 6, 10, 6),
            vision_heads=40,
            text_width=640,
            text_heads=10,
            text_mlp_width=2560,
            embed_dim=640,
        ),
        178_300_601,
    ),
}
encode_image = jax.jit(clip.encode_image)
encode_text = jax.jit(clip.encode_text)


@jax.jit
def image_gradient(network: Network, image: jax.Array, weight: jax.Array) -> jax.Array:
    def weighted(image: jax.Array) -> jax.Array:
        return jnp.sum(clip.encode_image(network, image) * weight)

    return jax.grad(weighted)(image)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_features_and_logits_match_openai(name: str) -> None:
    case, network = CASES[name], golden_networks.resnet_clip(name)
    image_feature = encode_image(network, to_nhwc(case["images"]))
    text_feature = encode_text(network, case["tokens"])
    case.check("image_features", image_feature)
    case.check("text_features", text_feature)
    logits = clip.logits(network, image_feature, text_feature)
    case.check("logits_per_image", logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_image_gradient_matches_openai(name: str) -> None:
    case, network = CASES[name], golden_networks.resnet_clip(name)
    image = to_nhwc(case["images"][: len(case["image_grad"])])
    gradient = image_gradient(network, image, case["grad_weight"])
    case.check("image_grad", to_nchw(gradient))


def test_stages_and_attention_pool_match_openai() -> None:
    case, network = CASES["rn_shallow"], golden_networks.resnet_clip("rn_shallow")
    inputs, outputs = jax.jit(layers_of)(network, to_nhwc(case["images"]))
    for stage, name in enumerate(
        ("vis_layer1", None, "vis_layer3", "attnpool_input"), 1
    ):
        if name:
            case.check(name, to_nchw(outputs[f"layer{stage}"]))
    case.check("attnpool_tokens", inputs["attnpool/k_proj"])
    case.check("attnpool_query", outputs["attnpool/q_proj"])
    case.check("attnpool_context", inputs["attnpool/out_proj"])


def test_gradient_of_the_attention_pool_matches_openai() -> None:
    case, network = CASES["rn_shallow"], golden_networks.resnet_clip("rn_shallow")
    config, params = network.config, network.params["vision_model"]["attnpool"]
    pool = clip_resnet.AttentionPool(config.vision_heads, config.embed_dim)

    def weighted(x: jax.Array) -> jax.Array:
        return jnp.sum(pool.apply({"params": params}, x) * case["grad_weight"])

    gradient = jax.jit(jax.grad(weighted))(to_nhwc(case["attnpool_input"]))
    case.check("attnpool_input_grad", to_nchw(gradient))


def layers_of(
    network: Network, image: jax.Array
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """What goes into the layers of the tower of images and what comes out, by name."""
    inputs, outputs = {}, {}

    def note(call: Any, values: Any, options: Any, context: Any) -> Any:
        result = call(*values, **options)
        name = "/".join(context.module.path).removeprefix("vision_model/")
        if context.method_name == "__call__":
            inputs[name], outputs[name] = values[0], result
        return result

    with nn.intercept_methods(note):
        clip.encode_image(network, image)
    return inputs, outputs


def test_vmap_of_the_encoder_equals_its_batch() -> None:
    image = tiny.image(3, 32)
    mapped = jax.vmap(lambda x: encode_image(SMALL, x[None])[0])
    assert_near(mapped(image), encode_image(SMALL, image), 1e-5)


def test_remat_changes_memory_alone() -> None:
    config = dataclasses.replace(SMALL.config, remat=True)
    image, weight = tiny.image(1, 32), tiny.normal(1, 8)
    expected = image_gradient(SMALL, image, weight)
    found = image_gradient(SMALL.replace(config=config), image, weight)
    assert_near(found, expected)
    program = jax.jit(jax.grad(lambda n: jnp.sum(clip.encode_image(n, image))))
    text = program.lower(SMALL.replace(config=config)).as_text()
    # One barrier for each block.
    assert text.count("optimization_barrier") >= sum(config.vision_layers)


def test_bfloat16_gives_nearby_float32_features() -> None:
    config = dataclasses.replace(SMALL.config, dtype="bfloat16")
    image = tiny.image(3, 32)
    exact = encode_image(SMALL, image)
    rough = encode_image(SMALL.replace(config=config), image)
    assert rough.dtype == jnp.float32
    cosine = np.sum(norms.unit(exact) * norms.unit(rough), -1)
    assert cosine.min() > 0.99
    assert np.abs(exact - rough).max() > 1e-4


@pytest.mark.parametrize(
    ("precision", "expected"), [("highest", "HIGHEST"), ("high", "HIGH")]
)
def test_products_have_the_precision_of_the_configuration(
    precision: str, expected: str
) -> None:
    config = dataclasses.replace(SMALL.config, precision=precision)
    program = image_gradient.lower(
        SMALL.replace(config=config), tiny.image(1, 32), jnp.ones(8)
    )
    products = [
        line
        for line in program.as_text().splitlines()
        if "stablehlo.dot_general" in line or "stablehlo.convolution" in line
    ]
    assert len(products) > 30
    for line in products:
        assert len(re.findall(rf"\b{expected}\b", line)) == 2, line


def test_statistics_have_no_gradient() -> None:
    image = tiny.image(1, 32)
    gradient = jax.jit(jax.grad(lambda n: jnp.sum(clip.encode_image(n, image))))(SMALL)
    norm = gradient.params["vision_model"]["layer1"]["0"]["norm1"]
    assert not np.any(norm["mean"])
    assert not np.any(norm["var"])
    assert np.any(norm["scale"])


@pytest.mark.slow
@pytest.mark.parametrize(("config", "total"), RELEASED.values(), ids=RELEASED)
def test_released_networks_have_as_many_parameters(
    config: clip.ResnetClipConfig, total: int
) -> None:
    assert sum(parameters_of(config).values()) == total


def test_default_has_the_size_of_rn50() -> None:
    sizes = parameters_of(RN50)
    assert sum(sizes.values()) == 102_007_137
    vision = sum(n for name, n in sizes.items() if name.startswith("vision_model/"))
    assert vision == 38_316_896


def parameters_of(config: clip.ResnetClipConfig) -> dict[str, int]:
    """Number of parameters by name, without statistics, as PyTorch counts them."""
    return {
        name: int(np.prod(shape))
        for name, shape in clip.param_shapes(config).items()
        if not name.endswith(("/mean", "/var"))
    }


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 3, 32, 32), (1, 64, 64, 3)])
def test_encode_image_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[B, 32, 32, 3\], found"):
        clip.encode_image(SMALL, jnp.zeros(shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 240}, "image_size 240 must be a multiple of 32"),
        ({"image_size": 0}, "image_size must be a whole number"),
        (
            {"vision_layers": (3, 4, 6)},
            r"must be four whole numbers, found \[3, 4, 6\]",
        ),
        ({"vision_layers": (3, 4, 0, 3)}, "vision_layers must be"),
        ({"vision_width": 63}, "vision_width 63 must be even"),
        ({"vision_heads": 48}, "a multiple of vision_heads 48"),
        ({"text_heads": 3}, "multiple of text_heads"),
        ({"text_act": "sine"}, "text_act must be"),
        ({"dtype": "float16"}, "dtype must be"),
        ({"precision": "full"}, "precision must be"),
    ],
)
def test_config_refuses_impossible_architectures(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        dataclasses.replace(RN50, **change)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_session_edits_with_a_clip_of_this_family(tmp_path: pathlib.Path) -> None:
    session = sc.load(**tiny.save(tmp_path, SMALL), quiet=True)
    faces = session.sample(seeds=range(2))
    edit = session.optimize(faces, "a cat", steps=3, l2_lambda=0.0)
    assert np.isfinite(edit.images).all()
    assert np.abs(edit.latents - faces.latents).max() > 1e-3
    assert session.networks().clip.config == tiny.RESNET_CLIP
