"""StyleGAN3 equals the official code, in parts and whole, wherever it is placed."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import stylegan3 as convert_stylegan3
from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import generator_files
from styleclip_jax.models import cutoffs, generators
from styleclip_jax.models.network import Network
from tests import golden_data, golden_networks, tiny
from tests.golden_data import to_nchw, to_nhwc

NAMES = ("t", "r_conditional")
# Layers after which the official features are known, by their names in the data.
FEATURES = {1: "feat_input", 2: "feat_layer0", 6: "feat_layer4", 11: "feat_layer9"}


@functools.cache
def load(name: str) -> tuple[golden_data.Case, Network]:
    case = golden_data.Case(f"stylegan3/{name}")
    path = f"stylegan3/{name}/{case.meta['checkpoint']}"
    return case, golden_networks.converted(convert_stylegan3.convert, path)


@functools.partial(jax.jit, static_argnames="starts")
def _compute(
    network: Network, w_plus: Any, transform: Any, weight: Any, starts: tuple[int, ...]
) -> Any:
    """Image, features on the way and gradient by W+, in one program."""

    def loss(w_plus: jax.Array) -> Any:
        styles = generators.to_styles(network, w_plus)
        done, found = None, []
        for start, stop in zip((0, *starts), (*starts, len(styles)), strict=True):
            place = transform if start == 0 else None
            done = generators.synthesize_layers(
                network, styles, done, start=start, stop=stop, transform=place
            )
            found.append(done.x)
        return jnp.sum(done.rgb * weight), (done.rgb, found[:-1])

    return jax.grad(loss, has_aux=True)(w_plus)


@pytest.mark.parametrize(
    "name", [NAMES[0], pytest.param(NAMES[1], marks=pytest.mark.slow)]
)
def test_images_features_and_gradients_are_the_official_ones(name: str) -> None:
    case, network = load(name)
    label = case["c"] if network.config.c_dim else None
    w = jax.jit(generators.map_latents)(network, case["z"], label)
    ws = spaces.broadcast_w(w, network.config.num_rows)
    case.check("ws", ws)
    w_avg = network.params["mapping"]["w_avg"]
    case.check("ws_psi0.7", spaces.truncate(ws, w_avg, 0.7))
    case.check("ws_psi0.5_cutoff4", spaces.truncate(ws, w_avg, 0.5, 4))
    w_plus = ws + case["wplus_noise"]
    styles = generators.to_styles(network, w_plus)
    case.check("styles_wplus", spaces.flatten_styles(styles))

    weight = to_nhwc(case["grad_weight"])
    compute = functools.partial(_compute, network, starts=tuple(FEATURES))
    own = network.params["synthesis"]["b16"]["input"]["transform"]
    _, (image, _) = compute(ws, own, weight)
    case.check("image", to_nchw(image))
    gradient, (image, features) = compute(w_plus, own, weight)
    case.check("image_wplus", to_nchw(image))
    case.check("image_grad_ws", gradient[:1])
    for feature, official in zip(features, FEATURES.values(), strict=True):
        case.check(official, to_nchw(feature[:1]))
    for i in range(3):
        place = case[f"transform_{i}"]
        gradient, (image, features) = compute(w_plus, place, weight)
        case.check(f"image_transform_{i}", to_nchw(image[:1]))
        if i == 0:
            case.check("image_grad_ws_transform_0", gradient[:1])
    case.check("feat_input_transform_2", to_nchw(features[0][:1]))


def test_placing_is_the_inverse_of_the_official_matrix() -> None:
    case, _ = load("t")
    found = generators.placing(25.0, (0.17, -0.08))
    np.testing.assert_allclose(found, case["transform_0"], atol=1e-6)
    found = generators.placing(-110.0, (-0.3, 0.21))
    np.testing.assert_allclose(found, case["transform_1"], atol=1e-6)


def test_schedule_gives_the_official_layers() -> None:
    for name in NAMES:
        case, network = load(name)
        layers = cutoffs.layers(network.config)
        for official, found in zip(case.meta["layers"], layers, strict=True):
            assert official["out_size"][0] == found.size
            assert official["out_channels"] == found.outputs
            if (filters := found.filters) is not None:
                assert (official["up"], official["down"]) == (filters.up, filters.down)
                assert tuple(official["padding"][:2]) == filters.padding


@functools.partial(jax.jit, static_argnames="config")
def _render(params: Any, w_plus: Any, transform: Any, config: Any) -> jax.Array:
    return generators.synthesize(Network(params, config), w_plus, transform=transform)


def test_a_translation_by_a_pixel_is_the_same_image_a_pixel_further() -> None:
    network = tiny.generator(tiny.STYLEGAN3)
    w_plus = jnp.repeat(tiny.w_plus(1, network.config), 2, axis=0)
    places = jnp.stack([generators.placing(0.0, (x / 16, 0.0)) for x in (0, 1)])
    still, moved = np.asarray(_render(network.params, w_plus, places, network.config))
    # At the borders the canvas ends, and with it what the filters see.
    inside = moved[4:-4, 5:-4], still[4:-4, 4:-5]
    np.testing.assert_allclose(*inside, rtol=0, atol=1e-6)
    assert np.abs(moved - still).max() > 1e-3


def test_each_layer_is_computed_before_the_next_one() -> None:
    network = tiny.generator(tiny.STYLEGAN3)
    program = jax.make_jaxpr(generators.synthesize)(
        network, tiny.w_plus(1, network.config)
    )
    found = [x for x in program.eqns if x.primitive.name == "optimization_barrier"]
    assert len(found) == len(network.config.channels)


def test_types_and_bounds_act() -> None:
    network = tiny.generator(tiny.STYLEGAN3)
    w_plus, place = tiny.w_plus(2, network.config), jnp.stack([jnp.eye(3)] * 2)
    exact = _render(network.params, w_plus, place, network.config)
    config = network.config.replace(dtype="bfloat16", conv_clamp=0.3)
    rough = _render(network.params, w_plus, place, config)
    assert rough.dtype == jnp.float32
    bound = 0.3 * config.output_scale
    assert jnp.abs(rough).max() <= bound + 1e-6 < jnp.abs(exact).max()


def test_directories_say_which_generator_they_hold(tmp_path: Any) -> None:
    network = tiny.generator(tiny.STYLEGAN3)
    tiny.write(tmp_path / "g", "stylegan3", network)
    found = generator_files.load(tmp_path / "g")
    assert found.config == network.config == generator_files.read_config(tmp_path / "g")
    assert jax.tree.all(jax.tree.map(np.array_equal, found.params, network.params))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 24}, "resolution must be a power of two from 16"),
        ({"channels": (4, 4)}, "more layers than the 2 critical ones"),
        ({"kernel_size": 5}, "kernel_size must be 1 or 3"),
        ({"first_cutoff": 9.0}, "first_cutoff must be below"),
        ({"dtype": "bfloat16", "low_precision_from": 4}, "low_precision_from must be"),
    ],
)
def test_wrong_configurations_are_refused(change: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(tiny.STYLEGAN3, **change)


def test_a_generator_without_transform_refuses_one() -> None:
    with pytest.raises(ValueError, match="has no transform"):
        generators.synthesize(tiny.generator(), tiny.w_plus(1), transform=jnp.eye(3))
    with pytest.raises(ValueError, match="transform: expected"):
        generators.with_transform(tiny.generator(tiny.STYLEGAN3), jnp.eye(2))
