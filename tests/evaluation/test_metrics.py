"""Metrics against published code, known cases and brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax.evaluation import metrics
from styleclip_jax.methods import mapper
from styleclip_jax.ops import norms
from tests import tiny


def pair_of_images(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Two pictures of coloured squares, and the same with noise."""
    random = np.random.RandomState(size)
    base = random.uniform(-1, 1, (2, size // 8, size // 8, 3))
    base = np.kron(base, np.ones((1, 8, 8, 1)))
    noisy = np.clip(0.8 * base + 0.3 * random.randn(*base.shape), -1, 1)
    return base.astype(np.float32), noisy.astype(np.float32)


# By pytorch-msssim 1.0.0; for 64 with its first three weights, scaled to a sum of 1.
@pytest.mark.parametrize(
    ("size", "scales", "expected"),
    [
        pytest.param(
            *(176, 5, (0.9204807281494141, 0.9200145602226257)),
            marks=pytest.mark.slow,
        ),
        (64, 3, (0.8834388852119446, 0.8951594233512878)),
    ],
)
def test_ms_ssim_is_the_published_one(size, scales, expected) -> None:
    a, b = pair_of_images(size)
    assert metrics.num_scales(size, size) == scales
    np.testing.assert_allclose(jax.jit(metrics.ms_ssim)(a, b), expected, atol=2e-6)


@pytest.mark.slow
def test_ms_ssim_of_equal_and_of_opposite_images() -> None:
    a, _ = pair_of_images(16)
    compare = jax.jit(jax.value_and_grad(lambda x, y: metrics.ms_ssim(x, y).sum()))
    value, gradient = compare(a, a)
    np.testing.assert_allclose(value, 2, atol=1e-6)
    assert np.isfinite(gradient).all()
    # Structure is negative everywhere, which has no power.
    value, gradient = compare(a, -a)
    assert value == 0
    assert np.isfinite(gradient).all()


def test_ms_ssim_refuses_what_it_cannot_measure() -> None:
    with pytest.raises(ValueError, match="11 pixels or more"):
        metrics.ms_ssim(tiny.image(1, 8), tiny.image(1, 8))
    with pytest.raises(ValueError, match="expected two of"):
        metrics.ms_ssim(tiny.image(1, 16), tiny.image(2, 16))


def test_cosines_do_not_depend_on_length() -> None:
    a, b = tiny.normal(0, 3, 5), tiny.normal(1, 3, 5)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    expected = np.sum(np.asarray(a) * b, axis=1) / lengths
    for cosine in (metrics.clip_score, metrics.identity_similarity):
        np.testing.assert_allclose(cosine(3 * a, 0.1 * b), expected, atol=1e-6)


def test_directional_similarity_compares_steps() -> None:
    source, text = jnp.eye(4)[:2], jnp.eye(4)[2:]
    # Towards the target, and against it.
    towards = norms.unit(source + 0.1 * (text[1] - text[0]))
    measure = jax.jit(
        jax.value_and_grad(
            lambda before, after: metrics.directional_similarity(
                before, after, *text
            ).sum(),
            argnums=1,
        )
    )
    assert measure(source, towards)[0] > 1.98
    assert measure(towards, source)[0] < -1.98
    # An image that stays has no direction, but knows the one to take.
    value, gradient = measure(source, source)
    assert value == 0
    expected = (text[1] - text[0]) / np.sqrt(2) / 1e-3
    np.testing.assert_allclose(gradient, [expected] * 2, rtol=1e-4, atol=1e-3)
    # Half of the shortest step that counts in full counts half.
    half = source + 0.5e-3 * (text[1] - text[0]) / np.sqrt(2)
    np.testing.assert_allclose(measure(source, half)[0], 1, atol=1e-2)


def test_distances_of_known_cases() -> None:
    a = jnp.zeros((2, 4, 4, 3))
    b = a.at[1].set(-0.5)
    np.testing.assert_allclose(metrics.pixel_l1(a, b), [0, 0.5])
    np.testing.assert_allclose(metrics.pixel_l2(a, b), [0, 0.25])
    w_plus = jnp.zeros((2, 3, 4))
    moved = w_plus.at[1, 0, 0].set(3).at[1, 2, 1].set(4)
    np.testing.assert_allclose(metrics.latent_distance(w_plus, moved), [0, 5])
    styles = (moved[:, 0], moved[:, 2])
    zeros = jax.tree.map(jnp.zeros_like, styles)
    np.testing.assert_allclose(metrics.latent_distance(styles, zeros), [0, 5])


def test_zero_shot_is_a_softmax_of_scaled_cosines() -> None:
    network = tiny.clip_network()
    image, text = tiny.normal(0, 3, 8), tiny.normal(1, 4, 8)
    found = metrics.zero_shot(network, image, text)
    cosine = norms.unit(image) @ norms.unit(text).T
    expected = jax.nn.softmax(jnp.exp(network.params["logit_scale"]) * cosine, axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # Other lengths of the features are the same features.
    np.testing.assert_allclose(
        metrics.zero_shot(network, 2 * image, 3 * text), found, atol=1e-4
    )
    gain = metrics.zero_shot_gain(network, image[:1], image[1:2], text[:2])
    pair = metrics.zero_shot(network, image, text[:2])[:, 1]
    np.testing.assert_allclose(gain, pair[1:2] - pair[:1], atol=1e-5)
    back = metrics.zero_shot_gain(network, image[1:2], image[:1], text[:2])
    np.testing.assert_allclose(back, -gain, atol=1e-5)


def test_disentanglement_is_gain_over_change() -> None:
    gain, change = jnp.array([0.5, 0.7]), jnp.array([0.1, 0.3])
    np.testing.assert_allclose(metrics.disentanglement(gain, change), 3, rtol=1e-6)
    assert metrics.disentanglement(gain, 0 * change) == jnp.inf


def test_direction_consistency_is_over_all_pairs() -> None:
    delta = tiny.normal(2, 5, 7)
    cosines = [
        float(metrics.clip_score(a[None], b)[0])
        for a, b in itertools.combinations(delta, 2)
    ]
    found = metrics.direction_consistency(delta)
    np.testing.assert_allclose(found.mean, np.mean(cosines), atol=1e-6)
    np.testing.assert_allclose(found.std, np.std(cosines), atol=1e-6)
    # Table 2 of mappers is this, for each mapper.
    table = mapper.similarity(delta[None])
    np.testing.assert_allclose(found.mean, table.mean[0], atol=1e-6)
    np.testing.assert_allclose(found.std, table.std[0], atol=1e-6)


def test_bootstrap_interval_is_that_of_the_normal_distribution() -> None:
    values = tiny.normal(3, 500, 2) * jnp.array([1.0, 10.0]) + 5
    low, high = metrics.bootstrap_interval(jax.random.key(0), values)
    mean, error = values.mean(axis=0), values.std(axis=0) / np.sqrt(500)
    np.testing.assert_allclose((low + high) / 2, mean, atol=np.max(error) / 5)
    np.testing.assert_allclose((high - low) / 2, 1.96 * error, rtol=0.1)


def test_bootstrap_draws_examples_whole() -> None:
    values = tiny.normal(4, 50)
    # A ratio that every single example has is that of every resample.
    low, high = metrics.bootstrap_interval(
        jax.random.key(0),
        (3 * values, values),
        statistic=lambda pair: metrics.disentanglement(*pair),
    )
    np.testing.assert_allclose([low, high], 3, rtol=1e-4)
