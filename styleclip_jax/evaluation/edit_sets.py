"""Sets of edits of one prompt and strength, read from folders of styleclip-edit."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from styleclip_jax import documents, loading, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files, generator_files, latent_files
from styleclip_jax.loading import Models
from styleclip_jax.models.network import Network

# Settings of an edit that a line of metrics.jsonl may hold.
_SETTINGS = ("prompt", "mapper", "alpha", "beta")
# Types of what is read of the flags of a record, and of a line, where they are there.
_NUMBER = (int, float)
_FLAGS: dict[str, Any] = {
    **dict.fromkeys(("prompt", "generator", "clip"), str),
    **dict.fromkeys(("mapper", "alpha", "beta"), list),
    **dict.fromkeys(("num_channels", "l2_lambda", "id_lambda"), _NUMBER),
    "strength": (str, *_NUMBER),
}
_LINE: dict[str, Any] = {
    **dict.fromkeys(("prompt", "mapper"), str),
    **dict.fromkeys(("alpha", "beta"), _NUMBER),
}


class EditSet(NamedTuple):
    """Set of edits: those of one folder that have the same prompt and strength.

    Attributes:
      directory: folder of the edits.
      record: run.json of the folder.
      setting: settings that tell the set from others of the folder: prompt, mapper,
        alpha and beta, as far as they vary or are written down.
      prompt: text that was edited towards; None if a mapper does not say it.
      space: latent space, w_plus or s.
      original, edited: latents of all edits of the folder, [N, L, D] or [N, ΣC].
      rows: [M] rows of the set whose edits are finite.
      num_failed: number of edits of the set that are not finite.
    """

    directory: pathlib.Path
    record: dict[str, Any]
    setting: dict[str, Any]
    prompt: str | None
    space: str
    original: np.ndarray
    edited: np.ndarray
    rows: np.ndarray
    num_failed: int

    @property
    def method(self) -> str:
        """Name of the method of the edits."""
        return str(self.record["flags"]["method"])

    @property
    def goal(self) -> str | None:
        """Goal of the edits, a prompt or a mapper, which tells sets apart."""
        return self.setting.get("prompt", self.setting.get("mapper"))

    @property
    def series(self) -> str:
        """Series of the set: its method, and its threshold if a folder has several."""
        betas = self.record["flags"].get("beta") or []
        several = self.method == "direction" and len(betas) > 1
        return self.method + (f", {self._threshold}" if several else "")

    @property
    def strength(self) -> str:
        """Strength of the edits, in the flags of the method."""
        flags = self.record["flags"]
        if "alpha" in self.setting:
            alpha = f"alpha {self.setting['alpha']:g}"
            # A saved direction has no threshold any more.
            return f"{alpha}, {self._threshold}" if "beta" in self.setting else alpha
        if flags.get("alpha") == ["auto"]:
            return f"alpha auto, {self._threshold}"
        strength = flags.get("strength")
        if self.method == "mapper":
            return "as trained" if strength is None else f"strength {strength}"
        if flags.get("l2_lambda") is None:
            return "as given" if strength is None else f"strength {strength}"
        identity = f", id {flags['id_lambda']:g}" if flags.get("id_lambda") else ""
        found = f", strength {strength}" if strength == "auto" else ""
        return f"l2 {flags['l2_lambda']:g}{identity}{found}"

    @property
    def _threshold(self) -> str:
        """Threshold; a single one as its flag has it, since auto differs by prompt."""
        flags = self.record["flags"]
        if flags.get("num_channels") is not None:
            return f"{flags['num_channels']} channels"
        if len(flags.get("beta") or ()) == 1:
            return f"beta {flags['beta'][0]}"
        return f"beta {self.setting.get('beta', math.nan):.3g}"

    @property
    def optimized_clip(self) -> str | None:
        """Hash or name of the CLIP that the method looked through, if recorded."""
        if self.method == "mapper":
            path = _mapper_of(self.setting, self.record)
            return checkpoints.source(path).get("clip")
        return self.record["inputs"].get("clip")

    def load(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loads original and edited latents of some rows, float32; S is flat."""
        return latent_files.take(self.original, rows), latent_files.take(
            self.edited, rows
        )


def read(directory: files.Path) -> list[EditSet]:
    """Reads the sets of edits of a folder, in the order of their first edits.

    Raises:
      UserError: this is no finished folder of styleclip-edit, or no edit is finite.
    """
    directory = pathlib.Path(directory)
    record = documents.read_object(directory / files.RECORD)
    if record.get("program") != "styleclip-edit":
        raise UserError(f"{directory}: expected a folder of styleclip-edit")
    if not (directory / "metrics.jsonl").is_file():
        raise UserError(
            f"{directory}: expected a finished run, found no metrics.jsonl; the "
            "command that started it goes on with it"
        )
    _check_record(directory / files.RECORD, record)
    space = "s" if (directory / "edited.npz").exists() else "w_plus"
    suffix = ".npz" if space == "s" else ".npy"
    original, edited = (
        latent_files.read_array(directory / (name + suffix))
        for name in ("original", "edited")
    )
    if not original.ndim or not edited.ndim:
        raise UserError(f"{directory}: expected latents, found single numbers")
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for line in _read_lines(directory / "metrics.jsonl", len(edited)):
        groups.setdefault(tuple(map(line.get, _SETTINGS)), []).append(line)
    count = sum(map(len, groups.values()))
    if original.shape != edited.shape or len(edited) != count:
        raise UserError(
            f"{directory}: expected originals, edits and lines of metrics.jsonl of one "
            f"number, found {len(original)}, {len(edited)} and {count}"
        )
    return [
        _make_set(directory, record, space, original, edited, lines)
        for lines in groups.values()
    ]


def _check_record(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Refuses a record whose entries are not of the types that are read."""
    flags, inputs = record.get("flags"), record.get("inputs")
    if not (
        isinstance(inputs, dict)
        and isinstance(flags, dict)
        and isinstance(flags.get("method"), str)
        and _has_types(flags, _FLAGS)
        and (flags["method"] != "mapper" or flags.get("mapper"))
    ):
        raise UserError(f"{path}: expected the flags and inputs of styleclip-edit")
    if "tuned" in inputs:
        raise UserError(
            f"{path}: expected edits through one generator, found those through tuned "
            "ones, which are not measured; edits with tuned=none are"
        )


def _has_types(values: dict[str, Any], types: dict[str, Any]) -> bool:
    """Whether the values that are there have their types."""
    return all(
        values.get(name) is None or isinstance(values[name], kind)
        for name, kind in types.items()
    )


def _read_lines(path: pathlib.Path, count: int) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl, each of one of so many edits."""
    try:
        with path.open(encoding="utf-8") as file:
            lines = [documents.parse(line, str(path)) for line in file]
    except (OSError, UnicodeError) as error:
        raise UserError(f"{path}: expected JSON lines ({error})") from None
    for number, line in enumerate(lines, 1):
        if not (
            isinstance(line, dict)
            and type(line.get("index")) is int
            and line["index"] in range(count)
            and _has_types(line, _LINE)
        ):
            raise UserError(f"{path}: line {number}: expected one of {count} edits")
    return lines


def _make_set(
    directory: pathlib.Path,
    record: dict[str, Any],
    space: str,
    original: np.ndarray,
    edited: np.ndarray,
    lines: Sequence[dict[str, Any]],
) -> EditSet:
    known = {name: lines[0].get(name) for name in _SETTINGS}
    setting = {name: value for name, value in known.items() if value is not None}
    rows = [line["index"] for line in lines if "failed_at" not in line]
    if not rows:
        raise UserError(f"{directory}: expected finite edits, found none")
    prompt = setting.get("prompt", record["flags"].get("prompt"))
    if record["flags"]["method"] == "mapper":
        prompt = loading.mapper_prompt(_mapper_of(setting, record))
    failed = len(lines) - len(rows)
    return EditSet(
        directory,
        record,
        setting,
        prompt,
        space,
        original,
        edited,
        np.array(rows),
        failed,
    )


def _mapper_of(setting: dict[str, Any], record: dict[str, Any]) -> str:
    return str(setting.get("mapper", record["flags"]["mapper"][0]))


def load_generator(edits: EditSet, models: Models) -> Network:
    """Loads the generator that the edits were made with.

    Args:
      edits: any set of the folder.
      models: names the directory of the generator now; if it names none, the recorded
        one counts.

    Raises:
      UserError: the directory holds no generator, or another one.
    """
    recorded = edits.record["flags"].get("generator")
    models = dataclasses.replace(models, generator=models.generator or recorded)
    generator = models.load_generator()
    expected = edits.record["inputs"].get("generator")
    found, inputs = models.fingerprints("generator"), edits.record["inputs"]
    if any(found.get(x) != inputs.get(x) for x in ("generator", generator_files.SHOWN)):
        raise UserError(
            f"{models.generator_name}: expected the generator of {edits.directory} "
            f"(SHA-256 {str(expected)[:12]}…), found another one; generator says "
            "where it is",
            also=["generator"],
        )
    latent_files.interpret(
        edits.edited, generator.config, edits.space, name=str(edits.directory)
    )
    return generator


def moved(delta: np.ndarray, layout: tuple[spaces.StyleLayer, ...]) -> np.ndarray:
    """Mask of the numbers of a latent in rows, or style vectors, that edits move.

    Args:
      delta: [N, L, D] or [N, ΣC] steps of the edits.
      layout: layout of S.

    Returns:
      [L, D] or [ΣC] bool.
    """
    changed = np.any(delta != 0, axis=0)
    if changed.ndim == 2:
        return np.broadcast_to(changed.any(axis=1, keepdims=True), changed.shape)
    ends = np.cumsum([layer.channels for layer in layout])[:-1]
    parts = np.split(changed, ends)
    return np.concatenate([np.full(len(part), part.any()) for part in parts])
