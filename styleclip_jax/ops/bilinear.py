"""Linear and bilinear operations whose derivatives and forms by platform are said.

JAX makes the gradient of an operation by transposing how it is computed, and a
`custom_vjp` has no forward mode. A primitive has both modes, any order, and batches.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

# f(x, y, **static) → array.
Form = Callable[..., jax.Array]


def define(
    name: str,
    *,
    static: str,
    default: Form,
    cpu: Form,
    of_x: Form,
    of_y: Form,
    batched: Callable[..., jax.Array],
) -> Form:
    """Operation f(x, y, **static) that is linear in x and in y.

    Args:
      name: name of the primitive.
      static: name of its only static argument.
      default: the operation as it is computed.
      cpu: the same as CPUs compute it.
      of_x: gradient (g, y, **static) by x, for g like the result.
      of_y: gradient (x, g, **static) by y.
      batched: operation (x, y, axes, **static) for a batch along an axis of x, of y,
        None for one that has none; the result has it in front.
    """
    primitive = Primitive(name)

    def shape(x: Any, y: Any, **options: Any) -> Any:
        found = jax.eval_shape(lambda x, y: default(x, y, **options), x, y)
        return jax.core.ShapedArray(found.shape, found.dtype)

    def over_batch(
        factors: Sequence[Any], axes: Sequence[int | None], **options: Any
    ) -> tuple[jax.Array, int]:
        return batched(*factors, axes, **options), 0

    primitive.def_impl(jax.jit(primitive.bind, static_argnames=static))
    primitive.def_abstract_eval(shape)
    ad.defbilinear(
        primitive,
        lambda g, x, y, **options: of_x(g, y, **options),
        lambda g, x, y, **options: of_y(x, g, **options),
    )
    batching.primitive_batchers[primitive] = over_batch
    _compute(primitive, default, cpu)
    return primitive.bind


def define_linear(
    name: str, *, static: str, default: Form, cpu: Form, adjoint: Form
) -> Form:
    """Operation f(x, **static) on images, linear in x, the same for each of a batch.

    Args:
      name: name of the primitive.
      static: name of its only static argument.
      default: the operation as it is computed, of x [B, H, W, C].
      cpu: the same as CPUs compute it.
      adjoint: gradient (g, x, **static) by x, for g like the result; of x the shape
        alone is there.
    """
    primitive = Primitive(name)

    def shape(x: Any, **options: Any) -> Any:
        found = jax.eval_shape(lambda x: default(x, **options), x)
        return jax.core.ShapedArray(found.shape, found.dtype)

    def over_batch(
        operands: Sequence[Any], axes: Sequence[int], **options: Any
    ) -> tuple[jax.Array, int]:
        x = jnp.moveaxis(operands[0], axes[0], 0)
        y = primitive.bind(x.reshape(-1, *x.shape[2:]), **options)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0

    def transpose(g: Any, x: Any, **options: Any) -> list[Any]:
        return [adjoint(g, x.aval, **options)]

    primitive.def_impl(jax.jit(primitive.bind, static_argnames=static))
    primitive.def_abstract_eval(shape)
    ad.deflinear2(primitive, transpose)
    batching.primitive_batchers[primitive] = over_batch
    _compute(primitive, default, cpu)
    return primitive.bind


def _compute(primitive: Primitive, default: Form, cpu: Form) -> None:
    """Has a primitive computed by a form, on CPUs by another."""
    for platform, form in {None: default, "cpu": cpu}.items():
        lowering = mlir.lower_fun(form, multiple_results=False)
        mlir.register_lowering(primitive, lowering, platform=platform)


class Forms(NamedTuple):
    """How a convolution and its two gradients are computed.

    Attributes:
      value: (images x, kernel, precision) → images y.
      of_x: (g like y, kernel, precision) → gradient by x.
      of_kernel: (x, g like y, precision) → gradient by the kernel.
    """

    value: Form
    of_x: Form
    of_kernel: Form


def define_convolution(name: str, *, default: Forms, cpu: Forms) -> Forms:
    """Convolution whose derivatives of any order are itself or its two gradients.

    A batch of images is one of more images; one of kernels is as XLA has it.

    Args:
      name: name of its primitive, and start of those of its gradients.
      default: forms as they are computed.
      cpu: the same as CPUs compute them.
    """

    def value(x: Any, kernel: Any, precision: str) -> jax.Array:
        return primitives.value(x, kernel, precision=precision)

    def of_x(g: Any, kernel: Any, precision: str) -> jax.Array:
        return primitives.of_x(g, kernel, precision=precision)

    def of_kernel(x: Any, g: Any, precision: str) -> jax.Array:
        return primitives.of_kernel(x, g, precision=precision)

    def each_kernel(x: Any, g: Any, axes: Any, precision: str) -> jax.Array:
        return jax.vmap(lambda x, g: default.of_kernel(x, g, precision), axes)(x, g)

    primitives = Forms(
        define(
            name,
            static="precision",
            default=default.value,
            cpu=cpu.value,
            of_x=of_x,
            of_y=of_kernel,
            batched=_over_images(value, default.value),
        ),
        define(
            f"{name}_gradient",
            static="precision",
            default=default.of_x,
            cpu=cpu.of_x,
            of_x=value,
            of_y=lambda g, x, precision: of_kernel(x, g, precision),
            batched=_over_images(of_x, default.of_x),
        ),
        define(
            f"{name}_kernel_gradient",
            static="precision",
            default=default.of_kernel,
            cpu=cpu.of_kernel,
            of_x=lambda kernel, g, precision: of_x(g, kernel, precision),
            of_y=value,
            batched=each_kernel,
        ),
    )
    return Forms(value, of_x, of_kernel)


def _over_images(operation: Form, plain: Form) -> Callable[..., jax.Array]:
    """Rule for batches of an operation (images, kernel, precision)."""

    def over_batch(x: Any, kernel: Any, axes: Any, precision: str) -> jax.Array:
        if axes[1] is not None:
            return jax.vmap(lambda x, k: plain(x, k, precision), axes)(x, kernel)
        x = jnp.moveaxis(x, axes[0], 0)
        y = operation(x.reshape(-1, *x.shape[2:]), kernel, precision)
        return y.reshape(*x.shape[:2], *y.shape[1:])

    return over_batch
