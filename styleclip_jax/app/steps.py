"""Steps of the page: what a method adds to a face, at any strength.

The edits of all methods are steps on a line, latent + strength · Δ, so that one slider
serves all. `search` finds the strength of a step, and the parts of it that help.
"""

import collections
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import latents, losses, spaces
from styleclip_jax.app import rooms
from styleclip_jax.app.rooms import Room
from styleclip_jax.editing import directing, estimation
from styleclip_jax.editing.directing import DirectionConfig
from styleclip_jax.editing.prompts import Prompts
from styleclip_jax.errors import UserError
from styleclip_jax.methods import global_directions, mapper, strength
from styleclip_jax.methods.global_directions import TextRelevance
from styleclip_jax.models import clip
from styleclip_jax.models.network import Network
from styleclip_jax.progress import Report, ignore

DIRECTION, OPTIMIZATION, MAPPER = "Direction", "Optimization", "Mapper"
# Strength of a direction that is not searched: the default of styleclip-edit.
DEFAULT_ALPHA = float(DirectionConfig.alpha[0])
# Resolution of the slider of strengths, in the strength that a method makes of itself.
_RESOLUTION = 100


class Step(NamedTuple):
    """Step of one face, or of several.

    Attributes:
      method: name of the method's tab.
      text: text that the step leads to; empty where it is not known.
      start: latents [B, …] that it starts from, in the space of the step.
      delta: step for a strength of 1, of the same shapes.
      whole: step that a search begins with, of which it keeps the parts that help.
      unit: strength of the method's own step.
      first: strength that a search begins with.
      strength: [B] strength that the step was found with.
      about: how it was made, for people.
      again: (faces in W+ or S) → step of the same settings for other faces.
      texts: neutral and target text of a direction; None for others.
      fit: [B] fit with the text where strength and parts were searched; 1 is that of
        the best random faces. None where they were not.
      tuned: number of the tuned generator of the face, as of `Face`.
    """

    method: str
    text: str
    start: Any
    delta: Any
    whole: Any
    unit: float
    first: float
    strength: np.ndarray
    about: str
    again: Callable[[Any, Report], "Step"]
    texts: tuple[str, str] | None = None
    fit: np.ndarray | None = None
    tuned: int | None = None

    @property
    def resolution(self) -> float:
        """Distance of two strengths of the slider."""
        return self.unit / _RESOLUTION

    @property
    def most(self) -> float:
        """Largest strength of the slider."""
        found = float(np.abs(self.strength).max())
        return self.unit * max(2, math.ceil(1.5 * found / self.unit))


def moved(step: Step, by: float | np.ndarray) -> Any:
    """Latents [B, …] at a strength, one for all or [B]; 0 gives the start."""
    count = len(jax.tree.leaves(step.start)[0])
    by_face = jnp.broadcast_to(jnp.asarray(by, jnp.float32), (count,))
    return jax.tree.map(np.asarray, _move(step.start, step.delta, by_face))


_move = jax.jit(strength.move)


def search(room: Room, step: Step) -> Step:
    """Step with the strength that makes its text fit, and the parts that help.

    A face that shows the text already, or that nothing brings nearer, stays: its
    strength is 0, and its step is what it was.
    """
    generator = room.generator_of(step.tuned)
    seeing = losses.Networks(generator, clip.without_text(room.session.clip))
    space = "s" if isinstance(step.start, tuple) else "w_plus"
    own = jax.tree.map(lambda x: step.first * x, step.whole)
    found = _search(seeing, step.start, own, room.aim(step.text), space=space)
    # Strengths are those of the slider, so that it shows the picture's own.
    exact = step.first * np.asarray(found.strength, np.float64)
    rounded = np.maximum(np.round(exact / step.resolution), 1) * step.resolution
    by_face = np.where(exact == 0, 0, rounded)

    def per_unit(end: jax.Array, start: Any, delta: Any) -> np.ndarray:
        by = np.reshape(by_face, (-1,) + (1,) * (np.ndim(start) - 1))
        added = np.asarray(end) - start
        per_one = added / np.where(by == 0, 1, by)
        return np.where(by == 0, delta, per_one).astype(np.float32)

    return step._replace(
        delta=jax.tree.map(per_unit, found.latent, step.start, step.delta),
        strength=by_face,
        # The channels that were kept are no longer those of a threshold.
        about="" if step.texts else step.about,
        fit=np.asarray(found.fit),
    )


@functools.partial(jax.jit, static_argnames="space")
def _search(
    networks: losses.Networks, latent: Any, step: Any, aim: strength.Aim, *, space: str
) -> strength.Found:
    return strength.search(networks, latents.SPACES[space], latent, step, aim)


# Directions


def measure(room: Room, neutral: str, target: str, report: Report) -> TextRelevance:
    """Relevance of every channel for a pair of texts.

    Args:
      room: networks, perhaps with relevance for all texts.
      neutral: text that the direction leads away from.
      target: text that the direction leads to.
      report: is told of the samples that are done, `room.num_samples` in all.

    Raises:
      UserError: a text is missing or too long, or CLIP sees no difference.
    """
    target = room.check_text(rooms.PROMPT, target)
    neutral = room.check_text(rooms.NEUTRAL, neutral)
    if neutral == target:
        raise UserError(
            f"{rooms.PROMPT} and {rooms.NEUTRAL}: expected two different texts"
        )
    (text,) = directing.text_directions(
        room.session.loaded, Prompts((target,)), neutral
    )
    if room.relevance is not None:
        return global_directions.relevance_for(room.relevance, text)
    how = estimation.configure(room.num_samples)
    networks = room.session.networks()
    return estimation.estimate(networks, room.samples, text, how, report=report)


class Relevances:
    """Cache of relevance for the last pairs of texts, shared by all visitors."""

    def __init__(self, room: Room, capacity: int = 64) -> None:
        self._room, self._capacity = room, capacity
        self._found: collections.OrderedDict[tuple[str, str], TextRelevance] = (
            collections.OrderedDict()
        )

    def find(self, neutral: str, target: str, report: Report = ignore) -> TextRelevance:
        """Relevance for a pair of texts, measured unless it is known; see `measure`."""
        pair = (neutral.strip(), target.strip())
        found = self._found.pop(pair, None)
        if found is None:
            found = measure(self._room, *pair, report)
        self._found[pair] = found
        while len(self._found) > self._capacity:
            self._found.popitem(last=False)
        return found


_direction = jax.jit(global_directions.make_direction)


def direct(
    room: Room,
    latent: Any,
    texts: tuple[str, str],
    relevance: TextRelevance,
    beta: float | None = None,
    tuned: int | None = None,
) -> Step:
    """Step along the direction of a pair of texts.

    Args:
      room: networks.
      latent: latents in W+ or S.
      texts: neutral and target text.
      relevance: relevance for them.
      beta: least relevance of a channel that moves; None for the automatic one, and
        for a search among more channels.
      tuned: number of the tuned generator of the face, as of `Face`.
    """
    start = jax.tree.map(np.asarray, room.to_styles(latent, tuned))
    count = len(start[0])

    def step_of(threshold: float) -> Any:
        flat = _direction(relevance, jnp.float32(threshold)).delta
        styles = spaces.unflatten_styles(flat[None], room.layout)
        return jax.tree.map(lambda x: np.repeat(np.asarray(x), count, axis=0), styles)

    least = global_directions.automatic_beta(relevance) if beta is None else beta
    delta = whole = step_of(least)
    if beta is None:
        searched = DirectionConfig(neutral=texts[0], alpha=(directing.AUTO,))
        whole = step_of(directing.choose_betas(relevance, searched)[0])
    kept = int(global_directions.count_kept(relevance, least))
    return Step(
        method=DIRECTION,
        text=texts[1],
        start=start,
        delta=delta,
        whole=whole,
        unit=DEFAULT_ALPHA,
        first=directing.FIRST_ALPHA,
        strength=np.full(count, DEFAULT_ALPHA),
        about=f"{kept} channels, β {least:.3g}",
        again=lambda other, report: direct(room, other, texts, relevance, beta),
        texts=texts,
        tuned=tuned,
    )


def beta_for(relevance: TextRelevance, num_channels: float) -> float:
    """Threshold β, to four decimals, that keeps so many channels or barely more.

    Raises:
      UserError: fewer channels were measured, or it is no number of channels.
    """
    layers = global_directions.channels_of(relevance.layout, relevance.layers)
    if not 1 <= num_channels <= layers.sum() or num_channels != int(num_channels):
        raise UserError(
            f"{rooms.CHANNELS}: expected a whole number from 1 to {layers.sum()}, "
            f"found {num_channels:.15g}"
        )
    exact = global_directions.beta_for(relevance, int(num_channels))
    return float(np.floor(exact * 1e4) / 1e4)


def count_kept(relevance: TextRelevance, beta: float) -> int:
    """Number of channels that a threshold keeps."""
    return int(global_directions.count_kept(relevance, beta))


# Mappers


def map_latents(room: Room, latent: Any, name: str, tuned: int | None = None) -> Step:
    """Step of a mapper, through a tuned generator if its number is given.

    Raises:
      UserError: there is no such mapper, or the face is not in the mapper's space.
    """
    if name not in room.mappers:
        raise UserError(
            f"{rooms.MAPPER}: expected one of {', '.join(room.mappers) or 'none'}, "
            f"found {name!r}"
        )
    network = room.mappers[name]
    in_s = network.config.space == "s"
    if not in_s and isinstance(latent, tuple):
        raise UserError(
            "This mapper needs a face that no direction has moved: press Undo, or "
            "choose another face"
        )
    styles = room.to_styles(latent, tuned) if in_s else latent
    start = jax.tree.map(np.asarray, styles)
    own = network.config.strength
    end = _map(network, start)
    delta = jax.tree.map(lambda a, b: (np.asarray(a) - b) / own, end, start)
    count = len(jax.tree.leaves(start)[0])
    return Step(
        method=MAPPER,
        text="" if name in room.untold else name,
        start=start,
        delta=delta,
        whole=delta,
        unit=own,
        first=own,
        strength=np.full(count, own),
        about="",
        again=lambda other, report: map_latents(room, other, name),
        tuned=tuned,
    )


@jax.jit
def _map(network: Network, latent: Any) -> Any:
    """Latents edited by a mapper."""
    return mapper.edit(network, latent)
