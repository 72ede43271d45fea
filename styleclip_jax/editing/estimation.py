"""Estimation of relevance for one text: samples of S, and derivatives at them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import latents, losses, parallel, spaces
from styleclip_jax.methods import channel_relevance, global_directions
from styleclip_jax.models.network import Network
from styleclip_jax.progress import Report, ignore

_BATCH = 1000

# Samples of the statistics at least, where relevance is estimated for one text.
_NUM_STATISTICS = 10_000
# Samples at a time, of which each has many derivatives.
_DERIVATIVES = 4


class Samples(NamedTuple):
    """Random samples in style space.

    Attributes:
      styles: tuple of [N, C], the first num_samples of them.
      mean: [S] over all num_statistics.
      std: [S] likewise.
    """

    styles: spaces.Styles
    mean: np.ndarray
    std: np.ndarray


def draw_samples(
    generator: Network,
    config: channel_relevance.RelevanceConfig,
    mesh: jax.sharding.Mesh,
    *,
    label: jax.Array | None = None,
    report: Report = ignore,
) -> Samples:
    """Samples of S as the official scripts draw them, with mean and deviation.

    Args:
      generator: whose S.
      config: number, truncation and seed of the samples.
      mesh: devices to spread batches over.
      label: [c_dim] class of all samples, for class-conditional generators.
      report: is called with the number of samples of each batch that is done.

    Source: GetCode.py and global_torch/SingleChannel.py, `GenerateS`.
    """
    random, layout = np.random.RandomState(config.seed), generator.config.style_layout
    generator = parallel.replicate(generator, mesh)
    cutoff = config.truncation_cutoff
    styles_of = functools.partial(
        latents.convert,
        space="z",
        truncation_psi=config.truncation_psi,
        cutoff=None if cutoff >= generator.config.num_rows else cutoff,
        to="s",
        label=label,
    )
    update = jax.jit(channel_relevance.update_statistics)
    statistics = channel_relevance.no_statistics(sum(x.channels for x in layout))
    first: list[np.ndarray] = []
    size = -(-min(_BATCH, config.num_statistics) // mesh.size) * mesh.size
    for start in range(0, config.num_statistics, size):
        count = min(size, config.num_statistics - start)
        z = random.randn(count, generator.config.z_dim).astype(np.float32)
        batch = parallel.shard(parallel.pad(z, size), mesh)
        flat = spaces.flatten_styles(styles_of(generator, batch))
        weight = parallel.shard(np.float32(np.arange(size) < count), mesh)
        statistics = update(statistics, flat, weight)
        if start < config.num_samples:
            first.append(np.asarray(flat[:count]))
        report(count)
    samples = np.concatenate(first)[: config.num_samples]
    return Samples(
        spaces.unflatten_styles(jnp.asarray(samples), layout),
        np.asarray(statistics.mean),
        np.asarray(statistics.std),
    )


def configure(num_samples: int) -> channel_relevance.RelevanceConfig:
    """How relevance for one text is estimated, where no file gives it for all."""
    return channel_relevance.RelevanceConfig(
        method="jacobian",
        num_samples=num_samples,
        num_statistics=max(_NUM_STATISTICS, num_samples),
    )


def estimate(
    networks: losses.Networks,
    samples: Samples,
    text: jax.Array,
    config: channel_relevance.RelevanceConfig,
    *,
    mesh: jax.sharding.Mesh | None = None,
    report: Report = ignore,
) -> global_directions.TextRelevance:
    """Relevance for one text direction, of samples drawn by the same configuration.

    Args:
      networks: generator and CLIP.
      samples: of `draw_samples`.
      text: [E] unit vector.
      config: of `configure`.
      mesh: devices to spread batches over; None leaves them to jax.
      report: is called with the number of samples of each batch that is done.
    """
    layout = networks.generator.config.style_layout
    options: dict[str, Any] = {}
    if mesh is not None:
        place: Callable[..., Any] = functools.partial(parallel.shard, mesh=mesh)
        options = {"batch_size": max(_DERIVATIVES, mesh.size), "place": place}
    return global_directions.estimate_relevance(
        networks,
        samples.styles,
        jnp.asarray(samples.std),
        text,
        jax.random.key(config.seed),
        layers=global_directions.select_layers(layout, config.layers),
        report=report,
        **options,
    )
