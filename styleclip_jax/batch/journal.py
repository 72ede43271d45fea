"""Journal of a run: results on disk as they are made, put in order at the end."""

import contextlib
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from styleclip_jax import documents, spaces
from styleclip_jax.batch import shards
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, latent_files
from styleclip_jax.models import generators

# Number of latents in memory while parts are put in order.
_CHUNK = 1024


class Kept(NamedTuple):
    """Arrays that a run keeps, float32 with a row for each result.

    Attributes:
      shapes: shape of a row of each array, by its name.
      layout: layout of S where the rows are flat style vectors; empty elsewhere.
    """

    shapes: Mapping[str, tuple[int, ...]]
    layout: Sequence[spaces.StyleLayer] = ()

    @classmethod
    def latents(
        cls, space: str, config: generators.GeneratorConfig, names: Sequence[str]
    ) -> "Kept":
        """Latents in w_plus or s of a generator, by these names."""
        if space == "s":
            layout = config.style_layout
            flat = (sum(layer.channels for layer in layout),)
            return cls(dict.fromkeys(names, flat), layout)
        return cls(dict.fromkeys(names, (config.num_rows, config.w_dim)))


class Journal:
    """Journal of a run: its results on disk as they are made.

    Each process adds to a part of its own: the latents of an edit, or other arrays, to
    `.latents.partP`, and a line of the same number to `metrics.partP.jsonl`. The line
    says that everything of the edit is there; a checksum beside the latents covers
    both. What is damaged is made again, with what comes after it in its part, and so
    are edits whose image file is missing or empty. When all is done, the parts become
    NAME.npy (.npz in S) and metrics.jsonl, in order. So the number of processes does
    not matter, nor how many there were before an interruption. Pictures of shards are
    on disk before their lines; other files of an edit are its maker's. A finished run
    that has lost something becomes an unfinished one, with what is whole in a part.
    """

    def __init__(
        self,
        outdir: pathlib.Path,
        count: int,
        kept: Kept,
        process: int = 0,
        images: str = "none",
    ) -> None:
        """Opens the journal in `outdir`, which may have some or all of the results.

        Process 0 is the first to open it, as it repairs what is damaged.

        Args:
          outdir: folder of the run.
          count: number of edits, N.
          kept: latents of each edit, or what a run keeps in their place.
          process: number of this process.
          images: format of the images; the journal keeps those of `shards.FORMATS`.

        Attributes:
          done: [N] bool, edits that are done, before the run was opened or since.
          notes: lines on what is made again since it was damaged.

        Raises:
          UserError: the folder cannot be written.
        """
        self.outdir = outdir
        self._kept = kept
        suffix = ".npz" if kept.layout else ".npy"
        self.paths = {n: outdir / (n + suffix) for n in kept.shapes}
        self.metrics = outdir / "metrics.jsonl"
        self.done = np.ones(count, bool)
        self.notes: list[str] = []
        self._images, self._shards = images, None
        if kind := shards.FORMATS.get(images):
            self._shards = shards.Shards(outdir, count, kind, process)
        self._part = _Part(outdir, process, kept)
        # The file of metrics gets its name after all others.
        self.finished = self.metrics.exists()
        with files.writable(outdir):
            self._open(process)

    def _open(self, process: int) -> None:
        """Finds what is done, after repairs by process 0."""
        if self._shards and process == 0:
            self.notes += self._shards.repair()
        if self.finished and process == 0:
            self._reopen_if_damaged()
        if self.finished:
            return
        self._part.open(len(self.done))
        self.done = self._have_pictures(self._locate().part >= 0)
        if self._shards:
            self._shards.open(self.done)

    def append(
        self,
        indices: Sequence[int],
        lines: Sequence[dict[str, Any]],
        pictures: Sequence[bytes] = (),
        **latent: np.ndarray,
    ) -> None:
        """Stores edits whose other files are on disk: lines and latents [B, …].

        Args:
          indices: numbers of the edits.
          lines: their lines of metrics.jsonl.
          pictures: contents of their image files, if these go into shards.
          **latent: their latents by the names of the files.

        Raises:
          UserError: the edits cannot be written; none of them is stored then.
        """
        if self._shards:
            self._shards.append(indices, pictures, lines)
        self._part.append(lines, latent)
        self.done[list(indices)] = True

    def seal(self) -> None:
        """Seals the shards that are whole and of this process alone.

        Raises:
          UserError: a shard cannot be written; `finish` tries again.
        """
        if self._shards:
            self._shards.seal(self.done)

    def finish(self) -> bool:
        """Puts the parts in order once every edit is done.

        Returns:
          Whether every edit is done.

        Raises:
          UserError: the folder is full, or gone.
        """
        with files.writable(self.outdir):
            return self._finish()

    def _finish(self) -> bool:
        if self._shards and self.finished:
            self._shards.finish()
        if self.finished:
            self._clean()
            return True
        where = self._locate()
        self.done = where.part >= 0
        if self._shards:
            self.done &= self._shards.held()
        if not self.done.all():
            return False
        if self._shards:
            self._shards.finish()
        for name, path in self.paths.items():
            chunks = self._chunks(where, name)
            latent_files.write_chunks(
                path, self._shape(name), chunks, self._kept.layout
            )
        with files.new_file(self.metrics) as temporary, temporary.open("wb") as file:
            file.writelines(_in_order(where))
        files.sync_folder(self.outdir)
        self.finished = True
        self._clean()
        return True

    def _clean(self) -> None:
        """Removes the parts, and the unfinished files of processes that were killed."""
        for part in self._parts():
            part.remove()
        files.remove_unfinished(self.outdir)

    def read(self, name: str, count: int) -> Any:
        """First latents of this name, S as a tuple; once the run is finished."""
        return self.take(name, np.arange(min(count, len(self.done))))

    def take(self, name: str, rows: np.ndarray) -> Any:
        """Latents of these rows, likewise."""
        array = latent_files.read_array(self.paths[name])
        found: Any = latent_files.take(array, rows)
        if self._kept.layout:
            return spaces.unflatten_styles(found, self._kept.layout)
        return found

    def _shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array of all results."""
        return (len(self.done), *self._kept.shapes[name])

    def lines(self) -> Iterator[dict[str, Any]]:
        """Lines of all edits in order; once the run is finished."""
        with self.metrics.open() as file:
            yield from (documents.parse(line, str(self.metrics)) for line in file)

    def _locate(self) -> "_Where":
        """Locates the edits in the parts of all processes."""
        count, parts = len(self.done), self._parts()
        part = np.full(count, -1, np.int32)
        record, offset = np.zeros((2, count), np.int64)
        for i, one in enumerate(parts):
            entries = one.scan(count)
            for number, (start, index) in enumerate(entries):
                part[index], record[index], offset[index] = i, number, start
            if one.is_damaged:
                self.notes.append(
                    f"note: {one.metrics} is damaged from line {len(entries) + 1} on; "
                    "what stands there is made again"
                )
        return _Where(parts, part, record, offset)

    def _have_pictures(self, done: np.ndarray) -> np.ndarray:
        """Edits of those done, [N] bool, whose picture is there; tells of the others.

        Files may be missing or empty, and shards damaged.
        """
        folder, found = self.outdir / "images", np.ones(len(done), bool)
        if self._shards:
            found = self._shards.held()
        elif self._images != "none":
            there = set()
            if folder.is_dir():
                with os.scandir(folder) as entries:
                    there = {
                        x.name for x in entries if x.is_file() and x.stat().st_size
                    }
            names = (f"{index:06d}.{self._images}" for index in range(len(done)))
            found = np.array([name in there for name in names], bool)
        if lost := int((done & ~found).sum()):
            self.notes.append(
                f"note: {folder} lacks {lost} images of results that were done; they "
                "are made again"
            )
        return done & found

    def _reopen_if_damaged(self) -> None:
        """Makes an unfinished run of a finished one that has lost something."""
        count = len(self.done)
        start, in_order = self._read_finished()
        whole = start >= 0
        if not (whole.all() and in_order):
            self.notes.append(
                f"note: {self.metrics} is damaged: {whole.sum()} of {count} lines are "
                "whole; the others are made again"
            )
        latent = {}
        try:
            latent = {name: self._read_latents(name) for name in self.paths}
        except UserError as error:
            self.notes.append(f"note: {error}; all results are made again")
            whole[:] = False
        kept = self._have_pictures(whole)
        if kept.all() and in_order:
            return
        for part in self._parts():
            part.remove()
        self._part.open(count)
        rows = np.flatnonzero(kept)
        with self.metrics.open("rb") as file:
            for first in range(0, len(rows), _CHUNK):
                chunk, lines = rows[first : first + _CHUNK], []
                for row in chunk:
                    file.seek(start[row])
                    lines.append(documents.parse(file.readline(), str(self.metrics)))
                self._part.append(
                    lines, {n: latent_files.take(x, chunk) for n, x in latent.items()}
                )
        self.metrics.unlink()
        files.sync_folder(self.outdir)
        self.finished = False

    def _read_latents(self, name: str) -> np.ndarray:
        """Latents of a finished run.

        Raises:
          UserError: the file is not the run's.
        """
        path = self.paths[name]
        array = latent_files.read_array(path)
        shape = self._shape(name)
        if array.shape != shape or array.dtype != np.float32:
            raise UserError(
                f"{path}: expected float32 of shape {list(shape)}, found "
                f"{array.dtype} of {list(array.shape)}"
            )
        return array

    def _read_finished(self) -> tuple[np.ndarray, bool]:
        """Byte at which the line of each edit starts, [N], -1 where none is whole.

        Also whether there is nothing else, and they are in order.
        """
        count, length, in_order = len(self.done), 0, True
        start, seen = np.full(count, -1, np.int64), np.zeros(count, np.int32)
        with self.metrics.open("rb") as file:
            for number, line in enumerate(file):
                index = _parse_index(line, count) if line.endswith(b"\n") else None
                if index is not None:
                    start[index] = length
                    seen[index] += 1
                in_order &= index == number
                length += len(line)
        # Of two lines of one edit, one is another's.
        start[seen > 1] = -1
        return start, in_order

    def _parts(self) -> "list[_Part]":
        """Parts of all processes, earlier ones included."""
        found = sorted(self.outdir.glob("metrics.part*.jsonl"))
        numbers = [path.stem.removeprefix("metrics.part") for path in found]
        parts = [int(number) for number in numbers if number.isdecimal()]
        return [_Part(self.outdir, number, self._kept) for number in parts]

    def _chunks(self, where: "_Where", name: str) -> Iterator[np.ndarray]:
        """Latents in order, a chunk at a time."""
        count, one = len(where.part), self._kept.shapes[name]
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            chunk = np.empty((stop - start, *one), np.float32)
            for i, part in enumerate(where.parts):
                here = where.part[start:stop] == i
                rows = where.record[start:stop][here]
                if len(rows):
                    chunk[here] = part.read(name, rows).reshape(-1, *one)
            yield chunk


class _Where(NamedTuple):
    """Locations of the edits in the parts.

    Attributes:
      parts: parts of all processes.
      part: [N] number of the part that has the edit, -1 for none.
      record: [N] number of its line and latents in that part.
      offset: [N] byte at which its line starts there.
    """

    parts: "list[_Part]"
    part: np.ndarray
    record: np.ndarray
    offset: np.ndarray


class _Part:
    """Part of one process: lines, and latents of the same number."""

    def __init__(self, outdir: pathlib.Path, process: int, kept: Kept) -> None:
        self.metrics = outdir / f"metrics.part{process}.jsonl"
        self._latents = outdir / f".latents.part{process}"
        # Values of a row of each array.
        self._sizes = {name: int(np.prod(one)) for name, one in kept.shapes.items()}
        # Numbers of edits, and of bytes of their lines.
        self._count, self._length = 0, 0
        self.is_damaged = False
        self._record = np.dtype(
            [(name, "<f4", (size,)) for name, size in self._sizes.items()]
            + [("sum", "<u4")]
        )

    def open(self, count: int) -> None:
        """Opens the part after its last whole edit, or makes its files.

        Args:
          count: number of edits of the run.
        """
        self.metrics.touch()
        self._count = len(self.scan(count))

    def append(
        self, lines: Sequence[dict[str, Any]], latent: dict[str, np.ndarray]
    ) -> None:
        texts = [documents.dump(line).encode() + b"\n" for line in lines]
        records = np.zeros(len(lines), self._record)
        for name, size in self._sizes.items():
            records[name] = latent[name].reshape(len(lines), size)
        sums = [_sum_of(x.tobytes(), t) for x, t in zip(records, texts, strict=True)]
        records["sum"] = sums
        offset = self._record.itemsize * self._count
        files.append(self._latents, offset, records.tobytes())
        text = b"".join(texts)
        files.append(self.metrics, self._length, text)
        self._count += len(lines)
        self._length += len(text)

    def scan(self, count: int) -> list[tuple[int, int]]:
        """Finds the entries before the first one that is damaged or not whole.

        Args:
          count: number of edits of the run.

        Returns:
          Byte at which the line of each starts, and the index of its edit.
        """
        found: list[tuple[int, int]] = []
        self._length = 0
        # A part of another process may have lost its latents.
        self._latents.touch()
        with self.metrics.open("rb") as lines, self._latents.open("rb") as records:
            for line in lines:
                index = _index_of(line, records.read(self._record.itemsize), count)
                if index is None:
                    # A line without an end was being written.
                    self.is_damaged = line.endswith(b"\n")
                    break
                found.append((self._length, index))
                self._length += len(line)
        return found

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Latents of some rows, flat."""
        count = self._latents.stat().st_size // self._record.itemsize
        stored = np.memmap(self._latents, self._record, "r", shape=(count,))
        return latent_files.take(stored[name], rows)

    def remove(self) -> None:
        for path in (self._latents, self.metrics):
            path.unlink(missing_ok=True)


def _sum_of(record: bytes, line: bytes) -> int:
    """Checksum of an edit: of its latents, without their own checksum, and its line."""
    return zlib.crc32(line, zlib.crc32(record[:-4]))


def _index_of(line: bytes, record: bytes, count: int) -> int | None:
    """Index of the edit of an entry; None where the entry is damaged.

    Args:
      line: its line.
      record: its latents and checksum.
      count: number of edits of the run.
    """
    if len(record) < 4 or _sum_of(record, line) != int.from_bytes(
        record[-4:], "little"
    ):
        return None
    return _parse_index(line, count)


def _parse_index(line: bytes, count: int) -> int | None:
    """Index of the edit of a line; None where it is not one of so many."""
    index = documents.whole_number(line, "index")
    return index if index is not None and 0 <= index < count else None


def _in_order(where: _Where) -> Iterator[bytes]:
    """Lines of all edits in order."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(part.metrics.open("rb")) for part in where.parts]
        for part, offset in zip(where.part, where.offset, strict=True):
            opened[part].seek(offset)
            yield opened[part].readline()
