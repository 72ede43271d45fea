"""The table engine of the conversion: which tensor goes where, exhaustive both ways."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints
from styleclip_jax.models import param_trees

_MAX_NAMES = 5


def identity(x: np.ndarray) -> np.ndarray:
    """The tensor as it is."""
    return x


@dataclasses.dataclass(frozen=True)
class Rule:
    r"""Rule for one family of names: where its tensors go.

    Attributes:
      pattern: regular expression that the whole source name must match.
      target: name of the leaf to fill, a template for `re.Match.expand` ("b\1/bias")
        or a function of the match; None for tensors that are left out on purpose.
      transform: from the stored layout to ours.
    """

    pattern: str
    target: str | Callable[[re.Match[str]], str] | None
    transform: Callable[[np.ndarray], np.ndarray] = identity

    def target_of(self, match: re.Match[str]) -> str | None:
        """Name of the leaf that a matched tensor fills."""
        if callable(self.target):
            return self.target(match)
        return None if self.target is None else match.expand(self.target)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """Result of a table module for one file.

    Attributes:
      kind: kind of the file, such as "stylegan2"; names the network in its directory.
      config: the inferred architecture, a frozen dataclass or a dict.
      tensors: parameters by flat name, "/" between the levels.
      notes: lines for the user on choices made on the way.
      parts: further networks of the file, by the name of their folder in that of this
        one.
    """

    kind: str
    config: Any
    tensors: dict[str, np.ndarray]
    notes: list[str] = dataclasses.field(default_factory=list)
    parts: "dict[str, Conversion]" = dataclasses.field(
        default_factory=dict, kw_only=True
    )


class Renamed(NamedTuple):
    """Tensors that went through a table, not yet checked against an architecture.

    Attributes:
      tensors: float32, by target name.
      origins: source name of each target name.
      unknown: source names without a rule.
    """

    tensors: dict[str, np.ndarray]
    origins: dict[str, str]
    unknown: list[str]


def rename_tensors(
    rules: Sequence[Rule], source: Mapping[str, np.ndarray], *, file: str
) -> Renamed:
    """Gives the source tensors their target names and our layout.

    Every rule that matches a name applies to it, so that several rules with one
    pattern cut a tensor into parts.

    Args:
      rules: the table.
      source: tensors by their name in the file.
      file: path to name in errors.

    Raises:
      UserError: a target is filled twice, or a tensor does not fit its transform or
        is not finite.
    """
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]
    result = Renamed({}, {}, [])
    for name, tensor in source.items():
        matches = [
            (rule, m) for regex, rule in compiled if (m := regex.fullmatch(name))
        ]
        if not matches:
            result.unknown.append(name)
        for rule, match in matches:
            target = rule.target_of(match)
            if target is None:
                continue
            if target in result.origins:
                raise UserError(
                    f"{file}: tensors {result.origins[target]} and {name} would both "
                    f"become {target}"
                )
            result.origins[target] = name
            found = _transform(rule, name, tensor, file)
            checkpoints.require_finite(file, name, found)
            result.tensors[target] = found
    return result


def check_tensors(
    renamed: Renamed, target_shapes: Mapping[str, tuple[int, ...]], *, file: str
) -> dict[str, np.ndarray]:
    """Checks that nothing is left over on either side and that the shapes match.

    Args:
      renamed: result of `rename_tensors`.
      target_shapes: shape of every leaf to fill.
      file: path to name in errors.

    Returns:
      One tensor for each name of `target_shapes`, in that order.

    Raises:
      UserError: names the tensors that are missing (by target name), surplus (by
        source name) and of another shape, in one line.
    """
    tensors, origins, unknown = renamed
    missing, surplus, misshapen = param_trees.differences(tensors, target_shapes)
    misshapen = [
        f"{name} expected {list(target_shapes[name])} found {list(tensors[name].shape)}"
        for name in misshapen
    ]
    faults = [
        f"{len(names)} {label} tensor{'s' * (len(names) > 1)} ({list_names(names)})"
        for label, names in (
            ("missing", missing),
            ("surplus", unknown + [origins[name] for name in surplus]),
            ("wrongly shaped", misshapen),
        )
        if names
    ]
    if faults:
        raise UserError(f"{file}: {'; '.join(faults)}")
    return {name: tensors[name] for name in target_shapes}


def convert_tensors(
    rules: Sequence[Rule],
    source: Mapping[str, np.ndarray],
    target_shapes: Mapping[str, tuple[int, ...]],
    *,
    file: str,
) -> dict[str, np.ndarray]:
    """Tensors by a table whose targets are known beforehand.

    Args:
      rules: the table.
      source: tensors by their name in the file.
      target_shapes: shape of every leaf to fill.
      file: path to name in errors.

    Returns:
      One float32 tensor for each name of `target_shapes`.

    Raises:
      UserError: as `rename_tensors` and `check_tensors`.
    """
    renamed = rename_tensors(rules, source, file=file)
    return check_tensors(renamed, target_shapes, file=file)


def transpose(x: np.ndarray) -> np.ndarray:
    """Dense weights [out, in] → [in, out], or back."""
    _expect_rank(x, 2)
    return x.T


def oihw_to_hwio(x: np.ndarray) -> np.ndarray:
    """Convolution weights of PyTorch [O, I, H, W] → [H, W, I, O]."""
    _expect_rank(x, 4)
    return x.transpose(2, 3, 1, 0)


def chw_to_hwc(x: np.ndarray) -> np.ndarray:
    """[C, H, W] → [H, W, C]."""
    _expect_rank(x, 3)
    return x.transpose(1, 2, 0)


def chw_rows_to_hwc(kernel: np.ndarray, channels: int) -> np.ndarray:
    """[C·s·s, E] of a map flattened as [C, s, s] → [s·s·C, E] of one as [s, s, C]."""
    rows, columns = kernel.shape
    by_channel = kernel.reshape(channels, rows // channels, columns)
    return np.ascontiguousarray(by_channel.swapaxes(0, 1)).reshape(rows, columns)


def first(x: np.ndarray) -> np.ndarray:
    """Drops a leading axis of length 1."""
    if x.ndim == 0 or x.shape[0] != 1:
        raise ValueError(f"expected a leading axis of 1, found {list(x.shape)}")
    return x[0]


def squeeze(x: np.ndarray) -> np.ndarray:
    """Drops all axes of length 1."""
    return np.squeeze(x)


def flip_hw(x: np.ndarray) -> np.ndarray:
    """Turns convolution weights [H, W, I, O] by 180 degrees."""
    _expect_rank(x, 4)
    return x[::-1, ::-1]


def add_one(x: np.ndarray) -> np.ndarray:
    """x + 1."""
    return x + 1


def chain(
    *transforms: Callable[[np.ndarray], np.ndarray],
) -> Callable[[np.ndarray], np.ndarray]:
    """One transform that applies several, the first given first."""

    def apply(x: np.ndarray) -> np.ndarray:
        for transform in transforms:
            x = transform(x)
        return x

    return apply


def length(found: Mapping[str, np.ndarray], axis: int, *names: str) -> int | None:
    """Length of an axis of the first tensor that has it, None if there is none."""
    for name in names:
        if name in found and found[name].ndim > axis:
            return found[name].shape[axis]
    return None


def shape_of(
    params: Mapping[str, np.ndarray], name: str, *, file: str
) -> tuple[int, ...]:
    """Shape of a tensor that tells a part of the architecture.

    Raises:
      UserError: it is missing.
    """
    if name not in params:
        raise UserError(f"{file}: 1 missing tensor ({name})")
    return params[name].shape


def square_side(count: int, what: str, *, file: str) -> int:
    """Side of a square of so many things.

    Raises:
      UserError: they make no square.
    """
    side = math.isqrt(max(count, 0))
    if side**2 != count:
        raise UserError(f"{file}: expected a square number of {what}, found {count}")
    return side


def count_parts(names: Iterable[str], prefix: str) -> int:
    """Number of different parts, up to "/", that follow a prefix in names."""
    return len(
        {
            name.removeprefix(prefix).split("/")[0]
            for name in names
            if name.startswith(prefix)
        }
    )


def list_names(names: Sequence[str]) -> str:
    """The names with commas between, cut short after a few."""
    shown = ", ".join(names[:_MAX_NAMES])
    hidden = len(names) - _MAX_NAMES
    return f"{shown}, … and {hidden} more" if hidden > 0 else shown


def _transform(rule: Rule, name: str, x: np.ndarray, file: str) -> np.ndarray:
    try:
        y = rule.transform(x)
    except ValueError as error:
        raise UserError(f"{file}: tensor {name}: {error}") from error
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(y, np.float32).reshape(y.shape)


def _expect_rank(x: np.ndarray, rank: int) -> None:
    if x.ndim != rank:
        raise ValueError(f"expected {rank} axes, found {list(x.shape)}")
