"""Conversion of FID's Inception-v3: both layouts, or a refusal."""

import json
import pathlib

import jax
import numpy as np
import pytest

from convert import __main__
from convert import inception as convert_inception
from styleclip_jax import loading
from styleclip_jax.errors import UserError
from styleclip_jax.io import torch_files
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import inception, param_trees
from tests import golden_data

FOLDER = golden_data.ROOT / "metrics"
OFFICIAL = FOLDER / "inception_tiny" / "inception-tiny.pth"
NVIDIA = FOLDER / "nvidia_archives" / "inception-2015-12-05.pt"


def state_of(path: pathlib.Path) -> dict[str, np.ndarray]:
    return torch_files.tensors(torch_files.read(path).content)


@pytest.mark.parametrize(
    ("path", "format_"), [(OFFICIAL, "legacy"), (NVIDIA, "torchscript")]
)
def test_converted_file_is_read_back(
    path: pathlib.Path,
    format_: str,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert __main__.main(["convert", str(path), f"--output={tmp_path / 'a'}"]) == 0
    assert f"{format_} file, inception" in capsys.readouterr().out
    network = loading.load_inception(tmp_path / "a")
    assert network.config == inception.InceptionConfig(width=2, num_classes=63)
    expected = convert_inception.convert(torch_files.read(path)).tensors
    found = param_trees.flatten(network.params)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_every_name_of_nvidia_is_that_of_its_convolution() -> None:
    meta = json.loads((NVIDIA.parent / "meta.json").read_text())["rename_inception"]
    branches = {
        **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d"), "mixed_5"),
        "Mixed_6a": "mixed_6a",
        **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d"), "mixed_6b_to_6e"),
        "Mixed_6e": "mixed_6b_to_6e",
        "Mixed_7a": "mixed_7a",
        **dict.fromkeys(("Mixed_7b", "Mixed_7c"), "mixed_7b_7c"),
    }
    expected = {}
    for module, theirs in meta["modules"].items():
        names = meta[branches[module]] if module in branches else {"": ""}
        for branch, name in names.items():
            ours = "/".join(filter(None, (module.lower(), branch)))
            expected[".".join(filter(None, (theirs, name)))] = ours
    assert expected == convert_inception._PLACES
    assert len(expected) == 94


def test_scales_that_nvidia_leaves_out_are_one() -> None:
    state = state_of(NVIDIA)
    found = convert_inception.convert(TorchFile("x", "torchscript", state)).tensors
    scales = [x for name, x in found.items() if name.endswith("/scale")]
    assert len(scales) == 94
    assert all((x == 1).all() for x in scales)
    state["layers.conv.gamma"] = np.full(2, 3.0)
    state["mean"] = np.ones(3)
    conversion = convert_inception.convert(TorchFile("x", "torchscript", state))
    assert conversion.notes == ["left out, tensors of: mean (1)"]
    assert (conversion.tensors["conv2d_1a_3x3/norm/scale"] == 3).all()


def test_other_networks_are_refused() -> None:
    state = state_of(OFFICIAL)

    def error(**changes: np.ndarray | None) -> str:
        changed = {name.replace("__", "."): x for name, x in changes.items()}
        content = {n: x for n, x in (state | changed).items() if x is not None}
        with pytest.raises(UserError) as caught:
            convert_inception.convert(TorchFile("x.pth", "zip", content))
        return str(caught.value)

    assert "torchvision's, which was trained otherwise" in error(
        AuxLogits__fc__weight=np.ones((10, 4))
    )
    assert error(Mixed_6c__branch1x1__bn__bias=None, Mixed_8__x=np.ones(2)) == (
        "x.pth: 1 missing tensor (mixed_6c/branch1x1/norm/bias); 1 surplus tensor "
        "(Mixed_8.x)"
    )
    assert "x.pth: width: expected an even number, found 3" in error(
        Conv2d_1a_3x3__bn__bias=np.ones(3)
    )
    assert error(fc__bias=None) == "x.pth: 1 missing tensor (fc/bias)"
