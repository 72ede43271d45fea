"""Features of images, streamed: of a generator's samples, of its paths, and of data.

Each is a run of its own, in a folder that is gone on with after any interruption: an
array of features with a row for each image, in the order of seeds or of the data.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import latents, parallel, spaces
from styleclip_jax.batch import editor, pictures, runs, stream
from styleclip_jax.batch.editor import Outcome
from styleclip_jax.batch.journal import Kept
from styleclip_jax.batch.source import Source
from styleclip_jax.evaluation import path_length
from styleclip_jax.models import generators, inception, lpips, vgg16
from styleclip_jax.models.network import Network
from styleclip_jax.ops import pixels
from styleclip_jax.photos.image_sets import ImageSet
from styleclip_jax.progress import Listener, Report
from styleclip_jax.settings.latents import Noise
from styleclip_jax.settings.measures import PathLengthConfig
from styleclip_jax.settings.output import Output
from styleclip_jax.toy import judge

PROGRAM = "styleclip-metrics"

# Folder of the features of data in that of a run.
DATA = "data"
# Name of the file of path lengths.
DISTANCES = "distances"


class Look(NamedTuple):
    """Ways in which a network looks at images.

    Attributes:
      features: (network, images of 8 bits [B, H, W, 3]) → [B, F].
      path: (network, images in [0, 255], not clipped) → [B, n], whose squared distance
        is that of the images; None for a network without such.
    """

    features: Callable[[Network, jax.Array], jax.Array]
    path: Callable[[Network, jax.Array], jax.Array] | None


def _judge(network: Network, image: jax.Array) -> jax.Array:
    """Features of images of any resolution, which the judge sees at its own."""
    size = network.config.resolution
    shape = (len(image), size, size, 3)
    if image.shape != shape:
        image = jax.image.resize(image, shape, "linear")
    return judge.features(network, image)


# Networks by their names in `settings.generator_metrics`.
LOOKS = {
    "inception": Look(inception.features, None),
    "vgg16": Look(
        vgg16.dense_features,
        lambda network, image: lpips.features(network, image / 127.5 - 1),
    ),
    "judge": Look(
        lambda network, image: _judge(network, pixels.to_float(image)),
        lambda network, image: _judge(network, image / 127.5 - 1),
    ),
}


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Sampling of a generator.

    Attributes:
      generator: the generator.
      noise: noise of its layers.
      seed: seed of the first sample; the others follow.
      count: number of samples.
      label: class of all samples, one-hot [c_dim]; None for an unconditional generator,
        or to draw classes.
      labels: classes to draw from, [N] numbers or [N, c_dim] vectors.
    """

    generator: Network
    noise: Noise
    seed: int
    count: int
    label: np.ndarray | None = None
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return self.count

    def load(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Loads the z of some samples, their seeds, and their classes."""
        seeds = [self.seed + int(row) for row in rows]
        config = self.generator.config
        found = {
            "z": latents.seeded_batch(seeds, config.z_dim),
            "seed": np.array(seeds, np.uint32),
        }
        if self.label is not None:
            label = self.label
        elif self.labels is not None:
            chosen = [
                np.random.default_rng(seed).integers(len(self.labels)) for seed in seeds
            ]
            label = self.labels[chosen]
            if label.ndim == 1:
                label = np.eye(config.c_dim)[label]
        else:
            return found
        shape = (len(rows), config.c_dim)
        return found | {"label": np.broadcast_to(label, shape).astype(np.float32)}


class Place(NamedTuple):
    """Place of a run: its folder and devices, and who listens.

    Attributes:
      folder: folder of the run.
      mesh: devices of this process.
      batch_size: number of images per device at a time, as `Output` has it.
      listener: listener for the progress.
    """

    folder: pathlib.Path
    mesh: jax.sharding.Mesh
    batch_size: str | None
    listener: Listener


@functools.partial(jax.jit, static_argnames="names")
def _look(
    networks: tuple[Network, ...], image: jax.Array, names: tuple[str, ...]
) -> dict[str, jax.Array]:
    """Features of images of 8 bits by each network."""
    return {
        name: LOOKS[name].features(network, image)
        for name, network in zip(names, networks, strict=True)
    }


@jax.jit
def _map(generator: Network, batch: Any) -> jax.Array:
    """W+ of samples without truncation."""
    w = generators.map_latents(generator, batch["z"], batch.get("label"))
    return spaces.broadcast_w(w, generator.config.num_rows)


# Parity: official metrics see images whose digits are cut off.
_to_uint8 = jax.jit(functools.partial(pixels.to_uint8, rounding="tf"))


@functools.partial(jax.jit, static_argnames=("name", "config"))
def walk(
    generator: Network, network: Network, batch: Any, name: str, config: Any
) -> jax.Array:
    """Squared distances along a path for each seed, [B], each with its own noise."""
    look = LOOKS[name].path
    assert look is not None

    def one(key: jax.Array, label: jax.Array | None) -> jax.Array:
        return path_length.path_length_distances(
            generator,
            functools.partial(look, network),
            path_length.draw(key, generator.config, batch_size=1),
            None if label is None else label[None],
            config=config,
        )[0]

    return jax.vmap(one)(_keys(batch["seed"]), batch.get("label"))


@jax.jit
def _keys(seed: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.key)(seed)


def of_samples(
    sampling: Sampling, networks: Mapping[str, Network], place: Place
) -> dict[str, pathlib.Path] | None:
    """Features of a generator's samples, which are images of 8 bits.

    Args:
      sampling: generator and its samples.
      networks: networks that look, by their names.
      place: where to run.

    Returns:
      File of the features [N, F] of each network; None if some could not be made.
    """
    generator, *others = parallel.replicate(
        (sampling.generator, *networks.values()), place.mesh
    )

    def compute(batch: Any) -> Outcome:
        keys = _keys(batch["seed"])
        image = pictures.render(
            generator, _map(generator, batch), keys, noise=sampling.noise
        )
        seen = _look(tuple(others), _to_uint8(image), tuple(networks))
        return Outcome(None, seen, {}, editor.failures(image, -1, 0))

    lengths = {n: (x.config.num_features,) for n, x in networks.items()}
    return _run(sampling, compute, lengths, place)


def of_paths(
    sampling: Sampling,
    name: str,
    network: Network,
    config: PathLengthConfig,
    place: Place,
) -> dict[str, pathlib.Path] | None:
    """Squared distances along a generator's paths.

    Args:
      sampling: generator and its samples, of which a path takes two.
      name: name of the network that looks.
      network: the network.
      config: settings of the paths.
      place: where to run.

    Returns:
      File of `DISTANCES` [N, 1]; None if some could not be made.
    """
    generator, network = parallel.replicate((sampling.generator, network), place.mesh)

    def compute(batch: Any) -> Outcome:
        found = walk(generator, network, batch, name, config)
        failed_at = jnp.where(jnp.isfinite(found), -1, 0)
        return Outcome(None, {DISTANCES: found[:, None]}, {}, failed_at)

    return _run(sampling, compute, {DISTANCES: (1,)}, place)


def of_data(
    data: ImageSet, count: int, networks: Mapping[str, Network], place: Place
) -> dict[str, pathlib.Path] | None:
    """Features of the first images of a set; other arguments as of `of_samples`."""
    others = parallel.replicate(tuple(networks.values()), place.mesh)

    def compute(image: Any) -> Outcome:
        seen = _look(others, image, tuple(networks))
        return Outcome(None, seen, {}, jnp.full(len(image), -1))

    lengths = {n: (x.config.num_features,) for n, x in networks.items()}
    return _run(_First(data, count), compute, lengths, place)


@dataclasses.dataclass(frozen=True)
class _First:
    """First images of a set, as a source."""

    data: ImageSet
    count: int

    def __len__(self) -> int:
        return self.count

    def load(self, rows: np.ndarray) -> np.ndarray:
        return self.data.load(rows)


def _run(
    source: Source,
    compute: Callable[[Any], Outcome],
    kept: Mapping[str, tuple[int, ...]],
    place: Place,
) -> dict[str, pathlib.Path] | None:
    """Runs what is not done yet; results as of `of_samples`."""

    def run(batch: Any, rows: np.ndarray, variant: int, report: Report) -> Outcome:
        outcome = compute(batch)
        report(1)
        return outcome

    task = stream.Task(
        variants=1,
        prepare=lambda batch: batch,
        compute=run,
        describe=lambda row, variant: {"row": row},
        image_format="none",
        png_level=0,
        probe=lambda batch, rows: compute(batch).latent,
        memory=lambda batch, rows: parallel.bytes_needed(
            jax.jit(lambda x: compute(x).latent), batch
        ),
    )
    work = runs.Work(
        program=PROGRAM,
        settings={},
        inputs=dict,
        output=Output(str(place.folder), "none", batch_size=place.batch_size),
        source=source,
        task=task,
        kept=Kept(kept),
        steps=1,
        unit="image",
        result="image",
        quicker="batch_size=auto, fewer num_samples, or several processes",
        items="images",
    )
    done = runs.carry_out(work, place.mesh, place.listener)
    for line in done.failures:
        place.listener.tell(line)
    return done.journal.paths if done.succeeded else None
