"""Linen modules that take parameters as they are, without checking them in each trace.

Where a parameter is there, `flax.linen` traces its initialiser once more to compare the
shapes, which is half of the time to trace a network. Here files are checked against
`param_shapes` when they are read.
"""

from collections.abc import Callable
from typing import Any

from flax import linen as nn

from styleclip_jax.ops import convolutions, products


class _Given:
    """Base of modules whose parameters are given, except by `init`."""

    def param(
        self, name: str, init_fn: Callable[..., Any], *args: Any, **options: Any
    ) -> Any:
        """Parameter by its name; drawn by the initialiser where it is not there."""
        module: Any = self
        if module.has_variable("params", name):
            return module.get_variable("params", name)
        return super().param(name, init_fn, *args, **options)  # type: ignore[misc]


class Module(_Given, nn.Module):
    """Module of Linen."""


class Dense(_Given, nn.Dense):
    """Dense layer of Linen, with our products."""

    dot_general: Any = products.dot


class Conv(_Given, nn.Conv):
    """Convolution of Linen, whose gradient is as fast inside of loops as outside."""

    conv_general_dilated: Any = convolutions.convolve_in_general


class Embed(_Given, nn.Embed):
    """Table of features of Linen."""


class LayerNorm(_Given, nn.LayerNorm):
    """Layer norm of Linen."""
