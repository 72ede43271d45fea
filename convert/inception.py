"""Inception-v3 of FID, from NVIDIA's archive or the file of pytorch-fid.

torch-fidelity's `weights-inception-2015-12-05-6726825d.pth` and pytorch-fid's
`pt_inception-2015-12-05-6726825d.pth` are the same file, by whose names ours go.
NVIDIA's `inception-2015-12-05.pt` keeps those of TensorFlow's graph.
"""

import functools
import re

import numpy as np

from styleclip_jax.errors import UserError
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import inception

from . import rules, wrappers
from .rules import Conversion, Rule
from .wrappers import Layout

KIND = "inception"

_NVIDIA = Layout(
    "NVIDIA's", (r"layers\.conv\.weight", r"layers\.mixed_10\.conv\.weight")
)
LAYOUTS = (
    Layout(
        "pytorch-fid's and torch-fidelity's",
        (r"Conv2d_1a_3x3\.conv\.weight", r"Mixed_7c\.branch_pool\.conv\.weight"),
    ),
    _NVIDIA,
)

# Convolutions of each block by NVIDIA's names, which are those of TensorFlow's graph.
_STEM = {
    "conv": "conv2d_1a_3x3",
    "conv_1": "conv2d_2a_3x3",
    "conv_2": "conv2d_2b_3x3",
    "conv_3": "conv2d_3b_1x1",
    "conv_4": "conv2d_4a_3x3",
}
_MIXED_5 = {
    "conv": "branch1x1",
    "tower.conv": "branch5x5_1",
    "tower.conv_1": "branch5x5_2",
    "tower_1.conv": "branch3x3dbl_1",
    "tower_1.conv_1": "branch3x3dbl_2",
    "tower_1.conv_2": "branch3x3dbl_3",
    "tower_2.conv": "branch_pool",
}
_MIXED_6A = {
    "conv": "branch3x3",
    "tower.conv": "branch3x3dbl_1",
    "tower.conv_1": "branch3x3dbl_2",
    "tower.conv_2": "branch3x3dbl_3",
}
_MIXED_6 = {
    "conv": "branch1x1",
    "tower.conv": "branch7x7_1",
    "tower.conv_1": "branch7x7_2",
    "tower.conv_2": "branch7x7_3",
    "tower_1.conv": "branch7x7dbl_1",
    "tower_1.conv_1": "branch7x7dbl_2",
    "tower_1.conv_2": "branch7x7dbl_3",
    "tower_1.conv_3": "branch7x7dbl_4",
    "tower_1.conv_4": "branch7x7dbl_5",
    "tower_2.conv": "branch_pool",
}
_MIXED_7A = {
    "tower.conv": "branch3x3_1",
    "tower.conv_1": "branch3x3_2",
    "tower_1.conv": "branch7x7x3_1",
    "tower_1.conv_1": "branch7x7x3_2",
    "tower_1.conv_2": "branch7x7x3_3",
    "tower_1.conv_3": "branch7x7x3_4",
}
_MIXED_7 = {
    "conv": "branch1x1",
    "tower_conv": "branch3x3_1",
    "tower_mixed_conv": "branch3x3_2a",
    "tower_mixed_conv_1": "branch3x3_2b",
    "tower_1_conv": "branch3x3dbl_1",
    "tower_1_conv_1": "branch3x3dbl_2",
    "tower_1_mixed_conv": "branch3x3dbl_3a",
    "tower_1_mixed_conv_1": "branch3x3dbl_3b",
    "tower_2_conv": "branch_pool",
}
_BLOCKS = {
    **dict.fromkeys(("5b", "5c", "5d"), _MIXED_5),
    "6a": _MIXED_6A,
    **dict.fromkeys(("6b", "6c", "6d", "6e"), _MIXED_6),
    "7a": _MIXED_7A,
    **dict.fromkeys(("7b", "7c"), _MIXED_7),
}
# Path of each convolution in our network by its name in NVIDIA's: the blocks are mixed,
# mixed_1, …, mixed_10.
_PLACES = _STEM | {
    f"mixed_{number}.{theirs}".replace("mixed_0.", "mixed."): f"mixed_{block}/{ours}"
    for number, (block, names) in enumerate(_BLOCKS.items())
    for theirs, ours in names.items()
}
_PLACE = rf"layers\.({'|'.join(map(re.escape, _PLACES))})"
_MODULE = r"((?:Conv2d|Mixed)_\w+(?:\.branch\w+)?)"
# Tensors of a convolution: by pytorch-fid's names, by NVIDIA's, by ours.
_LEAVES = (
    (r"conv\.weight", "weight", "conv/kernel"),
    (r"bn\.weight", "gamma", "norm/scale"),
    (r"bn\.bias", "beta", "norm/bias"),
    (r"bn\.running_mean", "mean", "norm/mean"),
    (r"bn\.running_var", "var", "norm/var"),
)


def _module(match: re.Match[str], leaf: str) -> str:
    """Target of a tensor by pytorch-fid's names."""
    return f"{match[1].lower().replace('.', '/')}/{leaf}"


def _place(match: re.Match[str], leaf: str) -> str:
    """Target of a tensor by NVIDIA's names."""
    return f"{_PLACES[match[1]]}/{leaf}"


_TABLE = (
    *(
        Rule(
            rf"{convolution}\.{theirs}",
            functools.partial(target, leaf=ours),
            rules.oihw_to_hwio if ours == "conv/kernel" else rules.identity,
        )
        for of_pytorch, of_nvidia, ours in _LEAVES
        for convolution, theirs, target in (
            (_MODULE, of_pytorch, _module),
            (_PLACE, of_nvidia, _place),
        )
    ),
    # A count of the steps of its training.
    Rule(rf"{_MODULE}\.bn\.num_batches_tracked", None),
    Rule(r"(?:fc|output)\.weight", "fc/kernel", rules.transpose),
    Rule(r"(?:fc|output)\.bias", "fc/bias"),
)


def recognize(file: TorchFile) -> wrappers.Part | None:
    """The Inception-v3 in a file."""
    return wrappers.find(file, LAYOUTS)


def convert(file: TorchFile) -> Conversion:
    """Weights of the network and the architecture that their shapes tell.

    Raises:
      UserError: no such network, another architecture, or missing or surplus tensors.
    """
    part = wrappers.require(file, LAYOUTS, "an Inception-v3")
    if any(name.startswith("AuxLogits.") for name in part.tensors):
        raise UserError(
            f"{file.path}: expected the Inception-v3 that FID is measured with, found "
            "torchvision's, which was trained otherwise; pytorch-fid's "
            "pt_inception-2015-12-05-6726825d.pth is needed"
        )
    if part.layout is _NVIDIA:
        part = wrappers.keep(part, r"(layers|output)\..*")
    renamed = rules.rename_tensors(_TABLE, part.tensors, file=file.path)
    found = renamed.tensors
    for place in _PLACES.values() if part.layout is _NVIDIA else ():
        # The network was trained without scales, so that the archive has none.
        if f"{place}/norm/bias" in found:
            ones = np.ones_like(found[f"{place}/norm/bias"])
            found.setdefault(f"{place}/norm/scale", ones)
    width = rules.length(found, 0, "conv2d_1a_3x3/norm/bias", "conv2d_1a_3x3/norm/var")
    classes = rules.length(found, 0, "fc/bias") or rules.length(found, 1, "fc/kernel")
    try:
        config = inception.InceptionConfig(width or 0, classes or 1)
    except UserError as error:
        raise UserError(f"{file.path}: {error}") from None
    shapes = inception.param_shapes(config)
    checked = rules.check_tensors(renamed, shapes, file=file.path)
    return Conversion(KIND, config, checked, part.notes)
