"""One list of public functions with tiny inputs, which test_transforms.py runs through.

Each entry is a function of (network, batch), or of (networks, batch): their parameters
are shared, every array in the batch has a leading batch axis, and so has every result.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from styleclip_jax import blends, latents, losses, spaces
from styleclip_jax.evaluation import path_length
from styleclip_jax.methods import (
    augmentation,
    delta,
    encoding,
    latent_directions,
    mapper,
    optimization,
    stylemc,
)
from styleclip_jax.models import (
    clip,
    clip_input,
    discriminator,
    e4e,
    generators,
    lpips,
    stylegan2,
)
from styleclip_jax.settings.augmentation import PIPELINES
from styleclip_jax.settings.measures import PathLengthConfig
from tests import tiny

BATCH = 4


class Entry(NamedTuple):
    """A function, its inputs, and how far two ways of running it may differ.

    Attributes:
      name: what the test is called.
      function: (network, batch) → tree of [B, …].
      network: whatever is shared: a network, several, or any tree of arrays.
      batch: tree of arrays with a leading axis of BATCH.
      tolerance: absolute, between two ways of running it.
      differentiable: whether `batch` has a gradient.
      shardable: whether it runs on a sharded batch without communication.
    """

    name: str
    function: Callable[[Any, Any], Any]
    network: Any
    batch: Any
    tolerance: float = 2e-5
    differentiable: bool = True
    shardable: bool = True


def _edit(networks: losses.Networks, batch: Any) -> losses.Edit:
    w_plus, text = batch
    image = stylegan2.synthesize(networks.generator, w_plus)
    source = losses.Source(0.5 * w_plus, jnp.flip(image, axis=2), None)
    return losses.Edit(image, w_plus, source, text, jnp.flip(text, axis=1))


def _optimize(
    space: str, networks: losses.Networks, batch: Any
) -> dict[str, jax.Array]:
    problem = optimization.official(
        optimization.OptimizationConfig(space=space, steps=4, film_frames=2)
    )
    run = functools.partial(optimization.optimize, problem=problem)
    result = jax.vmap(run, in_axes=(None, 0, 0))(networks, *batch)
    return {"image": result.image, "total": result.terms["total"]}


def _learn(networks: losses.Networks, batch: Any) -> jax.Array:
    """Losses of StyleMC's directions towards several texts, before each step."""
    config = stylemc.StyleMCConfig(resolution=4, steps=2)
    problem = stylemc.official(config, tiny.GENERATOR.style_layout)
    styles = stylegan2.to_styles(networks.generator, tiny.w_plus(2))
    source = stylemc.describe(networks, styles, problem=problem)

    def learn(text: jax.Array) -> jax.Array:
        faces, state = stylemc.Faces(source, text, None), stylemc.start(problem=problem)
        for _ in range(problem.steps):
            state = stylemc.step(networks, faces, state, problem=problem)
        return state.history["total"]

    return jax.vmap(learn)(batch)


def _interpolate(curve: str, keyframes: jax.Array, position: jax.Array) -> jax.Array:
    run = functools.partial(blends.interpolate, curve=curve)
    return jax.vmap(run, in_axes=(None, 0))(keyframes, position)


def _path_length(generator: stylegan2.Generator, batch: Any) -> jax.Array:
    noise = path_length.draw(jax.random.key(0), generator.config, batch_size=1).noise
    return path_length.path_length_distances(
        generator,
        lambda image: image.reshape(len(image), -1) / 1000,
        path_length.Draws(*batch, noise),
        config=PathLengthConfig(sampling="full", epsilon=0.1),
    )


def entries() -> list[Entry]:
    """Every entry; built when asked, since it initialises networks."""
    generator, clip_network = tiny.generator(), tiny.clip_network()
    siglip = tiny.clip_network(tiny.SIGLIP)
    networks = losses.Networks(generator, clip_network)
    w_plus, text = tiny.w_plus(BATCH), tiny.text_features(BATCH)
    styles = stylegan2.to_styles(generator, w_plus)
    restyle, photo = tiny.encoder(tiny.RESTYLE), tiny.image(BATCH, 16)
    tokens = jnp.tile(jnp.array([612, 5, 9, 613, 0, 0]), (BATCH, 1))
    bfloat16, remat = (
        generator.replace(config=dataclasses.replace(generator.config, **change))
        for change in ({"dtype": "bfloat16"}, {"remat": True})
    )
    return [
        Entry(
            "truncate",
            lambda w_avg, w: spaces.truncate(w, w_avg, 0.7, cutoff=2),
            generator.params["mapping"]["w_avg"],
            w_plus,
        ),
        Entry(
            "flatten_styles",
            lambda _, s: spaces.flatten_styles(s),
            None,
            styles,
        ),
        Entry(
            "mix",
            lambda _, pair: blends.mix(*pair, jnp.arange(w_plus.shape[1]) < 2),
            None,
            (w_plus, w_plus[::-1]),
        ),
        *(
            Entry(
                f"interpolate_{curve}",
                functools.partial(_interpolate, curve),
                tiny.normal(5, 3, 8),
                jnp.array([0.2, 0.7, 1.5, 2.4]),
            )
            for curve in blends.CURVES
        ),
        Entry(
            "map_latents",
            stylegan2.map_latents,
            generator,
            tiny.normal(6, BATCH, generator.config.z_dim),
        ),
        Entry(
            "to_styles",
            stylegan2.to_styles,
            generator,
            w_plus,
        ),
        Entry(
            "to_direction",
            lambda n, deltas: jax.vmap(
                lambda delta: latent_directions.to_direction(n, delta).delta
            )(deltas),
            generator,
            w_plus,
        ),
        Entry(
            "synthesize_styles",
            stylegan2.synthesize_styles,
            generator,
            styles,
        ),
        Entry(
            "synthesize",
            stylegan2.synthesize,
            generator,
            w_plus,
        ),
        Entry(
            "synthesize_stylegan3",
            lambda n, b: generators.synthesize(n, b[0], transform=b[1]),
            tiny.generator(tiny.STYLEGAN3),
            (
                tiny.w_plus(BATCH, tiny.STYLEGAN3),
                jnp.eye(3) + 0.1 * tiny.normal(9, BATCH, 3, 3),
            ),
        ),
        Entry(
            "discriminate",
            discriminator.logits,
            tiny.discriminator_network(),
            tiny.normal(0, BATCH, 8, 8, 3),
        ),
        Entry(
            "synthesize_remat",
            stylegan2.synthesize,
            remat,
            w_plus,
        ),
        Entry(
            "synthesize_bfloat16",
            stylegan2.synthesize,
            bfloat16,
            w_plus,
            # bfloat16 has 8 bits; fusion changes where it rounds.
            tolerance=0.3,
            differentiable=False,
        ),
        Entry(
            "path_length_distances",
            _path_length,
            generator,
            (*tiny.normal(7, 2, BATCH, generator.config.z_dim), jnp.arange(BATCH) / 4),
            tolerance=1e-3,
        ),
        Entry(
            "encode_text",
            clip.encode_text,
            clip_network,
            tokens,
            differentiable=False,
            # transformers looks tokens up across the batch; prompts are encoded once.
            shardable=False,
        ),
        Entry(
            "encode_image",
            clip.encode_image,
            clip_network,
            tiny.image(BATCH, clip_network.config.image_size),
        ),
        Entry(
            "siglip.encode_text",
            clip.encode_text,
            siglip,
            jnp.tile(jnp.array([5, 9, 3, 1, 1, 1]), (BATCH, 1)),
            differentiable=False,
        ),
        Entry(
            "siglip.encode_image",
            clip.encode_image,
            siglip,
            tiny.image(BATCH, siglip.config.image_size),
        ),
        Entry(
            "encode_image_resnet",
            clip.encode_image,
            tiny.clip_network(tiny.RESNET_CLIP),
            tiny.image(BATCH, tiny.RESNET_CLIP.image_size),
        ),
        Entry(
            "preprocess_styleclip",
            clip_input.preprocess_styleclip,
            clip_network,
            tiny.image(BATCH, 16),
        ),
        Entry(
            "preprocess_clip",
            clip_input.preprocess_clip,
            clip_network,
            tiny.image(BATCH, 16),
        ),
        Entry(
            "clip_distance",
            lambda n, b: losses.clip_distance(n, _edit(n, b)),
            networks,
            (w_plus, text),
        ),
        Entry(
            "directional_distance",
            lambda n, b: losses.directional_distance(n, _edit(n, b)),
            networks,
            (w_plus, text),
        ),
        *(
            Entry(
                loss.__name__,
                lambda n, b, loss=loss: loss(n, _edit(n, b)),
                networks,
                (w_plus, text),
            )
            for loss in (losses.latent_l2, losses.latent_l1)
        ),
        *(
            Entry(
                f"mapper_edit_{space}",
                mapper.edit,
                tiny.mapper_network(mapper.of_generator(tiny.GENERATOR, space=space)),
                w_plus if space == "w_plus" else styles,
            )
            for space in latents.SPACES
        ),
        *(
            Entry(
                f"delta_edit_{space}",
                lambda n, b: delta.edit(n, *b),
                tiny.delta_network(
                    delta.of_generator(tiny.GENERATOR, embed_dim=8, space=space)
                ),
                (w_plus if space == "w_plus" else styles, text),
            )
            for space in latents.SPACES
        ),
        *(
            Entry(
                f"optimize_{space}",
                functools.partial(_optimize, space),
                networks,
                (w_plus if space == "w_plus" else styles, text),
                tolerance=1e-4,
                differentiable=False,
            )
            for space in latents.SPACES
        ),
        Entry(
            "refine",
            lambda n, batch: e4e.refine(n, *batch),
            restyle,
            (photo, -photo, w_plus),
        ),
        Entry(
            "encode",
            lambda both, batch: encoding.encode(*both, batch, iterations=1),
            (generator, restyle),
            photo,
            # A pass is refined above, and an image has a gradient of its own.
            differentiable=False,
        ),
        Entry(
            "lpips",
            lambda n, pair: lpips.distance(n, *pair),
            tiny.vgg16_network(),
            (tiny.image(BATCH, 16), -tiny.image(BATCH, 16)),
        ),
        Entry(
            "augment",
            lambda _, batch: augmentation.augment(
                batch[0], 0.8, batch[1], config=PIPELINES["bgc"]
            ),
            None,
            (tiny.image(BATCH, 8), augmentation.draw(jax.random.key(0), BATCH)),
            # Random numbers have kinks; tests of it have the image's gradient.
            differentiable=False,
            # Devices agree whether anything moves.
            shardable=False,
        ),
        Entry("stylemc", _learn, networks, text, tolerance=1e-4, differentiable=False),
    ]
