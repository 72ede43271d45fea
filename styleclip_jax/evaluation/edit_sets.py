"""Sets of edits of one prompt and strength, read from folders of styleclip-edit."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from styleclip_jax import loading, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files, latent_files
from styleclip_jax.loading import Models
from styleclip_jax.models.network import Network

# Settings of an edit that a line of metrics.jsonl may hold.
_SETTINGS = ("prompt", "mapper", "alpha", "beta")


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
        if "l2_lambda" not in flags:
            return "as given"
        identity = f", id {flags['id_lambda']:g}" if flags.get("id_lambda") else ""
        found = f", strength {strength}" if strength == "auto" else ""
        return f"l2 {flags['l2_lambda']:g}{identity}{found}"

    @property
    def _threshold(self) -> str:
        """Threshold; a single one as its flag has it, since auto differs by prompt."""
        flags = self.record["flags"]
        if flags.get("num_channels") is not None:
            return f"{flags['num_channels']} channels"
        if len(flags["beta"]) == 1:
            return f"beta {flags['beta'][0]}"
        return f"beta {self.setting['beta']:.3g}"

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
    record = files.read_json(directory / files.RECORD)
    program = record.get("program") if isinstance(record, dict) else None
    if program != "styleclip-edit":
        raise UserError(f"{directory}: expected a folder of styleclip-edit")
    if not (directory / "metrics.jsonl").is_file():
        raise UserError(
            f"{directory}: expected a finished run, found no metrics.jsonl; the "
            "command that started it goes on with it"
        )
    space = "s" if (directory / "edited.npz").exists() else "w_plus"
    suffix = ".npz" if space == "s" else ".npy"
    original, edited = (
        latent_files.read_array(directory / (name + suffix))
        for name in ("original", "edited")
    )
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for line in _read_lines(directory / "metrics.jsonl"):
        groups.setdefault(tuple(map(line.get, _SETTINGS)), []).append(line)
    if original.shape != edited.shape or len(edited) != sum(map(len, groups.values())):
        raise UserError(
            f"{directory}: expected originals, edits and lines of metrics.jsonl of one "
            f"number, found {len(original)}, {len(edited)} and "
            f"{sum(map(len, groups.values()))}"
        )
    return [
        _make_set(directory, record, space, original, edited, lines)
        for lines in groups.values()
    ]


def _read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected JSON lines ({error})") from None


def _make_set(
    directory: pathlib.Path,
    record: dict[str, Any],
    space: str,
    original: np.ndarray,
    edited: np.ndarray,
    lines: Sequence[dict[str, Any]],
) -> EditSet:
    setting = {name: lines[0][name] for name in _SETTINGS if name in lines[0]}
    rows = [line["index"] for line in lines if "failed_at" not in line]
    if not rows:
        raise UserError(f"{directory}: expected finite edits, found none")
    prompt = setting.get("prompt", record["flags"]["prompt"])
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
    recorded = edits.record["flags"]["generator"]
    models = dataclasses.replace(models, generator=models.generator or recorded)
    generator = models.load_generator()
    expected = edits.record["inputs"].get("generator")
    if checkpoints.fingerprint(models.generator_directory) != expected:
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
