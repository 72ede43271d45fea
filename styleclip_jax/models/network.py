"""Network as one value: what is learned, beside what is fixed."""

from typing import Any, Generic, TypeVar

import flax.struct

Config = TypeVar("Config", covariant=True)


@flax.struct.dataclass
class Network(Generic[Config]):
    """Network: parameters and the configuration that gives them meaning.

    A pytree of the parameters alone: under `jax.jit` new parameters of the same shapes
    reuse the compiled program, while another configuration compiles another one.

    Attributes:
      params: tree of arrays.
      config: hashable static architecture, a frozen dataclass.
    """

    params: Any
    config: Config = flax.struct.field(pytree_node=False)
