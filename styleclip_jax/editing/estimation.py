"""Estimation of channel relevance for a text: samples of S, and derivatives there."""

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

# Least number of samples of the statistics, where relevance is for one text.
_NUM_STATISTICS = 10_000
# Number of samples at a time; each has many derivatives.
_DERIVATIVES = 4


class Samples(NamedTuple):
    """Random samples in style space, with their statistics.

    Attributes:
      styles: tuple of [N, C], the first num_samples of the samples.
      mean: [S] mean over all num_statistics samples.
      std: [S] deviation over all num_statistics samples.
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
    """Draws samples of S as the official scripts do, with mean and deviation.

    Args:
      generator: generator whose S is sampled.
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
    size = parallel.round_up(min(_BATCH, config.num_statistics), mesh.size)
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
    samples: Any = np.concatenate(first)[: config.num_samples]
    return Samples(
        jax.device_put(spaces.unflatten_styles(samples, layout)),
        np.asarray(statistics.mean),
        np.asarray(statistics.std),
    )


def configure(num_samples: int) -> channel_relevance.RelevanceConfig:
    """Settings that estimate relevance for one text, where no file gives it for all."""
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
    """Estimates relevance for a text direction, of samples of the same configuration.

    Args:
      networks: generator and CLIP.
      samples: samples of `draw_samples`.
      text: [E] unit vector of the direction.
      config: configuration of `configure`.
      mesh: devices to spread batches over; None leaves them to jax.
      report: is called with the number of samples of each batch that is done.
    """
    layout = networks.generator.config.style_layout
    options: dict[str, Any] = {}
    if mesh is not None:
        place: Callable[..., Any] = functools.partial(parallel.shard, mesh=mesh)
        size = parallel.round_up(_DERIVATIVES, mesh.size)
        options = {"batch_size": size, "place": place}
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
