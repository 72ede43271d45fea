"""Crops of faces in photos: detected or given by landmarks, cut out as in FFHQ."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from styleclip_jax.errors import UserError
from styleclip_jax.io import images
from styleclip_jax.ops import pixels
from styleclip_jax.photos import align, photo_files
from styleclip_jax.progress import ignore

# Width of square images, or height and width.
Size = int | tuple[int, int]


class Crops(NamedTuple):
    """Crops: faces cut out of their photos.

    Attributes:
      target: [B, R, R, 3] in [-1, 1], R the generator's resolution.
      encoded: [B, S, S, 3] in [-1, 1], S the encoder's input size, or [B, H, W, 3];
        None without one.
    """

    target: Any
    encoded: Any


def find(
    paths: list[pathlib.Path],
    *,
    is_aligned: bool,
    landmarks_file: str | None,
    all_faces: bool,
    encoded_size: Size | None = None,
    max_pixels: int = images.MAX_PIXELS,
    tell: Callable[[str], None] = ignore,
) -> dict[str, list[Any]]:
    """Finds the faces of photos, and the photos that have none.

    Args:
      paths: photos.
      is_aligned: whether photos are square crops, each of one face.
      landmarks_file: file of landmarks by name of the photo; None to detect faces.
      all_faces: whether to take all faces of a photo, not the largest alone.
      encoded_size: input size of the encoder; one that is not square, of cars, takes
        whole photos of any shape.
      max_pixels: largest number of pixels of a photo; a larger JPEG is shrunk.
      tell: is given a line for each photo that cannot be used.

    Returns:
      "faces", each with its "file" and as "quad" the corners of its square, and
      "skipped", a line for each photo that cannot be used. Faces have "max_pixels" too
      if it is not the default, since a shrunk photo has a shrunk square.

    Raises:
      UserError: no photo has a face, there is no detector, or the landmarks cannot be
        read.
    """
    landmarks = None
    if not is_aligned and isinstance(encoded_size, tuple):
        height, width = encoded_size
        raise UserError(
            f"align: expected noalign with an encoder of whole photos of {width}×"
            f"{height}, such as of cars, found align",
            field="align",
            also=["noalign"],
        )
    if is_aligned:
        if landmarks_file is not None:
            raise UserError(
                "landmarks: expected align with it, found noalign",
                field="landmarks",
                also=["align", "noalign"],
            )
    elif landmarks_file is not None:
        landmarks = align.read_landmarks(landmarks_file)
    else:
        # A missing detector is reported at once.
        align.detect(np.zeros((16, 16, 3), np.uint8))
    faces: list[dict[str, Any]] = []
    skipped = []
    shrunk = {} if max_pixels == images.MAX_PIXELS else {"max_pixels": max_pixels}
    for path in paths:
        try:
            photo = photo_files.read(path, max_pixels)
            if is_aligned:
                quads = [_whole(photo, encoded_size)]
            else:
                quads = quads_of(
                    path,
                    photo,
                    landmarks,
                    all_faces=all_faces,
                    reduction=photo_files.reduction(path, max_pixels),
                )
        except UserError as error:
            skipped.append(f"{path}: {str(error).removeprefix(f'{path}: ')}")
            tell(f"skipped: {skipped[-1]}")
            continue
        absolute = str(path.resolve())
        faces += [{"file": absolute, "quad": x.tolist()} | shrunk for x in quads]
    if not faces:
        raise UserError(
            f"photos: expected faces, found none in {len(paths)} photos",
            field="photos",
        )
    return {"faces": faces, "skipped": skipped}


def cut_all(
    paths: list[pathlib.Path],
    *,
    is_aligned: bool,
    resolution: int,
    encoded_size: Size | None,
) -> Crops:
    """Cuts out the largest face of each photo, float32 [B, …]; see `find` and `cut`.

    Raises:
      UserError: a photo cannot be read or has no face.
    """

    def refuse(line: str) -> None:
        raise UserError(line.removeprefix("skipped: "))

    found = find(
        paths,
        is_aligned=is_aligned,
        landmarks_file=None,
        all_faces=False,
        encoded_size=encoded_size,
        tell=refuse,
    )
    return crop(
        found["faces"],
        resolution=resolution,
        encoded_size=encoded_size,
        is_aligned=is_aligned,
    )


def quads_of(
    path: pathlib.Path,
    photo: np.ndarray,
    landmarks: dict[str, list[np.ndarray]] | None,
    *,
    all_faces: bool,
    reduction: int = 1,
) -> list[np.ndarray]:
    """Squares [4, 2] of the faces of a photo.

    Args:
      path: path of the photo; its name is that in the landmarks.
      photo: [H, W, 3] uint8.
      landmarks: landmarks of each face by name of the photo; None to detect faces.
      all_faces: whether to take all faces, not the largest alone.
      reduction: factor that the photo was shrunk by, and the landmarks were not.

    Raises:
      UserError: there is no face, or one does not lie in the photo.
    """
    if landmarks is None:
        found, where = align.detect(photo), "in the photo"
    else:
        found, where = landmarks.get(path.name, []), "in the landmarks"
        if reduction > 1:
            # Whole numbers are at the centres of pixels.
            found = [(face + 0.5) / reduction - 0.5 for face in found]
    if not found:
        raise UserError(f"expected a face, found none {where}")
    quads = [align.quad(x) for x in (found if all_faces else [align.largest(found)])]
    for quad in quads:
        # The crop refuses a square that does not lie in the photo.
        align.crop(photo, quad, 8, supersampling=1)
    return quads


def _whole(photo: np.ndarray, encoded_size: Size | None) -> np.ndarray:
    """Corners [4, 2] of a whole photo; pixels have their centres at integers.

    Of an encoder of photos that are not square, its bars above and below belong to it.
    """
    height, width, _ = photo.shape
    bar = 0.0
    if isinstance(encoded_size, tuple):
        rows, columns = encoded_size
        bar = height * (columns / rows - 1) / 2
    elif height != width:
        raise UserError(
            f"expected a square crop without align, found {width}×{height} pixels"
        )
    top, bottom = -bar, height + bar
    return np.array([(0, top), (0, bottom), (width, bottom), (width, top)]) - 0.5


def crop(
    faces: list[dict[str, Any]],
    *,
    resolution: int,
    encoded_size: Size | None,
    is_aligned: bool,
) -> Crops:
    """Cuts out the faces that `find` found, float32 [B, …]; see `cut`."""
    crops = []
    for face in faces:
        quad = None if is_aligned else np.array(face["quad"])
        photo = read(face)
        crops.append(cut(photo, quad, resolution=resolution, encoded_size=encoded_size))
    return jax.tree.map(lambda *one: np.stack(one), *crops)


def read(face: dict[str, Any]) -> np.ndarray:
    """Photo [H, W, 3] uint8 of a face, in the size in which it was found.

    Raises:
      UserError: the photo cannot be read.
    """
    return photo_files.read(face["file"], face.get("max_pixels", images.MAX_PIXELS))


def cut(
    photo: np.ndarray,
    quad: np.ndarray | None,
    *,
    resolution: int,
    encoded_size: Size | None,
) -> Crops:
    """Cuts one face out of a photo.

    Parity: encoders get what the official e4e makes: the crop of its own alignment,
    without supersampling, or the whole photo by bilinear resizing. Cars, of which it
    takes 192×256, stand between black bars in what their generators make.

    Args:
      photo: [H, W, 3] uint8.
      quad: [4, 2] square of the face; None for the whole photo.
      resolution: resolution of the generator.
      encoded_size: input size of the encoder; None without one.

    Returns:
      Crops without the batch axis.
    """
    if quad is None and isinstance(encoded_size, tuple):
        rows, columns = encoded_size
        height = resolution * rows // columns
        top = (resolution - height) // 2
        target = np.zeros((resolution, resolution, 3), np.uint8)
        target[top : top + height] = resize(
            photo, (height, resolution), Image.Resampling.LANCZOS
        )
    elif quad is None:
        target = resize(photo, resolution, Image.Resampling.LANCZOS)
    else:
        target = align.crop(photo, quad, resolution)
    if not encoded_size:
        return Crops(pixels.to_float(target), None)
    if quad is None:
        encoded = resize(photo, encoded_size, Image.Resampling.BILINEAR)
    elif isinstance(encoded_size, tuple):
        raise ValueError(f"quad: expected none with {encoded_size}, found one")
    else:
        encoded = align.crop(photo, quad, encoded_size, supersampling=1)
    return Crops(pixels.to_float(target), pixels.to_float(encoded))


def resize(photo: np.ndarray, size: Size, filter_: Image.Resampling) -> np.ndarray:
    """Resizes a photo [H, W, 3] uint8 to [size, size, 3] uint8, or to height, width."""
    height, width = size if isinstance(size, tuple) else (size, size)
    return np.asarray(Image.fromarray(photo).resize((width, height), filter_))
