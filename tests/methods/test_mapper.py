"""Mappers equal the official ones: steps, edits, levels, similarity."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import latents, spaces
from styleclip_jax.methods import mapper
from styleclip_jax.models.network import Network
from tests import golden_networks, tiny

KINDS = [
    "levels_full",
    "levels_no_coarse",
    "levels_no_fine",
    "single",
    "stylespace",
    pytest.param("full_stylespace", marks=pytest.mark.slow),
]
CHANNELS = (5, 4, 3)
apply = jax.jit(mapper.apply)
edit = jax.jit(mapper.edit, static_argnames="levels")
similarity = jax.jit(mapper.similarity)


def styles(count: int) -> spaces.Styles:
    rng = np.random.default_rng(1)
    return tuple(
        jnp.asarray(rng.standard_normal((count, layer.channels)), jnp.float32)
        for layer in spaces.style_layout(CHANNELS)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_steps_and_edits_of_every_kind(kind: str) -> None:
    case, network = golden_networks.mapper(kind)
    config = network.config
    if config.space == "w_plus":
        case.check("delta", apply(network, case["w"]))
        case.check("w_hat", edit(network, case["w"]))
        return
    layout = config.style_layout
    latent = tuple(case[f"s_{i:02d}"].reshape(2, -1) for i in range(len(layout)))
    delta, edited = apply(network, latent), edit(network, latent)
    for i, layer in enumerate(layout):
        expected = case[f"delta_{i:02d}"].reshape(2, -1)
        atol = case.meta["arrays"][f"delta_{i:02d}"]["suggested_atol"]
        np.testing.assert_allclose(delta[i], expected, rtol=0, atol=atol)
        assert np.asarray(delta[i]).any() == (config.torgb or not layer.is_torgb)
        np.testing.assert_allclose(edited[i], latent[i] + 0.1 * delta[i], atol=1e-6)


def test_levels_and_strength_at_inference() -> None:
    network = tiny.mapper_network(mapper.MapperConfig(w_dim=6))
    latent = tiny.image(3, 18)[..., 0].reshape(3, -1, 6)[:, :10]
    call = functools.partial(edit, network, latent)
    delta = apply(network, latent)
    found = call(strength=0.7)
    np.testing.assert_allclose(found, latent + 0.7 * delta, atol=1e-6)
    np.testing.assert_array_equal(call(strength=0.0), latent)
    np.testing.assert_array_equal(call(levels=tuple(mapper.LEVELS)), call())
    moved = np.asarray(call(levels=("coarse", "fine")) != latent).any((0, 2))
    np.testing.assert_array_equal(moved, [True] * 4 + [False] * 4 + [True] * 2)
    with pytest.raises(ValueError, match="coarse, medium, fine, found coarse,thin"):
        mapper.edit(network, latent, levels=["coarse", "thin"])


def test_levels_choose_style_vectors_by_their_row() -> None:
    config = mapper.MapperConfig("s", channels=CHANNELS)
    latent = styles(2)
    edited = edit(tiny.mapper_network(config), latent, levels=("medium",))
    for layer, before, after in zip(config.style_layout, latent, edited, strict=True):
        moved = layer.row >= 4 and not layer.is_torgb
        assert np.asarray(before != after).any() == moved, layer


def test_a_level_alone_equals_it_beside_others() -> None:
    network = tiny.mapper_network(mapper.MapperConfig(w_dim=6))
    alone = Network(
        {"medium": network.params["medium"]},
        mapper.MapperConfig(levels=("medium",), w_dim=6),
    )
    latent = tiny.normal(0, 2, 14, 6)
    found, expected = apply(alone, latent), apply(network, latent)
    np.testing.assert_array_equal(found[:, 4:8], expected[:, 4:8])
    assert not found[:, :4].any()
    assert not found[:, 8:].any()


def test_latents_of_equal_rows_keep_their_signs_alone_unless_over_features() -> None:
    over_rows = tiny.mapper_network(mapper.MapperConfig(w_dim=6))
    over_features = over_rows.replace(
        config=dataclasses.replace(over_rows.config, normalize_over="features")
    )
    w = jnp.asarray(np.random.default_rng(0).uniform(1, 3, (2, 6)), jnp.float32)
    latent = spaces.broadcast_w(w, 10)
    delta = apply(over_rows, latent)
    np.testing.assert_allclose(delta[0], delta[1], atol=1e-5)
    delta = apply(over_features, latent)
    assert jnp.abs(delta[0] - delta[1]).max() > 0.1
    # A row is edited by itself then.
    changed = latent.at[:, 5].multiply(-1)
    found = apply(over_features, changed)
    np.testing.assert_array_equal((found != delta).any((0, 2)), np.arange(10) == 5)


def test_official_sizes_and_initialisation() -> None:
    shapes = mapper.param_shapes(mapper.MapperConfig())
    assert sum(int(np.prod(s)) for s in shapes.values()) == 3 * 4 * (512**2 + 512)
    config = mapper.MapperConfig(levels=("fine",), w_dim=64)
    fine = mapper.init(jax.random.key(0), config)["fine"]
    assert 95 < fine["fc3"]["kernel"].std() < 105
    assert not fine["fc3"]["bias"].any()


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
    np.testing.assert_array_equal(latents.flatten(delta), expected)
    w_plus = tiny.w_plus(3)
    np.testing.assert_array_equal(latents.flatten(w_plus), w_plus.reshape(3, -1))


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
