"""Main works as programs over shapes: they are lowered and compiled, never run.

A program is a function with the shapes of its inputs. Nothing is allocated, so that a
small machine compiles what only a large one can run.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import limit, worker
from styleclip_jax import losses
from styleclip_jax.methods import mapper, mapper_training, optimization
from styleclip_jax.models import clip, irse50, param_trees, stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.ops import pixels


class Program(NamedTuple):
    """Function and the shapes of its inputs.

    Attributes:
      function: what is compiled.
      shared: trees of shapes that every device has, networks above all.
      batch: tree of shapes with a leading axis of the batch.
    """

    function: Callable[..., Any]
    shared: tuple[Any, ...]
    batch: Any


def shape_of(*shape: int) -> jax.ShapeDtypeStruct:
    """float32 array that is nothing but its shape."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def network_of(module: Any, config: Any) -> Network:
    """Network whose parameters are nothing but shapes."""
    flat = {name: shape_of(*s) for name, s in module.param_shapes(config).items()}
    return Network(param_trees.unflatten(flat), config)


def networks_of(
    generator: stylegan2.GeneratorConfig,
    clip_config: Any = None,
    identity: irse50.IrseConfig | None = None,
) -> losses.Networks:
    """Networks of an edit; ViT-B/32 and IR-SE50 unless other configurations come."""
    return losses.Networks(
        network_of(stylegan2, generator),
        network_of(clip, clip_config or clip.ClipConfig()),
        network_of(irse50, identity or irse50.IrseConfig()),
    )


def synthesis(networks: losses.Networks, batch: int) -> Program:
    """Images of latents in W+."""
    return Program(
        stylegan2.synthesize, (networks.generator,), _w_plus(networks, batch)
    )


def direction(networks: losses.Networks, batch: int) -> Program:
    """8-bit images of styles that a direction has moved."""
    layers = networks.generator.config.style_layout

    def move(generator: Network, delta: Any, styles: Any) -> jax.Array:
        moved = jax.tree.map(lambda s, d: s + worker.ALPHA * d, styles, delta)
        image = stylegan2.synthesize_styles(generator, moved)
        return pixels.to_uint8(image, rounding="torch")

    delta = tuple(shape_of(layer.channels) for layer in layers)
    styles = tuple(shape_of(batch, layer.channels) for layer in layers)
    return Program(move, (networks.generator, delta), styles)


def optimization_step(networks: losses.Networks, batch: int) -> Program:
    """A step of each of some latents, with the identity loss."""
    config = optimization.OptimizationConfig(id_lambda=worker.ID_LAMBDA)
    compiled = optimization.compiled(optimization.official(config), sharding=None)
    text = shape_of(networks.clip.config.embed_dim)
    state = jax.eval_shape(compiled.start, networks, _w_plus(networks, batch), text)
    return Program(compiled.step, (networks,), state)


def mapper_step(networks: losses.Networks, batch: int) -> Program:
    """A step of the training of a mapper, with the images of its sources."""
    config = mapper.of_generator(networks.generator.config)
    problem = mapper_training.official(config, mapper_training.TrainingConfig())

    def step(networks: Any, state: Any, text: Any, latent: Any) -> Any:
        source = mapper_training.describe(networks, latent, problem=problem)
        return mapper_training.train_step(
            networks, state, source, text, problem=problem
        )

    params = network_of(mapper, config).params
    state = jax.eval_shape(lambda p: mapper_training.start(p, problem=problem), params)
    text = shape_of(networks.clip.config.embed_dim)
    return Program(step, (networks, state, text), _w_plus(networks, batch))


PROGRAMS: dict[str, Callable[[losses.Networks, int], Program]] = {
    "synthesis": synthesis,
    "direction": direction,
    "optimization_step": optimization_step,
    "mapper_step": mapper_step,
}


def config_f(name: str, resolution: int, batch: int) -> Program:
    """A program by its name, for config F, ViT-B/32 and IR-SE50."""
    return PROGRAMS[name](networks_of(limit.config_f(resolution)), batch)


def _w_plus(networks: losses.Networks, batch: int) -> jax.ShapeDtypeStruct:
    config = networks.generator.config
    return shape_of(batch, config.num_rows, config.w_dim)
