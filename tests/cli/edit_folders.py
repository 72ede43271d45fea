"""Folders of edits as styleclip-edit leaves them, for tests of what reads them."""

import json
import pathlib
from typing import Any

import numpy as np

from styleclip_jax import loading, places
from styleclip_jax.io import checkpoints, latent_files, tables
from tests import tiny

LAYOUT = tiny.GENERATOR.style_layout


def write_edits(
    folder: pathlib.Path,
    original: np.ndarray,
    edited: np.ndarray,
    lines: list[dict[str, Any]],
    *,
    generator: str | None,
    clip_name: str | None,
    layout: Any = LAYOUT,
    **flags: Any,
) -> str:
    """A folder as styleclip-edit leaves it."""
    folder.mkdir()
    space = "s" if original.ndim == 2 else "w_plus"
    suffix = ".npz" if space == "s" else ".npy"
    for name, array in (("original", original), ("edited", edited)):
        latent_files.write(
            folder / (name + suffix), latent_files.Latents(array, space), layout
        )
    numbered = [{"index": i, "row": i, **line} for i, line in enumerate(lines)]
    (folder / "metrics.jsonl").write_text("".join(map(tables.json_line, numbered)))
    defaults = {"l2_lambda": 0.008, "neutral": "a dog", "prompt": "a cat"}
    defaults |= {"num_channels": None, "beta": ["auto"], "mapper": None}
    record = {
        "program": "styleclip-edit",
        "flags": defaults | {"generator": generator, "clip": clip_name} | flags,
        "inputs": {
            "generator": checkpoints.fingerprint(places.find("generator", generator)),
            "clip": loading.clip_fingerprint(clip_name),
        },
    }
    (folder / "run.json").write_text(json.dumps(record))
    return str(folder)
