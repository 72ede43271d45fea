"""One list of public functions with tiny inputs, which test_transforms.py runs through.

Each entry is a function of (params, batch): the parameters are shared, every array in
the batch has a leading batch axis, and so has every result.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from styleclip_jax import latents, losses, spaces
from styleclip_jax.methods import mapper, optimization
from styleclip_jax.models import clip, clip_input, stylegan2
from styleclip_jax.models.network import Network
from tests import tiny

BATCH = 4


class Entry(NamedTuple):
    """A function, its inputs, and how far two ways of running it may differ.

    Attributes:
      name: what the test is called.
      function: (params, batch) → tree of [B, …].
      params: shared arrays.
      batch: tree of arrays with a leading axis of BATCH.
      tolerance: absolute, between two ways of running it.
      differentiable: whether `batch` has a gradient.
      shardable: whether it runs on a sharded batch without communication.
    """

    name: str
    function: Callable[[Any, Any], Any]
    params: Any
    batch: Any
    tolerance: float = 2e-5
    differentiable: bool = True
    shardable: bool = True


def _edit(networks: losses.Networks, batch: Any) -> losses.Edit:
    w_plus, text = batch
    image = stylegan2.synthesize(networks.generator, w_plus)
    return losses.Edit(image, w_plus, losses.Source(0.5 * w_plus, image, None), text)


def _optimize(
    space: str, networks: losses.Networks, batch: Any
) -> dict[str, jax.Array]:
    problem = optimization.official(
        optimization.OptimizationConfig(space=space, steps=4, film_frames=2)
    )
    run = functools.partial(optimization.optimize, problem=problem)
    result = jax.vmap(run, in_axes=(None, 0, 0))(networks, *batch)
    return {"image": result.image, "total": result.terms["total"]}


def _edit_by_mapper(space: str) -> tuple[Callable[[Any, Any], Any], Any]:
    """The edit of a mapper in this space, and its parameters."""
    config = mapper.of_generator(tiny.GENERATOR, space=space)
    network = tiny.mapper_network(config)
    return functools.partial(mapper.edit, config=config), network.params


def entries() -> list[Entry]:
    """Every entry; built when asked, since it initialises networks."""
    generator, clip_network = tiny.generator(), tiny.clip_network()
    networks = losses.Networks(generator, clip_network)
    config, clip_config = generator.config, clip_network.config
    w_plus, text = tiny.w_plus(BATCH), tiny.text_features(BATCH)
    styles = stylegan2.to_styles(Network(generator.params, config), w_plus)
    tokens = jnp.tile(jnp.array([612, 5, 9, 613, 0, 0]), (BATCH, 1))
    bfloat16 = tiny.GENERATOR.__class__(**{**vars(config), "dtype": "bfloat16"})
    remat = tiny.GENERATOR.__class__(**{**vars(config), "remat": True})
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
            "map_latents",
            functools.partial(stylegan2.map_latents, config=config),
            generator.params,
            tiny.normal(6, BATCH, config.z_dim),
        ),
        Entry(
            "to_styles",
            functools.partial(stylegan2.to_styles, config=config),
            generator.params,
            w_plus,
        ),
        Entry(
            "synthesize_styles",
            functools.partial(stylegan2.synthesize_styles, config=config),
            generator.params,
            styles,
        ),
        Entry(
            "synthesize",
            functools.partial(stylegan2.synthesize, config=config),
            generator.params,
            w_plus,
        ),
        Entry(
            "synthesize_remat",
            functools.partial(stylegan2.synthesize, config=remat),
            generator.params,
            w_plus,
        ),
        Entry(
            "synthesize_bfloat16",
            functools.partial(stylegan2.synthesize, config=bfloat16),
            generator.params,
            w_plus,
            # bfloat16 has 8 bits; fusion changes where it rounds.
            tolerance=0.3,
            differentiable=False,
        ),
        Entry(
            "encode_text",
            functools.partial(clip.encode_text, config=clip_config),
            clip_network.params,
            tokens,
            differentiable=False,
            # transformers looks tokens up across the batch; prompts are encoded once.
            shardable=False,
        ),
        Entry(
            "encode_image",
            functools.partial(clip.encode_image, config=clip_config),
            clip_network.params,
            tiny.image(BATCH, clip_config.image_size),
        ),
        Entry(
            "preprocess_styleclip",
            lambda _, x: clip_input.preprocess_styleclip(Network({}, clip_config), x),
            None,
            tiny.image(BATCH, 16),
        ),
        Entry(
            "preprocess_clip",
            lambda _, x: clip_input.preprocess_clip(Network({}, clip_config), x),
            None,
            tiny.image(BATCH, 16),
        ),
        Entry(
            "clip_distance",
            lambda n, b: losses.clip_distance(n, _edit(n, b)),
            networks,
            (w_plus, text),
        ),
        Entry(
            "latent_l2",
            lambda n, b: losses.latent_l2(n, _edit(n, b)),
            networks,
            (w_plus, text),
        ),
        *(
            Entry(
                f"mapper_edit_{space}",
                *_edit_by_mapper(space),
                w_plus if space == "w_plus" else styles,
            )
            for space in mapper.SPACES
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
    ]
