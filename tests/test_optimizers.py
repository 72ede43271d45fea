"""Optimizers: Ranger takes the official steps, and the ramp is the official one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from styleclip_jax import optimizers
from tests import golden_data


def test_ranger_alone() -> None:
    case = golden_data.Case("mapper_trajectory/ranger_unit")
    names = [f"p{i}" for i in range(4)]
    # Centralization keeps the axis of the outputs: first in PyTorch, last here.
    params = {n: jnp.moveaxis(case[n], 0, -1) for n in names}
    for setting, options in case.meta["config"].items():
        options = dict(options)
        optimizer = optimizers.ranger(options.pop("lr"), **options)
        update = jax.jit(optimizer.update)
        p, state = params, optimizer.init(params)
        kept = []
        for step in range(20):
            gradient = {n: jnp.moveaxis(case[f"g{n[1]}"][step], 0, -1) for n in names}
            updates, state = update(gradient, state, p)
            p = optax.apply_updates(p, updates)
            kept.append({n: np.moveaxis(np.asarray(x), -1, 0) for n, x in p.items()})
        for n in names:
            case.check(f"{setting}_{n}", np.stack([k[n] for k in kept]))


def test_first_step_has_rate_zero() -> None:
    rate = optimizers.ramped(0.1, 40)
    assert rate(0) == 0
    np.testing.assert_allclose(rate(2), 0.1, rtol=1e-6)
    np.testing.assert_allclose(rate(20), 0.1, rtol=1e-6)
    np.testing.assert_allclose(rate(35), 0.05, rtol=1e-5)


def test_ramps_can_be_left_out() -> None:
    rate = optimizers.ramped(0.1, 40, ramp_up=0, ramp_down=0)
    np.testing.assert_array_equal([rate(0), rate(39)], np.float32([0.1, 0.1]))
    rate = optimizers.ramped(0.1, 40, ramp_up=0)
    np.testing.assert_allclose([rate(0), rate(35)], [0.1, 0.05], rtol=1e-5)
