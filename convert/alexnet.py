"""AlexNet of LPIPS, from torchvision's file and the weights of lpips.

torchvision's `alexnet-owt-7be5be79.pth` has the network, lpips' `alex.pth` the weights
of LPIPS.
"""

import pathlib
from collections.abc import Mapping

import numpy as np

from styleclip_jax.errors import UserError
from styleclip_jax.io import torch_files
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import alexnet

from . import rules, vgg16, wrappers
from .rules import Conversion, Rule
from .settings import AlexNetSettings
from .wrappers import Layout

KIND = "alexnet"

_MARKS = (r"features\.0\.weight", r"features\.3\.weight", r"features\.10\.weight")
LAYOUTS = (Layout("torchvision's", _MARKS),)
# Layers of torchvision's `features` that are convolutions; others are ReLUs and pools.
_CONVOLUTIONS = (0, 3, 6, 8, 10)
NOTHING = AlexNetSettings()

_TABLE = (
    *(
        rule
        for index, place in enumerate(_CONVOLUTIONS)
        for rule in (
            Rule(
                rf"features\.{place}\.weight",
                f"conv{index}/kernel",
                rules.oihw_to_hwio,
            ),
            Rule(rf"features\.{place}\.bias", f"conv{index}/bias"),
        )
    ),
    # The layers of the classes, which LPIPS does not see.
    Rule(r"classifier\.\d\.(weight|bias)", None),
    Rule(r"lin(\d)\.model\.1\.weight", r"lpips\1", vgg16.lpips_weights),
)


def recognize(file: TorchFile) -> wrappers.Part | None:
    """The AlexNet in a file."""
    return wrappers.find(file, LAYOUTS)


def convert(file: TorchFile, settings: AlexNetSettings = NOTHING) -> Conversion:
    """Weights of the convolutions and what their shapes tell of them.

    Args:
      file: content.
      settings: the file of LPIPS' weights.

    Raises:
      UserError: no such network, or missing or surplus tensors.
    """
    part = wrappers.require(file, LAYOUTS, "an AlexNet")
    renamed = rules.rename_tensors(_TABLE, part.tensors, file=file.path)
    notes = part.notes
    if settings.alexnet_lpips is not None:
        renamed.tensors.update(_read_lpips(settings.alexnet_lpips))
        name = pathlib.Path(settings.alexnet_lpips).name
        notes.append(f"weights of LPIPS are those of {name}")
    config = _infer_config(renamed.tensors, file.path)
    checked = rules.check_tensors(renamed, alexnet.param_shapes(config), file=file.path)
    if not config.lpips:
        notes.append("without weights of LPIPS; --alexnet_lpips gives their file")
    return Conversion(KIND, config, checked, notes)


def _read_lpips(path: str) -> dict[str, np.ndarray]:
    """Weights of LPIPS in a file, by our names."""
    part = wrappers.require(
        torch_files.read(path), (vgg16.LPIPS,), "weights of LPIPS for an AlexNet"
    )
    return rules.rename_tensors(_TABLE, part.tensors, file=path).tensors


def _infer_config(found: Mapping[str, np.ndarray], file: str) -> alexnet.AlexNetConfig:
    widths = []
    for i in range(len(_CONVOLUTIONS)):
        width = rules.length(found, 0, f"conv{i}/bias")
        if not width:
            raise UserError(
                f"{file}: expected the convolutions of an AlexNet, found no bias of "
                f"number {i + 1}"
            )
        widths.append(width)
    return alexnet.AlexNetConfig(tuple(widths), "lpips0" in found)
