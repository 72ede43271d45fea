"""Zero-shot classification of image files by a CLIP."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import loading, parallel
from styleclip_jax.errors import UserError
from styleclip_jax.evaluation import metrics
from styleclip_jax.io import images
from styleclip_jax.models import clip, clip_input
from styleclip_jax.progress import Listener

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def find_images(names: Sequence[str]) -> list[pathlib.Path]:
    """Finds image files; a folder gives its files in the order of their names.

    Raises:
      UserError: a file is missing, or is no image.
    """
    found: list[pathlib.Path] = []
    for path in map(pathlib.Path, names):
        if not path.exists():
            raise UserError(f"images: {path}: no such file", field="images")
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        chosen = [p for p in inside if p.suffix.lower() in _SUFFIXES]
        if not chosen:
            raise UserError(
                f"images: {path}: expected {', '.join(_SUFFIXES)}; tar -xf unpacks "
                "shards",
                field="images",
            )
        found += chosen
    return found


_classify_batch = jax.jit(
    lambda network, image, text: metrics.zero_shot(
        network, clip.encode_image(network, image), text
    )
)


def classify(
    paths: Sequence[pathlib.Path],
    labels: Sequence[str],
    *,
    models: loading.Models,
    batch_size: int,
    listener: Listener,
) -> np.ndarray:
    """Zero-shot probabilities [N, C] of texts for images.

    Args:
      paths: [N] image files.
      labels: [C] texts.
      models: whose CLIP looks at them.
      batch_size: number of images at a time.
      listener: listener for the progress.

    Raises:
      UserError: a file is no image, or a text is too long.
    """
    network, tokenizer = models.load_clip()
    text = clip.encode_prompts(network, tokenizer, labels)
    mesh = parallel.make_mesh(jax.local_devices())
    network = parallel.replicate(network, mesh)
    size = parallel.round_up(batch_size, mesh.size)
    shares = []
    with listener.long_bar(len(paths), "image", "a smaller CLIP") as report:
        for start in range(0, len(paths), size):
            part = paths[start : start + size]
            inputs = [_prepare(path, network) for path in part]
            batch = jax.tree.map(lambda *x: np.concatenate(x), *inputs)
            padded = parallel.shard(parallel.pad(batch, size), mesh)
            found = _classify_batch(network, padded, text)
            shares.append(np.asarray(found)[: len(part)])
            report(len(part))
    return np.concatenate(shares)


def _prepare(path: pathlib.Path, network: clip.Clip) -> Any:
    """CLIP's input of an image file, a batch of one."""
    pixels = jnp.asarray(images.read(path)[None])
    prepared = clip_input.preprocess_clip_uint8(network, pixels)
    return jax.device_get(prepared)
