"""What convolutions choose equals the plain form, derivatives too."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from styleclip_jax.ops import convolutions, norms, products, upsampling, winograd
from tests import tiny

WINOGRAD = (
    winograd.conv3x3,
    functools.partial(winograd.conv3x3, tile=2),
    winograd.conv3x3_by_rows,
)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 12)])
@pytest.mark.parametrize("function", WINOGRAD)
def test_winograd_is_a_convolution(
    function: Callable[..., jax.Array], height: int, width: int
) -> None:
    x, kernel = tiny.normal(0, 2, height, width, 3), tiny.normal(1, 3, 3, 3, 5)
    found = jax.jit(function, static_argnums=2)(x, kernel, "highest")
    expected = convolutions.direct_conv3x3(x, kernel, "highest")
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_winograd_refuses_parts_of_tiles() -> None:
    with pytest.raises(ValueError, match="multiples of 4, found 8 by 6"):
        winograd.conv3x3(jnp.zeros((1, 8, 6, 3)), jnp.zeros((3, 3, 3, 3)), "highest")
    with pytest.raises(ValueError, match="multiples of 4, found 6"):
        winograd.conv3x3_by_rows(
            jnp.zeros((1, 6, 8, 3)), jnp.zeros((3, 3, 3, 3)), "highest"
        )


PAIRS = {
    # Winograd along one axis and both, on a CPU.
    "conv3x3_by_rows": (convolutions.conv3x3, convolutions.direct_conv3x3, 16, 64),
    "conv3x3": (convolutions.conv3x3, convolutions.direct_conv3x3, 32, 256),
    # The same, then tiles of 2×2, then products of few pixels.
    "features_28": (
        convolutions.feature_conv3x3,
        convolutions.direct_conv3x3,
        28,
        64,
    ),
    "features_16": (
        convolutions.feature_conv3x3,
        convolutions.direct_conv3x3,
        16,
        256,
    ),
    "features_7": (
        convolutions.feature_conv3x3,
        convolutions.direct_conv3x3,
        7,
        256,
    ),
    # Gradients by products alone.
    "few_pixels": (convolutions.conv3x3, convolutions.direct_conv3x3, 8, 256),
    "upsample_wide": (
        upsampling.upsample_conv3x3,
        upsampling.upsample_conv3x3_by_phases,
        4,
        512,
    ),
    # With a strided gradient.
    "upsample_conv3x3": (
        upsampling.upsample_conv3x3,
        upsampling.upsample_conv3x3_by_phases,
        128,
        4,
    ),
}
# Pairs whose values are computed in one way.
SAME_VALUE = ("few_pixels", "upsample_wide", "upsample_conv3x3")


def exact(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """f(x, kernel) of exact products."""
    return lambda x, kernel: function(x, kernel, "highest")


@pytest.mark.parametrize("name", PAIRS)
def test_what_large_layers_choose_equals_the_plain_form(name: str) -> None:
    chosen, plain, size, channels = PAIRS[name]
    x = tiny.normal(0, 1, size, size, channels)
    # Results of order 1.
    kernel = tiny.normal(1, 3, 3, channels, channels) / (9 * channels) ** 0.5
    y, pull = jax.vjp(jax.jit(exact(chosen)), x, kernel)
    expected, expected_pull = jax.vjp(jax.jit(exact(plain)), x, kernel)
    assert 1e-7 < jnp.abs(y - expected).max() < 2e-4 or name in SAME_VALUE
    np.testing.assert_allclose(y, expected, atol=2e-4)
    weight = tiny.normal(2, *y.shape)
    for found, wanted in zip(pull(weight), expected_pull(weight), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("size", "products"), [(40, 0), (64, 36)])
def test_small_canvases_are_convolved_along_one_axis(size: int, products: int) -> None:
    x = jax.ShapeDtypeStruct((1, size, size, 256), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 256, 256), jnp.float32)
    program = jax.jit(exact(convolutions.canvas_conv3x3)).trace(x, kernel)
    text = program.lower(lowering_platforms=("cpu",)).as_text()
    assert text.count("stablehlo.dot_general") == products
    assert text.count("stablehlo.convolution") == (0 if products else 6)


@pytest.mark.parametrize(("images", "products"), [(1, 1), (2, 16)])
def test_kernel_of_one_small_image_is_not_transformed(
    images: int, products: int
) -> None:
    x = jax.ShapeDtypeStruct((images, 14, 14, 256), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 256, 256), jnp.float32)
    program = jax.jit(exact(convolutions.feature_conv3x3)).trace(x, kernel)
    text = program.lower(lowering_platforms=("cpu",)).as_text()
    assert text.count("stablehlo.dot_general") == products


@pytest.mark.parametrize("name", ["few_pixels", "upsample_wide"])
def test_gradients_of_small_wide_images_are_products(name: str) -> None:
    """XLA's convolutions would copy the kernel, which is larger than the image."""
    function, _, size, channels = PAIRS[name]
    x = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, channels, channels), jnp.float32)

    def gradient(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.grad(lambda x: exact(function)(x, kernel).sum())(x)

    program = jax.jit(gradient).trace(x, kernel).lower(lowering_platforms=("cpu",))
    text = program.as_text()
    assert "stablehlo.convolution" not in text
    assert "stablehlo.dot_general" in text


def test_gradients_by_wide_kernels_have_a_quarter_of_the_products() -> None:
    """Each of six batches of products has six positions of 16 tiles."""
    x = jax.ShapeDtypeStruct((1, 16, 16, 48), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 48, 48), jnp.float32)

    def gradient(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.grad(lambda k: exact(convolutions.conv3x3)(x, k).sum())(kernel)

    program = jax.jit(gradient).trace(x, kernel).lower(lowering_platforms=("cpu",))
    text = program.as_text()
    assert "stablehlo.convolution" not in text
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) == 6
    assert all("tensor<6x16x48xf32>" in line for line in products)


@pytest.mark.parametrize("name", PAIRS)
def test_forward_and_reverse_mode_compose_with_vmap(name: str) -> None:
    chosen, plain, size, channels = PAIRS[name]
    chosen, plain = exact(chosen), exact(plain)
    channels = min(channels, 8)
    x = tiny.normal(0, 2, size, size, channels)
    kernel = tiny.normal(1, 3, 3, channels, channels)

    def forward(function: object) -> jax.Array:
        def one(x: jax.Array) -> jax.Array:
            return jax.jvp(lambda x: jnp.sin(function(x[None], kernel)), (x,), (x,))[1]

        return jax.jit(jax.vmap(one))(x)

    def reverse(function: object) -> jax.Array:
        def one(x: jax.Array) -> jax.Array:
            return jax.grad(lambda x: jnp.sin(function(x[None], kernel)).sum())(x)

        return jax.jit(jax.vmap(one))(x)

    for derivative in (forward, reverse):
        np.testing.assert_allclose(derivative(chosen), derivative(plain), atol=1e-3)


@pytest.mark.parametrize(("size", "channels"), [(28, 64), (14, 256), (7, 256)])
def test_quick_forms_compose_with_vmap_and_loops(size: int, channels: int) -> None:
    x = tiny.normal(0, 2, size, size, channels)
    kernel = tiny.normal(1, 3, 3, channels, channels) / (9 * channels) ** 0.5

    def walk(function: Callable[..., jax.Array], *, loop: bool) -> jax.Array:
        def convolve(x: jax.Array) -> jax.Array:
            return function(x[None], kernel, "highest")[0]

        def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            slope = jax.grad(lambda x: jnp.sum(jnp.sin(convolve(x))))(x)
            return x + 0.1 * jax.jvp(convolve, (x,), (slope,))[1], None

        def steps(x: jax.Array) -> jax.Array:
            # JAX's own gradients are slow inside of loops.
            return lax.scan(step, x, length=2, unroll=1 if loop else 2)[0]

        return jax.jit(jax.vmap(steps))(x)

    found = walk(convolutions.feature_conv3x3, loop=True)
    expected = walk(convolutions.direct_conv3x3, loop=False)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_kernel_power_is_a_sum_of_squares() -> None:
    kernel = tiny.normal(0, 3, 3, 4, 5)
    power, pull = jax.vjp(norms.kernel_power, kernel)
    np.testing.assert_allclose(power, np.sum(kernel**2, (0, 1)), rtol=1e-5)
    weight = tiny.normal(1, 4, 5)
    np.testing.assert_allclose(*pull(weight), 2 * kernel * weight, rtol=1e-6)


def zero_insertion_fir(x: jax.Array) -> jax.Array:
    """FIR [1, 3, 3, 1] (gain 2) per axis over [B, H, W, C], padding 1."""
    taps = jnp.outer(jnp.array([1.0, 3, 3, 1]), jnp.array([1.0, 3, 3, 1])) / 16
    kernel = jnp.tile(taps[:, :, None, None], (1, 1, 1, x.shape[-1]))
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@pytest.mark.parametrize("size", [4, 5])
def test_upsampling_convolution_is_transposed_convolution_then_fir(size: int) -> None:
    x, kernel = tiny.normal(0, 2, size, size, 3), tiny.normal(1, 3, 3, 3, 4)
    # Zeros between pixels, then the flipped kernel: a transposed convolution.
    spread = lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        ((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    expected = zero_insertion_fir(spread)
    found = upsampling.upsample_conv3x3(x, kernel, "highest")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_rgb_upsampling_keeps_a_constant_inside() -> None:
    found = upsampling.upsample_rgb(jnp.ones((1, 4, 4, 3)))
    assert found.shape == (1, 8, 8, 3)
    np.testing.assert_allclose(found[:, 1:-1, 1:-1], 1)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 7)])
def test_upsampling_at_once_equals_the_phases(height: int, width: int) -> None:
    """Value, gradients by both inputs and forward mode, under vmap."""
    x = tiny.normal(0, 3, 2, height, width, 6)
    kernel = tiny.normal(1, 3, 3, 6, 5) / 54**0.5
    weight = tiny.normal(2, 3, 2, 2 * height, 2 * width, 5)

    def results(function: Callable[..., jax.Array]) -> Any:
        def one(x: jax.Array, weight: jax.Array) -> Any:
            y, pull = jax.vjp(lambda x, k: function(x, k, "highest"), x, kernel)
            turned = (jnp.sin(x), kernel[::-1])
            pushed = jax.jvp(lambda x, k: function(x, k, "highest"), turned, turned)
            return y, *pull(weight), *pushed

        return jax.jit(jax.vmap(one))(x, weight)

    found = results(upsampling.upsample_conv3x3_at_once)
    expected = results(upsampling.upsample_conv3x3_by_phases)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("instructions", [True, False])
@pytest.mark.parametrize(("height", "width"), [(4, 6), (32, 36)])
@pytest.mark.parametrize(
    "function", [convolutions.conv3x3, upsampling.upsample_conv3x3]
)
def test_bfloat16_is_rounded_once_on_cpus(
    monkeypatch: pytest.MonkeyPatch,
    function: Callable[..., jax.Array],
    height: int,
    width: int,
    instructions: bool,
) -> None:
    monkeypatch.setattr(products, "cpu_multiplies_bfloat16", lambda: instructions)
    x = tiny.normal(0, 2, height, width, 8).astype(jnp.bfloat16)
    kernel = tiny.normal(1, 3, 3, 8, 4).astype(jnp.bfloat16)
    found = jax.jit(function, static_argnums=2)(x, kernel, "highest")
    exactly = (x.astype(jnp.float32), kernel.astype(jnp.float32), "highest")
    assert found.dtype == jnp.bfloat16
    # The nine products of an upsampling are rounded before they are added.
    np.testing.assert_allclose(
        np.asarray(found, np.float32), function(*exactly), rtol=2.0**-8, atol=0.03
    )
