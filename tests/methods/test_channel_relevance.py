"""Channel relevance: features and statistics equal the official ones."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import losses, parallel, spaces
from styleclip_jax.editing import estimation
from styleclip_jax.methods import channel_relevance, global_directions
from styleclip_jax.methods.channel_relevance import RelevanceConfig
from styleclip_jax.models import clip, clip_input, stylegan2
from styleclip_jax.ops import norms
from tests import golden_data, golden_networks, tiny

LAYOUT = tiny.GENERATOR.style_layout
LAYERS = (0, 2, 3)
CHANNELS = sum(layer.channels for layer in LAYOUT)


def test_relevance_of_features() -> None:
    case = golden_data.Case("global_direction/math")
    found = channel_relevance.combine(channel_relevance.differences(case["all_f"]))
    case.check("fs3_from_all_f", found)


@functools.cache
def official_samples() -> estimation.Samples:
    config = RelevanceConfig(num_samples=8, num_statistics=256)
    return estimation.draw_samples(
        golden_networks.of_directions().generator, config, parallel.make_mesh()
    )


@pytest.mark.slow
def test_official_statistics() -> None:
    case = golden_data.Case("global_direction/single_channel")
    layout = golden_networks.of_directions().generator.config.style_layout
    samples = official_samples()
    mean, std = (
        spaces.unflatten_styles(x, layout) for x in (samples.mean, samples.std)
    )
    for i in range(len(layout)):
        case.check(f"code_mean_{i:02d}", mean[i])
        case.check(f"code_std_{i:02d}", std[i])
    # The TensorFlow scripts truncate all rows.
    config = RelevanceConfig(num_samples=8, num_statistics=256, truncation_cutoff=99)
    all_rows = estimation.draw_samples(
        golden_networks.of_directions().generator, config, parallel.make_mesh()
    )
    last = spaces.unflatten_styles(all_rows.std, layout)[-1]
    case.check("tf_code_std_last", last)


@pytest.mark.slow
def test_official_features_of_both_ends() -> None:
    """Channels that had their turn stay at their mean, as in the official loop."""
    layer, channels = 2, [8, 30]
    case = golden_data.Case("global_direction/single_channel")
    networks, samples = golden_networks.of_directions(), official_samples()
    config = RelevanceConfig()

    @jax.jit
    def features(networks: losses.Networks, styles: Any) -> jax.Array:
        prepared = channel_relevance.prepare(
            networks, styles, samples.mean, layer=layer, layers=(0, 2), config=config
        )
        return channel_relevance.channel_features(
            networks,
            prepared,
            samples.mean,
            samples.std,
            jnp.asarray(channels),
            layer=layer,
            config=config,
        )

    # Three samples suffice: they do not touch each other.
    found = features(networks, tuple(style[:3] for style in samples.styles))
    rows = [channel + 32 for channel in channels]
    expected = case["all_f"][rows][:, :3]
    tolerance = case.meta["arrays"]["all_f"]["suggested_atol"]
    assert np.abs(found - expected).max() <= tolerance


# Measuring


@functools.cache
def tiny_samples() -> estimation.Samples:
    config = RelevanceConfig(num_samples=3, num_statistics=40)
    return estimation.draw_samples(
        tiny.generator(), config, parallel.make_mesh(jax.devices()[:1])
    )


def test_streamed_statistics_are_those_of_all_samples() -> None:
    flat = np.random.RandomState(0).randn(10, 5).astype(np.float32) * 3 + 100
    statistics = channel_relevance.no_statistics(5)
    for start, count in ((0, 4), (4, 4), (8, 2)):
        batch = parallel.pad(flat[start : start + count], 4)
        weight = jnp.asarray(np.arange(4) < count, jnp.float32)
        statistics = channel_relevance.update_statistics(statistics, batch, weight)
    assert statistics.seen == 10
    np.testing.assert_allclose(statistics.mean, flat.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.std, flat.std(0), rtol=1e-4)


@pytest.mark.parametrize(
    ("layers", "restore"),
    [pytest.param(LAYERS, False, marks=pytest.mark.slow), ((3,), True)],
)
def test_exact_relevance_equals_a_double_loop(
    networks: losses.Networks, layers: tuple[int, ...], restore: bool
) -> None:
    """Layer by layer and channel by channel, with and without the cached start."""
    samples = tiny_samples()
    config = RelevanceConfig(rounding="none", restore=restore)
    generator, clip_network = networks.generator, networks.clip

    @jax.jit
    def render(flat: np.ndarray) -> jax.Array:
        image = stylegan2.synthesize_styles(
            generator,
            spaces.unflatten_styles(flat, LAYOUT),
        )
        image = clip_input.preprocess_clip(clip_network, image)
        return clip.encode_image(clip_network, image)

    @functools.partial(jax.jit, static_argnames=("layer", "cached"))
    def features(layer: int, cached: bool) -> jax.Array:
        prepared = channel_relevance.prepare(
            networks,
            samples.styles,
            samples.mean,
            layer=layer,
            layers=layers,
            config=config,
        )
        if not cached:
            prepared = prepared._replace(activations=None)
        return channel_relevance.channel_features(
            networks,
            prepared,
            samples.mean,
            samples.std,
            jnp.arange(LAYOUT[layer].channels),
            layer=layer,
            config=config,
        )

    base = np.array(spaces.flatten_styles(samples.styles))
    expected = []
    for channel in np.flatnonzero(global_directions.channels_of(LAYOUT, layers)):
        before = base.copy()
        ends = []
        for sign in (-1, 1):
            base[:, channel] = samples.mean[channel] + sign * 5 * samples.std[channel]
            # A copy, since JAX may read the array itself, and later.
            ends.append(render(jnp.array(base)))
        expected.append(np.stack(ends, axis=1))
        base = before
        if not restore:
            base[:, channel] = samples.mean[channel]
    cached = np.concatenate([features(layer, True) for layer in layers])
    np.testing.assert_allclose(cached, expected, atol=1e-5)
    last = LAYOUT[layers[-1]].channels
    np.testing.assert_allclose(features(layers[-1], False), cached[-last:], atol=1e-5)


def test_a_channel_that_does_nothing_has_no_relevance() -> None:
    features = np.ones((1, 3, 2, 4), np.float32)
    found = channel_relevance.combine(channel_relevance.differences(features))
    np.testing.assert_array_equal(found, 0)


@functools.cache
def jacobian() -> np.ndarray:
    """∂E(s)/∂s of the tiny networks by jax, [B, S, E]."""
    networks = losses.Networks(tiny.generator(), tiny.clip_network())
    basis = jnp.eye(tiny.CLIP.embed_dim)
    rows = jax.jit(channel_relevance.jacobian_rows)
    return np.asarray(rows(networks, tiny_samples().styles, basis))


@pytest.mark.slow
def test_both_ways_to_the_jacobian_agree_with_differences(
    networks: losses.Networks,
) -> None:
    channels = np.arange(CHANNELS)
    columns = jax.jit(channel_relevance.jacobian_columns)(
        networks, tiny_samples().styles, channels
    )
    scale = np.abs(jacobian()).max()
    np.testing.assert_allclose(columns, jacobian(), atol=1e-4 * scale)

    # A small strength at the sample itself is the derivative.
    samples, layer = tiny_samples(), 2
    start = sum(x.channels for x in LAYOUT[:layer])
    first = tuple(style[:1] for style in samples.styles)
    flat = np.asarray(spaces.flatten_styles(first))[0]
    config = RelevanceConfig(strength=2e-3, rounding="none", restore=True)
    prepared = channel_relevance.Prepared(first, None)
    found = jax.jit(
        functools.partial(
            channel_relevance.channel_features, layer=layer, config=config
        )
    )(networks, prepared, flat, np.ones_like(flat), np.arange(4))
    difference = channel_relevance.differences(found)[:, 0]
    expected = norms.unit_by_rsqrt(jacobian()[0, start : start + 4])
    cosines = np.sum(np.asarray(difference * expected), axis=-1)
    assert cosines.min() > 0.99


@pytest.mark.slow
def test_estimate_with_all_probes_is_the_whole_jacobian(
    networks: losses.Networks,
) -> None:
    text, samples = tiny.text_features(1)[0], tiny_samples()
    table = channel_relevance.combine(
        jnp.swapaxes(norms.unit_by_rsqrt(jacobian()), 0, 1)
    )
    measured = global_directions.channels_of(LAYOUT, LAYERS)
    expected = np.asarray(table @ text) * measured
    reports: list[int] = []
    found = global_directions.estimate_relevance(
        networks,
        samples.styles,
        jnp.asarray(samples.std),
        text,
        jax.random.key(0),
        layers=LAYERS,
        num_probes=tiny.CLIP.embed_dim - 1,
        batch_size=2,
        report=reports.append,
    )
    np.testing.assert_allclose(found.value, expected, atol=1e-4)
    assert reports == [2, 1]


@pytest.mark.slow
@pytest.mark.parametrize("passes", [1, 3])
def test_few_passes_at_a_time_find_the_same(
    networks: losses.Networks, monkeypatch: pytest.MonkeyPatch, passes: int
) -> None:
    samples, resolution = tiny_samples(), LAYOUT[-1].resolution

    def estimate() -> np.ndarray:
        found = global_directions.estimate_relevance(
            networks,
            samples.styles,
            jnp.asarray(samples.std),
            tiny.text_features(1)[0],
            jax.random.key(0),
            layers=LAYERS,
            num_probes=4,
            batch_size=2,
        )
        return np.asarray(found.value)

    expected = estimate()
    sizes: list[int] = []
    pulled = global_directions._pulled

    def watched(*inputs: Any) -> jax.Array:
        sizes.append(len(inputs[-1]))
        return pulled(*inputs)

    monkeypatch.setattr(global_directions, "_pulled", watched)
    pixels = 2 * passes * resolution**2
    monkeypatch.setattr(global_directions, "_PIXELS", pixels)
    np.testing.assert_allclose(estimate(), expected, atol=1e-5)
    assert max(sizes) == passes
    assert sum(sizes) == 5 * 2


def test_probes_estimate_length_without_bias() -> None:
    text = jnp.asarray(tiny.text_features(1)[0])
    vector = jnp.asarray(np.random.RandomState(1).randn(len(text)), jnp.float32)
    keys = jax.random.split(jax.random.key(1), 2000)
    bases = jax.vmap(lambda k: channel_relevance.probe_basis(text, k, 2))(keys)
    squares = np.mean(np.sum(np.asarray(bases @ vector) ** 2, axis=-1))
    np.testing.assert_allclose(squares, vector @ vector, rtol=0.05)
    np.testing.assert_allclose(bases[:, 0], jnp.broadcast_to(text, bases[:, 0].shape))
    for count in (0, len(text)):
        with pytest.raises(ValueError, match="num_probes"):
            channel_relevance.probe_basis(text, keys[0], count)


def test_lower_resolution_ends_after_its_torgb_but_never_before_the_channel() -> None:
    layout = spaces.style_layout((4, 4, 4, 4))
    assert channel_relevance.last_layer(layout, 0, 0) is None
    assert channel_relevance.last_layer(layout, 0, 8) == 5
    assert channel_relevance.last_layer(layout, 6, 8) == 8
    assert channel_relevance.last_layer(layout, 0, 64) == len(layout)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "guess"},
        {"rounding": "up"},
        {"num_samples": 0},
        {"num_statistics": 10},
        {"strength": 0.0},
        {"clip_resolution": 24},
        {"clip_resolution": 32, "method": "jacobian"},
        {"truncation_psi": 9.0},
        {"truncation_cutoff": -1},
        {"seed": -1},
    ],
)
def test_settings_refuse(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        RelevanceConfig(**settings)


@pytest.mark.slow
def test_official_edit_of_measured_relevance() -> None:
    case = golden_data.Case("global_direction/single_channel")
    layout = golden_networks.of_directions().generator.config.style_layout
    samples = official_samples()
    relevance = global_directions.expand(case["fs3"], samples.std, (0, 2), layout)
    text = global_directions.relevance_for(relevance, case["dt"])
    for beta in (0.05, 0.15):
        direction = global_directions.make_direction(text, beta)
        case.check(f"e2e_boundary_beta{beta}", direction.delta)
        assert global_directions.count_kept(text, beta) == case[f"e2e_num_beta{beta}"]
        styles = tuple(style[:2] for style in samples.styles)
        alphas = jnp.asarray([[-3], [0], [4.1]])
        codes = global_directions.edit(styles, direction, alphas)[2]
        case.check(f"e2e_codes_layer2_beta{beta}", jnp.swapaxes(codes, 0, 1))
