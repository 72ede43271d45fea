"""Output folders: what was run is written down, and runs go on where they stopped."""

import contextlib
import importlib.metadata
import itertools
import json
import pathlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

import styleclip_jax
from styleclip_jax import spaces
from styleclip_jax.cli import program
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, images, latent_files
from styleclip_jax.models import stylegan2

# Flags that say where and how fast, not what.
_NEUTRAL_FLAGS = (
    *("outdir", "batch_size", "export", "export_weights"),
    *("distributed", "coordinator_address", "num_processes", "process_id"),
)
# Flags and inputs of a run, in its folder.
RECORD = "run.json"

# Failures that are named.
_NUM_SHOWN = 10
# Latents in memory while parts are put in order.
_CHUNK = 1024
_PACKAGES = ("jax", "flax", "optax", "transformers", "numpy")


def define(values: flags.FlagValues, *, outdir: str, grid: int) -> None:
    """Defines the flags of every program that writes images."""
    flags.DEFINE_string("outdir", outdir, "Folder for the results.", flag_values=values)
    flags.DEFINE_enum(
        "images",
        "png",
        images.FORMATS,
        "Format of the images; npy is float32 in [-1, 1], for exact work.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "grid",
        grid,
        "Number of latents on the sheet grid.png, 0 for no sheet.",
        lower_bound=0,
        flag_values=values,
    )


def begin(
    program: str,
    values: flags.FlagValues,
    inputs: Mapping[str, str],
    *,
    folder: str = "outdir",
    neutral: Sequence[str] = _NEUTRAL_FLAGS,
) -> pathlib.Path:
    """Opens the folder of a run: writes run.json, or checks the one that is there.

    Args:
      program: name of the program.
      values: parsed flags.
      inputs: hash (or name) of each input.
      folder: flag that names the folder.
      neutral: flags that may differ when a run goes on.

    Returns:
      The folder.

    Raises:
      UserError: the folder holds another run, or files and no run, or cannot be
        written.
    """
    outdir = pathlib.Path(str(values[folder].value))
    record = {
        "program": program,
        "flags": {
            name: values[name].value
            for name in sorted(values)
            if name not in (*neutral, program.CACHE) and not name.startswith("help")
        },
        "inputs": dict(inputs),
    }
    path = outdir / RECORD
    if path.exists():
        _refuse_differences(folder, path, files.read_json(path), record)
        return outdir
    if outdir.exists() and (not outdir.is_dir() or any(outdir.iterdir())):
        raise UserError(
            f"--{folder}: expected a new or empty folder, or that of a run, found "
            f"{outdir} with other contents"
        )
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions |= {
        "styleclip_jax": styleclip_jax.__version__,
        "python": platform.python_version(),
    }
    device = jax.devices()[0]
    files.write_json(
        path,
        record
        | {
            "versions": versions,
            "devices": f"{jax.device_count()} × {device.device_kind}",
        },
    )
    return outdir


class Journal:
    """The results of a run, on disk as they are made.

    A process adds to a part of its own: to `.latents.partP` the latents of an edit, and
    to `metrics.partP.jsonl` a line of the same number, which says that everything of
    the edit is there. When all is done, the parts become NAME.npy (.npz in S) and
    metrics.jsonl, in order. So it does not matter how many processes there are, and how
    many there were before an interruption.
    """

    def __init__(
        self,
        outdir: pathlib.Path,
        count: int,
        space: str,
        config: stylegan2.GeneratorConfig,
        names: Sequence[str] = ("original", "edited"),
        process: int = 0,
    ) -> None:
        """Opens the run in `outdir`, which may have some or all of its results.

        Args:
          outdir: folder of the run.
          count: number of edits, N.
          space: "w_plus" or "s".
          config: of the generator.
          names: of the files of latents.
          process: number of this process.

        Attributes:
          done: [N] bool, what was done when the run was opened and since.

        Raises:
          UserError: the folder cannot be written.
        """
        self.outdir = outdir
        self._space, self._layout = space, config.style_layout
        channels = sum(layer.channels for layer in config.style_layout)
        one = (channels,) if space == "s" else (config.num_rows, config.w_dim)
        self._shape = (count, *one)
        suffix = ".npz" if space == "s" else ".npy"
        self.paths = {n: outdir / (n + suffix) for n in names}
        self.metrics = outdir / "metrics.jsonl"
        self.done = np.ones(count, bool)
        # It gets its name after all others.
        self.finished = self.metrics.exists()
        if not self.finished:
            self._part = _Part(outdir, process, names, int(np.prod(one)))
            self._part.open()
            self.done = self._locate().part >= 0

    def append(
        self,
        indices: Sequence[int],
        lines: Sequence[dict[str, Any]],
        **latent: np.ndarray,
    ) -> None:
        """Stores edits whose other files are on disk: lines and latents [B, …].

        Raises:
          UserError: they cannot be written; none of them is stored then.
        """
        self._part.append(lines, latent)
        self.done[list(indices)] = True

    def finish(self) -> bool:
        """Puts the parts in order once every edit is done.

        Returns:
          Whether every edit is done.
        """
        if self.finished:
            self._clean()
            return True
        where = self._locate()
        self.done = where.part >= 0
        if not self.done.all():
            return False
        for name, path in self.paths.items():
            chunks = self._chunks(where, name)
            latent_files.write_chunks(
                path, self._space, self._shape, chunks, self._layout
            )
        with files.new_file(self.metrics) as temporary, temporary.open("wb") as file:
            file.writelines(_in_order(where))
        files.sync_folder(self.outdir)
        self.finished = True
        self._clean()
        return True

    def _clean(self) -> None:
        """Removes the parts, and what was being written when processes were killed."""
        for part in self._parts():
            part.remove()
        for folder in (
            self.outdir,
            *filter(pathlib.Path.is_dir, self.outdir.iterdir()),
        ):
            for path in folder.glob(".*-*"):
                path.unlink()

    def read(self, name: str, count: int) -> Any:
        """The first latents of this name, S as a tuple; once finished."""
        array = latent_files.read_array(self.paths[name])
        found: Any = latent_files.take(array, np.arange(min(count, len(array))))
        if self._space == "s":
            return spaces.unflatten_styles(found, self._layout)
        return found

    def lines(self) -> Iterator[dict[str, Any]]:
        """The lines of all edits in order; once finished."""
        with self.metrics.open() as file:
            yield from map(json.loads, file)

    def _locate(self) -> "_Where":
        """Where the parts of all processes have the edits."""
        count, parts = len(self.done), self._parts()
        part = np.full(count, -1, np.int32)
        record, offset = np.zeros((2, count), np.int64)
        for i, one in enumerate(parts):
            for number, (start, index) in enumerate(one.scan()):
                part[index], record[index], offset[index] = i, number, start
        return _Where(parts, part, record, offset)

    def _parts(self) -> "list[_Part]":
        """The parts of all processes, of earlier ones too."""
        names, size = tuple(self.paths), int(np.prod(self._shape[1:]))
        found = sorted(self.outdir.glob("metrics.part*.jsonl"))
        numbers = [int(path.stem.removeprefix("metrics.part")) for path in found]
        return [_Part(self.outdir, number, names, size) for number in numbers]

    def _chunks(self, where: "_Where", name: str) -> Iterator[np.ndarray]:
        """Latents in order, some at a time."""
        count = len(where.part)
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            chunk = np.empty((stop - start, *self._shape[1:]), np.float32)
            for i, part in enumerate(where.parts):
                here = where.part[start:stop] == i
                rows = where.record[start:stop][here]
                if len(rows):
                    chunk[here] = part.read(name, rows).reshape(-1, *self._shape[1:])
            yield chunk


def name(line: dict[str, Any]) -> str:
    """What a line of metrics.jsonl is about, for people."""
    return f"seed {line['seed']}" if "seed" in line else f"row {line['row']}"


def report_failures(journal: Journal, unit: str, *, shown: bool) -> int:
    """Says what was not finite in a finished run, and returns the exit code."""
    failed = 0
    for line in journal.lines():
        if "failed_at" not in line:
            continue
        failed += 1
        if shown and failed <= _NUM_SHOWN:
            print(
                f"failed: {unit} {line['index']} of {name(line)}, it was not finite at "
                f"step {line['failed_at']}"
            )
    if failed and shown:
        print(f"failed: {failed} of {len(journal.done)} {unit}s")
    return program.EXIT_FAILED_ITEMS if failed else 0


class _Where(NamedTuple):
    """Where each edit is.

    Attributes:
      parts: of all processes.
      part: [N], which of them has it, -1 for none.
      record: [N], number of its line and latents there.
      offset: [N], where its line starts there.
    """

    parts: "list[_Part]"
    part: np.ndarray
    record: np.ndarray
    offset: np.ndarray


class _Part:
    """What one process has done: lines, and latents of the same number."""

    def __init__(
        self, outdir: pathlib.Path, process: int, names: Sequence[str], size: int
    ) -> None:
        self.metrics = outdir / f"metrics.part{process}.jsonl"
        self._latents = outdir / f".latents.part{process}"
        self._names, self._size = names, size
        # Number of edits, and of bytes of their lines.
        self._count, self._length = 0, 0

    def open(self) -> None:
        """Goes on after what is whole, or makes the files."""
        for path in (self._latents, self.metrics):
            path.touch()
        self._length = sum(len(line) for line in self._whole_lines())
        self._count = sum(1 for _ in self._whole_lines())

    def append(
        self, lines: Sequence[dict[str, Any]], latent: dict[str, np.ndarray]
    ) -> None:
        flat = [latent[name].reshape(len(lines), self._size) for name in self._names]
        content = np.concatenate(flat, axis=1).astype("<f4").tobytes()
        files.append(self._latents, self._record_size * self._count, content)
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        files.append(self.metrics, self._length, text)
        self._count += len(lines)
        self._length += len(text)

    def scan(self) -> Iterator[tuple[int, int]]:
        """Where each whole line starts, and the index of its edit."""
        start = 0
        for line in self._whole_lines():
            yield start, json.loads(line)["index"]
            start += len(line)

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Some latents, flat."""
        count = self._latents.stat().st_size // self._record_size
        shape = (count, len(self._names), self._size)
        stored = np.memmap(self._latents, "<f4", "r", shape=shape)
        return latent_files.take(stored[:, self._names.index(name)], rows)

    def remove(self) -> None:
        for path in (self._latents, self.metrics):
            path.unlink(missing_ok=True)

    @property
    def _record_size(self) -> int:
        """Bytes of the latents of an edit."""
        return 4 * self._size * len(self._names)

    def _whole_lines(self) -> Iterator[bytes]:
        """Lines that are whole and have their latents."""
        count = self._latents.stat().st_size // self._record_size
        with self.metrics.open("rb") as file:
            lines = (line for line in file if line.endswith(b"\n"))
            yield from itertools.islice(lines, count)


def _in_order(where: _Where) -> Iterator[bytes]:
    """The lines of all edits."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(part.metrics.open("rb")) for part in where.parts]
        for part, offset in zip(where.part, where.offset, strict=True):
            opened[part].seek(offset)
            yield opened[part].readline()


def _refuse_differences(
    folder: str, path: pathlib.Path, found: dict[str, Any], record: dict[str, Any]
) -> None:
    if found.get("program") != record["program"]:
        raise UserError(
            f"--{folder}: {path} is of {found.get('program')}, expected another folder "
            f"for {record['program']}"
        )
    for part, prefix in (("flags", "--"), ("inputs", "")):
        before, now = found.get(part, {}), record[part]
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                raise UserError(
                    f"--{folder}: {path} is of a run with {prefix}{name}="
                    f"{before.get(name)}, found {now.get(name)}; use the same flags to "
                    "go on with it, or another folder"
                )
