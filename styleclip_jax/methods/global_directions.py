"""Global directions: steps Δs in style space for pairs of texts.

  Δt        = unit(t(prompt) − t(neutral)), each averaged over prompt templates
  r_c       = ⟨Δi_c, Δt⟩                    relevance of channel c, see
                                            `channel_relevance`
  Δs_c      = σ_c · r_c / max|r| where |r_c| ≥ β, else 0
  edit      = s + α·Δs

so the strongest channel moves by α standard deviations whatever β is. Everything is a
value: relevance, the relevance for one text, and the direction, which can be added,
scaled and masked.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import latents, losses, spaces, traced
from styleclip_jax.errors import UserError
from styleclip_jax.methods import channel_relevance
from styleclip_jax.models import clip
from styleclip_jax.ops import norms, products

Layout = tuple[spaces.StyleLayer, ...]

# Pixels of the images that backward passes have in memory at a time: at 64² two passes
# of four samples, and from 128² on one. More take as long on a CPU, and more memory.
_PIXELS = 8 * 64**2

# The thresholds that the official GUI tries.
_BETAS = np.arange(0.1, 0.3, 0.01)


@flax.struct.dataclass
class Relevance:
    """Relevance of every channel for every text.

    Attributes:
      table: [S, E] unit vectors Δi, zero for channels that were not measured.
      std: [S] standard deviation of every channel.
      layers: indices of the layers that were measured.
      layout: layout of S.
    """

    table: jax.Array
    std: jax.Array
    layers: tuple[int, ...] = flax.struct.field(pytree_node=False)
    layout: Layout = flax.struct.field(pytree_node=False)


@flax.struct.dataclass
class TextRelevance:
    """Relevance of every channel for one pair of texts.

    Attributes:
      value: [S] in [-1, 1], zero for channels that were not measured.
      std: [S] standard deviation of every channel.
      layers: indices of the layers that were measured.
      layout: layout of S.
    """

    value: jax.Array
    std: jax.Array
    layers: tuple[int, ...] = flax.struct.field(pytree_node=False)
    layout: Layout = flax.struct.field(pytree_node=False)


@flax.struct.dataclass
class Direction:
    """Direction: a step in style space.

    Directions of one layout are added, subtracted, negated and multiplied by numbers.

    Attributes:
      delta: [S] flat.
      layout: layout of S.
    """

    delta: jax.Array
    layout: Layout = flax.struct.field(pytree_node=False)

    # NumPy would otherwise multiply by itself, element by element.
    __array_ufunc__ = None

    def __add__(self, other: "Direction") -> "Direction":
        _same_layout(self, other)
        return dataclasses.replace(self, delta=self.delta + other.delta)

    def __neg__(self) -> "Direction":
        return dataclasses.replace(self, delta=-self.delta)

    def __sub__(self, other: "Direction") -> "Direction":
        return self + -other

    def __mul__(self, factor: float | jax.Array) -> "Direction":
        return dataclasses.replace(self, delta=self.delta * factor)

    __rmul__ = __mul__


def select_layers(layout: Layout, text: str) -> tuple[int, ...]:
    """Indices of the layers that a text names, toRGB left out.

    Args:
      layout: layout of S.
      text: "all", resolutions such as "4-128", or names such as "b8" or "b8/conv0"
        with commas between.

    Raises:
      UserError: something named does not exist, or is a toRGB layer.
    """
    usable = {i: layer for i, layer in enumerate(layout) if layer.moves}
    found: set[int] = set()
    for part in (part.strip() for part in text.split(",")):
        match = re.fullmatch(r"(\d+)-(\d+)", part)
        low, high = (int(match[1]), int(match[2])) if match else (0, 0)
        chosen = {
            i
            for i, layer in usable.items()
            if part in ("all", layer.name, f"b{layer.resolution}")
            or low <= layer.resolution <= high
        }
        if not chosen:
            names = ", ".join(layer.name for layer in usable.values())
            raise UserError(
                f"layers: expected all, resolutions such as 4-128, or some of {names}, "
                f"found {part!r}",
                field="layers",
            )
        found |= chosen
    return tuple(sorted(found))


def channels_of(layout: Layout, layers: Sequence[int]) -> np.ndarray:
    """Mask [S] bool of the channels of S that belong to the layers."""
    return np.concatenate(
        [np.full(layer.channels, i in layers) for i, layer in enumerate(layout)]
    )


def expand(
    rows: np.ndarray, std: np.ndarray, layers: tuple[int, ...], layout: Layout
) -> Relevance:
    """Relevance of the rows that files hold, those of the measured channels alone.

    Args:
      rows: [C, E] for the channels of `layers`, in order.
      std: [S].
      layers: indices of the layers that were measured.
      layout: layout of S.

    Raises:
      ValueError: the rows are not as many as the channels.
    """
    measured = channels_of(layout, layers)
    if len(rows) != measured.sum() or len(std) != len(measured):
        raise ValueError(
            f"expected relevance of {measured.sum()} channels and deviations of "
            f"{len(measured)}, found {len(rows)} and {len(std)}"
        )
    table = np.zeros((len(measured), rows.shape[1]), np.float32)
    table[measured] = rows
    return Relevance(jnp.asarray(table), jnp.asarray(std), layers, layout)


def encode_texts(
    network: clip.Clip,
    tokenizer: clip.Tokenizer,
    texts: Sequence[str],
    templates: Sequence[str],
) -> jax.Array:
    """Unit features [T, E] of texts: the mean over templates of unit features.

    Args:
      network: CLIP.
      tokenizer: its tokenizer.
      texts: T texts for the templates, such as "face with blue eyes".
      templates: prompts with {} where the text goes.

    Raises:
      UserError: a prompt is too long.

    Source: `zeroshot_classifier` of the official code.
    """
    prompts = [t.replace("{}", text) for text in texts for t in templates]
    features = clip.encode_prompts(network, tokenizer, prompts)
    by_text = features.reshape(len(texts), len(templates), -1)
    return norms.unit(jnp.mean(by_text, axis=1))


def text_direction(
    network: clip.Clip,
    tokenizer: clip.Tokenizer,
    neutral: str,
    prompt: str,
    templates: Sequence[str],
) -> jax.Array:
    """Direction Δt [E] of texts: the unit vector from a neutral text to a prompt.

    Raises:
      UserError: a prompt is too long, or CLIP sees no difference between the texts.

    Source: `GetDt` of the official code.
    """
    start, end = encode_texts(network, tokenizer, (neutral, prompt), templates)
    if neutral == prompt or not jnp.any(end - start):
        raise UserError(
            f"neutral and prompt must differ, found {neutral!r} and {prompt!r}",
            field="neutral",
        )
    return norms.unit(end - start)


def relevance_for(relevance: Relevance, text: jax.Array) -> TextRelevance:
    """Relevance of every channel for one text direction [E]."""
    value = jnp.matmul(relevance.table, text, precision=products.EXACT)
    return TextRelevance(value, relevance.std, relevance.layers, relevance.layout)


def estimate_relevance(
    networks: losses.Networks,
    samples: spaces.Styles,
    std: jax.Array,
    text: jax.Array,
    key: jax.Array,
    *,
    layers: tuple[int, ...],
    num_probes: int = 31,
    batch_size: int = 4,
    place: Callable[[spaces.Styles], spaces.Styles] = lambda batch: batch,
    report: Callable[[int], None] = lambda count: None,
) -> TextRelevance:
    """Relevance for one text direction to first order, without any table.

    A loop on the host over batches of samples, each with 1 + num_probes backward
    passes through generator and CLIP: one along the text, and probes that tell how far
    a channel moves images at all (see `channel_relevance.probe_basis`).

    Args:
      networks: generator and CLIP.
      samples: tuple of [N, C], the styles to average over.
      std: [S] of every channel.
      text: [E] unit vector.
      key: PRNG key of the probes.
      layers: indices of the layers to measure.
      num_probes: random directions, at most E − 1.
      batch_size: samples at a time.
      place: puts a batch onto the devices.
      report: is called with the number of samples of each batch that is done.
    """
    layout = networks.generator.config.style_layout
    probes = min(num_probes, len(text) - 1)
    basis = _probe_basis(text, key, probes)
    passes = max(1, _PIXELS // (batch_size * layout[-1].resolution ** 2))
    count, found = len(samples[0]), jnp.zeros((len(std), 1 + probes))
    for start in range(0, count, batch_size):
        # The last batch is filled up with samples that do not count.
        rows = np.arange(start, start + batch_size)
        batch = place(latents.take(samples, rows % count))
        weight = np.asarray(rows < count, np.float32)
        found += _sum_of_rows(networks, batch, weight, basis, passes)
        # Queued batches would all have their memory at once.
        jax.block_until_ready(found)
        report(min(batch_size, count - start))
    value = norms.unit_by_rsqrt(found)[:, 0] * channels_of(layout, layers)
    return TextRelevance(value, std, layers, layout)


@jax.jit
def count_kept(text: TextRelevance, beta: float | jax.Array) -> jax.Array:
    """Number of channels that a threshold keeps, []."""
    return jnp.sum(_kept(text, beta))


def automatic_beta(text: TextRelevance, *, more_than: int = 20) -> float:
    """Largest of 0.10, 0.11, … 0.29 that keeps more than some channels, else 0.10.

    Args:
      text: relevance for a pair of texts.
      more_than: number of channels; officially 20 for FFHQ and 100 elsewhere.

    Source: the official GUI, after a new target text.
    """
    enough = [b for b in _BETAS if count_kept(text, float(b)) > more_than]
    return float(max(enough, default=_BETAS[0]))


def beta_for(text: TextRelevance, num_channels: int) -> float:
    """Threshold that keeps the `num_channels` most relevant channels.

    Raises:
      UserError: fewer channels were measured.
    """
    measured = channels_of(text.layout, text.layers)
    if not 1 <= num_channels <= measured.sum():
        raise UserError(
            f"num_channels must be from 1 to {measured.sum()}, found {num_channels}",
            field="num_channels",
        )
    strength = np.sort(np.abs(np.asarray(text.value))[measured])
    return float(strength[-num_channels])


def check_beta(text: TextRelevance, beta: float) -> None:
    """Refuses a threshold that keeps no channel.

    Raises:
      UserError: nothing is left, or beta is no threshold.
    """
    if not 0 <= beta <= 1:
        raise UserError(f"beta: β must be from 0 to 1, found {beta:g}", field="beta")
    largest = float(np.max(np.abs(np.asarray(text.value))))
    if largest < beta or largest == 0:
        raise UserError(
            f"beta: β = {beta:g} keeps 0 channels; the largest relevance for this pair "
            f"is {largest:.2g}",
            field="beta",
        )


def make_direction(text: TextRelevance, beta: float | jax.Array) -> Direction:
    """Direction Δs of the channels whose relevance is at least beta.

    Under vmap over `beta` it gives one direction per threshold. A threshold that keeps
    nothing gives the zero direction; `check_beta` refuses it.

    Source: `GetBoundary` of the official code, which then gives NaN.
    """
    kept = jnp.where(_kept(text, beta), text.value, 0)
    largest = jnp.max(jnp.abs(kept))
    scale = jnp.where(largest > 0, largest, 1)
    return Direction(kept / scale * text.std, text.layout)


def project_out(direction: Direction, other: Direction) -> Direction:
    """Part of a direction orthogonal to another one, a − (⟨a, b⟩/⟨b, b⟩)·b in S.

    A zero `other` takes nothing away.
    """
    _same_layout(direction, other)
    a, b = direction.delta, other.delta
    squares = jnp.vdot(b, b)
    share = jnp.vdot(a, b) / jnp.where(squares > 0, squares, 1)
    return direction - other * share


def mask(direction: Direction, layers: Sequence[int]) -> Direction:
    """Part of a direction in some layers, by their index; zero elsewhere."""
    return direction * channels_of(direction.layout, layers)


def edit(
    styles: spaces.Styles, direction: Direction, alpha: float | jax.Array
) -> spaces.Styles:
    """Edited styles s + α·Δs.

    Args:
      styles: tuple of [..., C].
      direction: Δs, of the same layout.
      alpha: strength; a number, or an array of leading axes to broadcast with those of
        the styles, such as [A, 1] for A strengths of [B] styles.

    Raises:
      ValueError: the styles have another layout.

    Source: `MSCode` of the official code.
    """
    channels = [style.shape[-1] for style in styles]
    if channels != [layer.channels for layer in direction.layout]:
        raise ValueError(
            f"the direction is for style vectors of "
            f"{[layer.channels for layer in direction.layout]} channels, "
            f"found {channels}"
        )
    factor = jnp.asarray(alpha, jnp.float32)[..., None]
    step = spaces.unflatten_styles(direction.delta, direction.layout)
    return jax.tree.map(lambda s, d: s + factor * d, styles, step)


class Agreement(NamedTuple):
    """Agreement of two measurements of relevance for one pair of texts.

    Attributes:
      rank_correlation: correlation of the ranks of |r| (Spearman).
      overlap: share of the strongest channels that both have, with the same sign.
    """

    rank_correlation: float
    overlap: float


def agreement(
    found: TextRelevance, expected: TextRelevance, num_channels: int
) -> Agreement:
    """Agreement of two measurements over the channels that both have.

    Args:
      found: one measurement.
      expected: the other.
      num_channels: number of strongest channels to compare.

    Raises:
      ValueError: of different layouts.
      UserError: fewer channels in common.
    """
    _same_layout(found, expected)
    common = channels_of(found.layout, sorted({*found.layers} & {*expected.layers}))
    if not 1 <= num_channels <= common.sum():
        raise UserError(
            f"num_channels must be from 1 to {common.sum()}, found {num_channels}",
            field="num_channels",
        )
    values = [np.asarray(text.value)[common] for text in (found, expected)]
    ranks = [np.argsort(np.argsort(np.abs(value))) for value in values]
    chosen = [rank >= len(rank) - num_channels for rank in ranks]
    same = chosen[0] & chosen[1] & (np.sign(values[0]) == np.sign(values[1]))
    correlation = np.corrcoef(ranks[0], ranks[1])[0, 1]
    return Agreement(float(correlation), float(same.sum() / num_channels))


_probe_basis = jax.jit(channel_relevance.probe_basis, static_argnums=2)


def _sum_of_rows(
    networks: losses.Networks,
    batch: spaces.Styles,
    weight: np.ndarray,
    basis: jax.Array,
    passes: int,
) -> jax.Array:
    """Weighted sum [S, D] over a batch of unit rows, of some backward passes at a time.

    Compiled once for all texts.
    """
    residuals = _linearized(networks, batch)
    rows = []
    for start in range(0, len(basis), passes):
        directions = basis[start : start + passes]
        rows.append(_pulled(networks, batch, residuals, directions))
        jax.block_until_ready(rows[-1])
    return _sum_units(weight, jnp.concatenate(rows, axis=-1))


_pullback = jax.jit(channel_relevance.pullback)


@jax.jit
@functools.partial(traced.keep, "global_directions.linearized")
def _linearized(networks: losses.Networks, batch: spaces.Styles) -> list[jax.Array]:
    """Arrays of a batch's pullback, without the function that they are for."""
    return jax.tree.leaves(_pullback(networks, batch))


@jax.jit
@functools.partial(traced.keep, "global_directions.pulled")
def _pulled(
    networks: losses.Networks,
    batch: spaces.Styles,
    residuals: Sequence[jax.Array],
    directions: jax.Array,
) -> jax.Array:
    """Rows of a batch along some directions, by the arrays of its pullback."""
    function = jax.tree.structure(jax.eval_shape(_pullback, networks, batch))
    pull = jax.tree.unflatten(function, residuals)
    return channel_relevance.pull_rows(pull, directions)


@jax.jit
def _sum_units(weight: jax.Array, rows: jax.Array) -> jax.Array:
    """Weighted sum [S, D] over samples of the unit vectors of rows [B, S, D]."""
    return jnp.tensordot(weight, norms.unit_by_rsqrt(rows), axes=1)


def _kept(text: TextRelevance, beta: float | jax.Array) -> jax.Array:
    measured = channels_of(text.layout, text.layers)
    return (jnp.abs(text.value) >= beta) & measured


def _same_layout(a: Any, b: Any) -> None:
    if a.layout != b.layout:
        raise ValueError("the directions are of different generators")
