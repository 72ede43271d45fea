"""Mappers of latents: networks M_t that edit in one pass, ŵ = w + 0.1 · M_t(w).

A mapper is trained for one prompt, by `mapper_training`. Functions are written for one
mapper and a batch of latents.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from styleclip_jax import checks, latents, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.models import layers, linen, param_trees
from styleclip_jax.models.generators import GeneratorConfig
from styleclip_jax.models.network import Network
from styleclip_jax.models.runtime import STORED_IF_GIVEN, Products
from styleclip_jax.ops import norms, products

# Kind of network in model directories.
KIND = "mapper"

# Rows of W+ that each level moves.
LEVELS = {"coarse": slice(0, 4), "medium": slice(4, 8), "fine": slice(8, None)}
SINGLE = "single"

# Axes of [B, L, D] that the first layer can normalise over.
NORMS = {"rows": 1, "features": 2}

# Stored weights are this many times too large.
_LR_MULTIPLIER = 0.01


@dataclasses.dataclass(frozen=True)
class MapperConfig(Products):
    """Static architecture of a mapper; the defaults are the official ones at 1024².

    Attributes:
      space: latent space that it moves in, w_plus or s.
      levels: in W+, levels with a network each, or "single" alone for one network that
        moves all rows. In S every style vector has its own, and this stays as it is.
      torgb: in S, whether toRGB vectors are moved as well.
      w_dim: in W+, length of a row.
      channels: in S, feature channels of the generator at 4², 8², …, which give the
        layout; empty in W+, where the number of rows does not matter.
      layer_names: in S, names of the layers where channels are of each, see
        `spaces.layout_of`.
      normalize_over: in W+, what the input is divided by: its root mean square over
        the rows of a level (official) or over features. Over rows, latents whose rows
        are equal keep their signs alone, so that the step hardly depends on them.
      num_layers: dense layers of each network.
      strength: factor of the step that the mapper was trained with.
    """

    space: str = "w_plus"
    levels: tuple[str, ...] = tuple(LEVELS)
    torgb: bool = False
    w_dim: int = 512
    channels: tuple[int, ...] = ()
    normalize_over: str = "rows"
    num_layers: int = 4
    strength: float = 0.1
    layer_names: tuple[str, ...] = dataclasses.field(
        default=(), metadata=STORED_IF_GIVEN
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, space=latents.SPACES, normalize_over=NORMS)
        in_order = tuple(level for level in LEVELS if level in self.levels)
        if self.levels not in (in_order, (SINGLE,)) or not self.levels:
            raise UserError(
                f"levels must be some of {', '.join(LEVELS)} in this order, or "
                f"{SINGLE} alone, found {','.join(self.levels) or 'none'}",
                field="levels",
            )
        if self.space == "s" and self.levels != tuple(LEVELS):
            raise UserError(
                "levels must be all of them in s, where every style vector has its own "
                f"network, found {','.join(self.levels)}",
                field="levels",
            )
        if self.space == "w_plus" and (self.torgb or self.channels):
            raise UserError(
                "torgb and channels are for s, must be false and empty in w_plus, "
                f"found {self.torgb} and {self.channels}",
                field="torgb",
            )
        if self.space == "s" and not self.channels:
            raise UserError(
                "channels must be those of the generator in s, found none",
                field="channels",
            )
        if min(self.w_dim, self.num_layers, *self.channels) < 1:
            raise UserError(f"all counts must be positive, found {self}")

    @property
    def style_layout(self) -> tuple[spaces.StyleLayer, ...]:
        """Layout of S."""
        return spaces.layout_of(self.channels, self.layer_names)


Mapper = Network[MapperConfig]


def of_generator(generator: GeneratorConfig, **settings: Any) -> MapperConfig:
    """Configuration of a mapper for a generator.

    Args:
      generator: gives w_dim or channels, and the levels unless they are given.
      settings: other fields of the configuration.

    Raises:
      UserError: a level lies beyond the rows of the generator, or a setting is wrong.
    """
    if settings.get("space") == "s":
        settings |= generator.style_fields
    else:
        settings["w_dim"] = generator.w_dim
        settings.setdefault("levels", levels_of(generator))
    config = MapperConfig(**settings)
    check_generator(config, generator)
    return config


def levels_of(generator: GeneratorConfig) -> tuple[str, ...]:
    """Levels that the generator has rows for; all three from 32² up."""
    return tuple(
        level for level, rows in LEVELS.items() if rows.start < generator.num_rows
    )


def check_generator(config: MapperConfig, generator: GeneratorConfig) -> None:
    """Refuses a mapper whose latents are not those of the generator.

    Raises:
      UserError: says what differs.
    """
    if config.space == "s":
        expected = MapperConfig(space="s", **generator.style_fields)
        if config.style_layout != expected.style_layout:
            raise UserError(
                f"expected a mapper for style vectors of channels {expected.channels}"
                f", found one for {config.channels}"
            )
        return
    if config.w_dim != generator.w_dim:
        raise UserError(
            f"expected a mapper for rows of {generator.w_dim}, found one for "
            f"{config.w_dim}"
        )
    beyond = set(config.levels) - {SINGLE, *levels_of(generator)}
    if beyond:
        raise UserError(
            f"levels must be some of {','.join(levels_of(generator))} for a generator "
            f"of {generator.num_rows} rows, found {','.join(config.levels)}",
            field="levels",
        )


def init(key: jax.Array, config: MapperConfig) -> Any:
    """Random parameters with the official initialisation, as a nested dict."""
    return _Mapper(config).init(key, _empty_latent(config))["params"]


@functools.cache
def param_shapes(config: MapperConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its flat name, such as "coarse/fc0/kernel"."""
    return param_trees.shapes_of(init, config)


def apply(network: Mapper, latent: Any) -> Any:
    """Step M(w) of a mapper, before its strength.

    Args:
      network: the mapper.
      latent: [B, L, D] W+ with any number of rows, or a tuple of [B, C] styles.

    Returns:
      Like `latent`; zero where the mapper has no network.

    Raises:
      ValueError: the latent does not fit the mapper.

    Source: `mapper/latent_mappers.py`. Parity: before the first layer the official
    pixel norm divides by the root mean square over axis 1, which in W+ are the rows of
    a level, not the features; `normalize_over` has both.
    """
    config = network.config
    expected = _empty_latent(config)
    if jax.tree.map(_width, latent) != jax.tree.map(_width, expected):
        shape = f"[B, L, {config.w_dim}]"
        if config.space == "s":
            shape = f"style vectors of {[s.shape[-1] for s in expected]} channels"
        found = jax.tree.map(lambda x: list(x.shape), latent)
        raise ValueError(f"latent: expected {shape}, found {found}")
    return _Mapper(config).apply({"params": network.params}, latent)


def edit(
    network: Mapper,
    latent: Any,
    *,
    strength: float | jax.Array | None = None,
    levels: Sequence[str] | None = None,
) -> Any:
    """Edited latent w + strength · M(w).

    Args:
      network: the mapper.
      latent: [B, L, D] W+, or a tuple of [B, C] styles.
      strength: any number, 0 for no edit; None for that of the training.
      levels: coarse, medium and fine rows to move (in S, vectors made from them); None
        for all.

    Returns:
      Like `latent`.

    Raises:
      ValueError: the latent does not fit the mapper.
      UserError: no such level.
    """
    delta = apply(network, latent)
    if levels is not None:
        delta = _keep_levels(delta, levels, network.config)
    factor = network.config.strength if strength is None else strength
    return jax.tree.map(lambda w, d: w + factor * d, latent, delta)


class Similarity(NamedTuple):
    """Similarity of the steps of mappers: between latents, and between prompts.

    Attributes:
      mean: [M], mean cosine similarity of a mapper's steps over pairs of latents.
      std: [M], its standard deviation.
      between: [M, M], mean over latents of the cosine similarity of two mappers' steps
        at the same latent.
    """

    mean: jax.Array
    std: jax.Array
    between: jax.Array


def similarity(delta: jax.Array) -> Similarity:
    """Cosine similarities of steps.

    Args:
      delta: [M, N, F], the step of each mapper at each of N ≥ 2 latents, as
        `latents.flatten` makes it of `apply`.

    Source: the paper's Table 2.
    """
    unit = norms.unit(delta)
    pairs = norms.pair_cosines(unit)
    between = jnp.einsum("anf,bnf->abn", unit, unit, precision=products.EXACT)
    return Similarity(pairs.mean(-1), pairs.std(-1), between.mean(-1))


def _keep_levels(delta: Any, levels: Sequence[str], config: MapperConfig) -> Any:
    """Step that is zero outside of the levels."""
    unknown = set(levels) - set(LEVELS)
    if unknown:
        raise UserError(
            f"levels must be some of {', '.join(LEVELS)}, found {','.join(levels)}",
            field="levels",
        )

    def kept(num_rows: int) -> list[bool]:
        rows = [{*range(*LEVELS[level].indices(num_rows))} for level in levels]
        return [any(row in level for level in rows) for row in range(num_rows)]

    if config.space == "w_plus":
        return delta * jnp.asarray(kept(delta.shape[1]))[:, None]
    keep = kept(1 + config.style_layout[-1].row)
    return tuple(
        d * keep[layer.row] for d, layer in zip(delta, config.style_layout, strict=True)
    )


def _empty_latent(config: MapperConfig) -> Any:
    """Latent of zeros whose shape says all that the parameters depend on."""
    if config.space == "w_plus":
        # A row of each level, whatever their number in the generator.
        return jnp.zeros((1, LEVELS["fine"].start + 1, config.w_dim))
    return tuple(jnp.zeros((1, layer.channels)) for layer in config.style_layout)


def _width(x: jax.Array) -> tuple[int, int]:
    """Number of axes, and length of the last."""
    return x.ndim, x.shape[-1]


class _Perceptron(linen.Module):
    """Perceptron: normalisation and dense layers, which keep the width."""

    axis: int
    num_layers: int
    precision: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = layers.pixel_norm(x, self.axis)
        for index in range(self.num_layers):
            dense = layers.Dense(
                x.shape[-1], self.precision, _LR_MULTIPLIER, name=f"fc{index}"
            )
            x = layers.leaky_relu(dense(x))
        return x


class _Mapper(linen.Module):
    """Mapper: a perceptron for each part of the latent that is moved."""

    config: MapperConfig

    @nn.compact
    def __call__(self, latent: Any) -> Any:
        config = self.config
        if config.space == "s":
            return tuple(
                self._map(layer.name.replace("/", "_"), s)
                if layer.moves or (config.torgb and layer.is_torgb)
                else jnp.zeros_like(s)
                for layer, s in zip(config.style_layout, latent, strict=True)
            )
        if config.levels == (SINGLE,):
            return self._map(SINGLE, latent)
        parts = [
            self._map(level, latent[:, rows])
            if level in config.levels
            else jnp.zeros_like(latent[:, rows])
            for level, rows in LEVELS.items()
        ]
        return jnp.concatenate(parts, axis=1)

    def _map(self, name: str, part: Any) -> jax.Array:
        config = self.config
        axis = 1 if config.space == "s" else NORMS[config.normalize_over]
        perceptron = _Perceptron(axis, config.num_layers, config.precision, name=name)
        return perceptron(part)
