"""Metrics of a generator against official code, closed forms and brute force."""

import jax
import numpy as np
import pytest

from styleclip_jax import parallel
from styleclip_jax.evaluation import generator_metrics, path_length
from styleclip_jax.ops import moments, pixels
from tests import golden_data

CASE = golden_data.Case("metrics/features")


def expect(name: str, found: float, *, value: str = "value") -> None:
    about = CASE.meta["arrays"][name]
    assert abs(found - about[value]) <= about["suggested_atol"], found - about[value]


def gaussian(name: str) -> moments.Gaussian:
    return moments.FeatureStatistics.of(CASE[name]).gaussian


@pytest.mark.parametrize("name", ["plain", "singular"])
def test_mean_and_covariance_are_the_official_ones(name) -> None:
    found = gaussian("real" if name == "plain" else "singular_real")
    CASE.check(f"mean_{name}_real", found.mean)
    expected = CASE[f"cov_{name}_real"]
    np.testing.assert_allclose(
        found.covariance[: len(expected)], expected, rtol=0, atol=1e-12
    )


def test_statistics_of_batches_are_those_of_all() -> None:
    whole = moments.FeatureStatistics.of(CASE["real"])
    first, second, third = np.split(CASE["real"], [17, 50])
    built = moments.FeatureStatistics.empty(24).add(first).add(second).add(third)
    of = moments.FeatureStatistics.of
    merged = of(first).merge(of(second).merge(of(third)))
    for parts in (built, merged):
        assert parts.count == whole.count
        np.testing.assert_allclose(parts.total, whole.total, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(parts.outer, whole.outer, rtol=1e-12, atol=1e-12)


def test_statistics_refuse_what_is_no_feature() -> None:
    statistics = moments.FeatureStatistics.empty(3)
    with pytest.raises(ValueError, match="statistics of some images"):
        _ = statistics.gaussian
    with pytest.raises(ValueError, match="finite"):
        statistics.add(np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="expected statistics of 3 features, found 4"):
        statistics.add(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"expected features \[N, F\]"):
        statistics.add(np.zeros(3))


@pytest.mark.parametrize(
    ("name", "generated", "real"),
    [
        ("fid_plain", "gen", "real"),
        ("fid_singular", "singular_gen", "singular_real"),
        ("fid_same", "real", "real"),
    ],
)
def test_frechet_distance_is_the_official_one(name, generated, real) -> None:
    found = generator_metrics.frechet_distance(gaussian(generated), gaussian(real))
    expect(name, found)
    expect(name, found, value="value_alt")


@pytest.mark.parametrize("name", ["plain", "singular", "same"])
def test_frechet_distance_of_pytorch_fid_divides_by_one_less(name) -> None:
    prefix = "singular_" if name == "singular" else ""
    generated = "real" if name == "same" else f"{prefix}gen"
    g, r = (
        moments.Gaussian(x.mean(axis=0), np.cov(x, rowvar=False))
        for x in (CASE[n].astype(np.float64) for n in (generated, f"{prefix}real"))
    )
    expect(f"fid_{name}_pytorchfid", generator_metrics.frechet_distance(g, r))


def test_frechet_distance_of_diagonal_gaussians_is_a_sum_of_squares() -> None:
    random = np.random.default_rng(0)
    (m, n), (s, t) = random.normal(size=(2, 7)), random.uniform(0, 3, (2, 7))
    found = generator_metrics.frechet_distance(
        moments.Gaussian(m, np.diag(s**2)), moments.Gaussian(n, np.diag(t**2))
    )
    np.testing.assert_allclose(found, np.sum((m - n) ** 2 + (s - t) ** 2), rtol=1e-12)
    with pytest.raises(ValueError, match="expected as many features"):
        generator_metrics.frechet_distance(
            moments.Gaussian(m, np.diag(s)), moments.Gaussian(n[:6], np.eye(6))
        )


def test_kernel_distance_is_the_official_one() -> None:
    rows = np.arange(90)[None, None].repeat(2, axis=1)
    for name, subsets in (("kid_full", rows), ("kid_subsets", CASE["kid_indices"])):
        found = generator_metrics.kernel_distance(CASE["gen"], CASE["real"], subsets)
        expect(name, found)
        about = CASE.meta["arrays"][name]
        assert abs(found - about["value_f64"]) < 1e-12


def test_kernel_distance_of_one_distribution_is_zero_on_average() -> None:
    random = np.random.default_rng(1)
    values = []
    for seed in range(40):
        g, r = random.normal(size=(2, 60, 5))
        subsets = generator_metrics.draw_subsets(
            seed, 60, 60, num_subsets=4, max_subset_size=30
        )
        values.append(generator_metrics.kernel_distance(g, r, subsets))
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert min(values) < 0 < max(values)


def test_kernel_distance_of_pairs_is_zero_without_edits_and_their_effect() -> None:
    random = np.random.default_rng(1)
    original = random.normal(size=(300, 5))
    found = generator_metrics.paired_kernel_distance(original, original)
    assert found == pytest.approx(0, abs=1e-12)
    # Pairs count as likeness otherwise.
    every = np.arange(300)[None, None].repeat(2, axis=1)
    assert generator_metrics.kernel_distance(original, original, every) < -0.01
    # Independent sets say the same of a shift.
    a, b = (
        generator_metrics.paired_kernel_distance(original[rows] + 1, original[rows])
        for rows in (np.arange(150), np.arange(150, 300))
    )
    independent = generator_metrics.kernel_distance(
        *(original[:150] + 1, original[150:]), every[:, :, :150]
    )
    assert a == pytest.approx(b, rel=0.2)
    assert independent == pytest.approx(a, rel=0.2)
    with pytest.raises(ValueError, match="two or more features"):
        generator_metrics.paired_kernel_distance(original[:1], original[:1])


def test_subsets_come_from_the_seed_without_replacement() -> None:
    subsets = generator_metrics.draw_subsets(
        3, 20, 30, num_subsets=2, max_subset_size=15
    )
    assert subsets.shape == (2, 2, 15)
    assert all(len(set(rows)) == 15 for rows in subsets.reshape(-1, 15))
    assert subsets[:, 0].max() < 20 <= subsets[:, 1].max() < 30
    again = generator_metrics.draw_subsets(3, 20, 30, num_subsets=2, max_subset_size=15)
    assert np.array_equal(subsets, again)
    assert generator_metrics.draw_subsets(0, 20, 30, num_subsets=1).shape == (1, 2, 20)


def test_inception_score_is_the_official_one() -> None:
    found = generator_metrics.inception_score(CASE["is_probs"], num_splits=5)
    CASE.check("is_mean_std", found)
    expected = CASE.meta["arrays"]["is_mean_std"]["value_f64"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_inception_score_of_pure_classes_is_their_number() -> None:
    probability = np.eye(6)[np.arange(60) % 6]
    found = generator_metrics.inception_score(probability, num_splits=2)
    np.testing.assert_allclose(found, (6, 0), atol=1e-12)
    with pytest.raises(ValueError, match="expected 61 images or more, found 60"):
        generator_metrics.inception_score(probability, num_splits=61)


@pytest.mark.parametrize("devices", [1, 4])
def test_precision_and_recall_are_the_official_ones(devices) -> None:
    mesh = parallel.make_mesh(jax.devices()[:devices])
    found = generator_metrics.precision_recall(
        CASE["pr_gen"], CASE["pr_real"], mesh=mesh
    )
    assert np.array_equal(np.float32(found), CASE["pr_k3"])
    assert np.array_equal(np.float32(found), CASE["pr_float32"])


def by_brute_force(generated: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    def distances(x, y):
        x, y = x.astype(np.float16).astype(np.float64), y.astype(np.float16)
        return np.linalg.norm(x[:, None] - y, axis=-1).astype(np.float16)

    def share(x, y):
        radius = np.sort(distances(y, y), axis=1)[:, 3]
        return (distances(x, y) <= radius).any(axis=1).mean()

    return share(generated, real), share(real, generated)


def test_tiles_make_no_difference(monkeypatch) -> None:
    random = np.random.default_rng(2)
    generated, real = random.normal(size=(70, 6)), random.normal(0.3, 0.9, (53, 6))
    expected = by_brute_force(generated, real)
    assert 0.3 < min(expected) < max(expected) < 1
    monkeypatch.setattr(generator_metrics, "_ROWS", 16)
    monkeypatch.setattr(generator_metrics, "_COLUMNS", 20)
    found = generator_metrics.precision_recall(generated, real)
    assert found == pytest.approx(expected, abs=1e-12)


def disc(seed: int, count: int, center: float = 0) -> np.ndarray:
    """Points spread evenly over a disc of radius 1."""
    random = np.random.default_rng(seed)
    angle, radius = random.uniform(0, 2 * np.pi, count), random.uniform(size=count)
    points = np.sqrt(radius)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points + np.array([center, 0])


def test_precision_and_recall_of_discs_are_their_overlap() -> None:
    base = disc(0, 1500)
    # Of two discs of radius 1 whose centres are 1 apart, by the formula of the lens.
    lens = (2 * np.pi / 3 - np.sqrt(3) / 2) / np.pi
    found = generator_metrics.precision_recall(disc(1, 1500, 1), base)
    assert found == pytest.approx((lens, lens), abs=0.06)
    assert generator_metrics.precision_recall(disc(1, 300, 5), base) == (0, 0)
    # A part of the real images is precise, and does not recall all of them.
    subset = base[base[:, 0] > 0]
    found = generator_metrics.precision_recall(subset, base)
    assert found.precision == 1
    assert found.recall == pytest.approx(0.5, abs=0.06)


def test_the_edge_of_a_ball_belongs_to_it() -> None:
    real = np.arange(5.0)[:, None]
    # The ball around 0 reaches to 3.
    for place, expected in ((-3, 1), (-3.01, 0)):
        generated = np.full((4, 1), place)
        found = generator_metrics.precision_recall(generated, real)
        assert found.precision == expected


def test_precision_and_recall_refuse_what_they_cannot_measure() -> None:
    few, many = np.zeros((3, 2)), np.ones((9, 2))
    with pytest.raises(ValueError, match="more than 3 images"):
        generator_metrics.precision_recall(few, many)
    with pytest.raises(ValueError, match="those that float16 can hold"):
        generator_metrics.precision_recall(1e5 * many, many)
    with pytest.raises(ValueError, match="expected features"):
        generator_metrics.precision_recall(many, many[:, :1])


def test_filtered_mean_is_the_official_one() -> None:
    low, high, mean = CASE.meta["arrays"]["ppl_lo_hi_mean"]["value_f64"]
    found = path_length.filtered_mean(CASE["ppl_distances"])
    assert found == pytest.approx(mean, rel=1e-12)
    assert low < found < high
    for wrong in ([], [1.0, np.nan]):
        with pytest.raises(ValueError, match="expected finite distances"):
            path_length.filtered_mean(np.array(wrong))


def test_images_of_8_bits_are_the_official_ones() -> None:
    found = pixels.to_uint8(CASE["u8_in"], rounding="tf")
    assert np.array_equal(found, CASE["u8_nvidia"])
