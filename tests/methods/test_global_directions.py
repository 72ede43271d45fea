"""Global directions: text directions, thresholds and edits equal the official ones."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import loading, spaces
from styleclip_jax.methods import global_directions
from styleclip_jax.models import bpe
from styleclip_jax.ops import norms
from tests import golden_data, golden_networks, tiny

BETAS = [0, 0.05, 0.1, 0.15, 0.2, 0.3]
LAYOUT = tiny.GENERATOR.style_layout
LAYERS = (0, 2, 3)
CHANNELS = sum(layer.channels for layer in LAYOUT)


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


@pytest.mark.slow
def test_official_text_directions(tokenizer: bpe.Tokenizer) -> None:
    case = golden_data.Case("global_direction/text_direction")
    templates = loading.load_templates()
    assert len(templates) == 79
    pairs = case.meta["config"]["pairs_target_neutral"]
    features = global_directions.encode_texts(
        golden_networks.whole_clip(),
        tokenizer,
        [text for pair in pairs for text in pair],
        templates,
    )
    for i, (prompt, neutral) in enumerate(features.reshape(len(pairs), 2, -1)):
        case.check(f"class_embeddings_{i}", jnp.stack([prompt, neutral]))
        case.check(f"dt_{i}", norms.unit(prompt - neutral))
    prompt, neutral = pairs[0]
    found = global_directions.text_direction(
        golden_networks.whole_clip(), tokenizer, neutral, prompt, templates
    )
    case.check("dt_0", found)
    with pytest.raises(ValueError, match="must differ"):
        global_directions.text_direction(
            golden_networks.whole_clip(), tokenizer, "face", "face", templates[:1]
        )


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
