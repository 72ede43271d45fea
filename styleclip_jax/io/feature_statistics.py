"""Files of feature statistics: ours, caches of NVIDIA's metrics, and pytorch-fid's.

Ours is an `.npz` of the sums, and if wished of all features, with one JSON document:
which network made the features, and of which data. Arrays are compared with the size of
a file before they take memory, and pickles run nothing.
"""

import dataclasses
import pathlib
from typing import Any, Literal

import numpy as np

from styleclip_jax import documents
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, torch_files
from styleclip_jax.ops.moments import FeatureStatistics, Gaussian

Kind = Literal["own", "nvidia", "pytorch_fid"]

_NVIDIA = {"num_items", "all_features", "raw_mean", "raw_cov"}
_OWN = {"count", "total", "outer", "about"}
_PYTORCH_FID = {"mu", "sigma"}


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureFile:
    """Content of a file of feature statistics.

    Attributes:
      kind: own, nvidia for caches of stylegan2-ada-pytorch and stylegan3, or
        pytorch_fid, whose covariance was divided by N − 1, and whose Inception network
        sees images resized in another way.
      gaussian: mean and covariance; None if a cache of NVIDIA's holds features alone.
      statistics: sums of it; None where the number of images is not told.
      features: [N, F] float32 features of all images, None if they are not kept.
      network: network that made the features, None where it is not told.
      data: images that they are of, likewise.
    """

    kind: Kind
    gaussian: Gaussian | None
    statistics: FeatureStatistics | None = None
    features: np.ndarray | None = None
    network: str | None = None
    data: str | None = None

    @property
    def count(self) -> int:
        """Number of images, 0 where it is not told."""
        if self.statistics is not None:
            return self.statistics.count
        return 0 if self.features is None else len(self.features)

    @property
    def num_features(self) -> int:
        """Number of features of an image."""
        if self.gaussian is not None:
            return len(self.gaussian.mean)
        return 0 if self.features is None else self.features.shape[1]

    def describe(self) -> str:
        """What it is, for people."""
        known = f"of {self.count:,} images" if self.count else "of untold images"
        if self.kind == "pytorch_fid":
            return (
                f"statistics of pytorch-fid {known}, which resizes images in another "
                "way and divides by N − 1: the distance is another than NVIDIA's"
            )
        return f"statistics {known}"


def write(
    path: files.Path,
    statistics: FeatureStatistics,
    *,
    network: str,
    data: str,
    features: np.ndarray | None = None,
) -> None:
    """Writes statistics; equal content gives equal bytes.

    Args:
      path: file to make, `.npz`; one that is there is replaced, whole or not at all.
      statistics: statistics of the features.
      network: network that made the features: its name or hash.
      data: images that they are of, likewise.
      features: [N, F] float32 features of all images, where metrics need them.

    Raises:
      UserError: the file has another suffix, or cannot be written.
      ValueError: there are other features than statistics.
    """
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise UserError(f"{path}: expected a name that ends in .npz")
    arrays: dict[str, Any] = {
        "about": documents.dump({"network": network, "data": data}),
        "count": statistics.count,
        "total": statistics.total,
        "outer": statistics.outer,
    }
    if features is not None:
        expected = (statistics.count, len(statistics.total))
        if features.shape != expected:
            raise ValueError(f"expected features {expected}, found {features.shape}")
        arrays["features"] = features.astype(np.float32)
    with files.new_file(path) as temporary:
        np.savez(temporary, **arrays)


def read(path: files.Path) -> FeatureFile:
    """Reads a file of any of the three kinds; its content decides, not its name.

    Raises:
      UserError: no such file, a damaged one, or one with something else in it.
    """
    content = torch_files.read(path).content
    names = set(content) if isinstance(content, dict) else set()
    for needed, parse in ((_OWN, _own), (_NVIDIA, _nvidia), (_PYTORCH_FID, _foreign)):
        if needed <= names:
            try:
                return parse(content, pathlib.Path(path))
            except UserError:
                raise
            except (TypeError, ValueError) as error:
                raise UserError(f"{path}: {error}") from None
    raise UserError(
        f"{path}: expected statistics of features, such as mu and sigma of "
        f"pytorch-fid, found {torch_files.summarize(content)}"
    )


def _own(content: dict[str, Any], path: pathlib.Path) -> FeatureFile:
    about = documents.parse(str(content["about"]), f"{path}: about")
    if not isinstance(about, dict):
        raise ValueError("about: expected a JSON object")
    statistics = _statistics(content, "count", "total", "outer")
    features = content.get("features")
    if features is not None:
        features = _features([features], statistics, path)
    network, data = (_text(about, name) for name in ("network", "data"))
    return FeatureFile("own", statistics.gaussian, statistics, features, network, data)


def _nvidia(content: dict[str, Any], path: pathlib.Path) -> FeatureFile:
    statistics = _statistics(content, "num_items", "raw_mean", "raw_cov")
    parts, features = content["all_features"], None
    if parts:
        if not isinstance(parts, list):
            raise ValueError("all_features: expected a list of arrays")
        features = _features(parts, statistics, path)
    if not content.get("capture_mean_cov", True):
        # The sums are zero then.
        return FeatureFile("nvidia", None, None, features)
    return FeatureFile("nvidia", statistics.gaussian, statistics, features)


def _foreign(content: dict[str, Any], path: pathlib.Path) -> FeatureFile:
    mean = _array(content, "mu", ndim=1)
    covariance = _array(content, "sigma", shape=(len(mean),) * 2)
    return FeatureFile("pytorch_fid", Gaussian(mean, covariance))


def _statistics(
    content: dict[str, Any], count: str, total: str, outer: str
) -> FeatureStatistics:
    number = np.asarray(content[count])
    if number.shape or number.dtype.kind not in "iu" or number < 1:
        raise ValueError(f"{count}: expected a number of images, found {number!r:.80}")
    sums = _array(content, total, ndim=1)
    products = _array(content, outer, shape=(len(sums),) * 2)
    return FeatureStatistics(int(number), sums, products)


def _features(
    parts: list[Any], statistics: FeatureStatistics, path: pathlib.Path
) -> np.ndarray:
    """Features of all images, of which each part holds some."""
    width, size = len(statistics.total), 0
    for part in parts:
        if not isinstance(part, np.ndarray) or part.shape[1:] != (width,):
            raise ValueError(f"features: expected arrays [N, {width}]")
        size += part.nbytes
    # A pickle may name the same part again and again.
    if size > path.stat().st_size and len(parts) > 1:
        raise ValueError("features: it claims more data than it holds")
    found = np.concatenate(parts) if len(parts) > 1 else parts[0]
    whole = _array({"features": found}, "features", (statistics.count, width))
    return whole.astype(np.float32, copy=False)


def _array(
    content: dict[str, Any],
    name: str,
    shape: tuple[int, ...] | None = None,
    ndim: int | None = None,
) -> np.ndarray:
    """Finite array of floats of a shape, or of a number of axes, none of them empty."""
    found = content[name]
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f":
        raise ValueError(f"{name}: expected an array of floats")
    fits = found.ndim == ndim if shape is None else found.shape == shape
    if not fits or not found.size:
        expected = f"{ndim} axes" if shape is None else f"the shape {list(shape)}"
        raise ValueError(f"{name}: expected {expected}, found {list(found.shape)}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: expected finite numbers, found some that are not")
    return found if name == "features" else found.astype(np.float64, copy=False)


def _text(about: dict[str, Any], name: str) -> str:
    found = about.get(name)
    if not isinstance(found, str):
        raise ValueError(f"about: expected a text {name}")
    return found
