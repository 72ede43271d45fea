"""Pasting of edited faces into the photos that styleclip-invert took them from."""

import pathlib
from typing import Any

import numpy as np
from PIL import Image

from styleclip_jax.errors import UserError
from styleclip_jax.io import files
from styleclip_jax.ops import pixels
from styleclip_jax.photos import align, photo_files

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
    faces: list[dict[str, Any]] = files.read_json(path).get("faces", [])
    if len(faces) != count:
        raise UserError(
            f"paste: expected {count} faces in {path}, one for each latent, "
            f"found {len(faces)}",
            field="paste",
        )
    for face in faces:
        if not pathlib.Path(face["file"]).is_file():
            raise UserError(f"paste: {face['file']}: no such photo", field="paste")
    return faces


def paste(path: files.Path, face: dict[str, Any], image: np.ndarray) -> None:
    """Writes the photo of a face with the edited image [H, W, 3] in [-1, 1] in it."""
    photo = photo_files.read(pathlib.Path(face["file"]))
    edited = align.paste(photo, pixels.to_uint8(image), np.array(face["quad"]))
    with files.new_file(path) as temporary:
        Image.fromarray(edited).save(temporary)
