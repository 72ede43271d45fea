"""Shards of a run: pictures in tar archives of WebDataset's layout, resumable.

Shard K is images/K.tar. It holds the results from K · SIZE on in their order, each as
INDEX.png or INDEX.jpg and then INDEX.json, its line of metrics.jsonl.

While a shard is made, each process appends to a part of its own, images/.K.partP. The
shard is sealed once it is whole: a part that has everything in order is renamed, others
are copied in order. So its bytes depend neither on processes nor on interruptions.
"""

import contextlib
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from styleclip_jax import documents
from styleclip_jax.io import files, images, tars
from styleclip_jax.settings.output import SHARD_FORMATS

# Formats of images that make shards, and the suffix of the pictures in them.
FORMATS = SHARD_FORMATS
# Number of pictures of a shard.
SIZE = 10_000


class Shards:
    """Shards of all results, and the parts that this process appends to."""

    def __init__(
        self, outdir: pathlib.Path, count: int, suffix: str, process: int
    ) -> None:
        """Shards in a folder, which may have some or all of them.

        Args:
          outdir: folder of the run.
          count: number of results, N.
          suffix: suffix of the pictures, such as ".png".
          process: number of this process.
        """
        self._folder = outdir / "images"
        self._count, self._suffix, self._process = count, suffix, process
        self._own: dict[int, _Part] = {}

    def repair(self) -> list[str]:
        """Cuts files off before the first result in them that is damaged.

        A damaged shard becomes a part. Nobody may write meanwhile.

        Returns:
          A line on each damaged shard. What a kill has left in a part is no damage.

        Raises:
          UserError: they cannot be written.
        """
        notes = []
        for number in self._numbers():
            rows = range(self._count)[self._rows(number)]
            for path in self._folder.glob(f".{number:06d}.part*"):
                self._cut(path, rows)
            path = self._path(number)
            if path.exists() and not self._is_whole(path, rows):
                notes.append(f"note: {path} is damaged and made again from there on")
                files.move(path, self._part_path(number))
                self._cut(self._part_path(number), rows)
        return notes

    def held(self) -> np.ndarray:
        """Pictures that are on disk, [N] bool."""
        found = np.zeros(self._count, bool)
        for number in self._numbers():
            rows = self._rows(number)
            if self._path(number).exists():
                found[rows] = True
            for part in self._parts(number):
                found[[place.row for place in part.places]] = True
        return found

    def open(self, done: np.ndarray) -> None:
        """Opens the parts of this process after their last result that is done.

        Args:
          done: [N] bool, results that the journal has.
        """
        for path in self._folder.glob(f".[0-9]*.part{self._process}"):
            number = int(path.stem.removeprefix("."))
            if not self._path(number).exists():
                part = self._own[number] = _Part.read(path)
                while part.places and not done[part.places[-1].row]:
                    part.places.pop()

    def append(
        self,
        indices: Sequence[int],
        pictures: Sequence[bytes],
        lines: Sequence[dict[str, Any]],
    ) -> None:
        """Appends pictures and their lines durably.

        Raises:
          UserError: they cannot be written.
        """
        entries = zip(indices, pictures, lines, strict=True)
        for number, group in itertools.groupby(entries, lambda x: x[0] // SIZE):
            if number not in self._own:
                path = self._part_path(number)
                files.write_bytes(path, b"", make_folder=False)
                files.sync_folder(self._folder)
                self._own[number] = _Part(path, [])
            self._own[number].append(
                {index: self._entry(x, line) for index, x, line in group}
            )

    def seal(self, done: np.ndarray) -> None:
        """Seals the shards that this process has made alone, once they are whole.

        Args:
          done: [N] bool, results that the journal has.

        Raises:
          UserError: a shard cannot be written.
        """
        for number, part in list(self._own.items()):
            rows = range(self._count)[self._rows(number)]
            if done[rows].all() and set(rows) <= {x.row for x in part.places}:
                self._seal(number, [part])
                del self._own[number]

    def finish(self) -> None:
        """Seals all other shards, once every picture is held, and removes the parts.

        Raises:
          UserError: a shard cannot be written.
        """
        for number in self._numbers():
            if not self._path(number).exists():
                self._seal(number, list(self._parts(number)))
        for path in self._folder.glob(".*.part*"):
            path.unlink()

    def _seal(self, number: int, parts: "Sequence[_Part]") -> None:
        path, rows = self._path(number), range(self._count)[self._rows(number)]
        for part in parts:
            if [place.row for place in part.places] == list(rows):
                files.append(part.path, part.length, tars.end(part.length))
                files.move(part.path, path)
                break
        else:
            _copy_in_order(parts, rows, path)
        files.sync_folder(self._folder)
        for part in parts:
            part.path.unlink(missing_ok=True)

    def _entry(self, picture: bytes, line: dict[str, Any]) -> bytes:
        name = f"{line['index']:06d}"
        return tars.member(name + self._suffix, picture) + tars.member(
            name + ".json", documents.dump(line).encode()
        )

    def _parts(self, number: int) -> "Iterator[_Part]":
        """Parts of a shard, by all processes, earlier ones included."""
        for path in sorted(self._folder.glob(f".{number:06d}.part*")):
            # Its process may just have made a shard of it.
            with contextlib.suppress(FileNotFoundError):
                yield _Part.read(path)

    def _numbers(self) -> range:
        return range(-(-self._count // SIZE))

    def _rows(self, number: int) -> slice:
        return slice(number * SIZE, min((number + 1) * SIZE, self._count))

    def _path(self, number: int) -> pathlib.Path:
        return self._folder / f"{number:06d}.tar"

    def _part_path(self, number: int) -> pathlib.Path:
        return self._folder / f".{number:06d}.part{self._process}"

    def _is_whole(self, path: pathlib.Path, rows: range) -> bool:
        """Whether a shard has all its results and its end."""
        count, length = self._find_damage(path, rows)
        size = length + len(tars.end(length))
        return count == len(rows) and path.stat().st_size == size

    def _cut(self, path: pathlib.Path, rows: range) -> None:
        """Cuts a part off before the first result that is not whole."""
        _, length = self._find_damage(path, rows)
        if path.stat().st_size != length:
            files.append(path, length, b"")

    def _find_damage(self, path: pathlib.Path, rows: range) -> tuple[int, int]:
        """Number of the results before the first that is not whole, and their bytes."""
        count, length, members = 0, 0, tars.scan(path)
        with path.open("rb", buffering=0) as file:
            for picture, line in zip(members, members, strict=False):
                row = documents.whole_number(line.content(file), "index")
                if row is None or row not in rows:
                    break
                names = (f"{row:06d}{self._suffix}", f"{row:06d}.json")
                if (picture.name, line.name) != names:
                    break
                if not images.is_whole(picture.content(file), self._suffix):
                    break
                count, length = count + 1, line.stop
        return count, length


class _Place(NamedTuple):
    """Place of a result in a part: the bytes of its picture and line.

    Attributes:
      row: index of the result.
      start, stop: its bytes in the file.
    """

    row: int
    start: int
    stop: int


class _Part(NamedTuple):
    """Part of a shard by one process: its file, and the places in it in order."""

    path: pathlib.Path
    places: list[_Place]

    @classmethod
    def read(cls, path: pathlib.Path) -> "_Part":
        """Reads the whole results of a part; a kill may have left half of one."""
        members = list(tars.scan(path))
        pairs = zip(members[::2], members[1::2], strict=False)
        places = [
            _Place(int(pathlib.PurePath(picture.name).stem), picture.start, line.stop)
            for picture, line in pairs
        ]
        return cls(path, places)

    @property
    def length(self) -> int:
        """Number of bytes of its results."""
        return self.places[-1].stop if self.places else 0

    def append(self, entries: dict[int, bytes]) -> None:
        """Appends the members of results, by their indices."""
        start = self.length
        files.append(self.path, start, b"".join(entries.values()))
        for index, entry in entries.items():
            self.places.append(_Place(index, start, start + len(entry)))
            start += len(entry)


def _copy_in_order(
    parts: Sequence[_Part], rows: Sequence[int], path: pathlib.Path
) -> None:
    """Writes a shard from parts that have its results in another order."""
    where = {place.row: (part.path, place) for part in parts for place in part.places}
    with (
        contextlib.ExitStack() as stack,
        files.new_file(path, make_folder=False) as temporary,
        temporary.open("wb") as file,
    ):
        opened = {p.path: stack.enter_context(p.path.open("rb")) for p in parts}
        for index in rows:
            source, place = where[index]
            opened[source].seek(place.start)
            file.write(opened[source].read(place.stop - place.start))
        file.write(tars.end(file.tell()))
