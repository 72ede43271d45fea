"""Similarity of mappers: Table 2 of the paper, for any mappers and latents."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import latents, loading
from styleclip_jax.batch.source import LatentSource, SourceRequest
from styleclip_jax.errors import UserError
from styleclip_jax.loading import Models
from styleclip_jax.methods import mapper
from styleclip_jax.models.network import Network


class Comparison(NamedTuple):
    """Comparison of mappers at the latents of a source.

    Attributes:
      models: names of the generator and the class.
      generator: generator of the mappers.
      source: source of the latents.
      networks: networks of the mappers.
      prompts: prompts that the mappers were trained for.
      directories: directories of the mappers.
    """

    models: Models
    generator: Network
    source: LatentSource
    networks: list[Network]
    prompts: list[str]
    directories: list[str]


def prepare(
    models: Models, source: SourceRequest, directories: tuple[str, ...]
) -> Comparison:
    """Prepares a comparison: loads its mappers and opens its source.

    Raises:
      UserError: a mapper or the latents do not fit, or there is only one latent.
    """
    generator = models.load_generator()
    networks = [models.load_mapper(path, generator.config) for path in directories]
    spaces = {network.config.space for network in networks}
    if len(spaces) > 1:
        raise UserError(
            f"mapper: expected mappers of one space, found {spaces}", field="mapper"
        )
    latents = source.open(generator.config, default_seeds="0-63")
    if latents.space == "s" and spaces != {"s"}:
        raise UserError(
            f"latents: {source.latents} is in s, expected w_plus", field="latents"
        )
    if len(latents) < 2:
        raise UserError(
            f"seeds or latents: expected at least 2 latents, found {len(latents)}",
            field="seeds",
            also=["latents"],
        )
    prompts = [loading.mapper_prompt(path) or str(path) for path in directories]
    return Comparison(
        models, generator, latents, networks, prompts, list(map(str, directories))
    )


_step = jax.jit(lambda network, latent: latents.flatten(mapper.apply(network, latent)))
_similarity = jax.jit(mapper.similarity)


def compare(comparison: Comparison) -> mapper.Similarity:
    """Similarity of the steps of mappers, between latents and between prompts."""
    source, generator = comparison.source, comparison.generator
    latent = source.convert(
        generator,
        source.load(np.arange(len(source))),
        to=comparison.networks[0].config.space,
        label=comparison.models.one_hot_label(generator.config),
    )
    delta = jnp.stack([_step(network, latent) for network in comparison.networks])
    return jax.tree.map(np.asarray, _similarity(delta))
