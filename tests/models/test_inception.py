"""Inception-v3 computes what the official codes do."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import inception as convert_inception
from styleclip_jax.errors import UserError
from styleclip_jax.models import inception
from styleclip_jax.models.network import Network
from tests import golden_data, golden_networks
from tests.golden_data import to_nchw, to_nhwc

CASE = golden_data.Case("metrics/inception_tiny")


@functools.cache
def tiny_network() -> Network:
    return golden_networks.converted(
        convert_inception.convert, "metrics/inception_tiny/inception-tiny.pth"
    )


@functools.cache
def official(form: inception.Input) -> dict[str, Any]:
    """Maps and features of the golden images."""

    @jax.jit
    def run(network: Network, pixels: jax.Array) -> Any:
        maps = inception.feature_maps(network, pixels, form=form)
        return maps | {"features": inception.features(network, pixels, form=form)}

    found: dict[str, Any] = run(tiny_network(), to_nhwc(CASE["u8"]))
    return found


def test_output_of_every_block() -> None:
    names = [name for name in CASE.arrays if name.startswith("block.")]
    assert len(names) == 12
    for name in names:
        x = official("tensorflow")[name.removeprefix("block.").lower()]
        step = max(1, x.shape[1] // 6)
        CASE.check(name, to_nchw(x)[:1, :32, ::step, ::step])


def test_features_and_logits() -> None:
    found, network = official("tensorflow"), tiny_network()
    for name, block in (
        ("64", "maxpool_1"),
        ("192", "maxpool_2"),
        ("768", "mixed_6e"),
    ):
        CASE.check(f"feature.{name}", found[block].mean((1, 2)))
    features = found["features"]
    CASE.check("feature.2048", features)
    CASE.check("feature.logits", inception.logits(network, features, bias=True))
    unbiased = inception.logits(network, features)
    CASE.check("feature.logits_unbiased", unbiased)
    CASE.check("softmax_no_bias", jax.nn.softmax(unbiased))


def test_input_of_pytorch_fid() -> None:
    found = official("pytorch_fid")
    blocks = ("maxpool_1", "maxpool_2", "mixed_6e")
    for i, block in enumerate(blocks):
        CASE.check(f"pytorchfid.block{i}_mean", found[block].mean((1, 2)))
    CASE.check("pytorchfid.block3_mean", found["features"])


def test_network_of_nvidia() -> None:
    case = golden_data.Case("metrics/nvidia_archives")
    network = golden_networks.converted(
        convert_inception.convert, "metrics/nvidia_archives/inception-2015-12-05.pt"
    )
    features = jax.jit(inception.features)(network, to_nhwc(case["u8"]))
    case.check("features", features)
    for name, bias in (("probs_no_bias", False), ("probs", True)):
        logits = inception.logits(network, features, bias=bias)
        case.check(name, jax.nn.softmax(logits))


def test_official_sizes() -> None:
    shapes = inception.param_shapes(inception.InceptionConfig())
    assert shapes["fc/kernel"] == (2048, 1008)
    assert shapes["mixed_6c/branch7x7dbl_2/conv/kernel"] == (7, 1, 160, 160)
    learned = sum(
        int(np.prod(shape))
        for name, shape in shapes.items()
        if not name.startswith("fc/") and not name.endswith(("/mean", "/var"))
    )
    # As torchvision counts them, without its dense layers.
    assert learned == 21_785_568


@pytest.mark.parametrize("change", [{"width": 3}, {"width": 0}, {"num_classes": 0}])
def test_configurations_are_checked(change: dict[str, int]) -> None:
    with pytest.raises(UserError, match="found"):
        inception.InceptionConfig(**change)


def test_wrong_inputs_are_refused() -> None:
    network = tiny_network()
    with pytest.raises(ValueError, match=r"\[B, H, W, 3\], found \[2, 8, 8\]"):
        inception.features(network, jnp.zeros((2, 8, 8)))
    form: Any = "keras"
    with pytest.raises(ValueError, match="form must be tensorflow or pytorch_fid"):
        inception.features(network, jnp.zeros((1, 8, 8, 3)), form=form)
