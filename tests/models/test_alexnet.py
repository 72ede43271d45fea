"""AlexNet and its LPIPS compute what the official code does."""

import functools
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from convert import __main__, settings
from convert import alexnet as convert_alexnet
from styleclip_jax.errors import UserError
from styleclip_jax.io import torch_files
from styleclip_jax.models import alexnet, lpips
from styleclip_jax.models.network import Network
from tests import golden_data, golden_networks
from tests.golden_data import to_nhwc

FOLDER = golden_data.ROOT / "pti"
NETWORK, WEIGHTS = FOLDER / "alexnet-tiny.pth", FOLDER / "alex.pth"


network = golden_networks.alexnet


def test_lpips_is_the_official_one() -> None:
    case = golden_data.Case("pti")
    images = (to_nhwc(case[name]) for name in ("l2.image_start", "target"))
    one, other = (jnp.asarray(image) for image in images)
    case.check("lpips_start_target", lpips.distance(network(), one, other))
    vectors = (lpips.features(network(), image) for image in (one, other))
    difference = functools.reduce(jnp.subtract, vectors)
    case.check("lpips_start_target", jnp.sum(jnp.square(difference)))


def test_maps_are_those_of_images_that_are_large_enough() -> None:
    smallest = jnp.zeros((1, 31, 31, 3))
    maps = alexnet.feature_maps(network(), smallest)
    assert [x.shape[1:] for x in maps] == [
        *((7, 7, 8), (3, 3, 12), (1, 1, 16), (1, 1, 12), (1, 1, 10)),
    ]
    with pytest.raises(ValueError, match="H and W at least 31"):
        alexnet.feature_maps(network(), smallest[:, 1:])


def test_conversion_says_what_the_file_lacks(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["convert", str(NETWORK), "--output", str(tmp_path / "a")]
    assert __main__.main(arguments) == 0
    told = capsys.readouterr().out
    assert "zip file, alexnet" in told
    assert "note: without weights of LPIPS; --alexnet_lpips gives their file" in told
    bare = network().config.replace(lpips=False)
    with pytest.raises(UserError, match="the weights of LPIPS, as converted with"):
        lpips.features(Network(network().params, bare), jnp.zeros((1, 32, 32, 3)))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("features.3.bias", None, "found no bias of number 2"),
        ("features.6.weight", (16, 12, 5, 5), "wrongly shaped tensor .conv2/kernel"),
    ],
)
def test_other_networks_are_refused(
    name: str, shape: tuple[int, ...] | None, expected: str
) -> None:
    file = torch_files.read(NETWORK)
    file.content.pop(name)
    if shape:
        file.content[name] = np.ones(shape, np.float32)
    with pytest.raises(UserError, match=expected):
        convert_alexnet.convert(file)


def test_weights_of_another_network_are_refused() -> None:
    given = settings.AlexNetSettings(str(NETWORK))
    with pytest.raises(UserError, match="expected weights of LPIPS for an AlexNet"):
        convert_alexnet.convert(torch_files.read(NETWORK), given)
