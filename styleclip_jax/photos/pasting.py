"""Pasting of edited faces into the photos that styleclip-invert took them from."""

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from styleclip_jax import documents
from styleclip_jax.errors import UserError
from styleclip_jax.io import files
from styleclip_jax.ops import pixels
from styleclip_jax.photos import align, crops, turning

# File of faces that styleclip-invert writes beside its latents.
RECORD = "aligned.json"
# Largest coordinate of a point, and most corners of an outline.
_FAR, _MAX_CORNERS = 1e9, 1000


def read_faces(
    latents: str | None, count: int, mask: str | None = None
) -> list[dict[str, Any]]:
    """Reads the photo and square of each latent of a file of styleclip-invert.

    Args:
      latents: file of latents; None for seeds.
      count: number of its latents.
      mask: how they are to be pasted, as `Extras.paste_mask` has it.

    Raises:
      UserError: the file is not of styleclip-invert, a photo is gone, or a face has no
        outline for the mask.
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
        if mask == "face" and face.get("outline") is None:
            raise UserError(
                f"paste_mask: expected faces with an outline, found none of "
                f"{face['file']} in {path}; invert it again with align",
                field="paste_mask",
                also=["align"],
            )
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
    *,
    file: Any = None,
    quad: Any = None,
    outline: Any = None,
    max_pixels: Any = 1,
    **_: Any,
) -> bool:
    corners = _points(quad)
    if not (isinstance(file, str) and type(max_pixels) is int):
        return False
    if corners is None or corners.shape != (4, 2):
        return False
    found = corners if outline is None else _points(outline)
    return found is not None and 3 <= len(found) <= _MAX_CORNERS


def _points(value: Any) -> np.ndarray | None:
    """Points [N, 2] of a document; None where it has none, or some that are far off."""
    try:
        found = np.array(value, np.float64)
    except (OverflowError, TypeError, ValueError):
        return None
    is_near = found.ndim == 2 and bool((abs(found) < _FAR).all())
    return found if is_near and found.shape[1] == 2 else None


def paste(
    path: files.Path,
    faces: Sequence[dict[str, Any]],
    edited: Iterable[tuple[np.ndarray, np.ndarray | None]],
    *,
    mask: str | None = None,
) -> None:
    """Writes a photo with edits of its faces in it.

    Args:
      path: file to make.
      faces: faces of one photo, of `read_faces`.
      edited: edit of each, [H, W, 3] in [-1, 1] or uint8, and the same generated as
        its face lies in the photo, see `turning`; None where a crop is warped.
      mask: as `Extras.paste_mask` has it.
    """
    photo = crops.read(faces[0])
    for face, (image, turned) in zip(faces, edited, strict=True):
        outline = np.array(face["outline"]) if mask == "face" else None
        quad = np.array(face["quad"])
        if turning.transform(quad) is None:
            turned = None
        image = pixels.to_uint8(image)
        photo = align.paste(photo, image, quad, turned=turned, outline=outline)
    with files.new_file(path) as temporary:
        Image.fromarray(photo).save(temporary)
