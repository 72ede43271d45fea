"""Ten steps of NVIDIA's training with adaptive augmentation end where they did."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax.methods import augmentation, gan_training
from styleclip_jax.methods.augmentation import Draw
from styleclip_jax.settings.augmentation import PIPELINES, AdaptationConfig
from tests.golden_gans import ORDER, SCALE, Golden, check_nvidia_run, load

pytestmark = pytest.mark.slow

# Arrays of draws of a batch: values and chances of each transform.
NUM_ARRAYS = 2 * len(ORDER)
# Steps from one move of p to the next, and the p before the first.
INTERVAL, START = 2, 0.4


def augment(image: jax.Array, given: Any) -> jax.Array:
    probability, draws = given
    return augmentation.augment(image, probability, draws, config=PIPELINES["bgc"])


def draws_of(golden: Golden, prefix: str) -> dict[str, Draw]:
    """Draws of a phase's augmentation."""
    case, batch = golden.case, golden.case.meta["config"]["batch"]
    arrays = [case[f"{prefix}_{i:02}"] for i in range(NUM_ARRAYS)]
    # Those of the normal distribution are stored as others are.
    arrays = [x / SCALE if x.dtype == np.int8 else x for x in arrays]
    draws = {}
    for name, value, chance in zip(ORDER, arrays[::2], arrays[1::2], strict=True):
        shape = (batch, -1) if value.size > batch else (batch,)
        draws[name] = Draw(
            jnp.asarray(value.reshape(shape), jnp.float32), jnp.asarray(chance.ravel())
        )
    return draws


def test_ten_augmented_steps_end_where_nvidia_s_do() -> None:
    golden = load("nvidia_ada")
    case, start, problem = golden.case, golden.state, golden.problem
    given = case.meta["config"]
    batch = given["batch"]
    state, p, signs = start, jnp.float32(START), jnp.zeros(2)
    rule = AdaptationConfig(target=0.3, length=500)

    def jitted(phase: Any, **options: Any) -> Any:
        return jax.jit(functools.partial(phase, problem=problem, **options))

    train_generator = jitted(gan_training.train_generator, augment=augment)
    train_discriminator = jitted(gan_training.train_discriminator, augment=augment)
    regularize = jitted(gan_training.regularize_discriminator, augment=augment)
    regularize_generator = jitted(gan_training.regularize_generator)
    average = jitted(gan_training.average)
    found: dict[str, list[Any]] = {name: [] for name in problem.order}
    probabilities = []
    for step in range(given["steps"]):
        reals, prefix = golden.reals(step), f"traj.s{step:02}"

        def augmented(name: str, p: Any = p, prefix: str = prefix) -> Any:
            return p, draws_of(golden, f"{prefix}.{name}")

        for phase in gan_training.schedule(step, problem=problem):
            if phase == gan_training.GENERATOR:
                fakes = golden.draws(f"{prefix}.Gmain", batch)
                fakes = fakes._replace(augment=augmented("Gmain.aug"))
                state, figures = train_generator(state, fakes)
            elif phase == gan_training.PATHS:
                count = gan_training.path_batch(batch, problem=problem)
                fakes = golden.draws(f"{prefix}.Greg", count)
                direction = golden.direction(f"{prefix}.Greg")
                state, figures = regularize_generator(state, fakes, direction)
            elif phase == gan_training.DISCRIMINATOR:
                fakes = golden.draws(f"{prefix}.Dmain", batch)
                fakes = fakes._replace(augment=augmented("Dmain.aug"))
                seen = reals._replace(augment=augmented("Dmain.augr"))
                state, figures = train_discriminator(state, seen, fakes)
            else:
                seen = reals._replace(augment=augmented("Dreg.augr"))
                state, figures = regularize(state, seen)
            found[phase].append(figures)
            if "real_sign" in figures:
                signs += jnp.array([figures["real_sign"], 1.0]) * batch
        state = average(state, batch)
        if step % INTERVAL == INTERVAL - 1:
            p = augmentation.adjust(p, signs, batch * INTERVAL, config=rule)
            signs = jnp.zeros(2)
        probabilities.append(p)
    check_nvidia_run(golden, state, found)
    np.testing.assert_allclose(probabilities, case["traj.ada_p"], atol=1e-6)
