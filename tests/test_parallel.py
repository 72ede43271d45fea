"""Devices and processes: which meshes are taken, and who goes on after whom."""

import jax
import numpy as np
import pytest

from styleclip_jax import parallel
from styleclip_jax.errors import UserError
from tests import processes


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


@pytest.mark.parametrize("failing", [None, 0, 1, 2])
def test_all_processes_go_on_together_or_none_does(
    monkeypatch: pytest.MonkeyPatch, failing: int | None
) -> None:
    entered: list[int] = []

    def work(index: int) -> list[int]:
        with parallel.first_alone():
            entered.append(index)
            if index == failing:
                raise UserError("own")
        return list(entered)

    found = processes.run(monkeypatch, 3, work)
    assert entered[0] == 0
    if failing is None:
        assert [sorted(x) for x in found] == [[0, 1, 2]] * 3
        return
    told = [str(error) for error in found]
    assert told.pop(failing) == "own"
    assert ["another process refused the run" in x for x in told] == [True] * 2
