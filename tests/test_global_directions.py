"""Global directions: relevance, text directions and edits equal the official ones."""

import functools
import json
import pathlib
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from convert import __main__
from styleclip_jax import loading, losses, parallel, spaces
from styleclip_jax.editing import estimation
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, clip_files, direction_files
from styleclip_jax.methods import channel_relevance, global_directions
from styleclip_jax.methods.channel_relevance import RelevanceConfig
from styleclip_jax.models import bpe, clip, clip_input, stylegan2
from styleclip_jax.models.network import Network
from tests import golden_data, tiny

FOLDER = golden_data.ROOT / "global_direction"
BETAS = [0, 0.05, 0.1, 0.15, 0.2, 0.3]
LAYOUT = tiny.GENERATOR.style_layout
LAYERS = (0, 2, 3)
CHANNELS = sum(layer.channels for layer in LAYOUT)
OURS = direction_files.Origin("ours", "a" * 64)
OTHER = direction_files.Origin("another", "b" * 64)


def text_of(value: Any, layers: tuple[int, ...] = LAYERS) -> Any:
    value = jnp.asarray(value, jnp.float32)
    return global_directions.TextRelevance(
        value * global_directions.channels_of(LAYOUT, layers),
        jnp.full(CHANNELS, 2.0),
        layers,
        LAYOUT,
    )


def random_text(seed: int = 0) -> Any:
    return text_of(np.random.RandomState(seed).uniform(-1, 1, CHANNELS))


def random_direction(seed: int) -> global_directions.Direction:
    return global_directions.make_direction(random_text(seed), 0.2)


# Golden data


@functools.cache
def math_case() -> tuple[golden_data.Case, global_directions.Layout, np.ndarray]:
    case = golden_data.Case("global_direction/math")
    dims = case.meta["config"]["style_dims"]
    layout = spaces.style_layout((dims[0], *dims[3::3]))
    assert [layer.channels for layer in layout] == dims
    std = np.concatenate([case[f"code_std_{i:02d}"] for i in range(len(dims))])
    return case, layout, std


def official_text(part: str) -> global_directions.TextRelevance:
    case, layout, std = math_case()
    found = global_directions.select_layers(
        layout, "all" if part == "full" else "4-128"
    )
    relevance = global_directions.expand(case[f"fs3_{part}"], std, found, layout)
    return global_directions.relevance_for(relevance, case["dt"])


def test_relevance_of_features() -> None:
    case, *_ = math_case()
    found = channel_relevance.combine(channel_relevance.differences(case["all_f"]))
    case.check("fs3_from_all_f", found)


@pytest.mark.parametrize("part", ["full", "prefix"])
def test_official_boundaries_and_counts(part: str) -> None:
    case, *_ = math_case()
    text = official_text(part)
    deltas = jax.vmap(global_directions.make_direction, (None, 0))(
        text, jnp.asarray(BETAS)
    ).delta
    for beta, delta in zip(BETAS, deltas, strict=True):
        case.check(f"boundary_{part}_beta{beta:g}", delta)
    counts = [int(global_directions.count_kept(text, float(b))) for b in case["betas"]]
    assert counts == case[f"num_channels_{part}"].tolist()
    # Officially not a number: nothing is left to divide by.
    assert np.isnan(case[f"boundary_{part}_beta0.9"]).any()
    assert not global_directions.make_direction(text, 0.9).delta.any()
    with pytest.raises(ValueError, match=r"β = 0\.9 keeps 0 channels; the largest"):
        global_directions.check_beta(text, 0.9)
    for more_than in (20, 100):
        beta = global_directions.automatic_beta(text, more_than=more_than)
        case.check(f"auto_beta_{part}_c{more_than}", beta)


@pytest.mark.parametrize("part", ["full", "prefix"])
def test_official_edits(part: str) -> None:
    case, layout, _ = math_case()
    direction = global_directions.make_direction(official_text(part), 0.1)
    styles = tuple(case[f"dlatents_{i:02d}"] for i in range(len(layout)))
    by_strength = global_directions.edit(styles, direction, case["alphas"][:, None])
    flat = spaces.flatten_styles(by_strength)
    case.check(f"codes_{part}_beta0.1", jnp.swapaxes(flat, 0, 1))


@functools.cache
def official_clip() -> clip.Clip:
    """The golden CLIP with its whole vocabulary, zeros where no prompt looks."""
    folder = golden_data.ROOT / "optimization_trajectory"
    flat = safetensors.numpy.load_file(folder / "clip.safetensors")
    config = json.loads((folder / "clip.json").read_text())
    with np.load(FOLDER / "text_direction" / "io.npz") as arrays:
        table = np.zeros((49408, config["text_width"]), np.float32)
        table[arrays["token_ids"]] = arrays["token_embedding"]
    name = "text_model/embeddings/token_embedding/embedding"
    params = {n: jnp.asarray(x, jnp.float32) for n, x in flat.items()}
    params[name] = jnp.asarray(table)
    config |= {"vocab_size": 49408, "eos_token_id": 49407}
    return Network(checkpoints.unflatten(params), clip.ClipConfig(**config))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> bpe.Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    bpe.write(bpe.OPENAI_MERGES, folder)
    return bpe.read(*(folder / name for name in clip_files.TOKENIZER_FILES))


def test_official_text_directions(tokenizer: bpe.Tokenizer) -> None:
    case = golden_data.Case("global_direction/text_direction")
    templates = loading.load_templates()
    assert len(templates) == 79
    pairs = case.meta["config"]["pairs_target_neutral"]
    features = global_directions.encode_texts(
        official_clip(), tokenizer, [text for pair in pairs for text in pair], templates
    )
    for i, (prompt, neutral) in enumerate(features.reshape(len(pairs), 2, -1)):
        case.check(f"class_embeddings_{i}", jnp.stack([prompt, neutral]))
        case.check(f"dt_{i}", clip.normalize(prompt - neutral))
    prompt, neutral = pairs[0]
    found = global_directions.text_direction(
        official_clip(), tokenizer, neutral, prompt, templates
    )
    case.check("dt_0", found)
    with pytest.raises(ValueError, match="must differ"):
        global_directions.text_direction(
            official_clip(), tokenizer, "face", "face", templates[:1]
        )


@functools.cache
def official_networks() -> losses.Networks:
    generator = loading.load_generator(FOLDER / "generator")
    return losses.Networks(generator, official_clip())


@functools.cache
def official_samples() -> estimation.Samples:
    config = RelevanceConfig(num_samples=8, num_statistics=256)
    return estimation.draw_samples(
        official_networks().generator, config, parallel.make_mesh()
    )


def test_official_statistics() -> None:
    case = golden_data.Case("global_direction/single_channel")
    layout = official_networks().generator.config.style_layout
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
        official_networks().generator, config, parallel.make_mesh()
    )
    last = spaces.unflatten_styles(all_rows.std, layout)[-1]
    case.check("tf_code_std_last", last)


def test_official_features_of_both_ends() -> None:
    """Channels that had their turn stay at their mean, as in the official loop."""
    layer, channels = 2, [8, 30]
    case = golden_data.Case("global_direction/single_channel")
    networks, samples = official_networks(), official_samples()
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


def test_official_edit_of_measured_relevance() -> None:
    case = golden_data.Case("global_direction/single_channel")
    layout = official_networks().generator.config.style_layout
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


@pytest.mark.parametrize(("layers", "restore"), [(LAYERS, False), ((3,), True)])
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


@pytest.mark.parametrize(
    ("start", "stop", "given", "message"),
    [
        (0, 6, False, "expected layers from 0 to 5, found 0 to 6"),
        (3, 2, True, "found 3 to 2"),
        (2, 5, False, "activations go with a start"),
        (0, 5, True, "activations go with a start"),
    ],
)
def test_parts_of_the_synthesis_that_do_not_fit(start, stop, given, message) -> None:
    network = tiny.generator()
    activations = stylegan2.Activations(jnp.zeros((3, 4, 4, 10)), None)
    with pytest.raises(ValueError, match=message):
        stylegan2.synthesize_layers(
            network,
            tiny_samples().styles,
            activations if given else None,
            start=start,
            stop=stop,
        )


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
    expected = channel_relevance.unit(jacobian()[0, start : start + 4])
    cosines = np.sum(np.asarray(difference * expected), axis=-1)
    assert cosines.min() > 0.99


def test_estimate_with_all_probes_is_the_whole_jacobian(
    networks: losses.Networks,
) -> None:
    text, samples = tiny.text_features(1)[0], tiny_samples()
    table = channel_relevance.combine(
        jnp.swapaxes(channel_relevance.unit(jacobian()), 0, 1)
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


# Directions


def test_directions_add_scale_negate_and_stay_values() -> None:
    a, b = random_direction(0), random_direction(1)
    np.testing.assert_allclose((a + b).delta, a.delta + b.delta)
    np.testing.assert_allclose((a - b).delta, a.delta - b.delta)
    for factor in (2.0, np.float64(2), jnp.asarray(2.0)):
        np.testing.assert_allclose((factor * a).delta, 2 * a.delta)
        np.testing.assert_allclose((a * factor).delta, 2 * a.delta)
    mixed = jax.jit(lambda a, b: a - 0.5 * b)(a, b)
    np.testing.assert_allclose(mixed.delta, a.delta - 0.5 * b.delta, atol=1e-6)
    with pytest.raises(AttributeError):
        a.delta = b.delta  # type: ignore[misc]


def test_projecting_out_leaves_the_orthogonal_part() -> None:
    a, b = random_direction(0), random_direction(1)
    rest = global_directions.project_out(a, b)
    assert abs(jnp.vdot(rest.delta, b.delta)) < 1e-4
    np.testing.assert_allclose(
        global_directions.project_out(a + 3 * b, b).delta, rest.delta, atol=1e-4
    )
    np.testing.assert_array_equal(
        global_directions.project_out(a, 0 * b).delta, a.delta
    )


def test_mask_keeps_layers_and_edit_moves_nothing_else() -> None:
    direction = global_directions.mask(random_direction(0), (2,))
    styles = spaces.unflatten_styles(jnp.zeros((2, CHANNELS)), LAYOUT)
    edited = global_directions.edit(styles, direction, jnp.asarray([1.0, -2.0]))
    for i, style in enumerate(edited):
        assert style.any() == (i == 2)
    np.testing.assert_allclose(edited[2][1], -2 * edited[2][0])


def test_strongest_channel_moves_by_alpha_deviations() -> None:
    for beta in (0.1, 0.5):
        direction = global_directions.make_direction(random_text(), beta)
        np.testing.assert_allclose(jnp.abs(direction.delta).max(), 2.0, rtol=1e-6)


def test_other_layouts_are_refused() -> None:
    layout = spaces.style_layout((10, 9))
    size = sum(layer.channels for layer in layout)
    other = global_directions.Direction(jnp.zeros(size), layout)
    with pytest.raises(ValueError, match="different generators"):
        random_direction(0) + other
    styles = spaces.unflatten_styles(jnp.zeros((2, size)), layout)
    with pytest.raises(ValueError, match="the direction is for style vectors"):
        global_directions.edit(styles, random_direction(0), 1.0)


def test_number_of_channels_gives_a_threshold_and_back() -> None:
    text = random_text()
    for count in (1, 5, 28):
        beta = global_directions.beta_for(text, count)
        assert global_directions.count_kept(text, beta) == count
        kept = global_directions.make_direction(text, beta).delta
        assert np.count_nonzero(kept) == count
    for count in (0, 29):
        with pytest.raises(ValueError, match="num_channels must be from 1 to 28"):
            global_directions.beta_for(text, count)


@pytest.mark.parametrize(
    ("value", "beta", "message"),
    [(0.12, 0.15, "0.15 keeps 0 channels; .* 0.12"), (0, 0, "0 "), (1, 1.5, "1.5")],
)
def test_thresholds_that_keep_nothing_are_refused(value, beta, message) -> None:
    with pytest.raises(ValueError, match=f"β.*{message}"):
        global_directions.check_beta(text_of(np.full(CHANNELS, value)), beta)


def test_agreement_counts_order_overlap_and_sign() -> None:
    text = random_text()
    assert global_directions.agreement(text, text, 5) == pytest.approx((1, 1))
    # Another order within the strongest changes ranks alone, another sign overlap too.
    doubled = text_of(np.asarray(text.value) * 2)
    assert global_directions.agreement(text, doubled, 5) == pytest.approx((1, 1))
    turned = text_of(-np.asarray(text.value))
    assert global_directions.agreement(text, turned, 5) == pytest.approx((1, 0))
    other = global_directions.agreement(text, random_text(3), 5)
    assert abs(other.rank_correlation) < 0.6
    assert other.overlap < 0.8
    fewer = text_of(np.asarray(text.value), (2,))
    with pytest.raises(ValueError, match="num_channels must be from 1 to 10"):
        global_directions.agreement(fewer, text, 11)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", (0, 2, 3)),
        ("4-4", (0,)),
        ("b8", (2, 3)),
        ("b8/conv1, b4", (0, 3)),
        ("4-1024", (0, 2, 3)),
    ],
)
def test_layers_by_name(text: str, expected: tuple[int, ...]) -> None:
    assert global_directions.select_layers(LAYOUT, text) == expected


@pytest.mark.parametrize("text", ["", "b8/torgb", "b16", "16-64", "all,conv1"])
def test_layers_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="some of b4/conv1, b8/conv0, b8/conv1, found"):
        global_directions.select_layers(LAYOUT, text)


def test_templates_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "templates.txt"
    path.write_text("a {}\n\na photo of {}.\n")
    assert loading.load_templates(path) == ["a {}", "a photo of {}."]
    for content, found in (("", "none"), ("a {}\nno place\n", "'no place'")):
        path.write_text(content)
        with pytest.raises(UserError, match=f"templates.txt: .* found {found}"):
            loading.load_templates(path)
    with pytest.raises(UserError, match="nowhere"):
        loading.load_templates(tmp_path / "nowhere")


# Files


def relevance_file(path: pathlib.Path, **changes: Any) -> pathlib.Path:
    rows = np.arange(28 * 4, dtype=np.float32).reshape(28, 4)
    content = direction_files.RelevanceFile(
        rows,
        np.zeros(CHANNELS, np.float32),
        np.ones(CHANNELS, np.float32),
        LAYERS,
        {"num_samples": 3, "method": "exact", "b": 1, "a": 2},
    )
    direction_files.write_relevance(
        path,
        content._replace(**changes),
        layout=LAYOUT,
        generator=OURS,
        clip=OURS,
    )
    return path


def read_relevance(path: pathlib.Path, **changes: Any) -> direction_files.RelevanceFile:
    options = {"layout": LAYOUT, "generator": OURS, "clip": OURS, "embed_dim": 4}
    return direction_files.read_relevance(path, **(options | changes))


def test_relevance_survives_its_file(tmp_path: pathlib.Path) -> None:
    path = relevance_file(tmp_path / "a.safetensors")
    found = read_relevance(path)
    assert found.layers == LAYERS
    assert found.about["num_samples"] == 3
    np.testing.assert_array_equal(found.rows[27], [108, 109, 110, 111])
    again = relevance_file(tmp_path / "b.safetensors")
    assert path.read_bytes() == again.read_bytes()
    table = global_directions.expand(found.rows, found.std, found.layers, LAYOUT).table
    np.testing.assert_array_equal(table[20:38], found.rows[10:28])
    np.testing.assert_array_equal(table[10:20], 0)
    unknown = direction_files.Origin("converted", None)
    read_relevance(path, generator=unknown, clip=unknown)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generator": OTHER}, r"is for the generator ours \(sha256 aaa.*another"),
        ({"clip": OTHER}, "is for the CLIP ours"),
        ({"embed_dim": 5}, r"relevance of shape \[28, 5\], found \[28, 4\]"),
        (
            {"layout": spaces.style_layout((10, 8, 8))},
            "of 8 layers and 70 channels .* found 5 layers and 46",
        ),
    ],
)
def test_files_of_other_networks_are_refused(tmp_path, changes, message) -> None:
    path = relevance_file(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=f"a.safetensors: .*{message}"):
        read_relevance(path, **changes)


def test_broken_files_are_refused(tmp_path: pathlib.Path) -> None:
    path = relevance_file(tmp_path / "a.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(path.read_bytes()[:-7])
    plain = tmp_path / "plain.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(1, np.float32)}, plain)
    bad = relevance_file(tmp_path / "nan.safetensors", std=np.full(CHANNELS, np.nan))
    direction = tmp_path / "direction.safetensors"
    direction_files.write_direction(
        direction, np.zeros(CHANNELS), layout=LAYOUT, generator=OURS, about={}
    )
    for file, message in (
        (tmp_path / "none.safetensors", "no such file"),
        (broken, "not a readable safetensors file"),
        (plain, "expected a file of channel_relevance, found None"),
        (direction, "expected a file of channel_relevance, found 'direction'"),
        (bad, "not finite"),
    ):
        with pytest.raises(UserError, match=f"{file.name}: {message}|{message}"):
            read_relevance(file)


def test_directions_survive_their_file(tmp_path: pathlib.Path) -> None:
    direction, path = random_direction(0), tmp_path / "smile.safetensors"
    direction_files.write_direction(
        path,
        np.asarray(direction.delta),
        layout=LAYOUT,
        generator=OURS,
        about={"prompt": "smiling face"},
    )
    delta, about = direction_files.read_direction(path, layout=LAYOUT, generator=OURS)
    np.testing.assert_array_equal(delta, direction.delta)
    assert about == {"prompt": "smiling face"}
    with pytest.raises(UserError, match=r"for the generator ours .* found another"):
        direction_files.read_direction(path, layout=LAYOUT, generator=OTHER)


# Conversion


def official_files(
    folder: pathlib.Path, rows: int, channels: tuple[int, ...]
) -> tuple[pathlib.Path, np.ndarray, list[np.ndarray]]:
    folder.mkdir(exist_ok=True)
    random, layout = np.random.RandomState(0), spaces.style_layout(channels)
    relevance = random.randn(rows, 6).astype(np.float32)
    std = [random.rand(x.channels).astype(np.float32) for x in layout]
    np.save(folder / "fs3.npy", relevance)
    with (folder / "S_mean_std").open("wb") as file:
        pickle.dump([[0 * x for x in std], std], file)
    return folder / "fs3.npy", relevance, std


FFHQ = stylegan2.GeneratorConfig().channels


@pytest.mark.parametrize(
    ("rows", "channels", "layers"),
    [(6048, FFHQ, 17), (5376, FFHQ, 11), (28, (10, 8), 3)],
)
def test_official_files_convert(tmp_path, rows, channels, layers) -> None:
    path, relevance, std = official_files(tmp_path / "npy", rows, channels)
    output = tmp_path / "out"
    assert __main__.main(["convert", str(path), f"--output={output}"]) == 0
    layout = spaces.style_layout(channels)
    found = direction_files.read_relevance(
        output / "relevance.safetensors",
        layout=layout,
        generator=OURS,
        clip=OURS,
        embed_dim=6,
    )
    np.testing.assert_array_equal(found.rows, relevance)
    np.testing.assert_array_equal(found.std, np.concatenate(std))
    assert len(found.layers) == layers
    table = global_directions.expand(found.rows, found.std, found.layers, layout)
    assert np.count_nonzero(table.table.any(1)) == rows


def test_official_files_that_do_not_fit_are_refused(tmp_path, capsys) -> None:
    path, *_ = official_files(tmp_path / "npy", 6000, FFHQ)
    statistics = path.with_name("S_mean_std")

    def refusal() -> str:
        argv = ["convert", str(path), f"--output={tmp_path / 'out'}"]
        assert __main__.main([*argv, "--kind=global_directions"]) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "expected 5376 or 6048 rows" in (message := refusal())
    assert "found 6000" in message
    statistics.write_bytes(pickle.dumps([[np.ones(3)], [np.ones(3)]]))
    assert "expected style vectors of StyleGAN2" in refusal()
    statistics.write_bytes(pickle.dumps({"mean": 1}))
    assert "expected lists of means and deviations" in refusal()
    statistics.write_bytes(pickle.dumps(pathlib.PurePath("x")))
    assert "nothing was run" in refusal()
    statistics.unlink()
    assert "expected S_mean_std beside it" in refusal()
