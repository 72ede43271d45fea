"""Training of mappers takes the official code's steps; variants, failures."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convert import mapper as convert_mapper
from styleclip_jax import loading, losses, spaces
from styleclip_jax.io import torch_files
from styleclip_jax.methods import mapper, mapper_training
from styleclip_jax.models import param_trees, stylegan2
from tests import golden_data, golden_networks, tiny
from tests.golden_data import to_nchw

RUNS = ["ranger_levels", "adam_levels_no_fine", "ranger_stylespace"]
edit = jax.jit(mapper.edit)


class Linear(NamedTuple):
    """The identity distance near some images: value + ⟨slope, image - at⟩.

    Attributes:
      value: [B].
      slope: [B, H, W, 3].
      at: [B, H, W, 3].
    """

    value: jax.Array
    slope: jax.Array
    at: jax.Array


@jax.jit
def linear_identity(
    networks: losses.Networks, source: jax.Array, image: jax.Array
) -> Linear:
    """The identity distance near `image` to the images `source`."""
    described = losses.describe_source(networks, None, source)

    def distance(image: jax.Array) -> tuple[jax.Array, jax.Array]:
        edit = losses.Edit(image, None, described, None)
        value = losses.identity_distance(networks, edit)
        return value.sum(), value

    slope, value = jax.grad(distance, has_aux=True)(image)
    return Linear(value, slope, image)


def linear_distance(networks: losses.Networks, edit: losses.Edit) -> jax.Array:
    """The identity distance of an edit whose source has a `Linear` for features."""
    value, slope, at = edit.source.identity
    return value + jnp.sum(slope * (edit.image - at), axis=(1, 2, 3))


class Run:
    """One recorded training: networks, latents, and how parameters are compared."""

    def __init__(self, name: str) -> None:
        self.case = golden_data.Case(f"mapper_trajectory/{name}")
        flags = self.case.meta["config"]
        file = torch_files.read(self.case.folder / "init_mapper.pt")
        conversion = convert_mapper.convert(file)
        self.mapper = golden_networks.network_of(conversion)
        decoder = conversion.parts[loading.DECODER]
        self.networks = golden_networks.of_trajectories().replace(
            generator=golden_networks.network_of(decoder)
        )
        self.problem = mapper_training.official(
            self.mapper.config,
            mapper_training.TrainingConfig(
                optimizer=flags["optimizer"],
                learning_rate=flags["learning_rate"],
                clip_lambda=flags["clip_lambda"],
                id_lambda=flags["id_lambda"],
                latent_l2_lambda=flags["latent_l2_lambda"],
            ),
        )
        self.text = jnp.asarray(self.case["text_feature"])
        # Tensors that hold their place in the official order say where it goes.
        numbered = {
            f"mapper.{name}": np.full(shape, place, np.float32)
            for place, (name, shape) in enumerate(self.case.meta["param_order"])
        }
        content = {**file.content, "state_dict": numbered}
        places = convert_mapper.convert(dataclasses.replace(file, content=content))
        self.order = sorted(
            places.tensors, key=lambda name: places.tensors[name].flat[0]
        )

    def batch(self, step: int) -> Any:
        latent = self.case["train_latents"][self.case["batch_indices"][step]]
        if self.mapper.config.space == "s":
            return spaces.unflatten_styles(latent, self.mapper.config.style_layout)
        return latent

    def flat(self, tree: Any, part: str = "") -> np.ndarray:
        """Parameters as the official code lists them, all or those of one name."""
        tensors = param_trees.flatten(tree)
        return np.concatenate(
            [np.asarray(tensors[n]).T.ravel() for n in self.order if n.endswith(part)]
        )


def recorder() -> optax.GradientTransformation:
    """Passes the gradient on and keeps it as state."""
    return optax.GradientTransformation(
        optax.tree.zeros_like, lambda updates, state, params=None: (updates, updates)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_training_trajectory(name: str) -> None:
    """Image and gradient of the first step, losses and parameters of all.

    The face network takes long to compile. All runs share it, as a program that gives
    the value and the gradient of the identity distance at the edited images; in the
    step stands the linear function of images that has both.
    """
    run = Run(name)
    case, problem, networks = run.case, run.problem, run.networks
    weight, distance = problem.objective["identity"]
    assert distance is losses.identity_distance
    problem = problem._replace(
        objective={**problem.objective, "identity": (weight, linear_distance)},
        optimizer=optax.chain(recorder(), problem.optimizer),
    )

    @golden_data.jit
    def step(networks: Any, state: Any, source: losses.Source) -> Any:
        return mapper_training.train_step(
            networks, state, source, run.text, problem=problem
        )

    synthesize = golden_data.jit(problem.space.synthesize)
    state, history = mapper_training.start(run.mapper.params, problem=problem), []
    for index in range(case.meta["config"]["updates"]):
        latent = run.batch(index)
        edited = edit(run.mapper.replace(params=state.params), latent)
        before, after = (synthesize(networks.generator, x) for x in (latent, edited))
        identity = linear_identity(networks, before, after)
        source = losses.Source(latent, before, identity)
        state, terms = step(networks, state, source)
        history.append(terms)
        label = f"bias_delta_after_update_{index + 1:02d}"
        if label in case:
            case.check(label, run.flat(state.params, "bias"))
        if index == 0:
            case.check("image_edited_step_0", to_nchw(after)[:1, :, ::2, ::2])
            expected, found = case["grad_step_0"], run.flat(state.optimizer[0])[::8]
            relative = np.linalg.norm(found - expected) / np.linalg.norm(expected)
            assert relative <= 1e-3
    names = {"total": "loss", "clip": "loss_clip", "l2": "loss_l2_latent"}
    for term, recorded in (names | {"identity": "loss_id"}).items():
        found, expected = [float(h[term]) for h in history], case[recorded]
        error = np.abs(found - expected).max()
        assert error <= 1e-3 * np.abs(expected).max(), (term, error)
    assert state.failed_at == -1
    delta = run.flat(state.params) - run.flat(run.mapper.params)
    case.check(f"param_delta_after_update_{state.step:02d}", delta[::8])


@functools.cache
def tiny_problem(space: str = "w_plus") -> mapper_training.Problem:
    config = mapper.of_generator(tiny.GENERATOR, space=space)
    training = mapper_training.TrainingConfig(id_lambda=0.0, learning_rate=0.05)
    return mapper_training.official(config, training)


@pytest.mark.slow
def test_mappers_trained_together_equal_mappers_trained_alone(
    networks: losses.Networks,
) -> None:
    problem, count = tiny_problem(), 2
    first = tiny.mapper_network(problem.config).params
    params = [first, jax.tree.map(lambda x: 0.6 * x, first)]
    text, latent = tiny.text_features(count), tiny.w_plus(4)
    start = functools.partial(mapper_training.start, problem=problem)
    together = jax.jit(
        functools.partial(mapper_training.train_together, problem=problem)
    )
    state = jax.vmap(start)(jax.tree.map(lambda *x: jnp.stack(x), *params))
    for _ in range(3):
        state, terms = together(networks, state, latent, text)
    assert terms["total"].shape == (count,)
    for index in range(count):
        alone = jax.tree.map(lambda x: x[None], start(params[index]))
        for _ in range(3):
            alone, expected = together(networks, alone, latent, text[index : index + 1])
        np.testing.assert_allclose(
            terms["total"][index], expected["total"][0], atol=1e-5
        )


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_parameters(
    networks: losses.Networks,
) -> None:
    problem = tiny_problem()
    step = jax.jit(functools.partial(mapper_training.train_together, problem=problem))
    params = jax.tree.map(lambda x: x[None], tiny.mapper_network(problem.config).params)
    state = jax.vmap(functools.partial(mapper_training.start, problem=problem))(params)
    text = tiny.text_features(1)
    latent = tiny.w_plus(4)
    state, _ = step(networks, state, latent, text)
    good = state.params
    for broken in (latent.at[0, 0, 0].set(jnp.nan), latent):
        state, _ = step(networks, state, broken, text)
    assert state.failed_at == 1
    jax.tree.map(np.testing.assert_array_equal, state.params, good)


def test_any_optimizer_can_take_the_place(networks: losses.Networks) -> None:
    problem = tiny_problem("s")._replace(optimizer=optax.sgd(1e3, momentum=0.9))
    styles = stylegan2.to_styles(networks.generator, tiny.w_plus(4))
    params = jax.tree.map(lambda x: x[None], tiny.mapper_network(problem.config).params)
    state = jax.vmap(functools.partial(mapper_training.start, problem=problem))(params)
    step = jax.jit(functools.partial(mapper_training.train_together, problem=problem))
    totals = []
    for _ in range(6):
        state, terms = step(networks, state, styles, tiny.text_features(1))
        totals.append(float(terms["total"][0]))
    assert totals[-1] < totals[0] - 1e-3


def test_training_settings_are_checked() -> None:
    for change in ({"optimizer": "sgd"}, {"id_lambda": -1.0}, {"learning_rate": 1e999}):
        with pytest.raises(ValueError, match=next(iter(change))):
            mapper_training.TrainingConfig(**change)
