"""Plan of a generator's metrics: all that is read before the work begins."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from styleclip_jax import loading, parallel, places, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, feature_statistics
from styleclip_jax.io.feature_statistics import FeatureFile
from styleclip_jax.loading import Models
from styleclip_jax.models.network import Network
from styleclip_jax.photos import image_sets
from styleclip_jax.photos.image_sets import ImageSet
from styleclip_jax.progress import Listener
from styleclip_jax.settings.generator_metrics import (
    DEFAULTS,
    METRICS,
    Metric,
    MetricsSettings,
)
from styleclip_jax.toy import face_set, judge

# Images that a metric needs at least, if more than two: neighbours, and splits.
_LEAST = {"precision_recall": 4, "inception_score": 10}
# Name of the judge's network, and resolutions of what it can see.
JUDGE, _JUDGED = "judge", (32, 64, 128)


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Plan of a table: all that is read before the work begins.

    Attributes:
      request: what is asked for.
      generator: generator that is measured.
      label: class of all samples, None for none or for those of `labels`.
      labels: classes of the data, which those of samples are drawn from; None for one
        of all samples, or a generator without classes.
      networks: networks that look, by their names.
      hashes: SHA-256 of these.
      metrics: metrics by their names.
      data: images that the generator is compared with, None for none.
      statistics: statistics of their features, where these are all there is.
    """

    request: MetricsSettings
    generator: Network
    label: np.ndarray | None
    labels: np.ndarray | None
    networks: Mapping[str, Network]
    hashes: Mapping[str, str]
    metrics: Mapping[str, Metric]
    data: ImageSet | None
    statistics: FeatureFile | None

    @property
    def num_samples(self) -> int:
        """Largest number of samples of a metric."""
        return max(map(self.request.samples_of, self.metrics.values()))

    @property
    def num_reals(self) -> int:
        """Number of images of the data that are looked at."""
        return max((self.reals_of(x) for x in self.metrics.values()), default=0)

    def reals_of(self, metric: Metric) -> int:
        """Number of images of the data that a metric takes."""
        if metric.reals == 0:
            return 0
        if self.statistics is not None:
            return self.statistics.count
        if self.data is None:
            return 0
        return min(x for x in (metric.reals, len(self.data)) if x is not None)

    def looking(self, *, at_data: bool = False) -> dict[str, Network]:
        """Networks whose features of samples are needed, or of data."""
        names = {
            metric.network
            for metric in self.metrics.values()
            if metric.measure != "path" and (metric.reals != 0 or not at_data)
        }
        return {name: x for name, x in self.networks.items() if name in names}


def plan(request: MetricsSettings, models: Models, listener: Listener) -> Plan:
    """Plans the metrics; all is read now, so that errors come before work.

    Args:
      request: metrics, and what they are computed of.
      models: whose generator is measured.
      listener: is told what was read.

    Raises:
      UserError: something asked for is wrong or does not fit.
    """
    generator = models.load_generator()
    config = generator.config
    listener.tell(models.describe_generator(config))
    networks, hashes = _load_networks(request.features, models, config.image_size)
    listener.tell(f"features: {', '.join(networks)}")
    names = request.metrics or [
        name for name in DEFAULTS if _lack(METRICS[name], networks) is None
    ]
    for name in names:
        if lack := _lack(METRICS[name], networks):
            raise UserError(
                f"metrics: {name} takes {lack}, found {', '.join(networks)}",
                field="metrics",
                also=["features"],
            )
    if not names:
        raise UserError(
            "features: expected a VGG16 with dense layers or weights of LPIPS, found "
            "one with neither",
            field="features",
        )
    metrics = {name: METRICS[name] for name in names}
    data, statistics = None, None
    compared = [metric for metric in metrics.values() if metric.reals != 0]
    if compared and request.data and is_statistics(request.data):
        statistics = _read_statistics(request.data, metrics, networks, listener)
    elif compared:
        data = _open_data(request, compared, models, config.image_size)
    label = labels = None
    if config.c_dim and models.class_ is None and data is not None:
        labels = _read_labels(data, config.c_dim)
    else:
        found = models.one_hot_label(config)
        label = None if found is None else np.asarray(found)
    if data is not None:
        listener.tell(f"data: {data.name}, {len(data):,} images")
        with parallel.first_alone():
            if jax.process_index() == 0:
                data.check(config.image_size, listener)
    made = Plan(
        request,
        generator,
        label,
        labels,
        networks,
        hashes,
        metrics,
        data,
        statistics,
    )
    _check_counts(made)
    return made


def _check_counts(made: Plan) -> None:
    """Refuses fewer samples or images than a metric can be computed of."""
    for name, metric in made.metrics.items():
        least = _LEAST.get(metric.measure, 2)
        counts = {"num_samples": made.request.samples_of(metric)}
        # A file of statistics may not tell how many images it is of.
        if metric.reals != 0 and (made.data is not None or made.reals_of(metric)):
            counts["data"] = made.reals_of(metric)
        for field, count in counts.items():
            if count < least:
                raise UserError(
                    f"{field}: expected {least} images or more for {name}, found "
                    f"{count}",
                    field=field,
                )


def _load_networks(
    directories: Sequence[str], models: Models, resolution: spaces.Size
) -> tuple[dict[str, Network], dict[str, str]]:
    """Networks of model directories by their kinds, or the judge; and their hashes."""
    if not directories:
        if resolution not in _JUDGED:
            raise UserError(
                "features: expected model directories of Inception or VGG16, found "
                f"none; the judge knows drawn faces alone, of {min(_JUDGED)}² to "
                f"{max(_JUDGED)}²",
                field="features",
            )
        where = places.ASSETS / JUDGE
        return {JUDGE: judge.load()}, {JUDGE: checkpoints.fingerprint(where)}
    kinds: dict[str, Callable[[str], Network]]
    kinds = {"inception": loading.load_inception, "vgg16": loading.load_vgg16}
    networks: dict[str, Network] = {}
    hashes = {}
    for directory in directories:
        kind = checkpoints.kind_of(directory)
        if kind is None or kind not in kinds or kind in networks:
            raise UserError(
                f"features: expected a model directory of each of {', '.join(kinds)} "
                f"at most, found {directory} of {kind or 'no kind'}",
                field="features",
            )
        networks[kind] = models.of_other(kinds[kind](directory))
        hashes[kind] = checkpoints.fingerprint(directory)
    return networks, hashes


def _lack(metric: Metric, networks: Mapping[str, Network]) -> str | None:
    """What a metric lacks of the networks, None if it lacks nothing."""
    network = networks.get(metric.network)
    if network is None:
        return f"features of {metric.network}"
    if metric.network == "vgg16":
        if metric.measure == "path" and not network.config.lpips:
            return "a VGG16 with the weights of LPIPS"
        if metric.measure != "path" and not network.config.dense:
            return "a VGG16 with dense layers"
    return None


def is_statistics(path: str) -> bool:
    """Whether data are statistics of features, by the name of their file."""
    return pathlib.PurePath(path).suffix in (".npz", ".pkl")


def _read_statistics(
    path: str,
    metrics: Mapping[str, Metric],
    networks: Mapping[str, Network],
    listener: Listener,
) -> FeatureFile:
    """Statistics of the images that the generator is compared with."""
    found = feature_statistics.read(path)
    for name, metric in metrics.items():
        if metric.reals == 0:
            continue
        length = networks[metric.network].config.num_features
        if found.num_features != length:
            raise UserError(
                f"data: expected statistics of the {length} features of "
                f"{metric.network} for {name}, found {found.num_features} in {path}",
                field="data",
            )
        lacks = {
            "frechet": found.gaussian is None and "mean and covariance",
            "kernel": found.features is None and "features of each image",
            "precision_recall": found.features is None and "features of each image",
            "attributes": found.features is None and "features of each image",
        }[metric.measure]
        if lacks:
            raise UserError(
                f"data: expected {lacks} for {name}, found none in {path}", field="data"
            )
    listener.tell(f"data: {path}, {found.describe()}")
    return found


def _open_data(
    request: MetricsSettings,
    compared: Sequence[Metric],
    models: Models,
    resolution: spaces.Size,
) -> ImageSet:
    """Images that the generator is compared with."""
    path = request.data
    if path is None:
        if models.generator is not None and request.features:
            raise UserError(
                "data: expected images that the generator was trained on, or metrics "
                "that take none, found no data",
                field="data",
                also=["metrics"],
            )
        most = max(metric.reals or metric.samples for metric in compared)
        side = max(spaces.shape_of(resolution))
        return face_set.DrawnFaces(request.num_samples or most, side)
    data: ImageSet = image_sets.open_several(path)
    return image_sets.Mirrored(data) if request.mirror else data


def _read_labels(data: ImageSet, c_dim: int) -> np.ndarray:
    """Classes of data, which must be those of a conditional generator."""
    labels = data.labels
    if labels is None:
        raise UserError(
            "class: expected one for this class-conditional generator, or data with "
            f"classes in {image_sets.LABELS}, found none",
            field="class",
            also=["data"],
        )
    found = labels.max() + 1 if labels.ndim == 1 else labels.shape[1]
    if found > c_dim or (labels.ndim == 2 and found != c_dim) or labels.min() < 0:
        raise UserError(
            f"data: expected {c_dim} classes as the generator has them, found {found}",
            field="data",
        )
    return labels
