"""Measurement of channel relevance in pieces: spread over devices, kept, resumed.

Channels come in groups. The mean over samples of a group is kept while it is under way,
its result once it is done, so an interrupted run loses little and ends in the same
bytes as one that is not interrupted. Several processes take the groups in turn, and
read each other's results from the folder that they share.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from styleclip_jax import documents, losses, parallel, spaces
from styleclip_jax.batch import run_folder
from styleclip_jax.editing.estimation import Samples
from styleclip_jax.errors import UserError
from styleclip_jax.io import array_files, files
from styleclip_jax.methods import channel_relevance, global_directions
from styleclip_jax.methods.channel_relevance import RelevanceConfig
from styleclip_jax.ops import norms
from styleclip_jax.progress import SILENT, Listener, Report, ignore

# Channels whose result is kept together. The layers before them are computed once per
# group and sample, so one pass for the early layers goes with 128 for the later ones.
_GROUP = 64
_SAVE_EVERY = 30.0


class Group(NamedTuple):
    """Channels that are measured and kept together.

    Attributes:
      name: of its file.
      layer: index of their layer, None for channels of several.
      channels: indices in their layer, or flat ones into S.
    """

    name: str
    layer: int | None
    channels: np.ndarray


class Measured(NamedTuple):
    """Result for some channels.

    Attributes:
      rows: [C, E] relevance.
      convergence: [P, C] cosine of the mean over the first 1, 2, 4, … samples to rows.
      lower: [C] cosine of relevance by the lower clip_resolution to that by the whole
        image, over the first batch of samples; empty without that setting.
    """

    rows: np.ndarray
    convergence: np.ndarray
    lower: np.ndarray


# Shapes of arrays by name, None where any may come.
Shapes = Mapping[str, tuple[int, ...] | None]


class Work:
    """Results on the way to the output, one file each, in a folder beside it."""

    def __init__(
        self,
        folder: pathlib.Path,
        record: dict[str, Any],
        tell: Callable[[str], None] = ignore,
    ) -> None:
        """Opens the folder, new or left by an interrupted run of the same settings.

        Args:
          folder: folder of the results.
          record: what decides them.
          tell: takes notes on damaged results, and on other versions.

        Raises:
          UserError: the folder is of another run, or cannot be written.
        """
        self.folder, self._tell = folder, tell
        path = folder / files.RECORD
        if not path.exists():
            files.write_json(path, record | {"versions": run_folder.versions()})
        found = documents.read_object(path)
        # Through JSON, which has no tuples.
        now = json.loads(json.dumps(record))
        changed = run_folder.difference(
            {name: x for name, x in found.items() if name != "versions"}, now
        )
        if changed:
            name, change = changed
            raise UserError(
                f"{folder}: is of a run with {name}={change}; use the same flags to go "
                "on with it, or remove it",
                also=[name],
            )
        run_folder.tell_other_versions(found, tell)

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Writes arrays under a name."""
        with files.new_file(self.path(name)) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]

    def load(self, name: str, shapes: Shapes) -> dict[str, np.ndarray] | None:
        """Arrays of this name, None if there are none, or damaged ones, which is told.

        Args:
          name: name of the arrays.
          shapes: shape of each by its own name, None for any.
        """
        path = self.path(name)
        if not path.exists():
            return None
        try:
            found = array_files.read_npz(path)
            different = [
                x
                for x in shapes
                if x not in found or shapes[x] not in (None, found[x].shape)
            ]
            if different:
                raise UserError(f"{path}: {different[0]} is missing or of other shape")
        except UserError as error:
            self._tell(f"note: {error}; it is measured again")
            self.drop(name)
            return None
        # Copies, since those are of the file.
        return {x: np.array(found[x]) for x in shapes}

    def drop(self, name: str) -> None:
        """Removes the arrays of this name."""
        self.path(name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes the folder."""
        with files.writable(self.folder):
            shutil.rmtree(self.folder)

    def path(self, name: str) -> pathlib.Path:
        """File of the arrays of this name."""
        return self.folder / f"{name}.npz"


def _unfinished(group: Group) -> str:
    """Name of what is kept of a group while it is under way."""
    return f"{group.name}.unfinished"


class Mean:
    """Mean of unit differences over samples, with the means on the way."""

    def __init__(self, num_channels: int, embed_dim: int, num_samples: int) -> None:
        self.marks = checkpoints_of(num_samples)
        self.state: dict[str, np.ndarray] = {
            "count": np.zeros((), np.int64),
            "total": np.zeros((num_channels, embed_dim), np.float32),
            "earlier": np.zeros((len(self.marks), num_channels, embed_dim), np.float32),
            "lower": np.zeros(0, np.float32),
        }

    def add(self, differences: np.ndarray) -> None:
        """Takes differences [B, C, E] of more samples."""
        state = self.state
        for difference in differences:
            state["total"] += difference
            state["count"] += 1
            if state["count"] in self.marks:
                index = self.marks.index(int(state["count"]))
                state["earlier"][index] = state["total"]

    @property
    def num_done(self) -> int:
        """Number of samples that it is the mean of."""
        return int(self.state["count"])

    @property
    def shapes(self) -> Shapes:
        """Shapes of what is kept of it."""
        return {name: x.shape for name, x in self.state.items()} | {"lower": None}

    @property
    def result_shapes(self) -> Shapes:
        """Shapes of its result."""
        total, earlier = self.state["total"].shape, self.state["earlier"].shape
        return {"rows": total, "convergence": earlier[:2], "lower": None}

    def result(self) -> Measured:
        """Relevance, and how fast the mean came to it."""
        rows = norms.unit_on_host(self.state["total"])
        cosines = np.sum(norms.unit_on_host(self.state["earlier"]) * rows, axis=-1)
        return Measured(rows, cosines, self.state["lower"])


def checkpoints_of(num_samples: int) -> list[int]:
    """Numbers of samples, below all of them, at which the mean is looked at."""
    return [1 << i for i in range(num_samples.bit_length()) if 1 << i < num_samples]


def measure(
    networks: losses.Networks,
    samples: Samples,
    config: RelevanceConfig,
    layers: tuple[int, ...],
    *,
    mesh: jax.sharding.Mesh,
    batch_size: int,
    work: Work,
    listener: Listener = SILENT,
    save_every: float = _SAVE_EVERY,
) -> Measured:
    """Relevance of all channels of some layers.

    Args:
      networks: generator and CLIP.
      samples: with mean and deviation of S.
      config: how to measure.
      layers: indices of the layers.
      mesh: devices to spread the work over.
      batch_size: images at a time.
      work: keeps results on the way; those that it holds are not computed again.
      listener: is told how many images of this process are done, and how long they
        take.
      save_every: seconds between two copies of the unfinished group.
    """
    make: Callable[..., _Evaluator]
    make = _Exact if config.method == "exact" else _Jacobian
    evaluator = make(networks, samples, config, layers, mesh)
    groups = list(evaluator.groups())
    own = groups[jax.process_index() :: jax.process_count()]
    embed_dim = networks.clip.config.embed_dim

    def begin(group: Group) -> Mean:
        mean = Mean(len(group.channels), embed_dim, config.num_samples)
        mean.state = work.load(_unfinished(group), mean.shapes) or mean.state
        return mean

    def result(group: Group) -> Measured | None:
        shapes = Mean(len(group.channels), embed_dim, config.num_samples).result_shapes
        kept = work.load(group.name, shapes)
        return None if kept is None else Measured(**kept)

    todo = [group for group in own if result(group) is None]
    total = sum(
        evaluator.num_images(x) * (config.num_samples - begin(x).num_done) for x in todo
    )
    if jax.process_count() > 1:
        listener.tell(
            f"processes: {jax.process_count()}, of which this one measures {len(own)} "
            f"of {len(groups)} groups of channels and shows a bar of its own"
        )
    quicker = "fewer num_samples, or some layers alone"
    with listener.long_bar(total, "image", quicker) as report:
        for group in todo:
            measured = _measure_group(
                evaluator,
                group,
                samples,
                config,
                batch_size,
                begin(group),
                work,
                report,
                save_every,
            )
            work.save(group.name, measured._asdict())
            work.drop(_unfinished(group))
    parallel.meet(lambda: all(work.path(group.name).exists() for group in groups))
    done = []
    for group in groups:
        kept = result(group)
        if kept is None:
            raise UserError(
                f"{work.path(group.name)}: was damaged; start again with the same flags"
            )
        done.append(kept)
    # No process removes the folder before all have read it.
    parallel.agree(True)
    rows, cosines, lower = zip(*done, strict=True)
    return Measured(
        np.concatenate(rows), np.concatenate(cosines, axis=1), np.concatenate(lower)
    )


def _measure_group(
    evaluator: "_Evaluator",
    group: Group,
    samples: Samples,
    config: RelevanceConfig,
    batch_size: int,
    mean: Mean,
    work: Work,
    report: Report,
    save_every: float,
) -> Measured:
    saved = time.monotonic()
    each = evaluator.num_images(group)
    size = evaluator.num_samples(batch_size)
    for start in range(mean.num_done, config.num_samples, size):
        count = min(size, config.num_samples - start)
        batch = tuple(np.asarray(x[start : start + count]) for x in samples.styles)
        batch = parallel.pad(batch, size)
        found = evaluator.evaluate(group, batch, batch_size)[:count]
        if config.clip_resolution and start == 0:
            whole = evaluator.evaluate(group, batch, batch_size, 0)[:count]
            mean.state["lower"] = np.mean(np.sum(found * whole, axis=-1), axis=0)
        mean.add(found)
        if time.monotonic() - saved >= save_every:
            work.save(_unfinished(group), mean.state)
            saved = time.monotonic()
        report(count * each)
    return mean.result()


_prepare = jax.jit(
    channel_relevance.prepare, static_argnames=("layer", "layers", "config")
)
_jacobian_rows = jax.jit(channel_relevance.jacobian_rows)
_jacobian_columns = jax.jit(channel_relevance.jacobian_columns)


@functools.partial(jax.jit, static_argnames=("layer", "config"))
def _differences(*inputs: Any, layer: int, config: RelevanceConfig) -> jax.Array:
    """Unit differences [K, B, E]; arguments as of `channel_features`."""
    features = channel_relevance.channel_features(*inputs, layer=layer, config=config)
    return channel_relevance.differences(features)


class _Evaluator(Protocol):
    """Way to measure.

    Attributes:
      networks: generator and CLIP, on the devices.
    """

    networks: losses.Networks

    def groups(self) -> Iterator[Group]:
        """All channels, in the order in which they are measured."""

    def num_images(self, group: Group) -> int:
        """Images that a group takes for each sample."""

    def num_samples(self, batch_size: int) -> int:
        """Samples to evaluate at a time."""

    def evaluate(
        self,
        group: Group,
        batch: spaces.Styles,
        batch_size: int,
        clip_resolution: int | None = None,
    ) -> np.ndarray:
        """Unit differences [B, C, E] of a group for samples.

        The result is a number for each sample, so padding of the batch is cut off by
        the caller. `clip_resolution` overrides the setting.
        """


class _Exact:
    """Differences between both ends of every channel; devices share the channels."""

    def __init__(
        self,
        networks: losses.Networks,
        samples: Samples,
        config: RelevanceConfig,
        layers: tuple[int, ...],
        mesh: jax.sharding.Mesh,
    ) -> None:
        self.networks = parallel.replicate(networks, mesh)
        self._mean, self._std = parallel.replicate((samples.mean, samples.std), mesh)
        self._config, self._layers, self._mesh = config, layers, mesh

    def groups(self) -> Iterator[Group]:
        for layer in self._layers:
            about = self.networks.generator.config.style_layout[layer]
            for start in range(0, about.channels, _GROUP):
                channels = np.arange(start, min(start + _GROUP, about.channels))
                name = f"{about.name.replace('/', '-')}-{start:06d}"
                yield Group(name, layer, channels)

    def num_images(self, group: Group) -> int:
        """Images of both ends of each channel."""
        return 2 * len(group.channels)

    def num_samples(self, batch_size: int) -> int:
        """Samples at a time."""
        return max(1, batch_size // (2 * _GROUP))

    def evaluate(
        self,
        group: Group,
        batch: spaces.Styles,
        batch_size: int,
        clip_resolution: int | None = None,
    ) -> np.ndarray:
        """Unit differences [B, C, E] of a group for samples."""
        config = self._config
        if clip_resolution is not None:
            config = dataclasses.replace(config, clip_resolution=clip_resolution)
        size = max(1, min(batch_size // 2, _GROUP))
        size = parallel.round_up(size, self._mesh.size)
        prepared = _prepare(
            self.networks,
            parallel.replicate(batch, self._mesh),
            self._mean,
            layer=group.layer,
            layers=self._layers,
            config=config,
        )
        found = []
        for start in range(0, len(group.channels), size):
            channels = parallel.pad(group.channels[start : start + size], size)
            found.append(
                _differences(
                    self.networks,
                    prepared,
                    self._mean,
                    self._std,
                    parallel.shard(channels, self._mesh),
                    layer=group.layer,
                    config=config,
                )
            )
        # The results are gathered at the end, so that the devices need not wait.
        by_channel = np.concatenate([np.asarray(x) for x in found])
        return by_channel[: len(group.channels)].swapaxes(0, 1)


class _Jacobian:
    """Derivatives by all channels at once; devices share the samples.

    A pass through the transposed derivative gives one coordinate for all channels, one
    through the derivative itself all coordinates for one channel. Both multiply as
    often as each other, so the fewer passes are the cheaper ones.
    """

    def __init__(
        self,
        networks: losses.Networks,
        samples: Samples,
        config: RelevanceConfig,
        layers: tuple[int, ...],
        mesh: jax.sharding.Mesh,
    ) -> None:
        del samples, config
        self.networks, self._mesh = parallel.replicate(networks, mesh), mesh
        layout = networks.generator.config.style_layout
        measured = global_directions.channels_of(layout, layers)
        self._channels = np.flatnonzero(measured)
        self._by_rows = networks.clip.config.embed_dim <= len(self._channels)

    def groups(self) -> Iterator[Group]:
        yield Group("jacobian", None, self._channels)

    def num_images(self, group: Group) -> int:
        """The sample's own image, with its derivatives by all channels."""
        del group
        return 1

    def num_samples(self, batch_size: int) -> int:
        """Samples at a time."""
        return self._mesh.size

    def evaluate(
        self,
        group: Group,
        batch: spaces.Styles,
        batch_size: int,
        clip_resolution: int | None = None,
    ) -> np.ndarray:
        """Unit derivatives [B, C, E] of a group for samples."""
        embed_dim = self.networks.clip.config.embed_dim
        passes: np.ndarray = (
            np.eye(embed_dim, dtype=np.float32) if self._by_rows else group.channels
        )
        size = max(1, min(batch_size // self._mesh.size, len(passes)))
        derivative = _jacobian_rows if self._by_rows else _jacobian_columns
        styles = parallel.shard(batch, self._mesh)
        found = []
        for start in range(0, len(passes), size):
            chunk = parallel.pad(passes[start : start + size], size)
            found.append(
                derivative(self.networks, styles, parallel.replicate(chunk, self._mesh))
            )
        axis = 2 if self._by_rows else 1
        whole = np.concatenate([np.asarray(x) for x in found], axis=axis)
        if self._by_rows:
            return norms.unit_on_host(whole[:, group.channels, :embed_dim])
        return norms.unit_on_host(whole[:, : len(passes)])
