"""Pictures that the small CLIP learns from: drawings, the generator's, and moves."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np

from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.ops import pixels
from styleclip_jax.toy import attributes

from . import common, generator_stage

# Frequencies of attributes in moves, 1 for the others: those that edits are for, and
# those that are slow to follow (hair styles) or that edits lose most (backgrounds).
_MOVE_WEIGHTS = {
    "hair_style": 3.0,
    "background": 2.5,
    "hair_color": 1.5,
    "mouth": 1.5,
    "facial_hair": 1.5,
}
_WEIGHTS = np.array([_MOVE_WEIGHTS.get(name, 1.0) for name in attributes.ATTRIBUTES])
_MOVE_CHANCES = _WEIGHTS / _WEIGHTS.sum()


def drawn(
    workdir: pathlib.Path, count: int, *, resolution: int, seed: int
) -> common.Arrays:
    """Drawings of which half lie between two faces, and the vectors of what they show.

    The pictures are [N, H, W, 3] uint8.
    """
    images, vectors = common.drawn_pairs(workdir, count, seed=2, resolution=resolution)
    blend = jax.jit(common.between)
    pictures, shown = [], []
    for start in range(0, len(images), 1000):
        key = jax.random.fold_in(jax.random.key(seed), start)
        part = slice(start, start + 1000)
        image, vector = blend(key, common.to_float(images[part]), vectors[part])
        pictures.append(np.asarray(pixels.to_uint8(image, rounding="torch")))
        shown.append(np.asarray(vector))
    return np.concatenate(pictures), np.concatenate(shown)


def generated(
    workdir: pathlib.Path, generator: Network, count: int, *, seed: int
) -> common.Arrays:
    """The generator's pictures of perturbed faces, as `drawn` gives drawings."""

    def make() -> common.Arrays:
        rng = np.random.default_rng(seed)
        faces = [attributes.sample_face(rng) for _ in range(count)]
        vectors = np.stack([attributes.to_vector(face) for face in faces])
        rows, shown = perturb(vectors, generator.config, seed)
        return render(generator, rows), shown

    return common.kept(workdir / f"generated_{seed}_{count}.npz", make)


def moves(
    workdir: pathlib.Path, generator: Network, count: int, *, seed: int
) -> common.Arrays:
    """The generator's pictures before and after a small move in W+.

    Returns:
      Pictures [N, 2, H, W, 3] uint8, and vectors [N, 2, VECTOR_SIZE] of what they
      show, with NaN for the attributes of which nobody can say that; see `move`.
    """

    def make() -> common.Arrays:
        rows, shown = move(count, generator.config, seed)
        images = [render(generator, rows[:, side]) for side in range(2)]
        return np.stack(images, axis=1), shown

    return common.kept(workdir / f"moves_{seed}_{count}.npz", make)


def render(generator: Network, rows: np.ndarray) -> np.ndarray:
    """Pictures, uint8, of rows [N, L, VECTOR_SIZE] of vectors."""
    latents = np.asarray(
        generator_stage.to_w(rows.astype(np.float32), generator.config.w_dim)
    )
    w_plus = generator.params["mapping"]["w_avg"] + latents
    finish = functools.partial(pixels.to_uint8, rounding="torch")
    return common.render(generator, w_plus, finish, size=100)


def perturb(
    vectors: np.ndarray, config: stylegan2.GeneratorConfig, seed: int
) -> common.Arrays:
    """Rows [N, L, VECTOR_SIZE] around faces, and the vectors of what they show.

    Each attribute stays, is pulled a little towards another face's, or by any share,
    and the vector says how far. Rows differ, and there is noise of a random strength.
    """
    rng = np.random.default_rng(seed)
    count, size = vectors.shape
    others = vectors[rng.permutation(count)]
    share = np.repeat(rng.uniform(0, 0.3, (count, 1)), size, axis=1)
    for part in attributes.SLICES.values():
        most = rng.choice([0.0, 0.2, 1.0], size=(count, 1), p=[0.3, 0.3, 0.4])
        share[:, part] = rng.uniform(0, most)
    shown = vectors + share * (others - vectors)
    uneven = rng.normal(size=(count, config.num_rows, 1)) * 0.1
    rows = shown[:, None] + uneven * (others - vectors)[:, None]
    strength = rng.uniform(0, 0.15, (count, 1, 1))
    rows = rows + strength * rng.normal(size=rows.shape)
    return rows, shown.astype(np.float32)


def move(count: int, config: stylegan2.GeneratorConfig, seed: int) -> common.Arrays:
    """Rows [N, 2, L, VECTOR_SIZE] before and after a move of one or two attributes.

    Half of the moves lead some of the way to other values, in all rows alike. A quarter
    does so in some rows, and a quarter leads astray, to no value: what the moved
    attributes then look like is unknown (NaN), but all others are to stay.

    Returns:
      The rows, and vectors [N, 2, VECTOR_SIZE] of what they show.
    """
    rng = np.random.default_rng(seed)
    pairs = [_change_attributes(rng) for _ in range(count)]
    first, second = (
        np.stack([attributes.to_vector(pair[side]) for pair in pairs])
        for side in range(2)
    )
    moved = np.zeros((count, attributes.VECTOR_SIZE), bool)
    for part in attributes.SLICES.values():
        changed = np.any(first[:, part] != second[:, part], axis=1)
        moved[:, part] = changed[:, None]

    kinds = rng.integers(4, size=(count, 1))
    is_even, is_astray = kinds < 2, kinds == 3
    begin = np.where(rng.random((count, 1)) < 0.5, 0, rng.uniform(0, 0.9, (count, 1)))
    end = np.minimum(begin + rng.uniform(0.04, 0.3, (count, 1)), 1)
    end = np.where(is_astray, begin, end)
    shown = np.stack([first + share * (second - first) for share in (begin, end)], 1)

    size = (count, config.num_rows, attributes.VECTOR_SIZE)
    chosen = rng.random(size[:2]) < rng.random((count, 1))
    after = np.where((is_even | chosen)[..., None], shown[:, 1:], shown[:, :1])
    total, by_row, common = rng.random((3, count, 1, 1))
    astray = by_row * rng.normal(size=size)
    astray += common * rng.normal(size=(count, 1, attributes.VECTOR_SIZE))
    after = after + 0.35 * total * astray * (moved & is_astray)[:, None]
    rows = np.stack([np.broadcast_to(shown[:, :1], size), after], axis=1)

    # Truncated latents, and noise that both sides share.
    mean = generator_stage.mean_vector()
    psi = rng.uniform(0.65, 1, (count, 1, 1, 1))
    is_attribute = np.arange(attributes.VECTOR_SIZE) < attributes.NUM_VALUES
    rows = np.where(is_attribute, mean + psi * (rows - mean), rows)
    noise = rng.uniform(0, 0.06, (count, 1, 1)) * rng.normal(size=size)
    known = np.where((moved & ~is_even)[:, None], np.nan, shown)
    return rows + noise[:, None], known.astype(np.float32)


def _change_attributes(
    rng: np.random.Generator,
) -> tuple[attributes.Face, attributes.Face]:
    """A face, and the same with another value of one or two attributes."""
    face = attributes.sample_face(rng)
    values: dict[str, Any] = {}
    count = rng.choice([1, 1, 2])
    names = rng.choice(
        list(attributes.ATTRIBUTES), count, replace=False, p=_MOVE_CHANCES
    )
    for name in names:
        others = [v for v in attributes.ATTRIBUTES[name] if v != getattr(face, name)]
        values[name] = others[rng.integers(len(others))]
    return face, dataclasses.replace(face, **values)
