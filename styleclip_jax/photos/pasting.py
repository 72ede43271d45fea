"""Pasting of edited faces into the photos that styleclip-invert took them from."""

import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from styleclip_jax import documents
from styleclip_jax.errors import UserError
from styleclip_jax.io import files
from styleclip_jax.ops import pixels
from styleclip_jax.photos import align, crops

# File of faces that styleclip-invert writes beside its latents.
RECORD = "aligned.json"


def read_faces(latents: str | None, count: int) -> list[dict[str, Any]]:
    """Reads the photo and square of each latent of a file of styleclip-invert.

    Args:
      latents: file of latents; None for seeds.
      count: number of its latents.

    Raises:
      UserError: the file is not of styleclip-invert, or a photo is gone.
    """
    path = pathlib.Path(latents or "").parent / RECORD
    if latents is None or not path.is_file():
        raise UserError(
            f"paste: expected latents of styleclip-invert with {RECORD} beside it, "
            f"found {latents or 'none'}",
            field="paste",
            also=["latents"],
        )
    faces: list[dict[str, Any]] = read_record(path)["faces"]
    if len(faces) != count:
        raise UserError(
            f"paste: expected {count} faces in {path}, one for each latent, "
            f"found {len(faces)}",
            field="paste",
        )
    for face in faces:
        # Unlike that of pathlib, it takes names that no file may have.
        if not os.path.isfile(face["file"]):
            raise UserError(f"paste: {face['file']}: no such photo", field="paste")
    return faces


def read_record(path: files.Path) -> dict[str, list[Any]]:
    """Reads the record of an inversion: its "faces", and photos that were "skipped".

    Raises:
      UserError: it is damaged.
    """
    document = documents.read_object(path)
    faces, skipped = document.get("faces"), document.get("skipped", [])
    if not (
        isinstance(faces, list)
        and isinstance(skipped, list)
        and all(isinstance(face, dict) and _is_face(**face) for face in faces)
    ):
        raise UserError(f"{path}: expected faces with a file and a quad [4, 2] each")
    return {"faces": faces, "skipped": skipped}


def _is_face(
    *, file: Any = None, quad: Any = None, max_pixels: Any = 1, **_: Any
) -> bool:
    try:
        corners = np.array(quad, np.float64)
    except (OverflowError, TypeError, ValueError):
        return False
    is_square = corners.shape == (4, 2) and bool(np.isfinite(corners).all())
    return isinstance(file, str) and type(max_pixels) is int and is_square


def paste(path: files.Path, face: dict[str, Any], image: np.ndarray) -> None:
    """Writes the photo of a face with the edited image [H, W, 3] in [-1, 1] in it."""
    photo = crops.read(face)
    edited = align.paste(photo, pixels.to_uint8(image), np.array(face["quad"]))
    with files.new_file(path) as temporary:
        Image.fromarray(edited).save(temporary)
