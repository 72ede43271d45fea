"""Devices: which ones a batch is spread over, and how.

A one-axis mesh holds all devices. Batches are sharded along it and parameters are
replicated, so a jitted function of a batch runs as one program per device without
communication.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_AXIS = "batch"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-axis mesh over the given devices, or over all of them."""
    return Mesh(np.asarray(jax.devices() if devices is None else devices), (_AXIS,))


def over_batch(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose leading axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(_AXIS))


def shard(tree: Any, mesh: Mesh) -> Any:
    """Puts arrays onto the mesh, their leading axis spread over its devices.

    Raises:
      ValueError: a leading axis is not a multiple of the number of devices.
    """
    return jax.device_put(tree, over_batch(mesh))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a copy of every array onto each device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def pad(tree: Any, size: int) -> Any:
    """Lengthens leading axes to `size` by repeating the last row.

    A last, shorter batch then has the shape of the others and compiles nothing new.
    """

    def lengthen(array: np.ndarray) -> np.ndarray:
        missing = size - len(array)
        return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])

    return jax.tree.map(lengthen, tree)
