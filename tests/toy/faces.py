"""Drawn faces that no network was trained on."""

import functools

import numpy as np

from styleclip_jax.toy import attributes, drawing


@functools.cache
def sample(count: int = 300, seed: int = 0) -> list[attributes.Face]:
    """Random faces; not to be changed."""
    rng = np.random.default_rng(seed)
    return [attributes.sample_face(rng) for _ in range(count)]


def draw(faces: list[attributes.Face]) -> np.ndarray:
    """Pictures [B, 64, 64, 3] uint8."""
    return np.stack([drawing.draw(face, 64) for face in faces])


def to_vectors(faces: list[attributes.Face]) -> np.ndarray:
    """What a face is made from, [B, VECTOR_SIZE]."""
    return np.stack([attributes.to_vector(face) for face in faces])


def held_out(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and vectors to measure networks with."""
    made = sample(count, seed=99)
    return draw(made), to_vectors(made)
