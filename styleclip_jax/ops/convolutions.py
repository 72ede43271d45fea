"""Convolutions: in general, of pixels, and 3×3 that keep the size.

The last have one value and several ways to compute it, and so have their derivatives;
shape and device choose. Measured: docs/measurements.md.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from styleclip_jax.ops import bilinear, products, winograd

# From here on matrix products outweigh the traffic that Winograd adds: along one axis,
# and along both. Larger images take both with fewer channels, too.
_ROWS_CHANNELS = 64
_ROWS_PIXELS = 16 * 16
_WINOGRAD_CHANNELS = 256
_LARGE_CHANNELS = 64
_LARGE_PIXELS = 128 * 128
# The same of gradients by kernels, whose direct form copies all images first.
_GRADIENT_CHANNELS = 48
_GRADIENT_PIXELS = 16 * 16
# Up to here one axis is as quick, and takes a seventh of the time to compile.
_CANVAS_PIXELS = 64 * 64
# The same of networks that look at images, whose kernels are smaller for their pixels.
_FEATURE_CHANNELS = 64
_FEATURE_PIXELS = 28 * 28
# From here on tiles of 2×2 pay, and up to here products of all neighbours of a pixel;
# so are gradients of all networks, where XLA copies kernels larger than the images.
_SMALL_TILE_PIXELS = 14 * 14
_FEW_PIXELS = 8 * 8
# Of one image alone: transformed kernels would wait in memory for as little work.
_FEW_PIXELS_OF_ONE = 14 * 14
# Up to so many pixels, products of bfloat16 are quicker than convolutions of float32.
_PRODUCTS_PIXELS = 32 * 32

# f(x, kernel, precision), where the last is highest, high or default.
Bilinear = Callable[..., jax.Array]
# Of images: [B, H, W, channels].
_Shape = tuple[int, ...]


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    padding: Any,
    precision: str,
    *,
    spread: int = 1,
    swap: bool = False,
) -> jax.Array:
    """Convolution of stride 1 of [B, H, W, I] with [h, w, I, O].

    Args:
      x: images.
      kernel: the kernel.
      padding: (before, after) of both axes.
      precision: precision of the products in float32: highest, high or default.
      spread: images have `spread` - 1 zeros inserted between pixels.
      swap: the kernel is put to XLA with its channels swapped, so that the transpose
        has them in order. For derivatives with respect to the images: XLA's quick
        kernels for CPUs take one order alone, and where JAX has swapped it, a loop on
        a CPU convolves several times as slowly.
    """
    return _convolve(
        x,
        kernel,
        window_strides=(1, 1),
        padding=padding,
        lhs_dilation=(spread, spread),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=products.precision_of(x.dtype, precision),
        swap=swap,
    )


def _convolve(
    x: jax.Array,
    kernel: jax.Array,
    *arguments: Any,
    dimension_numbers: Any,
    swap: bool,
    **options: Any,
) -> jax.Array:
    """`lax.conv_general_dilated`, with the kernel as `convolve` puts it."""
    numbers = lax.conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers)
    if swap:
        outputs, inputs, *taps = numbers.rhs_spec
        # Without the barrier XLA undoes it.
        kernel = lax.optimization_barrier(kernel.swapaxes(outputs, inputs))
        numbers = numbers._replace(rhs_spec=(inputs, outputs, *taps))
    asked: dict[str, Any] = {**options, "dimension_numbers": numbers}
    return lax.conv_general_dilated(x, kernel, *arguments, **asked)


def convolve_pixels(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    """1×1 convolution of [B, H, W, I] with a kernel for each example, [B, I, O]."""
    asked = products.precision_of(x.dtype, precision)
    return jnp.einsum("bhwi,bio->bhwo", x, kernel, precision=asked)


def with_tangent(tangent: Bilinear) -> Callable[[Bilinear], Bilinear]:
    """Decorator: f(x, kernel, precision) with derivatives of another form.

    It is linear in x and in the kernel, and takes `swap` as `convolve` does.
    """

    def decorate(function: Bilinear) -> Bilinear:
        wrapped = jax.custom_jvp(function, nondiff_argnums=(2,))

        def jvp(
            precision: str, primals: Any, tangents: Any
        ) -> tuple[jax.Array, jax.Array]:
            (x, kernel), (dx, dkernel) = primals, tangents
            y = wrapped(x, kernel, precision)
            parts = []
            # Frozen weights, or a constant input, have no part in it.
            if not isinstance(dx, SymbolicZero):
                parts.append(tangent(dx, kernel, precision, swap=True))
            if not isinstance(dkernel, SymbolicZero):
                parts.append(tangent(x, dkernel, precision))
            return y, sum(parts, start=jnp.zeros((), y.dtype))

        wrapped.defjvp(jvp, symbolic_zeros=True)
        return functools.wraps(function)(wrapped)

    return decorate


def convolve_in_general(
    x: jax.Array, kernel: jax.Array, *arguments: Any, precision: Any, **options: Any
) -> jax.Array:
    """`lax.conv_general_dilated` with derivatives as of `convolve` with `swap`.

    Args:
      x: images.
      kernel: the kernel.
      *arguments: as of that function.
      precision: as of that function.
      **options: as of that function, among them dimension_numbers.
    """

    def form(
        x: jax.Array, kernel: jax.Array, precision: Any, *, swap: bool = False
    ) -> jax.Array:
        return _convolve(
            x, kernel, *arguments, precision=precision, swap=swap, **options
        )

    def value(x: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
        return form(x, kernel, precision)

    return with_tangent(form)(value)(x, kernel, precision)


def direct_conv3x3(
    x: jax.Array, kernel: jax.Array, precision: str, *, swap: bool = False
) -> jax.Array:
    """`conv3x3` as XLA computes it."""
    return convolve(x, kernel, ((1, 1), (1, 1)), precision, swap=swap)


def conv3x3(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    """Convolution of [B, H, W, I] with [3, 3, I, O], zero padding, same size."""
    return _CONV3X3.value(x, kernel, precision)


def canvas_conv3x3(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    """`conv3x3` of StyleGAN3, whose many layers take long to compile."""
    return _CANVAS_CONV3X3.value(x, kernel, precision)


def feature_conv3x3(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    """`conv3x3` in networks that look at images, with another choice on CPUs.

    They have more pixels for the same channels than a generator, sizes that are no
    powers of two, and products of few pixels with large kernels.
    """
    return _FEATURE_CONV3X3.value(x, kernel, precision)


def _quick_conv3x3(shape: _Shape, channels: int) -> Bilinear:
    """Form of `conv3x3` for CPUs."""
    _, height, width, _ = shape
    pixels = height * width
    if not winograd.fits(height, width) or pixels < _ROWS_PIXELS:
        return direct_conv3x3
    both = _LARGE_CHANNELS if pixels >= _LARGE_PIXELS else _WINOGRAD_CHANNELS
    if channels >= both:
        return winograd.conv3x3
    return winograd.conv3x3_by_rows if channels >= _ROWS_CHANNELS else direct_conv3x3


def _quick_canvas_conv3x3(shape: _Shape, channels: int) -> Bilinear:
    """Form of `canvas_conv3x3` for CPUs."""
    form = _quick_conv3x3(shape, channels)
    is_small = form is winograd.conv3x3 and shape[1] * shape[2] < _CANVAS_PIXELS
    return winograd.conv3x3_by_rows if is_small else form


def _quick_feature_conv3x3(shape: _Shape, channels: int) -> Bilinear:
    """Form of `feature_conv3x3` for CPUs."""
    images, height, width, _ = shape
    pixels, whole = height * width, winograd.fits(height, width)
    if channels >= _FEATURE_CHANNELS and pixels >= _FEATURE_PIXELS and whole:
        return winograd.conv3x3
    if channels >= _WINOGRAD_CHANNELS:
        if pixels <= (_FEW_PIXELS if images > 1 else _FEW_PIXELS_OF_ONE):
            return _conv3x3_by_product
        if pixels >= _SMALL_TILE_PIXELS and height % 2 == width % 2 == 0:
            return _conv3x3_of_small_tiles
    return direct_conv3x3


_conv3x3_of_small_tiles = functools.partial(winograd.conv3x3, tile=2)


def _conv3x3_by_product(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    """`conv3x3` as one product of all neighbours of a pixel."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    around = [
        x[:, row : row + height, column : column + width]
        for row in range(3)
        for column in range(3)
    ]
    flat, asked = kernel.reshape(-1, kernel.shape[3]), lax.Precision(precision)
    return products.dot(jnp.concatenate(around, axis=3), flat, precision=asked)


def _gradient(
    form: Bilinear, g: jax.Array, kernel: jax.Array, precision: str
) -> jax.Array:
    """Gradient [B, H, W, I] of a form of `conv3x3` by the images."""
    x = jax.ShapeDtypeStruct((*g.shape[:3], kernel.shape[2]), g.dtype)
    return jax.linear_transpose(lambda x: form(x, kernel, precision), x)(g)[0]


_direct_gradient = functools.partial(
    _gradient, functools.partial(direct_conv3x3, swap=True)
)


def _kernel_gradient(
    x: jax.Array, g: jax.Array, precision: str, *, form: Bilinear = direct_conv3x3
) -> jax.Array:
    """Gradient [3, 3, I, O] of a form of `conv3x3` by the kernel."""
    kernel = jax.ShapeDtypeStruct((3, 3, x.shape[3], g.shape[3]), g.dtype)
    return jax.linear_transpose(lambda k: form(x, k, precision), kernel)(g)[0]


def _kernel_gradient_on_cpu(x: jax.Array, g: jax.Array, precision: str) -> jax.Array:
    """The same with a quarter of the products, where products are what takes time."""
    _, height, width, inputs = x.shape
    channels = min(inputs, g.shape[3])
    large = height * width >= _GRADIENT_PIXELS
    if channels >= _GRADIENT_CHANNELS and large and winograd.fits(height, width):
        form = products.in_float32(winograd.conv3x3_kernel_gradient)
        return form(x, g, precision)
    few = _outweighs(channels, height * width)
    form = _conv3x3_by_product if few else direct_conv3x3
    return _kernel_gradient(x, g, precision, form=form)


def _outweighs(channels: int, pixels: int) -> bool:
    """Whether a kernel is so much larger than its image that copies of it count."""
    return channels >= _WINOGRAD_CHANNELS and pixels <= _FEW_PIXELS


def _define(name: str, choose: Callable[[_Shape, int], Bilinear]) -> bilinear.Forms:
    """3×3 convolution whose form on CPUs is chosen by images' shape and channels."""

    def value(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
        form = choose(x.shape, min(kernel.shape[2:]))
        form = on_cpu(x, form, _conv3x3_by_product)
        return form(x, kernel, precision)

    def gradient(g: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
        channels = min(kernel.shape[2:])
        form = choose(g.shape, channels)
        few = _outweighs(channels, g.shape[1] * g.shape[2])
        if form is _conv3x3_by_product or few:
            # Its kernel stays as it is, where `direct_conv3x3` copies it in order.
            return _gradient(_conv3x3_by_product, g, kernel, precision)
        if form is direct_conv3x3:
            return _direct_gradient(g, kernel, precision)
        # As the convolution that it is, by Winograd's algorithm, too.
        return products.in_float32(form)(g, kernel, precision, transposed=True)

    return bilinear.define_convolution(
        name,
        default=bilinear.Forms(direct_conv3x3, _direct_gradient, _kernel_gradient),
        cpu=bilinear.Forms(value, gradient, _kernel_gradient_on_cpu),
    )


_CONV3X3 = _define("conv3x3", _quick_conv3x3)
_CANVAS_CONV3X3 = _define("canvas_conv3x3", _quick_canvas_conv3x3)
_FEATURE_CONV3X3 = _define("feature_conv3x3", _quick_feature_conv3x3)


def on_cpu(x: jax.Array, form: Bilinear, by_product: Bilinear) -> Bilinear:
    """Form for CPUs: of float32 the given one, in which bfloat16 is computed, too.

    XLA's convolutions of bfloat16 are no quicker; products of few pixels are.
    """
    if x.dtype == jnp.float32:
        return form
    few = x.shape[1] * x.shape[2] <= _PRODUCTS_PIXELS
    if few and products.cpu_multiplies_bfloat16():
        return by_product
    return products.in_float32(form)
