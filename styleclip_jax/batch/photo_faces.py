"""Faces of photos: found by a run of its own, and read as a source of a stream.

Which faces there are is known once every photo was looked at, so that comes first. A
face is then read again when its batch is next: what is kept of a photo meanwhile is the
square of its face, and memory does not grow with their number.

Threads read, as all that takes time lets the interpreter's lock go: Pillow's decoding,
resizing and warping, SciPy's blur, and dlib's detector.
"""

import concurrent.futures
import contextlib
import itertools
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from styleclip_jax import parallel, spaces
from styleclip_jax.batch import stream
from styleclip_jax.batch.journal import Journal, Kept
from styleclip_jax.errors import UserError
from styleclip_jax.io import files
from styleclip_jax.photos import crops, pasting
from styleclip_jax.photos.finding import Finder
from styleclip_jax.progress import Listener

# Number of photos that are read at a time, each of which may take a gigabyte.
_READERS = min(os.cpu_count() or 1, 8)
# Number of photos that are looked at or wait to be written down, and of those written
# down together.
_AHEAD, _TOGETHER = 2 * _READERS, 16
# Folder of what was found so far, in that of the run.
_FOUND = ".found"
_QUICKER = "landmarks, or noalign for photos that are crops already"


def readers() -> concurrent.futures.Executor:
    """Threads that read photos."""
    return concurrent.futures.ThreadPoolExecutor(_READERS)


class FaceSource:
    """Source of the faces of photos, cut out as they go to the devices.

    Attributes:
      unread: why faces could not be read again, by their numbers. They are NaN.
    """

    def __init__(
        self,
        faces: Sequence[dict[str, Any]],
        *,
        resolution: spaces.Size,
        encoded_size: spaces.Size | None,
        is_aligned: bool,
        readers: concurrent.futures.Executor,
    ) -> None:
        """Opens a source.

        Args:
          faces: faces that a `Finder` found.
          resolution: size of the generator's images.
          encoded_size: input size of the encoder; None without one.
          is_aligned: whether photos are faces as a whole.
          readers: threads that read photos.
        """
        self._faces, self._is_aligned = faces, is_aligned
        self._sizes: Any = {"resolution": resolution, "encoded_size": encoded_size}
        self._readers = readers
        self.unread: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._faces)

    def describe(self, row: int) -> dict[str, Any]:
        """File of a face, and why it could not be read if so."""
        why = {"error": self.unread[row]} if row in self.unread else {}
        return {"file": self._faces[row]["file"], **why}

    def load(self, rows: np.ndarray) -> crops.Crops:
        """Cuts out some faces, float32 [B, …]; a photo of several is read once."""
        own, places = np.unique(rows, return_inverse=True)
        by_photo = itertools.groupby(own, lambda row: self._faces[row]["file"])
        photos = [list(group) for _, group in by_photo]
        found = [one for part in self._readers.map(self._cut, photos) for one in part]
        return jax.tree.map(lambda *one: np.stack(one)[places], *found)

    def _cut(self, rows: Sequence[int]) -> list[crops.Crops]:
        """Faces of one photo."""
        faces = [self._faces[row] for row in rows]
        quads = [None if self._is_aligned else np.array(x["quad"]) for x in faces]
        try:
            photo = crops.read(faces[0])
            return [crops.cut(photo, quad, **self._sizes) for quad in quads]
        except UserError as error:
            self.unread |= dict.fromkeys(rows, str(error))
            return [crops.nothing(**self._sizes)] * len(rows)


def find(
    outdir: pathlib.Path,
    paths: Sequence[pathlib.Path],
    finder: Finder,
    readers: concurrent.futures.Executor,
    listener: Listener,
) -> dict[str, list[Any]]:
    """Finds the faces of photos, all processes together, unless they are found already.

    A run that goes on keeps what was found before.

    Args:
      outdir: folder of the run.
      paths: photos.
      finder: finder of the faces of each.
      readers: threads that read photos.
      listener: listener for the progress.

    Returns:
      Record `pasting.RECORD` of the folder: "faces", as `finder` finds them, and
      "skipped", a line for each photo that cannot be used.

    Raises:
      UserError: no photo has a face, or the folder cannot be written.
    """
    record, folder = outdir / pasting.RECORD, outdir / _FOUND
    if not parallel.agree(record.is_file()):
        with parallel.first_alone(), files.writable(folder):
            folder.mkdir(exist_ok=True)
            journal = Journal(folder, len(paths), Kept({}), jax.process_index())
            if jax.process_index() == 0:
                stream.forget_ended(folder)
        _find(journal, paths, finder, readers, listener)
        stream.finish(journal)
        with parallel.first_alone():
            if jax.process_index() == 0:
                _write_record(record, journal)
        # A network file system may go on saying for a while that there is none.
        parallel.wait_while(lambda: not record.is_file())
    if jax.process_index() == 0:
        shutil.rmtree(folder, ignore_errors=True)
    return pasting.read_record(record)


def _find(
    journal: Journal,
    paths: Sequence[pathlib.Path],
    finder: Finder,
    readers: concurrent.futures.Executor,
    listener: Listener,
) -> None:
    """Finds the faces of this process's photos, a line of the journal for each."""

    def look(index: int) -> dict[str, Any]:
        try:
            faces = finder.find(paths[index], lambda x: listener.tell(f"note: {x}"))
            return {"index": index, "faces": faces}
        except UserError as error:
            return {"index": index, "skipped": str(error)}

    todo = [x for x in parallel.share(len(paths)) if not journal.done[x]]
    looks = parallel.ahead(look, todo, readers, _AHEAD)
    with (
        listener.long_bar(len(todo), "photo", _QUICKER) as report,
        contextlib.closing(looks) as lines,
    ):
        while some := list(itertools.islice(lines, _TOGETHER)):
            journal.append([line["index"] for line in some], some)
            for line in some:
                if "skipped" in line:
                    listener.tell(f"skipped: {line['skipped']}")
            report(len(some))


def _write_record(record: pathlib.Path, journal: Journal) -> None:
    """Writes what was found in all photos; the folder is given up if that is nothing.

    Raises:
      UserError: no photo has a face.
    """
    faces: list[Any] = []
    skipped: list[str] = []
    for line in journal.lines():
        faces += line.get("faces", [])
        skipped += [line["skipped"]] if "skipped" in line else []
    if not faces:
        shutil.rmtree(journal.outdir)
        (record.parent / files.RECORD).unlink()
        raise UserError(
            f"photos: expected faces, found none in {len(skipped)} photos",
            field="photos",
        )
    files.write_json(record, {"faces": faces, "skipped": skipped})
