"""Halving and strided convolution are a FIR and plain ones, in any derivative."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from styleclip_jax.ops import convolutions, downsampling, unpadded, upsampling
from tests import tiny


def _convolve(x: jax.Array, kernel: jax.Array, *arguments: object) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    precision = lax.Precision.HIGHEST
    return lax.conv_general_dilated(
        x, kernel, *arguments, dimension_numbers=numbers, precision=precision
    )


def _fir(x: jax.Array, padding: int) -> jax.Array:
    """FIR [1, 3, 3, 1] / 8 per axis of each channel, with zeros around."""
    taps = jnp.array([1.0, 3, 3, 1]) / 8
    each = jnp.einsum("h,w,io->hwio", taps, taps, jnp.eye(x.shape[-1]))
    return _convolve(x, each, (1, 1), [(padding, padding)] * 2)


def plain_downsample_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _convolve(_fir(x, 2), kernel, (2, 2), "VALID")


def plain_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _convolve(x, kernel, (1, 1), "SAME")


def plain_unpadded(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _convolve(x, kernel, (1, 1), "VALID")


def plain_upsample_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    turned = kernel[::-1, ::-1]
    return 4 * _fir(_convolve(x, turned, (1, 1), [(2, 2)] * 2, (2, 2)), 1)


PAIRS = {
    "downsample_conv3x3": (downsampling.downsample_conv3x3, plain_downsample_conv3x3),
    "conv3x3": (convolutions.conv3x3, plain_conv3x3),
    "feature_conv3x3": (convolutions.feature_conv3x3, plain_conv3x3),
    "unpadded": (unpadded.convolve, plain_unpadded),
    "upsample_conv3x3": (upsampling.upsample_conv3x3, plain_upsample_conv3x3),
}


def test_halving_is_the_fir_at_every_second_pixel() -> None:
    x = tiny.normal(0, 2, 6, 4, 3)
    expected = _fir(x, 1)[:, ::2, ::2]
    np.testing.assert_allclose(downsampling.downsample(x), expected, atol=1e-6)
    constant = downsampling.downsample(jnp.ones((1, 8, 8, 1)))
    np.testing.assert_allclose(constant[:, 1:-1, 1:-1], 1)


@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize("name", PAIRS)
def test_gradients_of_gradients_equal_those_of_plain_convolutions(
    monkeypatch: pytest.MonkeyPatch, name: str, winograd: bool
) -> None:
    if winograd:
        for kind in ("ROWS", "WINOGRAD", "FEATURE", "GRADIENT"):
            monkeypatch.setattr(convolutions, f"_{kind}_CHANNELS", 1)
        for kind in ("ROWS", "FEATURE", "GRADIENT"):
            monkeypatch.setattr(convolutions, f"_{kind}_PIXELS", 1)
    chosen, plain = PAIRS[name]
    x = tiny.normal(0, 2, 4, 4, 6)
    kernel = tiny.normal(1, 3, 3, 6, 5) / 54**0.5

    def exact(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return chosen(x, kernel, "highest")

    def results(function: Callable[..., jax.Array]) -> list[jax.Array]:
        def value(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(function(x, kernel)))

        def penalty(x: jax.Array, kernel: jax.Array) -> jax.Array:
            """As R1 and path lengths have it, and by the kernel, too."""
            of_x, of_kernel = jax.grad(value, (0, 1))(x, kernel)
            return jnp.sum(of_x**2) + jnp.sum(of_kernel**2)

        first = jax.grad(value, (0, 1))(x, kernel)
        return [function(x, kernel), *first, *jax.grad(penalty, (0, 1))(x, kernel)]

    found, expected = jax.jit(lambda: (results(exact), results(plain)))()
    for a, b in zip(found, expected, strict=True):
        assert jnp.abs(a - b).max() <= 2e-4 * jnp.abs(b).max()


def test_batches_of_images_and_kernels_keep_their_derivatives() -> None:
    x, kernel = tiny.normal(0, 3, 2, 6, 6, 4), tiny.normal(1, 3, 3, 3, 4, 2)

    def gradients(function: Callable[..., jax.Array], axis: int | None) -> object:
        def of_both(x: jax.Array, kernel: jax.Array) -> object:
            return jax.grad(lambda *y: jnp.sin(function(*y)).sum(), (0, 1))(x, kernel)

        given = kernel if axis == 0 else kernel[0]
        return jax.jit(jax.vmap(of_both, in_axes=(0, axis)))(x, given)

    def exact(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return downsampling.downsample_conv3x3(x, kernel, "highest")

    for axis in (0, None):
        found, expected = (
            gradients(exact, axis),
            gradients(plain_downsample_conv3x3, axis),
        )
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
