"""Bilinear operations whose derivatives and forms by platform are said.

JAX makes the gradient of an operation by transposing how it is computed, and a
`custom_vjp` has no forward mode. A primitive has both modes, any order, and batches.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
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
    for platform, form in {None: default, "cpu": cpu}.items():
        lowering = mlir.lower_fun(form, multiple_results=False)
        mlir.register_lowering(primitive, lowering, platform=platform)
    return primitive.bind
