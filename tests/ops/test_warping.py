"""Warps beside their definition, as one dense matrix for each axis and each sample."""

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax.ops import warping

# A turn by 0.4 that enlarges, shrinks, and shrinks so much that zeros are seen.
TURN = np.array([[np.cos(0.4), -np.sin(0.4), 1.3], [np.sin(0.4), np.cos(0.4), -2.1]])
PULLBACKS = np.stack(
    [TURN * np.array([s, s, 1]) for s in (0.6, 1.7, 4.0)], dtype=np.float32
)
HEIGHT, WIDTH = 19, 34


def images(height: int = HEIGHT, width: int = WIDTH, channels: int = 2) -> np.ndarray:
    shape = (len(PULLBACKS), height, width, channels)
    return np.random.RandomState(0).uniform(-1, 1, shape).astype(np.float32)


def up_matrix(size: int) -> np.ndarray:
    """Matrix [2 · (3 · size − 2), size] to halves of pixels, mirrored once."""
    mirrored = np.pad(np.eye(size), [(size - 1, size - 1), (0, 0)], "reflect")
    half, pixel = np.ogrid[: 2 * len(mirrored), : len(mirrored)]
    return 2 * warping._taps(half - 2 * pixel + 5) @ mirrored


def down_matrix(size: int) -> np.ndarray:
    pixel, sample = np.ogrid[:size, : 2 * size + 12]
    return warping._taps(sample - 2 * pixel - 1)


def by_definition(image: np.ndarray, pullback: np.ndarray) -> np.ndarray:
    height, width, _ = image.shape
    up_y, up_x = up_matrix(height), up_matrix(width)
    halves = np.einsum("yh,xw,hwc->yxc", up_y, up_x, image)
    # The first sample is 6 before the first half of a pixel, the centre half a sample
    # before the middle.
    y = np.arange(2 * height + 12)[:, None] - 5 - height
    x = np.arange(2 * width + 12) - 5 - width
    u = pullback[0] @ np.stack(np.broadcast_arrays(x, y, 2.0)).reshape(3, -1)
    v = pullback[1] @ np.stack(np.broadcast_arrays(x, y, 2.0)).reshape(3, -1)
    columns = np.arange(len(up_x)) - 3 * (width - 1)
    rows = np.arange(len(up_y)) - 3 * (height - 1)
    of_x = np.maximum(1 - np.abs(u[:, None] - columns), 0)
    of_y = np.maximum(1 - np.abs(v[:, None] - rows), 0)
    samples = np.einsum("sy,sx,yxc->sc", of_y, of_x, halves, optimize=True)
    samples = samples.reshape(len(y), len(x), -1)
    return np.einsum("hy,wx,yxc->hwc", down_matrix(height), down_matrix(width), samples)


def test_warp_is_its_definition() -> None:
    found = jax.jit(warping.warp)(images(), PULLBACKS)
    for one, image, pullback in zip(found, images(), PULLBACKS, strict=True):
        np.testing.assert_allclose(one, by_definition(image, pullback), atol=3e-5)


def test_gradient_is_the_adjoint() -> None:
    image, other = images(), images()[::-1]

    @jax.jit
    def both(image: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
        warped, pull = jax.vjp(lambda x: warping.warp(x, PULLBACKS), image)
        return warped, pull(other)[0]

    warped, gradient = both(image, other)
    np.testing.assert_allclose(
        np.vdot(warped, other), np.vdot(image, gradient), rtol=1e-4
    )


def test_whole_pixels_come_back() -> None:
    shift = np.tile(np.eye(2, 3, dtype=np.float32), (3, 1, 1))
    shift[1, :, 2], shift[2, :, 2] = (2, 3), (-4, 1)
    found = jax.jit(warping.warp)(images(), shift)
    np.testing.assert_allclose(found[0], images()[0], atol=1e-5)
    np.testing.assert_allclose(found[1, :-3, :-2], images()[1, 3:, 2:], atol=1e-5)
    np.testing.assert_allclose(found[2, :-1, 4:], images()[2, 1:, :-4], atol=1e-5)


def test_gpus_convolve_nothing() -> None:
    """XLA is slow on them at convolutions of few channels or of stretched images."""

    def logit(image: jax.Array, factor: jax.Array) -> jax.Array:
        return jnp.tanh(factor * warping.warp(image, PULLBACKS)).sum()

    def r1(image: jax.Array, factor: jax.Array) -> jax.Array:
        return jnp.square(jax.grad(logit)(image, factor)).sum()

    for function in (logit, r1, jax.grad(r1, argnums=1)):
        traced = jax.jit(function).trace(jnp.asarray(images()), jnp.float32(1))
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert "dot_general" in text
        assert "convolution" not in text


def test_offsets_and_weights_are_of_the_same_place_under_jit() -> None:
    """Some place in a large image is a whole number but for its rounding.

    A program that computes it twice may find it on either side of that number.
    """
    size = 128
    turns = np.array(
        [
            [[-0.6066589, 0.564607, 2.9971375], [-0.8220644, -0.88329166, -16.296354]],
            [[-0.45435363, 0.86910856, 3], [-0.9036394, -0.4724057, 8]],
        ],
        np.float32,
    )
    image = images(size, size, 1)[:2]

    @jax.jit
    def value_and_gradient(
        image: jax.Array, pullback: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        warped, pull = jax.vjp(lambda x: warping.warp(x, pullback), image)
        return warped, pull(warped)[0]

    for one, found, turn in zip(*value_and_gradient(image, turns), turns, strict=True):
        up, down = up_matrix(size), down_matrix(size)
        samples = down.T @ one[..., 0] @ down
        halves = np.zeros((len(up), len(up)))
        places = np.arange(2 * size + 12) - 5.0 - size
        x, y = (axis.ravel() for axis in np.meshgrid(places, places))
        column, row = turn.astype(np.float64) @ [x, y, np.full_like(x, 2)]
        for i in (np.floor(row), np.floor(row) + 1):
            for j in (np.floor(column), np.floor(column) + 1):
                weight = (1 - np.abs(row - i)) * (1 - np.abs(column - j))
                at = np.stack([i, j]).astype(int) + 3 * (size - 1)
                inside = ((at >= 0) & (at < len(up))).all(axis=0)
                parts = (weight * samples.ravel())[inside]
                np.add.at(halves, tuple(at[:, inside]), parts)
        np.testing.assert_allclose(found[..., 0], up.T @ halves @ up, atol=1e-3)
