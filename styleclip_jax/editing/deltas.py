"""Editors of delta networks, which take any prompt."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from styleclip_jax import latents, loading, parallel
from styleclip_jax.batch.editor import Editor, Outcome, finished
from styleclip_jax.editing import directing, editors, searching
from styleclip_jax.editing.loaded import Loaded
from styleclip_jax.editing.prompts import Prompts
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints
from styleclip_jax.methods import delta
from styleclip_jax.models.network import Network
from styleclip_jax.settings.edits import DeltaSettings


def move(loaded: Loaded, texts: Prompts, config: DeltaSettings) -> Editor:
    """Editor of a delta network, for each prompt.

    Raises:
      UserError: there is no network, one of other models, or a text is wrong.
    """
    if config.delta is None:
        raise UserError(
            "method: delta needs delta with a model directory",
            field="method",
            also=["delta"],
        )
    models, generator = loaded.models, loaded.generator
    network = models.of_other(
        loading.load_delta(config.delta, models, generator.config)
    )
    directions = directing.text_directions(loaded, texts, config.neutral)
    factor = jnp.float32(1 if config.factor is None else config.factor)
    # One copy of the network on each device, for all prompts.
    placed = parallel.replicate((network, factor), loaded.mesh)
    towards = parallel.replicate(directions, loaded.mesh)
    moving = editors.at_once(
        _along,
        generator,
        [(*placed, direction) for direction in towards],
        (network, factor, directions[0]),
        method="delta",
        space=network.config.space,
        title=texts.title,
        settings=texts.name_settings([[{}]] * len(texts.texts)),
        record=dataclasses.asdict(config) | editors.record_prompts(texts),
        inputs=models.fingerprints("clip")
        | {"delta": checkpoints.fingerprint(config.delta)}
        | texts.inputs,
        about=[
            *editors.describe(loaded, texts),
            f"delta network: {config.delta}, away from {config.neutral!r}",
        ],
    )
    if config.strength != searching.AUTO:
        return moving
    aimed = list(zip(texts.texts, editors.encode(loaded, texts), strict=True))
    return searching.search(loaded, moving, aimed, config.budget)


def _along(generator: Network, weights: Any, batch: Any) -> Outcome:
    """Moves latents by a delta network with its strength."""
    network, factor, direction = weights
    latent = delta.edit(network, batch, direction, strength=factor)
    space = latents.SPACES[network.config.space]
    return finished(batch, latent, space.synthesize(generator, latent))
