"""Folders of weights: the file that counts in one, and parts of a file put together."""

import pathlib
import re

import numpy as np

from styleclip_jax.errors import UserError
from styleclip_jax.io import clip_files, files, torch_files
from styleclip_jax.io.torch_files import TorchFile

_INDEX = ".index.json"
_PART = re.compile(r".*-\d+-of-(?!0*1\.)\d+\.\w+")

# Files of weights of transformers and OpenCLIP, by preference.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "open_clip_model.safetensors.index.json",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.bin.index.json",
)


def read(path: files.Path) -> TorchFile:
    """Content of a file, of the weights in a folder, or of all parts of a file.

    Args:
      path: file that `torch_files.read` reads; folder of transformers or OpenCLIP;
        index of a file in parts.

    Raises:
      UserError: as `torch_files.read`, a folder without weights, or one of the parts.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        found = [path / name for name in _WEIGHTS if (path / name).is_file()]
        if not found:
            raise UserError(
                f"{path}: expected a checkpoint, found a folder without any of "
                f"{', '.join(_WEIGHTS)}"
            )
        path = found[0]
    if not path.name.endswith(_INDEX):
        if path.is_file() and _PART.fullmatch(path.name):
            raise UserError(
                f"{path}: expected a whole network, found one of its parts; give the "
                f"folder, or the file that ends in {_INDEX}, with all parts beside it"
            )
        return torch_files.read(path)
    parts = [torch_files.read(path.parent / name) for name in clip_files.parts_of(path)]
    content: dict[str, np.ndarray] = {}
    for part in parts:
        content |= torch_files.tensors(part.content)
    return TorchFile(str(path), parts[0].format, content)
