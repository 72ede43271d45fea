"""Common parts of the stages: data, pictures, state on disk, progress, sheets."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from PIL import Image

from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.ops import pixels
from styleclip_jax.toy import attributes, drawing

Arrays = tuple[np.ndarray, np.ndarray]


def kept(path: pathlib.Path, make: Callable[[], Arrays]) -> Arrays:
    """Two arrays from a file, which is made where there is none."""
    if not path.exists():
        logging.info("making %s", path)
        first, second = make()
        write_atomically(path, lambda p: np.savez(p, first=first, second=second))
    with np.load(path) as file:
        return file["first"], file["second"]


def drawn_faces(
    workdir: pathlib.Path, count: int, *, seed: int, resolution: int
) -> Arrays:
    """Pictures [N, H, W, 3] uint8 and vectors of random faces, kept in the workdir."""

    def make() -> Arrays:
        rng = np.random.default_rng(seed)
        return _draw([attributes.sample_face(rng) for _ in range(count)], resolution)

    return kept(workdir / f"faces_{resolution}_{seed}_{count}.npz", make)


def drawn_pairs(
    workdir: pathlib.Path, count: int, *, seed: int, resolution: int
) -> Arrays:
    """Random faces, each beside the same with some other attributes, as `drawn_faces`.

    Returns:
      Pictures [N, 2, H, W, 3] uint8 and vectors [N, 2, VECTOR_SIZE].
    """

    def make() -> Arrays:
        rng = np.random.default_rng(seed)
        pairs = [face for _ in range(count) for face in _borrow_attributes(rng)]
        images, vectors = _draw(pairs, resolution)
        return (
            images.reshape(count, 2, *images.shape[1:]),
            vectors.reshape(count, 2, -1),
        )

    return kept(workdir / f"pairs_{resolution}_{seed}_{count}.npz", make)


def _draw(faces: list[attributes.Face], resolution: int) -> Arrays:
    images = np.empty((len(faces), resolution, resolution, 3), np.uint8)
    for index, face in enumerate(faces):
        images[index] = drawing.draw(face, resolution)
    return images, np.stack([attributes.to_vector(face) for face in faces])


def _borrow_attributes(
    rng: np.random.Generator,
) -> tuple[attributes.Face, attributes.Face]:
    """A face, and the same with some attributes of another, at least one."""
    face, other = attributes.sample_face(rng), attributes.sample_face(rng)
    names = list(attributes.ATTRIBUTES)
    chosen = rng.random(len(names)) < 0.25
    chosen[rng.integers(len(names))] = True
    values = {
        name: getattr(other, name)
        for name, is_chosen in zip(names, chosen, strict=True)
        if is_chosen
    }
    return face, dataclasses.replace(face, **values)


def between(
    key: jax.Array, images: jax.Array, vectors: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Pictures of one face of each pair, or in half of the cases between the two.

    Pictures between are more often near one of them: edits begin and end there.

    Args:
      key: for the random shares.
      images: [B, 2, H, W, 3].
      vectors: [B, 2, VECTOR_SIZE].

    Returns:
      Pictures [B, H, W, 3] and vectors [B, VECTOR_SIZE].
    """
    share = jax.random.uniform(key, (len(vectors), 1), minval=-0.5, maxval=1.5)
    share = jnp.clip(share, 0, 1)
    share = share**2 * (3 - 2 * share)
    vector = vectors[:, 0] + share * (vectors[:, 1] - vectors[:, 0])
    image = images[:, 0] + share[..., None, None] * (images[:, 1] - images[:, 0])
    return image, vector


def clip_colors(images: jax.Array) -> jax.Array:
    """Pictures with all colours in [-1, 1]."""
    return jnp.clip(images, -1, 1)


def render(
    generator: Network,
    w_plus: jax.Array | np.ndarray,
    finish: Callable[[jax.Array], jax.Array] = clip_colors,
    *,
    size: int = 50,
) -> np.ndarray:
    """Pictures of W+ latents [N, L, D], so many at a time.

    Args:
      generator: that draws them.
      w_plus: latents.
      finish: makes float pictures what they are kept as.
      size: latents at a time, at most.
    """
    draw = jax.jit(lambda network, w: finish(stylegan2.synthesize(network, w)))
    parts = np.array_split(np.asarray(w_plus), -(-len(w_plus) // size))
    return np.concatenate([np.asarray(draw(generator, part)) for part in parts])


def to_float(images: np.ndarray | jax.Array) -> jax.Array:
    """uint8 pictures as float32 in [-1, 1]."""
    return pixels.to_float(jnp.asarray(images))


def batches(
    count: int, batch_size: int, *, seed: int, start: int
) -> Iterator[np.ndarray]:
    """Random indices below `count`, a function of the step wherever the run starts."""
    step = start
    while True:
        rng = np.random.default_rng((seed, step))
        yield rng.integers(count, size=batch_size)
        step += 1


def warmup_cosine(step: int, total: int, *, peak: float, hold: float = 0.0) -> float:
    """Learning rate: 100 steps of warm-up, a plateau, and half a cosine to 1 %."""
    phase = max(0.0, step / total - hold) / (1 - hold)
    return peak * min(1.0, (step + 1) / 100) * (0.505 + 0.495 * np.cos(np.pi * phase))


def write_atomically(path: pathlib.Path, write: Any) -> None:
    """Calls `write` on a temporary name in the same folder, then renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.stem}.partial{path.suffix}")
    write(temporary)
    os.replace(temporary, path)


def save_state(path: pathlib.Path, state: Any) -> None:
    """Writes a tree of arrays and numbers."""
    data = flax.serialization.to_bytes(jax.device_get(state))
    write_atomically(path, lambda p: p.write_bytes(data))


def restore_state(path: pathlib.Path, state: Any) -> Any:
    """The saved tree where there is one, otherwise the tree given."""
    if not path.exists():
        return state
    logging.info("resuming from %s", path)
    return flax.serialization.from_bytes(state, path.read_bytes())


class Progress:
    """Progress in the log: metrics, and rate and time left since the last line."""

    def __init__(self, name: str, start: int, total: int, batch_size: int) -> None:
        self._name, self._total, self._batch_size = name, total, batch_size
        self._step, self._time = start, time.monotonic()

    def log(self, step: int, **metrics: float) -> None:
        """Adds a line for so many steps done."""
        now = time.monotonic()
        rate = (step - self._step) / max(now - self._time, 1e-9)
        left = (self._total - step) / max(rate, 1e-9)
        values = " ".join(f"{key} {value:.4g}" for key, value in metrics.items())
        logging.info(
            "%s %d/%d  %s  %.1f img/s, %.1f min left",
            self._name,
            step,
            self._total,
            values,
            rate * self._batch_size,
            left / 60,
        )
        self._step, self._time = step, now


def save_sheet(path: pathlib.Path, images: np.ndarray, columns: int) -> None:
    """Writes float pictures [N, H, W, 3] in [-1, 1] as one picture, row by row."""
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for index, image in enumerate(np.asarray(images)):
        y, x = index // columns * height, index % columns * width
        sheet[y : y + height, x : x + width] = pixels.to_uint8(image)
    write_atomically(path, Image.fromarray(sheet).save)
