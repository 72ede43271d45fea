"""Face recognition networks IR-SE from StyleCLIP's `model_ir_se50.pth`.

The rules of the body serve e4e's encoder as well, which has the same layers under
another prefix.
"""

import functools
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from styleclip_jax.errors import UserError
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import irse50

from . import rules, wrappers
from .rules import Conversion, Rule
from .wrappers import Layout, Part

KIND = "irse50"

LAYOUTS = (
    Layout(
        "InsightFace_Pytorch's",
        (
            r"input_layer\.0\.weight",
            r"body\.0\.res_layer\.1\.weight",
            r"output_layer\.3\.weight",
        ),
    ),
)
_REDUCTION = irse50.IrseConfig.reduction
# Blocks of the stages of IR-SE-50 and ResNet-34, which widths alone do not tell where
# two stages are equally wide.
_STAGES = ((3, 4, 14, 3), (3, 4, 6, 3))

# Squeeze-and-excitation is stored as 1×1 convolutions: [O, I, 1, 1] → [I, O].
_POINTWISE = rules.chain(rules.oihw_to_hwio, rules.first, rules.first)


class BodyShape(NamedTuple):
    """The arguments of `irse50.Body`."""

    num_blocks: tuple[int, ...]
    widths: tuple[int, ...]
    reduction: int


def norm_rules(source: str, target: str) -> list[Rule]:
    """Rules of one batch normalisation."""
    leaves = {
        "weight": "scale",
        "bias": "bias",
        "running_mean": "mean",
        "running_var": "var",
    }
    return [
        *(Rule(rf"{source}\.{a}", f"{target}/{b}") for a, b in leaves.items()),
        # A count of the steps of its training.
        Rule(rf"{source}\.num_batches_tracked", None),
    ]


def body_rules(source: str, target: str) -> list[Rule]:
    """Rules of the body.

    Args:
      source: regular expression, without groups, of the start of its names.
      target: path of our body, such as "body".
    """
    stem, stem_target = rf"{source}input_layer\.", f"{target}/input"
    block, block_target = rf"{source}body\.(\d+)\.", rf"{target}/block\1"
    residual, shortcut = rf"{block}res_layer\.", rf"{block}shortcut_layer\."
    kernel = functools.partial(Rule, transform=rules.oihw_to_hwio)
    dense = functools.partial(Rule, transform=_POINTWISE)
    return [
        kernel(rf"{stem}0\.weight", f"{stem_target}/conv/kernel"),
        *norm_rules(rf"{stem}1", f"{stem_target}/norm"),
        Rule(rf"{stem}2\.weight", f"{stem_target}/slope"),
        *norm_rules(rf"{residual}0", f"{block_target}/norm1"),
        kernel(rf"{residual}1\.weight", f"{block_target}/conv1/kernel"),
        Rule(rf"{residual}2\.weight", f"{block_target}/slope"),
        kernel(rf"{residual}3\.weight", f"{block_target}/conv2/kernel"),
        *norm_rules(rf"{residual}4", f"{block_target}/norm2"),
        dense(rf"{residual}5\.fc1\.weight", f"{block_target}/squeeze/kernel"),
        dense(rf"{residual}5\.fc2\.weight", f"{block_target}/excite/kernel"),
        kernel(rf"{shortcut}0\.weight", f"{block_target}/shortcut/kernel"),
        *norm_rules(rf"{shortcut}1", f"{block_target}/shortcut_norm"),
    ]


_TABLE = (
    *body_rules("", "body"),
    *norm_rules(r"output_layer\.0", "head/norm1"),
    # `convert` reorders its rows, once the number of channels is known.
    Rule(r"output_layer\.3\.weight", "head/dense/kernel", rules.transpose),
    Rule(r"output_layer\.3\.bias", "head/dense/bias"),
    *norm_rules(r"output_layer\.4", "head/norm2"),
)


def recognize(file: TorchFile) -> Part | None:
    """The IR-SE recognition network in a file."""
    return wrappers.find(file, LAYOUTS)


def convert(file: TorchFile) -> Conversion:
    """Weights of the network and the architecture that their shapes tell.

    Raises:
      UserError: no such network, another architecture, or missing or surplus tensors.
    """
    part = wrappers.require(file, LAYOUTS, "an IR-SE recognition network")
    renamed = rules.rename_tensors(_TABLE, part.tensors, file=file.path)
    config = _infer_config(renamed.tensors, file.path)
    checked = rules.check_tensors(renamed, irse50.param_shapes(config), file=file.path)
    kernel = checked["head/dense/kernel"]
    checked["head/dense/kernel"] = rules.chw_rows_to_hwc(kernel, config.widths[-1])
    return Conversion(KIND, config, checked, part.notes)


def infer_body(found: Mapping[str, np.ndarray], path: str, *, file: str) -> BodyShape:
    """Reads the architecture of a body off the shapes of renamed tensors.

    Several tensors tell each number, so that a missing one is reported as such later.

    Args:
      found: tensors by target name.
      path: path of the body in them, such as "body".
      file: path to name in errors.

    Raises:
      UserError: a block is missing, or squeeze-and-excitation has no single reduction.
    """
    matches = (re.match(rf"{path}/block(\d+)/", name) for name in found)
    numbers = {int(m[1]) for m in matches if m}
    widths, squeezed = [], set()
    for number in range(max(numbers, default=0) + 1):
        block = f"{path}/block{number}"
        width = rules.length(found, 0, f"{block}/norm2/scale", f"{block}/slope")
        if width is None:
            raise UserError(
                f"{file}: expected an IR-SE network with every block up to "
                f"{max(numbers, default=0)}, found no width of block {number}"
            )
        widths.append(width)
        hidden = rules.length(found, 1, f"{block}/squeeze/kernel")
        squeezed |= {(width, hidden)} if hidden else set()
    # Division rounds down, so that narrow networks fit several; the official one first.
    for reduction in (_REDUCTION, *range(1, min(widths) + 1)):
        if reduction <= min(widths) and all(w // reduction == h for w, h in squeezed):
            break
    else:
        raise UserError(
            f"{file}: expected an IR-SE network with one reduction in squeeze-and-"
            f"excitation, found (width, hidden channels) of {sorted(squeezed)}"
        )
    stages = _stages(widths)
    return BodyShape(
        tuple(map(len, stages)), tuple(stage[0] for stage in stages), reduction
    )


def _stages(widths: Sequence[int]) -> list[list[int]]:
    """Widths of blocks by stage: those of a known network, or else equal ones."""
    for counts in _STAGES:
        rest = iter(widths)
        stages = [list(itertools.islice(rest, count)) for count in counts]
        if len(widths) == sum(counts) and all(len(set(x)) == 1 for x in stages):
            return stages
    return [list(group) for _, group in itertools.groupby(widths)]


def _infer_config(found: Mapping[str, np.ndarray], file: str) -> irse50.IrseConfig:
    body = infer_body(found, "body", file=file)
    inputs = rules.length(found, 0, "head/dense/kernel") or 0
    side = math.isqrt(inputs // body.widths[-1])
    if not side or side**2 * body.widths[-1] != inputs:
        raise UserError(
            f"{file}: expected a head on a square map of {body.widths[-1]} channels, "
            f"found one of {inputs} inputs (output_layer.3.weight)"
        )
    return irse50.IrseConfig(
        **body._asdict(),
        embed_dim=found["head/dense/kernel"].shape[1],
        # Every stage halves the resolution.
        input_size=side << len(body.widths),
    )
