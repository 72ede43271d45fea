"""Delta networks: one network for any prompt, ŝ = s + strength · N(s, Δ).

Δ is a unit difference of CLIP features. In training it leads from the picture of one
latent to that of another, and the network finds the step between the latents
(`delta_training`); no text is seen. In an edit it leads from a neutral text to a
prompt. Functions are written for a batch of latents.

Source: Lyu et al. 2023 (DeltaEdit), for the idea; the network is our own.
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from styleclip_jax import checks, latents, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.models import generators, linen, param_trees
from styleclip_jax.models.network import Network
from styleclip_jax.models.runtime import STORED_IF_GIVEN, Products

# Kind of network in model directories.
KIND = "delta"

# Numbers of a latent that vary less over the samples count as if they varied so much.
_LEAST_STD = 1e-3


@dataclasses.dataclass(frozen=True)
class DeltaConfig(Products):
    """Static architecture of a delta network.

    Attributes:
      embed_dim: length of CLIP's features.
      space: latent space that it moves in, w_plus or s.
      num_rows: in W+, number of rows; 0 in S.
      w_dim: in W+, length of a row; 0 in S.
      channels: in S, feature channels of the generator at 4², 8², …, which give the
        layout; empty in W+.
      layer_names: in S, names of the layers where channels are of each, see
        `spaces.layout_of`.
      width: length of the hidden features.
      num_layers: dense layers.
    """

    embed_dim: int
    space: str = "s"
    num_rows: int = 0
    w_dim: int = 0
    channels: tuple[int, ...] = ()
    width: int = 256
    num_layers: int = 4
    layer_names: tuple[str, ...] = dataclasses.field(
        default=(), metadata=STORED_IF_GIVEN
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, space=latents.SPACES)
        checks.at_least(self, 1, "embed_dim", "width", "num_layers")
        fits = min(self.channels, default=0) > 0 and not self.num_rows + self.w_dim
        if self.space == "w_plus":
            fits = min(self.num_rows, self.w_dim) > 0 and not self.channels
        if not fits:
            raise UserError(
                "channels must be those of the generator in s, num_rows and w_dim in "
                f"w_plus, found {self}",
                field="channels",
            )

    @property
    def in_s(self) -> bool:
        """Whether latents are style vectors."""
        return self.space == "s"

    @property
    def style_layout(self) -> tuple[spaces.StyleLayer, ...]:
        """Layout of S."""
        return spaces.layout_of(self.channels, self.layer_names)

    @property
    def size(self) -> int:
        """Number of numbers in a latent, F."""
        if not self.in_s:
            return self.num_rows * self.w_dim
        return sum(layer.channels for layer in self.style_layout)


Delta = Network[DeltaConfig]


def of_generator(generator: generators.GeneratorConfig, **settings: Any) -> DeltaConfig:
    """Configuration of a delta network for a generator.

    Args:
      generator: gives channels and names, or num_rows and w_dim.
      settings: other fields of the configuration.

    Raises:
      UserError: a setting is wrong.
    """
    if settings.get("space", DeltaConfig.space) == "s":
        return DeltaConfig(**generator.style_fields, **settings)
    return DeltaConfig(num_rows=generator.num_rows, w_dim=generator.w_dim, **settings)


def check_generator(config: DeltaConfig, generator: generators.GeneratorConfig) -> None:
    """Refuses a network whose latents are not those of the generator.

    Raises:
      UserError: says what differs.
    """
    expected = of_generator(generator, embed_dim=1, space=config.space)
    for name in ("channels", "layer_names", "num_rows", "w_dim"):
        wanted, found = getattr(expected, name), getattr(config, name)
        if wanted != found:
            raise UserError(
                f"expected a delta network for {name} {wanted}, found {found}"
            )


def init(key: jax.Array, config: DeltaConfig) -> Any:
    """Random parameters as a nested dict, for latents of mean 0 and deviation 1.

    The last layer is zero, so that a new network leaves latents as they are.
    """
    flat, direction = jnp.zeros((1, config.size)), jnp.zeros((1, config.embed_dim))
    return _Delta(config).init(key, flat, direction)["params"]


def with_statistics(params: Any, latent: Any) -> Any:
    """Parameters of a new network for latents like these.

    Args:
      params: parameters of `init`.
      latent: [N, L, D] W+, or a tuple of [N, C] styles, of random samples.
    """
    flat = latents.flatten(latent)
    std = jnp.maximum(jnp.std(flat, axis=0), _LEAST_STD)
    return {**params, "mean": jnp.mean(flat, axis=0), "std": std}


@functools.cache
def param_shapes(config: DeltaConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its flat name, such as "fc0/kernel"."""
    return param_trees.shapes_of(init, config)


def step(network: Delta, flat: jax.Array, direction: jax.Array) -> jax.Array:
    """Step of a network from flat latents.

    Args:
      network: the network.
      flat: [B, F] latents, as `latents.flatten` makes them.
      direction: [B, E] unit differences Δ of CLIP features.

    Returns:
      [B, F], zero for a difference of zero.
    """
    params: Any = {"params": network.params}
    return jnp.asarray(_Delta(network.config).apply(params, flat, direction))


def edit(
    network: Delta,
    latent: Any,
    direction: jax.Array,
    *,
    strength: float | jax.Array = 1.0,
) -> Any:
    """Edited latent s + strength · N(s, Δ); in S the place of the image stays.

    Args:
      network: the network.
      latent: [B, L, D] W+, or a tuple of [B, C] styles.
      direction: [B, E] or [E] unit differences Δ of CLIP features.
      strength: any number; 1 is a step as long as between two random samples.

    Returns:
      Like `latent`.

    Raises:
      ValueError: the latent does not fit the network.
    """
    config, flat = network.config, latents.flatten(latent)
    if flat.shape[-1] != config.size or isinstance(latent, tuple) != config.in_s:
        raise ValueError(
            f"latent: expected {config.size} numbers each in {config.space}, found "
            f"{flat.shape[-1]}"
        )
    direction = jnp.broadcast_to(direction, (len(flat), direction.shape[-1]))
    edited = flat + strength * step(network, flat, direction)
    if not config.in_s:
        return edited.reshape(latent.shape)
    layout = config.style_layout
    moved = spaces.unflatten_styles(edited, layout)
    # Pictures of the samples differ in their place, too, which no text asks for.
    return tuple(
        old if layer.is_input else new
        for layer, old, new in zip(layout, latent, moved, strict=True)
    )


class _Delta(linen.Module):
    """Perceptron of a latent and a difference, less what it gives without one."""

    config: DeltaConfig

    @nn.compact
    def __call__(self, flat: jax.Array, direction: jax.Array) -> jax.Array:
        config = self.config
        mean = self.param("mean", nn.initializers.zeros, (config.size,))
        std = self.param("std", nn.initializers.ones, (config.size,))
        mean, std = lax.stop_gradient((mean, std))
        hidden = [
            linen.Dense(config.width, precision=config.precision, name=f"fc{index}")
            for index in range(config.num_layers - 1)
        ]
        last = linen.Dense(
            config.size,
            precision=config.precision,
            kernel_init=nn.initializers.zeros,
            name=f"fc{config.num_layers - 1}",
        )

        def perceive(direction: jax.Array) -> jax.Array:
            scaled = direction * math.sqrt(config.embed_dim)
            x = jnp.concatenate([(flat - mean) / std, scaled], axis=-1)
            for layer in hidden:
                x = nn.silu(layer(x))
            return last(x)

        return (perceive(direction) - perceive(jnp.zeros_like(direction))) * std
