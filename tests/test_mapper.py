"""Mappers equal the official ones: networks, Ranger, training, files."""

import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convert import __main__, torch_files
from convert import mapper as convert_mapper
from styleclip_jax import losses, optimizers, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints
from styleclip_jax.methods import mapper, mapper_training
from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network
from tests import golden_data, test_trajectories, tiny
from tests.golden_data import to_nchw

KINDS = [
    "levels_full",
    "levels_no_coarse",
    "levels_no_fine",
    "single",
    "stylespace",
    "full_stylespace",
]
RUNS = ["ranger_levels", "adam_levels_no_fine", "ranger_stylespace"]
CHANNELS = (5, 4, 3)

apply = jax.jit(mapper.apply, static_argnames="config")
edit = jax.jit(mapper.edit, static_argnames=("config", "levels"))
similarity = jax.jit(mapper.similarity)


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


def checkpoint(case: golden_data.Case) -> torch_files.TorchFile:
    """The official checkpoint of a case, as the reader of files would give it."""
    state = {
        name.removeprefix("state/"): array
        for name, array in case.arrays.items()
        if name.startswith("state/")
    }
    content = {"state_dict": state, "opts": dict(case.meta["opts"])}
    return torch_files.TorchFile("mapper.pt", "zip", content)


@functools.cache
def load(kind: str) -> tuple[golden_data.Case, Network]:
    case = golden_data.Case(f"mapper/{kind}")
    conversion = convert_mapper.convert(checkpoint(case))
    params = checkpoints.unflatten(conversion.tensors)
    return case, Network(jax.tree.map(jnp.asarray, params), conversion.config)


def styles(count: int) -> spaces.Styles:
    rng = np.random.default_rng(1)
    return tuple(
        jnp.asarray(rng.standard_normal((count, layer.channels)), jnp.float32)
        for layer in spaces.style_layout(CHANNELS)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_steps_and_edits_of_every_kind(kind: str) -> None:
    case, network = load(kind)
    params, config = network.params, network.config
    if config.space == "w_plus":
        case.check("delta", apply(params, case["w"], config=config))
        case.check("w_hat", edit(params, case["w"], config=config))
        return
    layout = config.style_layout
    latent = tuple(case[f"s_{i:02d}"].reshape(2, -1) for i in range(len(layout)))
    delta = apply(params, latent, config=config)
    edited = edit(params, latent, config=config)
    for i, layer in enumerate(layout):
        expected = case[f"delta_{i:02d}"].reshape(2, -1)
        atol = case.meta["arrays"][f"delta_{i:02d}"]["suggested_atol"]
        np.testing.assert_allclose(delta[i], expected, rtol=0, atol=atol)
        assert np.asarray(delta[i]).any() == (config.torgb or not layer.is_torgb)
        np.testing.assert_allclose(edited[i], latent[i] + 0.1 * delta[i], atol=1e-6)


def test_architecture_is_read_off_names_shapes_and_options() -> None:
    levels = {
        "levels_full": ("coarse", "medium", "fine"),
        "levels_no_coarse": ("medium", "fine"),
        "levels_no_fine": ("coarse", "medium"),
        "single": ("single",),
    }
    for kind, expected in levels.items():
        config = load(kind)[1].config
        assert config == mapper.MapperConfig(levels=expected, w_dim=48), kind
    in_s = mapper.MapperConfig("s", channels=(24, 24, 20, 16, 8))
    assert load("stylespace")[1].config == in_s
    assert load("full_stylespace")[1].config == dataclasses.replace(in_s, torgb=True)


def test_levels_and_strength_at_inference() -> None:
    config = mapper.MapperConfig(w_dim=6)
    params, latent = (
        tiny.mapper_network(config).params,
        tiny.image(3, 18)[..., 0].reshape(3, -1, 6),
    )
    latent = latent[:, :10]
    call = functools.partial(edit, params, latent, config=config)
    delta = apply(params, latent, config=config)
    found = call(strength=0.7)
    np.testing.assert_allclose(found, latent + 0.7 * delta, atol=1e-6)
    np.testing.assert_array_equal(call(strength=0.0), latent)
    np.testing.assert_array_equal(call(levels=tuple(mapper.LEVELS)), call())
    moved = np.asarray(call(levels=("coarse", "fine")) != latent).any((0, 2))
    np.testing.assert_array_equal(moved, [True] * 4 + [False] * 4 + [True] * 2)
    with pytest.raises(ValueError, match="coarse, medium, fine, found coarse,thin"):
        mapper.edit(Network(params, config), latent, levels=["coarse", "thin"])


def test_levels_choose_style_vectors_by_their_row() -> None:
    config = mapper.MapperConfig("s", channels=CHANNELS)
    params, latent = tiny.mapper_network(config).params, styles(2)
    edited = edit(params, latent, config=config, levels=("medium",))
    for layer, before, after in zip(config.style_layout, latent, edited, strict=True):
        moved = layer.row >= 4 and not layer.is_torgb
        assert np.asarray(before != after).any() == moved, layer


def test_a_level_alone_equals_it_beside_others() -> None:
    config = mapper.MapperConfig(w_dim=6)
    alone = mapper.MapperConfig(levels=("medium",), w_dim=6)
    latent = tiny.normal(0, 2, 14, 6)
    params = tiny.mapper_network(config).params
    found = apply({"medium": params["medium"]}, latent, config=alone)
    expected = apply(params, latent, config=config)
    np.testing.assert_array_equal(found[:, 4:8], expected[:, 4:8])
    assert not found[:, :4].any()
    assert not found[:, 8:].any()


def test_latents_of_equal_rows_keep_their_signs_alone_unless_over_features() -> None:
    over_rows = mapper.MapperConfig(w_dim=6)
    over_features = dataclasses.replace(over_rows, normalize_over="features")
    params = tiny.mapper_network(over_rows).params
    w = jnp.asarray(np.random.default_rng(0).uniform(1, 3, (2, 6)), jnp.float32)
    latent = spaces.broadcast_w(w, 10)
    delta = apply(params, latent, config=over_rows)
    np.testing.assert_allclose(delta[0], delta[1], atol=1e-5)
    delta = apply(params, latent, config=over_features)
    assert jnp.abs(delta[0] - delta[1]).max() > 0.1
    # A row is edited by itself then.
    changed = latent.at[:, 5].multiply(-1)
    found = apply(params, changed, config=over_features)
    np.testing.assert_array_equal((found != delta).any((0, 2)), np.arange(10) == 5)


def test_official_sizes_and_initialisation() -> None:
    shapes = mapper.param_shapes(mapper.MapperConfig())
    assert sum(int(np.prod(s)) for s in shapes.values()) == 3 * 4 * (512**2 + 512)
    config = mapper.MapperConfig(levels=("fine",), w_dim=64)
    fine = mapper.init(jax.random.key(0), config)["fine"]
    assert 95 < fine["fc3"]["kernel"].std() < 105
    assert not fine["fc3"]["bias"].any()


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


class Run:
    """One recorded training: networks, latents, and how parameters are compared."""

    def __init__(self, name: str) -> None:
        self.case = golden_data.Case(f"mapper_trajectory/{name}")
        flags = self.case.meta["config"]
        file = torch_files.read(self.case.folder / "init_mapper.pt")
        conversion = convert_mapper.convert(file)
        self.config = conversion.config
        self.params = self._device(conversion.tensors)
        decoder = conversion.parts[convert_mapper.DECODER]
        generator = Network(self._device(decoder.tensors), decoder.config)
        self.networks = test_trajectories.networks().replace(generator=generator)
        self.problem = mapper_training.official(
            self.config,
            mapper_training.TrainingConfig(
                optimizer=flags["optimizer"],
                learning_rate=flags["learning_rate"],
                clip_lambda=flags["clip_lambda"],
                id_lambda=flags["id_lambda"],
                latent_l2_lambda=flags["latent_l2_lambda"],
            ),
        )
        self.text = jnp.asarray(self.case["text_feature"])
        source = {
            f"mapper.{name}": np.zeros(shape)
            for name, shape in self.case.meta["param_order"]
        }
        renamed = convert_mapper.rules.rename_tensors(
            convert_mapper._TABLE, source, file=name
        )
        self.order = list(renamed.origins)

    @staticmethod
    def _device(tensors: Any) -> Any:
        return jax.tree.map(jnp.asarray, checkpoints.unflatten(tensors))

    def batch(self, step: int) -> Any:
        latent = self.case["train_latents"][self.case["batch_indices"][step]]
        if self.config.space == "s":
            return spaces.unflatten_styles(latent, self.config.style_layout)
        return latent

    def flat(self, tree: Any, part: str = "") -> np.ndarray:
        """Parameters as the official code lists them, all or those of one name."""
        tensors = checkpoints.flatten(tree)
        return np.concatenate(
            [np.asarray(tensors[n]).T.ravel() for n in self.order if n.endswith(part)]
        )


def recorder() -> optax.GradientTransformation:
    """Passes the gradient on and keeps it as state."""
    return optax.GradientTransformation(
        optax.tree.zeros_like, lambda updates, state, params=None: (updates, updates)
    )


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

    @jax.jit
    def step(networks: Any, state: Any, source: losses.Source) -> Any:
        return mapper_training.train_step(
            networks, state, source, run.text, problem=problem
        )

    synthesize = jax.jit(problem.space.synthesize)
    state, history = mapper_training.start(run.params, problem=problem), []
    for index in range(case.meta["config"]["updates"]):
        latent = run.batch(index)
        edited = edit(state.params, latent, config=run.config)
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
    delta = run.flat(state.params) - run.flat(run.params)
    case.check(f"param_delta_after_update_{state.step:02d}", delta[::8])


@functools.cache
def tiny_problem(space: str = "w_plus") -> mapper_training.Problem:
    config = mapper.of_generator(tiny.GENERATOR, space=space)
    training = mapper_training.TrainingConfig(id_lambda=0.0, learning_rate=0.05)
    return mapper_training.official(config, training)


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


def test_similarity_of_steps() -> None:
    rng = np.random.default_rng(0)
    delta = rng.standard_normal((2, 5, 7)).astype(np.float32)
    found = similarity(delta)
    unit = delta / np.linalg.norm(delta, axis=-1, keepdims=True)
    for m in range(2):
        pairs = [unit[m, i] @ unit[m, j] for i in range(5) for j in range(i)]
        np.testing.assert_allclose(found.mean[m], np.mean(pairs), atol=1e-6)
        np.testing.assert_allclose(found.std[m], np.std(pairs), atol=1e-6)
    between = np.mean([unit[0, i] @ unit[1, i] for i in range(5)])
    expected = [[1, between], [between, 1]]
    np.testing.assert_allclose(found.between, expected, atol=1e-6)
    # One step for all latents, whatever its length.
    same = delta[:, :1] * np.arange(1, 6, dtype=np.float32)[:, None]
    found = similarity(same)
    np.testing.assert_allclose(found.mean, 1, atol=1e-6)
    np.testing.assert_allclose(found.std, 0, atol=1e-6)


def test_flat_steps() -> None:
    delta = styles(3)
    expected = jnp.concatenate(delta, axis=1)
    np.testing.assert_array_equal(mapper.flatten(delta), expected)
    w_plus = tiny.w_plus(3)
    np.testing.assert_array_equal(mapper.flatten(w_plus), w_plus.reshape(3, -1))


@pytest.mark.parametrize("name", ["adam_levels_no_fine", "ranger_stylespace"])
def test_converted_checkpoint_and_its_decoder_are_read_back(
    name: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = golden_data.ROOT / "mapper_trajectory" / name
    argv = ["convert", str(folder / "init_mapper.pt"), f"--output={tmp_path / 'm'}"]
    assert __main__.main(argv) == 0
    out = capsys.readouterr().out
    assert "zip file, mapper" in out
    assert "generator: stylegan2" in out
    params, config = checkpoints.load_network(
        tmp_path / "m",
        kind=mapper.KIND,
        config_type=mapper.MapperConfig,
        param_shapes=mapper.param_shapes,
    )
    run = Run(name)
    assert config == run.config
    jax.tree.map(np.testing.assert_array_equal, params, run.params)
    decoder, generator_config = checkpoints.load_network(
        tmp_path / "m" / "generator",
        kind="stylegan2",
        config_type=stylegan2.GeneratorConfig,
        param_shapes=stylegan2.param_shapes,
    )
    mapper.check_generator(config, generator_config)
    jax.tree.map(np.testing.assert_array_equal, decoder, run.networks.generator.params)


def test_options_and_tensors_that_disagree_are_refused() -> None:
    file = checkpoint(load("levels_no_fine")[0])
    file.content["opts"]["no_fine_mapper"] = False
    file.content["state_dict"]["mapper.medium_mapping.mapping.1.extra"] = np.ones(2)
    with pytest.raises(UserError) as caught:
        convert_mapper.convert(file)
    assert str(caught.value).startswith("mapper.pt: 8 missing tensors (fine/fc0/bias,")
    assert "1 surplus tensor (mapper.medium_mapping.mapping.1.extra)" in str(
        caught.value
    )
    # Without options the tensors alone say it.
    file = checkpoint(load("levels_no_fine")[0])
    bare = dataclasses.replace(file, content=file.content["state_dict"])
    assert convert_mapper.convert(bare).config.levels == ("coarse", "medium")


def test_a_missing_style_vector_is_refused() -> None:
    file = checkpoint(load("stylespace")[0])
    for name in list(file.content["state_dict"]):
        if name.startswith(("mapper.mapper_3.", "mapper.mapper_5.")):
            del file.content["state_dict"][name]
    with pytest.raises(UserError, match="every resolution up to 64², found none of 8²"):
        convert_mapper.convert(file)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"space": "w"}, "space must be one of w_plus, s"),
        ({"levels": ("fine", "coarse")}, "in this order"),
        ({"levels": ("single", "fine")}, "single alone"),
        ({"levels": ()}, "found none"),
        ({"levels": ("coarse", "thin")}, "found coarse,thin"),
        ({"torgb": True}, "are for s"),
        ({"space": "s"}, "channels must be those of the generator"),
        ({"space": "s", "channels": (4,), "levels": ("fine",)}, "its own network"),
        ({"num_layers": 0}, "must be positive"),
        ({"normalize_over": "all"}, "one of rows, features, found 'all'"),
    ],
)
def test_configurations_are_checked(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        mapper.MapperConfig(**change)


def test_mappers_of_other_generators_are_refused() -> None:
    generator = tiny.GENERATOR
    with pytest.raises(ValueError, match="some of coarse for a generator of 4 rows"):
        mapper.of_generator(generator, levels=("coarse", "fine"))
    config = mapper.MapperConfig(levels=("coarse",), w_dim=13)
    with pytest.raises(ValueError, match="rows of 12, found one for 13"):
        mapper.check_generator(config, generator)
    config = mapper.MapperConfig("s", channels=CHANNELS)
    with pytest.raises(ValueError, match=r"channels \(10, 8\), found one for"):
        mapper.check_generator(config, generator)
    config = mapper.MapperConfig(w_dim=13)
    with pytest.raises(ValueError, match=r"\[B, L, 13\], found \[2, 4, 12\]"):
        mapper.apply(Network({}, config), tiny.w_plus(2))


def test_training_settings_are_checked() -> None:
    for change in ({"optimizer": "sgd"}, {"id_lambda": -1.0}, {"learning_rate": 1e999}):
        with pytest.raises(ValueError, match=next(iter(change))):
            mapper_training.TrainingConfig(**change)
