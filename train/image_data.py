"""Real images of a training: opened, shuffled, and read ahead by grain.

Batch i is the same whenever and wherever it is read: by one process or several, from
the start or after an interruption.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from styleclip_jax import parallel
from styleclip_jax.errors import UserError
from styleclip_jax.photos import image_sets
from styleclip_jax.photos.image_sets import ImageSet
from styleclip_jax.progress import Listener
from styleclip_jax.settings.generator_training import ImageDataSettings
from styleclip_jax.toy import face_set

# Faces that are drawn, where no other images are named.
_NUM_FACES = 50_000
# Batches that are read at a time, and those that wait.
_THREADS, _AHEAD = 4, 8
# Images whose deviation the discriminator takes together, at most.
GROUP = 4


class Batch(NamedTuple):
    """Share of this process in a batch of real images.

    Attributes:
      image: [devices, B, H, W, 3] uint8.
      label: [devices, B, c_dim] float32; None without classes.
    """

    image: np.ndarray
    label: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class RealImages:
    """Real images that a generator is trained on.

    Attributes:
      images: the set.
      labels: their classes, [N] or [N, c_dim]; None without.
      resolution: width and height that they are averaged down to.
      seed: seed of their order, which is another one each time.
    """

    images: ImageSet
    labels: np.ndarray | None
    resolution: int
    seed: int

    @property
    def c_dim(self) -> int:
        """Number of classes, 0 for none."""
        if self.labels is None:
            return 0
        return (
            int(self.labels.max()) + 1 if self.labels.ndim == 1 else self.labels[0].size
        )

    def describe(self) -> str:
        """Line on the images, for people."""
        classes = f", {self.c_dim} classes" if self.c_dim else ""
        return f"data: {self.images.name}, {len(self.images):,} images{classes}"

    def load(self, rows: np.ndarray) -> np.ndarray:
        """Some images, [B, H, W, 3] uint8 at the resolution."""
        found = self.images.load(rows)
        factor = found.shape[1] // self.resolution
        if factor == 1:
            return found
        blocks = (len(rows), self.resolution, factor, self.resolution, factor, 3)
        return np.rint(found.reshape(blocks).mean(axis=(2, 4))).astype(np.uint8)

    def batches(
        self, size: int, start: int, stop: int, mesh: jax.sharding.Mesh
    ) -> Iterator[Batch]:
        """Shares of this process in the batches from `start` to `stop`.

        Args:
          size: images of a batch over all devices of all processes, a multiple of
            their number.
          start, stop: numbers of the first batch, and of the one after the last.
          mesh: devices of this process.
        """
        grain = require_grain()
        order = (
            grain.MapDataset.range(len(self.images)).shuffle(seed=self.seed).repeat()
        )
        each = size // (mesh.size * jax.process_count())
        first = jax.process_index() * mesh.size * each
        rows = [
            first + device * each + row
            for device in range(mesh.size)
            for row in rows_of_device(each)
        ]

        def read(number: int) -> Batch:
            chosen = np.array([order[number * size + row] for row in rows])
            image = self.load(chosen)
            shape = (mesh.size, each)
            label = None
            if self.labels is not None:
                label = self.labels[chosen]
                if label.ndim == 1:
                    label = np.eye(self.c_dim, dtype=np.float32)[label]
                label = label.reshape(*shape, self.c_dim)
            return Batch(image.reshape(*shape, *image.shape[1:]), label)

        options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD)
        dataset = grain.MapDataset.range(start, stop).map(read)
        yield from dataset.to_iter_dataset(options)


def require_grain() -> Any:
    """The package that reads images ahead.

    Raises:
      UserError: it is not installed.
    """
    try:
        import grain
    except ImportError:
        raise UserError(
            "training a generator needs grain: pip install 'styleclip-jax[train]'"
        ) from None
    return grain


def rows_of_device(count: int) -> np.ndarray:
    """Order of the rows of a device, by which each group is of neighbours.

    The discriminator takes the members of a group count / GROUP apart. So the groups of
    a batch are the same on any number of devices that have whole groups.
    """
    group = math.gcd(count, GROUP)
    return np.arange(count).reshape(-1, group).T.reshape(-1)


def open_images(
    settings: ImageDataSettings, *, seed: int, listener: Listener
) -> RealImages:
    """Opens the images of a training, and checks each one's size.

    Args:
      settings: which images.
      seed: seed of their order.
      listener: is told how far the check is.

    Raises:
      UserError: there are fewer than two images, or one is damaged or of another size
        than the others, or they are no squares of a power of two; or the package that
        reads them is missing.
    """
    require_grain()
    images: ImageSet
    if settings.data is None:
        resolution = settings.resolution or face_set.RESOLUTION
        images = face_set.DrawnFaces(_NUM_FACES, resolution)
        return RealImages(images, None, resolution, seed)
    stored = image_sets.open_several(settings.data)
    width, height = stored.first_size()
    resolution = settings.resolution or width
    if width != height or width % resolution or resolution & (resolution - 1):
        raise UserError(
            f"data: expected square images of a power of two, or of a multiple of "
            f"resolution, found {width}×{height} in {settings.data}",
            field="data",
            also=["resolution"],
        )
    images = image_sets.Mirrored(stored) if settings.mirror else stored
    labels = images.labels
    with parallel.first_alone():
        if jax.process_index() == 0:
            stored.check(width, listener)
    return RealImages(images, labels, resolution, seed)
