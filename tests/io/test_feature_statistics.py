"""Files of feature statistics: each kind is read, broken ones are refused in a line."""

import pathlib
import pickle

import numpy as np
import pytest

from styleclip_jax.errors import UserError
from styleclip_jax.io import feature_statistics
from styleclip_jax.ops.moments import FeatureStatistics


def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


def own(path: pathlib.Path) -> pathlib.Path:
    feature_statistics.write(
        path,
        FeatureStatistics.of(features()),
        network="inception",
        data="faces",
        features=features(),
    )
    return path


def nvidia(path: pathlib.Path, **changes) -> pathlib.Path:
    """A cache as FeatureStats.save of stylegan2-ada-pytorch writes it."""
    statistics = FeatureStatistics.of(features())
    state = {
        "capture_all": True,
        "capture_mean_cov": True,
        "max_items": 7,
        "num_items": 7,
        "num_features": 3,
        "all_features": np.split(features(), [4]),
        "raw_mean": statistics.total,
        "raw_cov": statistics.outer,
    }
    path.write_bytes(pickle.dumps(state | changes))
    return path


def test_own_files_come_back_whole(tmp_path) -> None:
    path = own(tmp_path / "faces.npz")
    found = feature_statistics.read(path)
    expected = FeatureStatistics.of(features())
    assert (found.kind, found.network, found.data) == ("own", "inception", "faces")
    assert np.array_equal(found.features, features())
    assert found.statistics.count == 7
    assert np.array_equal(found.statistics.outer, expected.outer)
    assert np.array_equal(found.gaussian.covariance, expected.gaussian.covariance)
    assert path.read_bytes() == own(tmp_path / "again.npz").read_bytes()


def test_caches_of_nvidia_are_read(tmp_path) -> None:
    path = tmp_path / "ffhq-inception-2015-12-05-0123.pkl"
    found = feature_statistics.read(nvidia(path))
    expected = FeatureStatistics.of(features())
    assert found.kind == "nvidia"
    assert np.array_equal(found.features, features())
    assert np.array_equal(found.gaussian.mean, expected.gaussian.mean)
    # Either part may be missing.
    found = feature_statistics.read(nvidia(path, capture_all=False, all_features=[]))
    assert found.features is None
    assert np.array_equal(found.statistics.total, expected.total)
    zeros = {"raw_mean": np.zeros(3), "raw_cov": np.zeros((3, 3))}
    found = feature_statistics.read(nvidia(path, capture_mean_cov=False, **zeros))
    assert found.gaussian is found.statistics is None
    assert np.array_equal(found.features, features())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_files_of_pytorch_fid_are_read(tmp_path, save) -> None:
    mean, covariance = np.arange(3.0), np.eye(3)
    save(tmp_path / "fid.npz", mu=mean, sigma=covariance)
    found = feature_statistics.read(tmp_path / "fid.npz")
    assert found.kind == "pytorch_fid"
    assert np.array_equal(found.gaussian.mean, mean)
    assert np.array_equal(found.gaussian.covariance, covariance)
    assert found.statistics is found.features is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_items": 0}, "num_items: expected a number of images"),
        ({"num_items": "7"}, "num_items: expected a number of images"),
        ({"num_items": 8}, r"features: expected the shape \[8, 3\], found \[7, 3\]"),
        ({"raw_mean": np.zeros((3, 1))}, r"raw_mean: expected 1 axes, found \[3, 1\]"),
        ({"raw_cov": np.eye(2)}, r"raw_cov: expected the shape \[3, 3\]"),
        ({"raw_cov": np.full((3, 3), np.nan)}, "raw_cov: expected finite numbers"),
        ({"raw_cov": None}, "raw_cov: expected an array of floats"),
        ({"all_features": [features()[:, :2]]}, r"expected arrays \[N, 3\]"),
        ({"all_features": [features()] * 1000}, "more data than it holds"),
        ({"all_features": {"a": 1}}, "expected a list of arrays"),
    ],
)
def test_wrong_caches_are_refused_in_a_line(tmp_path, changes, message) -> None:
    path = nvidia(tmp_path / "cache.pkl", **changes)
    with pytest.raises(UserError, match=message) as caught:
        feature_statistics.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_other_files_are_refused_in_a_line(tmp_path) -> None:
    path = tmp_path / "some.npz"
    with pytest.raises(UserError, match="no such file"):
        feature_statistics.read(path)
    np.savez(path, mu=np.zeros(3))
    with pytest.raises(UserError, match="expected statistics of features"):
        feature_statistics.read(path)
    np.savez(path, mu=np.full(3, np.inf), sigma=np.eye(3))
    with pytest.raises(UserError, match="mu: expected finite numbers"):
        feature_statistics.read(path)
    np.savez(path, count=7, total=np.zeros(3), outer=np.eye(3), about="[")
    with pytest.raises(UserError, match=r"some\.npz"):
        feature_statistics.read(path)
    content = own(path).read_bytes()
    for length in (40, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"some\.npz"):
            feature_statistics.read(path)
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError):
        feature_statistics.read(path)


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = own(tmp_path / "faces.npz")
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(UserError, match="No space left"):
        own(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_writing_refuses_what_does_not_fit(tmp_path) -> None:
    statistics = FeatureStatistics.of(features())
    with pytest.raises(UserError, match=r"ends in \.npz"):
        feature_statistics.write(tmp_path / "a.pkl", statistics, network="", data="")
    with pytest.raises(ValueError, match="expected features"):
        feature_statistics.write(
            *(tmp_path / "a.npz", statistics),
            network="",
            data="",
            features=features()[1:],
        )
