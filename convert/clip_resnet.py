"""Tower of images of OpenAI's and OpenCLIP's CLIPs with a ResNet: RN50 to RN50x64."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from styleclip_jax.models import clip_resnet

from . import rules
from .rules import Rule

# Tensor that a vision transformer has not, and its name here.
MARK = "visual.layer1.0.conv1.weight"
FIRST = "vision_model/layer1/0/conv1/kernel"

# Channels of the last feature map, which is pooled, for one after the stem.
POOLED = 32

_NORM = r"(weight|bias|running_mean|running_var)"
_NORM_LEAVES = {
    "weight": "scale",
    "bias": "bias",
    "running_mean": "mean",
    "running_var": "var",
}
_BLOCK, _BLOCK_TARGET = r"visual\.(layer\d)\.(\d+)\.", r"vision_model/\1/\2/"


def _conv(source: str, target: str) -> Rule:
    """Rule of a 3×3 convolution."""
    return Rule(rf"{source}\.weight", f"{target}/kernel", rules.oihw_to_hwio)


def _pointwise(source: str, target: str) -> Rule:
    """Rule of a 1×1 convolution, which is a dense layer of ours."""
    return Rule(rf"{source}\.weight", f"{target}/kernel", _drop_window)


def _drop_window(x: np.ndarray) -> np.ndarray:
    """Weights [O, I, 1, 1] → [I, O]."""
    if x.shape[2:] != (1, 1):
        raise ValueError(f"expected a 1×1 convolution, found {list(x.shape)}")
    return x[:, :, 0, 0].T


def _batch_norm(source: str, target: str) -> Rule:
    """Rule of a batch normalisation, with what it has counted."""

    def leaf(match: re.Match[str]) -> str:
        return f"{match.expand(target)}/{_NORM_LEAVES[match.groups()[-1]]}"

    return Rule(rf"{source}\.{_NORM}", leaf)


_POOL, _POOL_TARGET = r"visual\.attnpool\.", "vision_model/attnpool/"
_PLACES = _POOL_TARGET + "position_embedding/embedding"

TABLE = [
    _conv(r"visual\.conv(\d)", r"vision_model/stem/conv\1"),
    _batch_norm(r"visual\.bn(\d)", r"vision_model/stem/norm\1"),
    _conv(_BLOCK + "conv(2)", _BLOCK_TARGET + r"conv\3"),
    _pointwise(_BLOCK + "conv([13])", _BLOCK_TARGET + r"conv\3"),
    _batch_norm(_BLOCK + r"bn(\d)", _BLOCK_TARGET + r"norm\3"),
    _pointwise(_BLOCK + r"downsample\.0", _BLOCK_TARGET + "shortcut"),
    _batch_norm(_BLOCK + r"downsample\.1", _BLOCK_TARGET + "shortcut_norm"),
    Rule(r"visual\..*\.num_batches_tracked", None),
    Rule(_POOL + "positional_embedding", _PLACES),
    Rule(
        _POOL + r"([qkv])_proj\.weight",
        _POOL_TARGET + r"\1_proj/kernel",
        rules.transpose,
    ),
    Rule(_POOL + r"([qkv])_proj\.bias", _POOL_TARGET + r"\1_proj/bias"),
    Rule(_POOL + r"c_proj\.weight", _POOL_TARGET + "out_proj/kernel", rules.transpose),
    Rule(_POOL + r"c_proj\.bias", _POOL_TARGET + "out_proj/bias"),
]


def infer_vision(params: Mapping[str, np.ndarray], file: str) -> dict[str, Any]:
    """Fields of `ResnetClipConfig` on the tower of images, off the shapes.

    Args:
      params: tensors with their target names.
      file: path to name in errors.

    Raises:
      UserError: a tensor that tells them is missing, or the pool sees no square.
    """
    width = rules.shape_of(params, FIRST, file=file)[1]
    places = rules.shape_of(params, _PLACES, file=file)[0]
    side = rules.square_side(places - 1, "pixels in the attention pool", file=file)
    return {
        "image_size": side * clip_resnet.REDUCTION,
        "vision_width": width,
        "vision_layers": tuple(
            rules.count_parts(params, f"vision_model/layer{stage}/")
            for stage in range(1, 5)
        ),
    }
