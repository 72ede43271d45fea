"""e4e and pSp: encoder, average latent and decoder of one checkpoint.

The decoder is a generator in rosinality's layout, and becomes a model directory of its
own.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from styleclip_jax import loading
from styleclip_jax.errors import UserError
from styleclip_jax.models import e4e

from . import irse50, rules, stylegan2, torch_files
from .rules import Conversion, Rule
from .torch_files import TorchFile, options_of, state_of, tensors

KIND = "e4e"

_MARKS = ("encoder.styles.0.linear.weight", "encoder.latlayer1.weight")
# Whether rows of W+ are offsets to the first, by the official name of the encoder.
_OFFSETS = {"Encoder4Editing": True, "GradualStyleEncoder": False}

_HEAD = r"encoder\.styles\.(\d+)\."
_kernel = functools.partial(Rule, transform=rules.oihw_to_hwio)


def _conv_of(leaf: str) -> Any:
    """Target in a head: an activation follows each of its convolutions."""
    return lambda m: f"head{m[1]}/conv{int(m[2]) // 2}/{leaf}"


_TABLE = (
    *irse50.body_rules(r"encoder\.", "body"),
    _kernel(r"encoder\.latlayer1\.weight", "lateral_middle/kernel"),
    Rule(r"encoder\.latlayer1\.bias", "lateral_middle/bias"),
    _kernel(r"encoder\.latlayer2\.weight", "lateral_fine/kernel"),
    Rule(r"encoder\.latlayer2\.bias", "lateral_fine/bias"),
    _kernel(_HEAD + r"convs\.(\d+)\.weight", _conv_of("kernel")),
    Rule(_HEAD + r"convs\.(\d+)\.bias", _conv_of("bias")),
    Rule(_HEAD + r"linear\.weight", r"head\1/dense/kernel", rules.transpose),
    Rule(_HEAD + r"linear\.bias", r"head\1/dense/bias"),
)


def recognize(file: TorchFile) -> bool:
    """Whether the file holds an encoder of e4e's or pSp's architecture."""
    state = state_of(file)
    return all(name in state for name in _MARKS)


def convert(file: TorchFile) -> Conversion:
    """The encoder with its average latent, and the decoder as a part if there is one.

    Raises:
      UserError: no such encoder, another architecture, or missing or surplus tensors.
    """
    if not recognize(file):
        raise UserError(f"{file.path}: expected an e4e or pSp encoder, found none")
    state, notes = tensors(state_of(file)), list[str]()
    decoder = torch_files.pop_part(state, "decoder.")
    renamed = rules.rename_tensors(_TABLE, state, file=file.path)
    config = _infer_config(renamed.tensors, file, notes)
    average = _stored_average(file, config)
    parts = {}
    if decoder:
        if average is not None and (average == average[0]).all():
            decoder["latent_avg"] = average[0]
        parts[loading.DECODER] = stylegan2.convert(
            TorchFile(file.path, file.format, decoder)
        )
    if not options_of(file).get("start_from_latent_avg", True):
        notes.append("the encoder was trained without an average latent")
        average = np.zeros((config.num_rows, config.w_dim), np.float32)
    elif average is None and parts:
        notes.append("the file has no average latent; it is the decoder's average of w")
        w_avg = parts[loading.DECODER].tensors["mapping/w_avg"]
        average = np.tile(w_avg, (config.num_rows, 1))
    elif average is None:
        raise UserError(
            f"{file.path}: expected latent_avg, which the encoder was trained to start "
            "from, or a decoder to compute it, found neither"
        )
    renamed.tensors["w_avg"] = average
    checked = rules.check_tensors(renamed, e4e.param_shapes(config), file=file.path)
    return Conversion(KIND, config, checked, notes, parts=parts)


def _infer_config(
    found: Mapping[str, np.ndarray], file: TorchFile, notes: list[str]
) -> e4e.E4eConfig:
    """Reads the architecture off the shapes of renamed tensors."""
    body = irse50.infer_body(found, "body", file=file.path)
    heads = [int(m[1]) for name in found if (m := re.match(r"head(\d+)/", name))]
    halvings = sum(bool(re.fullmatch(r"head0/conv\d+/kernel", name)) for name in found)
    kind = options_of(file).get("encoder_type")
    if kind is None:
        kind = next(iter(_OFFSETS))
        notes.append(f"the file does not say what encoder it has; taken for {kind}")
    if kind not in _OFFSETS:
        raise UserError(
            f"{file.path}: expected the encoder {' or '.join(_OFFSETS)}, "
            f"found {str(kind)[:80]!r}"
        )
    try:
        return e4e.E4eConfig(
            **body._asdict(),
            w_dim=found["head0/dense/kernel"].shape[1],
            num_rows=max(heads) + 1,
            # The first head brings the coarsest level down to one pixel.
            input_size=1 << halvings << len(body.widths),
            offsets=_OFFSETS[kind],
        )
    except ValueError as error:
        raise UserError(f"{file.path}: {error}") from error


def _stored_average(file: TorchFile, config: e4e.E4eConfig) -> np.ndarray | None:
    """The average latent [L, D] of the file, if it has one."""
    average = file.content.get("latent_avg")
    if not isinstance(average, np.ndarray):
        return None
    shape = (config.num_rows, config.w_dim)
    if average.shape not in (shape, (1, config.w_dim), (config.w_dim,)):
        raise UserError(
            f"{file.path}: expected latent_avg to be {list(shape)} or "
            f"[{config.w_dim}], found {list(average.shape)}"
        )
    return np.broadcast_to(average, shape).astype(np.float32)
