"""Devices: which meshes are taken."""

import jax
import numpy as np
import pytest

from styleclip_jax import parallel


@pytest.mark.parametrize("place", [parallel.shard, parallel.replicate])
def test_meshes_of_explicit_axes_are_named(place) -> None:
    explicit = jax.make_mesh(
        (4,), (parallel.AXIS,), axis_types=(jax.sharding.AxisType.Explicit,)
    )
    with pytest.raises(ValueError, match=r"make_mesh makes it, found batch of .*Expl"):
        place(np.zeros((4, 2)), explicit)
    named = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))
    with pytest.raises(ValueError, match="one axis batch of the type Auto"):
        place(np.zeros((4, 2)), named)
    assert place(np.zeros((4, 2)), parallel.make_mesh()).shape == (4, 2)
