"""Parameter trees: nested, or flat with names such as "mapping/fc0/kernel"."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import traced

# Shape of every parameter by its flat name.
Shapes = Mapping[str, tuple[int, ...]]
Config = TypeVar("Config")


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """One dict with "/" in its names out of nested ones; flat ones stay as they are."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts out of one with "/" in its names; undoes `flatten`."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return nested


def changed(params: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested parameters with differences added in float32, by flat name."""
    flat = flatten(params)
    flat |= {name: flat[name] + x.astype(jnp.float32) for name, x in changes.items()}
    return unflatten(flat)


def shapes_of(
    init: Callable[[jax.Array, Config], Any], config: Config
) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its flat name, without computing any.

    Args:
      init: (PRNG key, configuration) → nested parameters.
      config: the configuration, the same for all keys.
    """

    def trace(config: Config) -> dict[str, tuple[int, ...]]:
        tree = jax.eval_shape(lambda: init(jax.random.key(0), config))
        return {name: leaf.shape for name, leaf in flatten(tree).items()}

    found = traced.recall(f"shapes of {init.__module__}", trace, config)
    return {name: tuple(shape) for name, shape in found.items()}


class Differences(NamedTuple):
    """Names in which tensors differ from a table of shapes; all empty if they fit.

    Attributes:
      missing: names of the table without a tensor.
      surplus: names of tensors that the table does not have.
      misshapen: names of both, with other shapes.
    """

    missing: list[str]
    surplus: list[str]
    misshapen: list[str]


def differences(tensors: Mapping[str, Any], shapes: Shapes) -> Differences:
    """Compares tensors by flat name with the shapes that they should have."""
    return Differences(
        missing=[name for name in shapes if name not in tensors],
        surplus=[name for name in tensors if name not in shapes],
        misshapen=[
            name
            for name, shape in shapes.items()
            if name in tensors and np.shape(tensors[name]) != tuple(shape)
        ],
    )
