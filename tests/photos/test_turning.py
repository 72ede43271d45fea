"""Faces generated as they lie in photos are those of a warp, and sharper."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import latents
from styleclip_jax.models import generators
from styleclip_jax.ops import pixels
from styleclip_jax.photos import align, turning
from tests import tiny
from tests.squares import square

R = tiny.STYLEGAN3.replace(kernel_size=1, resolution=32, output_scale=2.0)
GREY = np.full((80, 80, 3), 128, np.uint8)
# Off the pixels' grid.
PLACE = 40.2, 39.7, 40.3
INSIDE = np.s_[26:54, 26:54]


@pytest.mark.parametrize("own", [(0.0, (0.0, 0.0)), (25.0, (0.1, -0.05))])
def test_a_face_is_generated_as_it_lies(own: Any) -> None:
    generator = generators.with_transform(tiny.generator(R), generators.placing(*own))
    w_plus, quad = tiny.w_plus(1, R), square(*PLACE, 30)
    upright = pixels.to_uint8(np.asarray(latents.render(generator, w_plus))[0])
    place = turning.transform(quad)
    assert place is not None

    def paste(place: np.ndarray) -> np.ndarray:
        turned = generators.moved(generator, jnp.asarray(place))
        shown = pixels.to_uint8(np.asarray(latents.render(turned, w_plus))[0])
        return align.paste(GREY, upright, quad, turned=shown).astype(int)[INSIDE]

    warped = align.paste(GREY, upright, quad).astype(int)[INSIDE]
    assert 0 < np.abs(paste(place) - warped).max() <= 6
    assert np.abs(paste(place.T) - warped).max() > 60


def test_a_turned_image_keeps_what_a_warp_blurs() -> None:
    quad, size = square(*PLACE, 20), 64
    place = turning.transform(quad)
    assert place is not None
    # Waves of 0.35 cycles per pixel of the photo, in all directions.
    angle = np.arange(12) * np.pi / 12
    freqs = 0.35 * PLACE[2] * np.stack([np.cos(angle), np.sin(angle)])

    def waves(points: np.ndarray) -> np.ndarray:
        phase = 2 * np.pi * points @ freqs + angle**2
        value = 128 + 10 * np.sin(phase).sum(-1)
        return np.repeat(np.rint(value)[..., None], 3, -1).astype(np.uint8)

    y, x = (np.indices((size, size)) + 0.5) / size - 0.5
    offsets = np.stack([x, y], -1)
    rotation = place[:2, :2].T
    images = waves(offsets), waves(offsets @ rotation)
    y, x = np.indices(GREY.shape[:2])
    exact = waves((np.stack([x, y], -1) - PLACE[:2]) / PLACE[2] @ rotation)

    def error(**turned: np.ndarray) -> Any:
        found = align.paste(GREY, images[0], quad, **turned)
        return np.square(found[INSIDE].astype(float) - exact[INSIDE]).mean()

    assert error(turned=images[1]) < 0.25 * error()


def test_the_warp_is_left_where_the_square_reaches_beyond() -> None:
    quad = square(*PLACE, 45)
    warped, turned = (np.full((64, 64, 3), x, np.uint8) for x in (0, 255))
    paste = functools.partial(align.paste, GREY, quad=quad, feather=0.02)
    found = paste(edited=warped, turned=turned)[..., 0].astype(int)
    assert (found[40, 22:59] == 255).all()
    assert found[40, 15] == found[40, 65] == found[15, 40] == found[65, 40] == 0
    np.testing.assert_array_equal(found[:, :11], 128)
    # A photo may end within the square.
    part = align.paste(GREY[:45, :50], warped, quad, turned=turned, feather=0.02)
    np.testing.assert_array_equal(part[:36, :40, 0], found[:36, :40])
    corner = np.array([79, 79]) + square(0, 0, 2.2, 30)
    assert align.paste(GREY, warped, corner, turned=turned).shape == GREY.shape


def test_only_turned_squares_have_a_transform() -> None:
    quad = square(*PLACE, 30)
    assert turning.transform(square(*PLACE)) is None
    mirrored, stretched = quad[[3, 2, 1, 0]], quad * (1, 1.1)
    assert turning.transform(mirrored) is turning.transform(stretched) is None


def test_only_config_r_of_stylegan3_turns() -> None:
    assert R.turns
    others = R.replace(kernel_size=3), R.replace(radial=False), tiny.GENERATOR
    assert not any(config.turns for config in others)
    with pytest.raises(ValueError, match="has no transform"):
        generators.moved(tiny.generator(), jnp.eye(3))
