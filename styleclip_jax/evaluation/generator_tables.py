"""Table of a generator's metrics: what is missing is computed, the rest is kept."""

import dataclasses
import functools
import hashlib
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from styleclip_jax import documents, parallel, places
from styleclip_jax.batch import run_folder
from styleclip_jax.errors import UserError
from styleclip_jax.evaluation import (
    generator_attributes,
    generator_features,
    generator_metrics,
    generator_plans,
    generator_report,
    path_length,
)
from styleclip_jax.evaluation.generator_features import DISTANCES, Place, Sampling
from styleclip_jax.evaluation.generator_plans import Plan
from styleclip_jax.io import array_files, feature_statistics, files
from styleclip_jax.io.feature_statistics import FeatureFile
from styleclip_jax.loading import Models
from styleclip_jax.models import inception
from styleclip_jax.models.network import Network
from styleclip_jax.ops.moments import FeatureStatistics, Gaussian
from styleclip_jax.progress import BARS, Listener
from styleclip_jax.settings.generator_metrics import MetricsSettings

PROGRAM = generator_features.PROGRAM

# Rows of features in memory at a time, while moments are summed.
_CHUNK = 1024
# Part of a kept name that changes when features do.
_VERSION = "1"


class Result(NamedTuple):
    """Result of a run.

    Attributes:
      paths: files written, by process 0 alone.
      values: means of the metrics by their names.
      succeeded: whether every image could be made.
    """

    paths: list[pathlib.Path]
    values: dict[str, float]
    succeeded: bool


def carry_out(
    request: MetricsSettings,
    models: Models,
    *,
    settings: Mapping[str, Any],
    listener: Listener = BARS,
) -> Result:
    """Computes the metrics that are not there yet, and writes the table.

    Args:
      request: metrics, and what they are computed of.
      models: whose generator is measured.
      settings: all of this by the names of the flags, for run.json.
      listener: listener for the progress.

    Returns:
      Files metrics.json and metrics.md.

    Raises:
      UserError: something asked for is wrong or does not fit, or the folder is of
        another run.
    """
    plan = generator_plans.plan(request, models, listener)
    mesh = parallel.make_mesh(jax.local_devices())
    with run_folder.only_run(request.outdir, listener.tell):
        with parallel.first_alone():
            outdir = run_folder.begin(
                request.outdir,
                program=PROGRAM,
                settings={**settings, **models.record()},
                inputs=_inputs(plan, models),
                tell=listener.tell,
            )
        found = []
        work = _Work(plan, outdir, mesh, listener)
        for repeat in range(request.repeats):
            values = work.repeat(repeat)
            if values is None:
                return Result([], {}, False)
            found.append(values)
        means = {n: float(np.mean([x[n] for x in found])) for n in found[0]}
        if jax.process_index():
            return Result([], means, True)
        if not request.keep_features:
            _remove(outdir / generator_features.DATA)
        paths = generator_report.write(plan, models, outdir, found)
        return Result(paths, means, True)


def _inputs(plan: Plan, models: Models) -> dict[str, str]:
    """Hashes of what is measured and compared with."""
    found = models.fingerprints("generator") | dict(plan.hashes)
    if plan.data is not None:
        found["data"] = plan.data.identity
    if plan.statistics is not None:
        found["data"] = files.hash_file(str(plan.request.data))
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class _Work:
    """Work on a plan, in a folder.

    Attributes:
      plan: the plan.
      outdir: folder of the run.
      mesh: devices of this process.
      listener: listener for the progress.
    """

    plan: Plan
    outdir: pathlib.Path
    mesh: jax.sharding.Mesh
    listener: Listener

    def repeat(self, number: int) -> dict[str, float] | None:
        """Values of a run with its own seeds; None where an image failed."""
        folder = self.outdir / f"repeat-{number}"
        path = folder.with_suffix(".json")
        if not parallel.agree(path.is_file()):
            reals, features = self.reals, self._of_samples(folder, number)
            if reals is None or features is None:
                return None
            if jax.process_index() == 0:
                files.write_json(path, self._values(features, reals, number))
        # No process removes the folder before all have left it.
        parallel.meet(path.is_file)
        if jax.process_index() == 0 and not self.plan.request.keep_features:
            _remove(folder)
        return documents.read_object(path)

    @functools.cached_property
    def reals(self) -> dict[str, FeatureFile] | None:
        """Features of the data by the names of networks, in process 0.

        They are kept for further runs on the same data. None where some failed.
        """
        plan = self.plan
        networks, count = plan.looking(at_data=True), plan.num_reals
        if plan.statistics is not None:
            return dict.fromkeys(networks, plan.statistics)
        if plan.data is None:
            return {}
        kept = {
            name: _kept(plan, name, self.listener)
            for name in networks
            if jax.process_index() == 0
        }
        missing = [name for name, array in kept.items() if array is None]
        if not parallel.agree(len(missing)):
            return {name: x for name, x in kept.items() if x is not None}
        self.listener.tell(f"features of {count:,} images of the data")
        found = generator_features.of_data(
            plan.data,
            count,
            networks,
            self._place(self.outdir / generator_features.DATA),
        )
        if found is None:
            return None
        if jax.process_index():
            return {}
        return {
            name: _keep(plan, name, path, self.listener) for name, path in found.items()
        }

    def _place(self, folder: pathlib.Path) -> Place:
        return Place(folder, self.mesh, self.plan.request.batch_size, self.listener)

    def _of_samples(self, folder: pathlib.Path, number: int) -> dict[str, Any] | None:
        """Files of features of samples, and of distances by the names of metrics."""
        plan = self.plan
        seed = plan.request.seed + number * plan.num_samples
        sampling = functools.partial(
            Sampling,
            plan.generator,
            plan.request.noise,
            seed,
            label=plan.label,
            labels=plan.labels,
        )
        files_: dict[str, Any] = {}
        paths = {n: x for n, x in plan.metrics.items() if x.measure == "path"}
        others = [x for n, x in plan.metrics.items() if n not in paths]
        if others:
            count = max(map(plan.request.samples_of, others))
            self.listener.tell(f"features of {count:,} samples from seed {seed} on")
            found = generator_features.of_samples(
                sampling(count), plan.looking(), self._place(folder / "samples")
            )
            if found is None:
                return None
            files_ |= found
        for name, metric in paths.items():
            count = plan.request.samples_of(metric)
            self.listener.tell(f"{name}: {count:,} paths")
            found = generator_features.of_paths(
                sampling(count),
                metric.network,
                plan.networks[metric.network],
                metric.path,
                self._place(folder / name),
            )
            if found is None:
                return None
            files_[name] = found[DISTANCES]
        return files_

    def _values(
        self,
        paths: Mapping[str, pathlib.Path],
        reals: Mapping[str, FeatureFile],
        number: int,
    ) -> dict[str, float]:
        """Values of all metrics of a run, by names as NVIDIA's code gives them."""
        plan, found = self.plan, _read(paths)
        values: dict[str, float] = {}

        @functools.cache
        def gaussian(network: str, count: int) -> Gaussian:
            return _sum(found[network][:count]).gaussian

        for name, metric in plan.metrics.items():
            count = plan.request.samples_of(metric)
            if metric.measure == "path":
                values[name] = path_length.filtered_mean(found[name][:count, 0])
                continue
            generated = found[metric.network][:count]
            network = plan.networks[metric.network]
            if metric.measure == "inception_score":
                score = generator_metrics.inception_score(
                    _probabilities(network, generated)
                )
                values[f"{name}_mean"], values[f"{name}_std"] = score
                continue
            file, num_reals = reals[metric.network], plan.reals_of(metric)
            if metric.measure == "frechet":
                values[name] = generator_metrics.frechet_distance(
                    gaussian(metric.network, count), self._gaussian(file, num_reals)
                )
                continue
            assert file.features is not None
            real = file.features[:num_reals]
            if metric.measure == "attributes":
                both = [
                    generator_attributes.shares(network, x) for x in (generated, real)
                ]
                values |= generator_attributes.to_values(name, *both)
            elif metric.measure == "kernel":
                seed = (plan.request.seed, number)
                subsets = generator_metrics.draw_subsets(
                    seed, len(generated), len(real)
                )
                values[name] = generator_metrics.kernel_distance(
                    generated, real, subsets
                )
            else:
                pair = generator_metrics.precision_recall(
                    generated, real, mesh=self.mesh
                )
                values[f"{name}_precision"], values[f"{name}_recall"] = pair
        return values

    @functools.cached_property
    def _known(self) -> dict[tuple[int, int], Gaussian]:
        """Mean and covariance of the first images of files, once they were computed."""
        return {}

    def _gaussian(self, file: FeatureFile, count: int) -> Gaussian:
        """Mean and covariance of the features of so many images of a file."""
        if file.gaussian is not None and count == file.count:
            return file.gaussian
        assert file.features is not None
        key = (id(file), count)
        if key not in self._known:
            self._known[key] = _sum(file.features[:count]).gaussian
        return self._known[key]


@jax.jit
def _classify(network: Network, features: jax.Array) -> jax.Array:
    return jax.nn.softmax(inception.logits(network, features))


def _probabilities(network: Network, features: np.ndarray) -> np.ndarray:
    """Probabilities of classes [N, C], without the bias of the output."""
    chunks = range(0, len(features), _CHUNK)
    return np.concatenate(
        [np.asarray(_classify(network, features[i : i + _CHUNK])) for i in chunks]
    )


def _remove(folder: pathlib.Path) -> None:
    """Removes a folder, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)


def _sum(features: np.ndarray) -> FeatureStatistics:
    found = FeatureStatistics.empty(features.shape[1])
    for start in range(0, len(features), _CHUNK):
        found = found.add(features[start : start + _CHUNK])
    return found


def _read(paths: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    return {name: array_files.read_npy(path) for name, path in paths.items()}


def _cache_of(plan: Plan, name: str) -> pathlib.Path | None:
    """File in which features of the data by a network are kept; None for nowhere."""
    asked = plan.request.data_cache
    folder = pathlib.Path(asked) if asked else places.user_cache()
    if asked == "none" or folder is None or plan.data is None:
        return None
    said = (_VERSION, plan.data.identity, plan.num_reals, name, plan.hashes[name])
    key = hashlib.sha256(repr(said).encode()).hexdigest()
    return folder / "features" / f"{key[:32]}.npz"


def _kept(plan: Plan, name: str, listener: Listener) -> FeatureFile | None:
    """Features of the data that an earlier run has kept, None if there are none."""
    path = _cache_of(plan, name)
    if path is None or not path.is_file():
        return None
    length = plan.networks[name].config.num_features
    try:
        found = feature_statistics.read(path)
        if (found.count, found.num_features) != (plan.num_reals, length):
            raise UserError(f"{path}: expected features of the data, found others")
    except UserError as error:
        listener.tell(f"note: {error}; they are made again")
        return None
    listener.tell(f"features of the data: {path}, of an earlier run")
    return found


def _keep(plan: Plan, name: str, path: pathlib.Path, listener: Listener) -> FeatureFile:
    """Features of the data and their statistics, kept for further runs."""
    features, kept = array_files.read_npy(path), _cache_of(plan, name)
    statistics = _sum(features)
    assert plan.data is not None
    about = {"network": f"{name} {plan.hashes[name]}", "data": plan.data.name}
    if kept is not None:
        try:
            feature_statistics.write(kept, statistics, features=features, **about)
        except UserError as error:
            listener.tell(f"note: features of the data are not kept ({error})")
    return FeatureFile("own", statistics.gaussian, statistics, features, **about)
