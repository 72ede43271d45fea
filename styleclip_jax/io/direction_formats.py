"""Directions in W, W+ and S as other tools leave them, in NumPy's and PyTorch's files.

InterFaceGAN writes a unit normal [1, D], and others [L, D] with a row per layer; both
also as tensors, as in the folder `editings` of e4e. GANSpace and e4e keep components
with their deviations, factorizations their eigenvectors. `choices` say which of several
is meant. Nothing is guessed: a file that leaves something open is refused with what to
write.

Source: the dumps of `decomposition.py` and `interactive.py` of GANSpace,
`ganspace_pca/*.pt` of e4e, and factors of SeFa as stylegan2-pytorch saves them.
"""

import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from styleclip_jax.errors import UserError
from styleclip_jax.io import files, latent_containers, torch_files
from styleclip_jax.io.pickled.inert import Object
from styleclip_jax.models.generators import GeneratorConfig

# Names of components and of their deviations: GANSpace's, and e4e's for the same.
_COMPONENTS = (("lat_comp", "lat_stdev"), ("comp", "std"))
# Eigenvectors in columns.
_COLUMNS = "eigvec"
# What tells an exported slider of GANSpace.
_SLIDER = {"lat_comp", "lat_stdev", "latent_space", "edit_start", "edit_end"}
_MAX_NAMES = 8


class LatentDirection(NamedTuple):
    """Direction of a file.

    Attributes:
      delta: [L, D] float32 in W+, or [S] flat in style space.
      note: what the file was taken for, as a line for people.
    """

    delta: np.ndarray
    note: str


class _Components(NamedTuple):
    """Steps [K, …] in W of which one is chosen by its number."""

    steps: np.ndarray


class _Step(NamedTuple):
    """Step in some rows [start, stop) of W+."""

    step: np.ndarray
    rows: slice


def read(
    path: files.Path, config: GeneratorConfig, choices: Sequence[str] = ()
) -> LatentDirection:
    """Reads a direction for a generator.

    Args:
      path: `.npy`, `.npz`, `.pt`, `.pkl` or `.safetensors`; nothing in it is executed.
      config: configuration of the generator.
      choices: what to take of it, level by level: the name of an entry, the number of
        a component from 0, or "3,:" and ":,3" for a row or a column.

    Returns:
      The direction; one in W moves all rows. Components come with their deviations, so
      that 1 is one standard deviation.

    Raises:
      UserError: the file cannot be read, leaves open which direction is meant, or does
        not fit the generator.
    """
    content = torch_files.read(path).content
    name = pathlib.Path(path).name
    for choice in choices:
        content = _choose(content, choice, path)
        name = f"{name}[{choice}]"
    return _as_direction(_open(content, path, name), config, path, name)


def _choose(content: Any, choice: str, path: files.Path) -> Any:
    """What a choice takes out of the content of a file."""
    content = _plain(content)
    if isinstance(content, dict):
        if choice in content:
            return content[choice]
        content = _known(content, path)
        if isinstance(content, dict):
            raise UserError(f"{path}: expected {_names(content)}, found {choice!r}")
    if isinstance(content, _Components):
        return content.steps[_number(choice, len(content.steps), path)]
    if isinstance(content, list | tuple) and content:
        return content[_number(choice, len(content), path)]
    if not isinstance(content, np.ndarray) or content.ndim < 2:
        found = torch_files.summarize(content)
        raise UserError(f"{path}: nothing to choose by [{choice}] in {found}")
    match = re.fullmatch(r"(\d+)\s*,\s*:|:\s*,\s*(\d+)", choice)
    if match and content.ndim == 2:
        axis = 0 if match[1] else 1
        number = _number(match[1] or match[2], content.shape[axis], path)
        return content.take(number, axis)
    if content.ndim == 2 and content.shape[0] == content.shape[1]:
        raise UserError(
            f"{path}: directions may be the rows or the columns of "
            f"{list(content.shape)}, expected [{choice},:] or [:,{choice}], found "
            f"[{choice}]"
        )
    return content[_number(choice, len(content), path)]


def _open(content: Any, path: files.Path, name: str) -> Any:
    """Array, or step in some rows, of content that leaves nothing open."""
    content = _plain(content)
    if isinstance(content, dict):
        content = _known(content, path)
    if isinstance(content, dict):
        if len(content) != 1:
            found = f"expected {_names(content)}, as in {name}[{next(iter(content))}]"
            raise UserError(f"{path}: {found}, found no choice")
        (content,) = content.values()
    if isinstance(content, _Components):
        raise UserError(
            f"{path}: expected the number of a component from 0 to "
            f"{len(content.steps) - 1}, as in {name}[0], found no choice"
        )
    return content


def _known(content: dict[str, Any], path: files.Path) -> Any:
    """Components or the step of a dict in a form that is known, else the dict."""
    if content.keys() >= _SLIDER:
        return _slider(content, path)
    for components, deviations in _COMPONENTS:
        if content.keys() >= {components, deviations}:
            steps = _floats(content[components], path)
            std = _floats(content[deviations], path).reshape(-1)
            if steps.ndim < 2 or len(steps) != len(std):
                raise UserError(
                    f"{path}: expected a deviation for each component, found "
                    f"{list(std.shape)} and {list(steps.shape)}"
                )
            if components == "lat_comp" and (std == 1).all():
                raise UserError(
                    f"{path}: its components are in z, whose deviations are 1; "
                    "expected those of W, which GANSpace makes with use_w"
                )
            return _Components(steps.reshape(len(std), -1) * std[:, None])
    if _COLUMNS in content:
        vectors = _floats(content[_COLUMNS], path)
        if vectors.ndim != 2:
            raise UserError(
                f"{path}: expected {_COLUMNS} [D, K], found {list(vectors.shape)}"
            )
        return _Components(vectors.T)
    return content


def _slider(content: dict[str, Any], path: files.Path) -> _Step:
    """Step of a slider that GANSpace exported, in its rows."""
    space, kind = content["latent_space"], content.get("edit_type", "latent")
    if space != "W" or kind != "latent":
        raise UserError(
            f"{path}: expected an edit of latents in W, found one of {kind} in {space}"
        )
    step = _floats(content["lat_comp"], path) * np.float32(content["lat_stdev"])
    rows = slice(int(content["edit_start"]), int(content["edit_end"]))
    return _Step(step.reshape(-1), rows)


def _as_direction(
    content: Any, config: GeneratorConfig, path: files.Path, name: str
) -> LatentDirection:
    """Direction of an array, whose shape tells the space."""
    rows, length = config.num_rows, config.w_dim
    channels = [layer.channels for layer in config.style_layout]
    moved = slice(0, rows)
    if isinstance(content, _Step):
        content, moved = content
    array = _by_layers(content, channels, path)
    shape = tuple(n for n in array.shape if n > 1) or array.shape[-1:]
    array = array.reshape(shape)
    if not np.isfinite(array).all():
        raise UserError(f"{path}: the direction has values that are not finite")
    if shape == (length,):
        if not 0 <= moved.start < moved.stop <= rows:
            raise UserError(
                f"{path}: expected rows of {rows}, found {moved.start} to {moved.stop}"
            )
        delta = np.zeros((rows, length), np.float32)
        delta[moved] = array
        return LatentDirection(
            delta, f"in W, moves rows {moved.start} to {moved.stop - 1} of {rows}"
        )
    if shape == (rows, length):
        return LatentDirection(array, f"in W+, a row for each of {rows}")
    if shape == (sum(channels),):
        return LatentDirection(array, "in S")
    if shape[1:] in ((length,), (rows, length), (sum(channels),)):
        example = "0,:" if shape == (length, length) else "0"
        raise UserError(
            f"{path}: holds {shape[0]} directions, expected the number of one from 0, "
            f"as in {name}[{example}], found no choice"
        )
    raise UserError(
        f"{path}: expected a direction [{length}] in W, [{rows}, {length}] in W+ or "
        f"[{sum(channels)}] in S for this generator of "
        f"{config.size_text}, found "
        f"{list(array.shape)}"
    )


def _by_layers(content: Any, channels: list[int], path: files.Path) -> np.ndarray:
    """Array, or the style vectors of a list as one."""
    if isinstance(content, list | tuple):
        parts = [_floats(part, path).reshape(-1) for part in content]
        if [len(part) for part in parts] != channels:
            raise UserError(
                f"{path}: expected an array, or a style vector for each of "
                f"{len(channels)} layers, found {torch_files.summarize(content)}"
            )
        return np.concatenate(parts)
    return _floats(content, path)


def _floats(value: Any, path: files.Path) -> np.ndarray:
    if not latent_containers.is_floating(value) or not value.size:
        found = torch_files.summarize(value)
        raise UserError(f"{path}: expected floating-point numbers, found {found}")
    return np.asarray(value, np.float32)


def _plain(content: Any) -> Any:
    """Content without the object around it, a dict with texts as keys."""
    if isinstance(content, Object):
        content = content.items or content.state
    if isinstance(content, dict):
        return {str(key): value for key, value in content.items()}
    return content


def _number(choice: str, count: int, path: files.Path) -> int:
    if not re.fullmatch(r"\d{1,9}", choice) or int(choice) >= count:
        raise UserError(
            f"{path}: expected a number from 0 to {count - 1} in brackets, found "
            f"[{choice}]"
        )
    return int(choice)


def _names(content: dict[str, Any]) -> str:
    listed = latent_containers.list_names([str(name) for name in content], _MAX_NAMES)
    return f"one of {listed or 'an entry'}"
