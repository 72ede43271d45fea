"""Metrics of a generator: its images' features beside those of real images.

Each is a function of features or probabilities, on the host in float64; the distances
of precision and recall are computed on the devices. Which network makes the features
is up to the caller.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax import lax
from jaxtyping import Array, Float, Shaped

from styleclip_jax import parallel
from styleclip_jax.ops import products
from styleclip_jax.ops.moments import Gaussian

# Features that distances are computed between at a time.
_ROWS, _COLUMNS = 1024, 4096
_LARGEST = np.finfo(np.float16).max

# Tiles of features, with a value or a verdict for each; distances of all pairs.
Rows = Float[Array, "rows feature"]
OfRows = Shaped[Array, " rows"]
Columns = Float[Array, "tiles columns feature"]
OfColumns = Shaped[Array, "tiles columns"]
Pairs = Float[Array, "rows others"]


class InceptionScore(NamedTuple):
    """Inception score.

    Attributes:
      mean: mean over the splits.
      std: population deviation over them.
    """

    mean: float
    std: float


class PrecisionRecall(NamedTuple):
    """Precision and recall.

    Attributes:
      precision: share of generated images that lie among the real ones.
      recall: share of real images that lie among the generated ones.
    """

    precision: float
    recall: float


def frechet_distance(generated: Gaussian, real: Gaussian) -> float:
    """Fréchet distance of two Gaussians; FID with Inception's features.

      |μ_g − μ_r|² + tr Σ_g + tr Σ_r − 2 tr √(Σ_g Σ_r)

    The trace of the root is the sum of the roots of the eigenvalues, which are the
    diagonal of the Schur form that scipy's `sqrtm` starts from. So the result is the
    official one with its rounding errors, at a quarter of the time: covariances of
    fewer images than features have eigenvalues of zero, whose roots are some 1e-8 of
    the largest. It may be negative by as much.

    Args:
      generated, real: Gaussians of features of the same network.

    Raises:
      ValueError: they have different lengths.

    Source: Heusel et al. 2017; frechet_inception_distance.py of stylegan2-ada-pytorch.
    """
    if len(generated.mean) != len(real.mean):
        raise ValueError(
            f"expected as many features as of the real images, {len(real.mean)}, found "
            f"{len(generated.mean)}"
        )
    eigenvalues = np.linalg.eigvals(generated.covariance @ real.covariance)
    root = np.sqrt(eigenvalues.astype(np.complex128)).sum().real
    step = np.sum(np.square(generated.mean - real.mean))
    traces = np.trace(generated.covariance) + np.trace(real.covariance)
    return float(step + traces - 2 * root)


def draw_subsets(
    seed: int | Sequence[int],
    num_generated: int,
    num_real: int,
    *,
    num_subsets: int = 100,
    max_subset_size: int = 1000,
) -> np.ndarray:
    """Rows of the subsets of `kernel_distance`, [S, 2, m]: generated, and real ones.

    Official code draws from NumPy's global state; these come from the seed alone.

    Args:
      seed: seed of NumPy's default generator.
      num_generated, num_real: numbers of rows to draw from, without replacement.
      num_subsets: number of subsets S.
      max_subset_size: largest number of rows m of a subset.
    """
    random = np.random.default_rng(seed)
    size = min(num_generated, num_real, max_subset_size)
    return np.array(
        [
            [
                random.choice(count, size, replace=False)
                for count in (num_generated, num_real)
            ]
            for _ in range(num_subsets)
        ]
    )


def kernel_distance(
    generated: np.ndarray, real: np.ndarray, subsets: np.ndarray
) -> float:
    """Kernel distance, the mean over subsets of the squared MMD; KID with Inception.

    With k(x, y) = (x·y / F + 1)³ and m rows of each set, unbiased:

      Σ_{i≠j} [k(g_i, g_j) + k(r_i, r_j)] / (m (m − 1)) − 2 Σ_{ij} k(g_i, r_j) / m²

    Args:
      generated: [N, F] features.
      real: [M, F] features.
      subsets: [S, 2, m] rows of generated and real ones, as `draw_subsets` gives them,
        m at least 2.

    Raises:
      ValueError: the shapes do not fit.

    Source: Bińkowski et al. 2018, and stylegan2-ada-pytorch's
    kernel_inception_distance.py.
    """
    _expect_pair(generated, real)
    if subsets.ndim != 3 or subsets.shape[1] != 2 or subsets.shape[2] < 2:
        raise ValueError(
            f"expected subsets [S, 2, m] of two rows or more, found "
            f"{list(subsets.shape)}"
        )
    values = []
    for rows, others in subsets:
        g, r = generated[rows].astype(np.float64), real[others].astype(np.float64)
        within = _mean_apart(_kernel(g, g)) + _mean_apart(_kernel(r, r))
        values.append(within - 2 * _kernel(g, r).mean())
    return float(np.mean(values))


def paired_kernel_distance(edited: np.ndarray, original: np.ndarray) -> float:
    """Kernel distance of all edits and their originals, row by row; 0 without edits.

    An edit is like its original, which `kernel_distance` takes for likeness of the
    distributions. Unbiased without these pairs, for m rows:

      Σ_{i≠j} [k(e_i, e_j) + k(o_i, o_j) − 2 k(e_i, o_j)] / (m (m − 1))

    Args:
      edited, original: [m, F] features, m at least 2.

    Raises:
      ValueError: the shapes do not fit.

    Source: Gretton et al. 2012, eq. 4.
    """
    if edited.shape != original.shape or len(edited) < 2:
        raise ValueError(
            f"expected two or more features of each set, found {list(edited.shape)} "
            f"and {list(original.shape)}"
        )
    _expect_pair(edited, original)
    e, o = edited.astype(np.float64), original.astype(np.float64)
    return _mean_apart(_kernel(e, e) + _kernel(o, o) - 2 * _kernel(e, o))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Polynomial kernel of all pairs of rows."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_apart(kernel: np.ndarray) -> float:
    """Mean over the pairs of different rows."""
    size = len(kernel)
    return float((kernel.sum() - kernel.trace()) / (size * (size - 1)))


def inception_score(probability: np.ndarray, *, num_splits: int = 10) -> InceptionScore:
    """Inception score: exp of the mean KL(p(class | image) ‖ p(class)), per split.

    Args:
      probability: [N, C] probabilities of classes, by Inception's logits without the
        bias of its output.
      num_splits: number of parts of successive rows that are scored.

    Raises:
      ValueError: there are fewer images than splits.

    Source: Salimans et al. 2016; inception_score.py of stylegan2-ada-pytorch.
    """
    count = len(probability)
    if not 1 <= num_splits <= count:
        raise ValueError(f"expected {num_splits} images or more, found {count}")
    scores = []
    for i in range(num_splits):
        rows = slice(i * count // num_splits, (i + 1) * count // num_splits)
        part = probability[rows].astype(np.float64)
        # Zero for a probability of zero.
        divergence = scipy.special.rel_entr(part, part.mean(axis=0))
        scores.append(np.exp(divergence.sum(axis=1).mean()))
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))


def precision_recall(
    generated: np.ndarray,
    real: np.ndarray,
    *,
    num_neighbors: int = 3,
    mesh: jax.sharding.Mesh | None = None,
) -> PrecisionRecall:
    """Precision and recall by balls around the features of each set.

    A ball reaches to the k-th nearest other feature of its set, and an image counts
    when it lies in any ball of the other set. Distances are computed in tiles: memory
    beside the features is that of 1,024 × 4,096 float32. Three times N² F products are
    needed: 6e13 operations for 50,000 images of 4,096 features on either side.

    Parity: features and distances are float16, and products are summed in float32.

    Args:
      generated: [N, F] features.
      real: [M, F] features.
      num_neighbors: k; a set needs more images than that.
      mesh: devices that share the rows of a tile; all local ones if absent.

    Raises:
      ValueError: the shapes do not fit, a set has too few images, or features or
        distances do not fit into float16.

    Source: Kynkäänniemi et al. 2019; precision_recall.py of stylegan2-ada-pytorch.
    """
    _expect_pair(generated, real)
    if num_neighbors < 1 or min(len(generated), len(real)) <= num_neighbors:
        raise ValueError(
            f"expected more than {num_neighbors} images of each set, found "
            f"{len(generated)} and {len(real)}"
        )
    if mesh is None:
        mesh = parallel.make_mesh(jax.local_devices())
    for name, x in (("generated", generated), ("real", real)):
        if not np.abs(x).max() <= _LARGEST:
            raise ValueError(f"{name} features: expected those that float16 can hold")
    g, r = (x.astype(np.float16) for x in (generated, real))
    g_radius, r_radius = (_radii(x, num_neighbors, mesh) for x in (g, r))
    columns, limits = _tile(r, mesh), _tile(r_radius, mesh, fill=-1)
    precise, recalled = [], np.zeros(limits.shape, bool)
    for rows, radius in zip(
        _split(g, mesh), _split(g_radius, mesh, fill=-1), strict=True
    ):
        inside, reached = _compare(rows, radius, columns, limits)
        precise.append(np.asarray(inside))
        recalled |= np.asarray(reached)
    return PrecisionRecall(
        float(np.concatenate(precise)[: len(g)].mean()),
        float(recalled.ravel()[: len(r)].mean()),
    )


def _expect_pair(generated: np.ndarray, real: np.ndarray) -> None:
    if generated.ndim != 2 or real.ndim != 2 or generated.shape[1] != real.shape[1]:
        raise ValueError(
            f"expected features [N, F] and [M, F], found {list(generated.shape)} and "
            f"{list(real.shape)}"
        )


def _radii(
    features: np.ndarray, num_neighbors: int, mesh: jax.sharding.Mesh
) -> np.ndarray:
    """Distance of each feature to its k-th nearest other, [N] float16."""
    columns = _tile(features, mesh)
    is_there = _tile(np.ones(len(features), bool), mesh, fill=False)
    found = [
        np.asarray(_nearest(rows, columns, is_there, count=num_neighbors + 1))
        for rows in _split(features, mesh)
    ]
    radii = np.concatenate(found)[: len(features)]
    if not radii.max() <= _LARGEST:
        raise ValueError("features: expected distances that float16 can hold")
    # Rounding keeps the order of distances.
    return radii.astype(np.float16)


def _split(x: np.ndarray, mesh: jax.sharding.Mesh, fill: float = 0) -> list[jax.Array]:
    """Tiles of rows of one shape, spread over the devices; the last is filled up."""
    size = parallel.round_up(min(_ROWS, len(x)), mesh.size)
    return [parallel.shard(part, mesh) for part in _reshape(x, size, fill)]


def _tile(x: np.ndarray, mesh: jax.sharding.Mesh, fill: float = 0) -> jax.Array:
    """Tiles of columns of one shape on each device, [T, size, …]."""
    return parallel.replicate(_reshape(x, min(_COLUMNS, len(x)), fill), mesh)


def _reshape(x: np.ndarray, size: int, fill: float) -> np.ndarray:
    missing = -len(x) % size
    padding = [(0, missing), *[(0, 0)] * (x.ndim - 1)]
    padded = np.pad(x, padding, constant_values=fill)
    return padded.reshape(-1, size, *x.shape[1:])


@functools.partial(jax.jit, static_argnames="count")
def _nearest(
    rows: Rows, columns: Columns, is_there: OfColumns, *, count: int
) -> OfRows:
    """Distance of each row to the nearest column but so many, itself included."""

    def step(nearest: Array, tile: tuple[Array, Array]) -> tuple[Array, None]:
        other, there = tile
        distance = jnp.where(there, _distances(rows, other), jnp.inf)
        merged = jnp.concatenate([nearest, distance], axis=1)
        return -lax.top_k(-merged, count)[0], None

    start = jnp.full((len(rows), count), jnp.inf)
    return lax.scan(step, start, (columns, is_there))[0][:, -1]


@jax.jit
def _compare(
    rows: Rows,
    row_radius: OfRows,
    columns: Columns,
    column_radius: OfColumns,
) -> tuple[OfRows, OfColumns]:
    """Whether each row lies in a ball of a column, and each column in one of a row."""

    def step(inside: Array, tile: tuple[Array, Array]) -> tuple[Array, Array]:
        other, radius = tile
        distance = _distances(rows, other).astype(jnp.float16)
        inside |= jnp.any(distance <= radius, axis=1)
        return inside, jnp.any(distance <= row_radius[:, None], axis=0)

    start = jnp.zeros(len(rows), bool)
    return lax.scan(step, start, (columns, column_radius))


def _distances(x: Rows, y: Rows) -> Pairs:
    """Euclidean distances √(|x|² + |y|² − 2 x·y) of all pairs, float32."""
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    xx, yy = (jnp.sum(jnp.square(a), axis=1) for a in (x, y))
    product = jnp.matmul(x, y.T, precision=products.EXACT)
    return jnp.sqrt(jnp.maximum(xx[:, None] + yy - 2 * product, 0))
