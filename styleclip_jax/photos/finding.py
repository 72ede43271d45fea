"""Faces in photos: found by a detector or by landmarks, one photo at a time."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import images
from styleclip_jax.photos import align, crops, photo_files
from styleclip_jax.progress import ignore
from styleclip_jax.spaces import Size


class Finder:
    """Finder of the faces of photos; several threads may call it."""

    def __init__(
        self,
        *,
        is_aligned: bool,
        landmarks_file: str | None = None,
        all_faces: bool = False,
        resolution: Size | None = None,
        encoded_size: Size | None = None,
        max_pixels: int = images.MAX_PIXELS,
    ) -> None:
        """Prepares the search.

        Args:
          is_aligned: whether photos are square crops, each of one face.
          landmarks_file: file of landmarks by name of the photo; None to detect faces.
          all_faces: whether to take all faces of a photo, not the largest alone.
          resolution: size of the generator's images, for photos that are whole faces;
            None for square ones.
          encoded_size: input size of the encoder; one that is not square, of cars,
            takes whole photos of any shape.
          max_pixels: largest number of pixels of a photo; a larger JPEG is shrunk.

        Raises:
          UserError: there is no detector, the landmarks cannot be read, or the settings
            do not fit each other.
        """
        if not is_aligned and isinstance(encoded_size, tuple):
            height, width = encoded_size
            raise UserError(
                f"align: expected noalign with an encoder of whole photos of {width}×"
                f"{height}, such as of cars, found align",
                field="align",
                also=["noalign"],
            )
        if not is_aligned and isinstance(resolution, tuple):
            raise UserError(
                "align: expected noalign with a generator of images of "
                f"{spaces.describe_size(resolution)}, since faces are cut out as "
                "squares, found align",
                field="align",
                also=["noalign"],
            )
        self._landmarks = None
        if is_aligned:
            if landmarks_file is not None:
                raise UserError(
                    "landmarks: expected align with it, found noalign",
                    field="landmarks",
                    also=["align", "noalign"],
                )
        elif landmarks_file is not None:
            self._landmarks = align.read_landmarks(landmarks_file)
        else:
            # A missing detector is reported at once.
            align.detect(np.zeros((16, 16, 3), np.uint8))
        self._is_aligned, self._all_faces = is_aligned, all_faces
        self._resolution, self._encoded_size = resolution, encoded_size
        self._max_pixels = max_pixels

    def find(
        self, path: pathlib.Path, tell: Callable[[str], None] = ignore
    ) -> list[dict[str, Any]]:
        """Finds the faces of a photo.

        Args:
          path: the photo.
          tell: takes notes on how it was read.

        Returns:
          Faces, each with its "file", as "quad" the corners of its square, and with
          landmarks as "outline" that of the face. They have "max_pixels" too if it is
          not the default, since a shrunk photo has a shrunk square.

        Raises:
          UserError: the photo cannot be read, or has no face; its path comes first.
        """
        try:
            photo = photo_files.read(path, self._max_pixels, tell)
            found = self._find(path, photo)
        except UserError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise UserError(f"{path}: {reason}") from None
        face: dict[str, Any] = {"file": str(path.resolve())}
        more = {"max_pixels": self._max_pixels}
        shrunk = {} if self._max_pixels == images.MAX_PIXELS else more
        return [face | one | shrunk for one in found]

    def _find(self, path: pathlib.Path, photo: np.ndarray) -> list[dict[str, Any]]:
        """Squares of the faces of a photo, and outlines of those with landmarks."""
        if self._is_aligned:
            quad = _whole(photo, self._resolution, self._encoded_size)
            return [{"quad": quad.tolist()}]
        if self._landmarks is None:
            found, where = align.detect(photo), "in the photo"
        else:
            found, where = self._landmarks.get(path.name, []), "in the landmarks"
            reduction = photo_files.reduction(path, self._max_pixels)
            if reduction > 1:
                # Whole numbers are at the centres of pixels.
                found = [(face + 0.5) / reduction - 0.5 for face in found]
        if not found:
            raise UserError(f"expected a face, found none {where}")
        return [
            {
                "quad": align.quad(face).tolist(),
                "outline": align.outline(face).round(1).tolist(),
            }
            for face in choose(photo, found, self._all_faces)
        ]


def choose(
    photo: np.ndarray, found: list[np.ndarray], all_faces: bool
) -> list[np.ndarray]:
    """Landmarks of the faces to take of those in a photo: all, or the largest.

    Raises:
      UserError: the square of one is not inside of the photo.
    """
    faces = found if all_faces else [align.largest(found)]
    for face in faces:
        align.expect_inside(photo, align.quad(face))
    return faces


def cut_all(
    paths: Sequence[pathlib.Path],
    *,
    is_aligned: bool,
    resolution: Size,
    encoded_size: Size | None,
    all_faces: bool = False,
) -> tuple[list[dict[str, Any]], crops.Crops]:
    """Faces of photos as of `Finder.find`, and cut out, [B, …]; see `crops.cut`.

    Raises:
      UserError: a photo cannot be read or has no face.
    """
    sizes: Any = {
        "is_aligned": is_aligned,
        "resolution": resolution,
        "encoded_size": encoded_size,
    }
    finder = Finder(all_faces=all_faces, **sizes)
    faces = [face for path in paths for face in finder.find(path)]
    return faces, crops.crop(faces, **sizes)


def _whole(
    photo: np.ndarray, resolution: Size | None, encoded_size: Size | None
) -> np.ndarray:
    """Corners [4, 2] of a whole photo; pixels have their centres at integers.

    Bars above and below, where a generator of squares has them, belong to it.

    Raises:
      UserError: the photo has another shape than a generator's images.
    """
    height, width, _ = photo.shape
    rows, columns = resolution if isinstance(resolution, tuple) else (1, 1)
    bar = 0.0
    if isinstance(encoded_size, tuple):
        # Any photo is resized to what the encoder takes.
        wide = encoded_size[1] / encoded_size[0] * (rows / columns)
        bar = max(0.0, height * (wide - 1) / 2)
    elif abs(height * columns - width * rows) > (rows != columns) * max(rows, columns):
        shape = "square crop"
        if rows != columns:
            shape = f"crop of the shape {spaces.describe_size((rows, columns))}"
        raise UserError(
            f"expected a {shape} without align, found {width}×{height} pixels"
        )
    top, bottom = -bar, height + bar
    return np.array([(0, top), (0, bottom), (width, bottom), (width, top)]) - 0.5
