"""Edits of styleclip-app: directions, mappers and optimization, one face at a time."""

import collections
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from styleclip_jax import latents, losses, optimizers, progress, spaces
from styleclip_jax.editing import estimation, session
from styleclip_jax.editing.session import Edited, Face, Studio
from styleclip_jax.errors import UserError
from styleclip_jax.io import images
from styleclip_jax.methods import global_directions, mapper, optimization
from styleclip_jax.models import clip
from styleclip_jax.models.network import Network

MAX_STEPS = 1000

# Seconds between two pictures of an optimization.
_SHOW_EVERY = 0.5


class Settings(NamedTuple):
    """Settings of an optimization; other values compile nothing new.

    Attributes:
      steps: number of steps, 1 to `MAX_STEPS`.
      learning_rate: peak learning rate.
      l2_lambda: weight of the squared distance to the source latent.
      id_lambda: weight of the identity distance to the source image.
    """

    steps: int = 300
    learning_rate: float = 0.1
    l2_lambda: float = 0.008
    id_lambda: float = 0.0


def measure(
    studio: Studio, neutral: str, target: str, report: progress.Report
) -> global_directions.TextRelevance:
    """Relevance of every channel for a pair of texts.

    Args:
      studio: networks, perhaps with relevance for all texts.
      neutral: text that the direction leads away from.
      target: text that it leads to.
      report: is told of the samples that are done, `studio.num_samples` in all.

    Raises:
      UserError: a text is missing or too long, or CLIP sees no difference.
    """
    try:
        text = global_directions.text_direction(
            studio.networks.clip,
            studio.tokenizer,
            _text("neutral text", neutral),
            _text("target text", target),
            studio.templates,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    if studio.relevance is not None:
        return global_directions.relevance_for(studio.relevance, text)
    return estimation.estimate(
        studio.networks, studio.samples, text, studio.relevance_config, report=report
    )


class Relevances:
    """Relevance of the pairs of texts that were asked for last, for all sessions."""

    def __init__(self, studio: Studio, capacity: int = 64) -> None:
        self._studio, self._capacity = studio, capacity
        self._found: collections.OrderedDict[
            tuple[str, str], global_directions.TextRelevance
        ] = collections.OrderedDict()

    def find(
        self, neutral: str, target: str, report: progress.Report
    ) -> global_directions.TextRelevance:
        """Relevance for a pair of texts, measured unless it is known; see `measure`."""
        pair = (neutral.strip(), target.strip())
        found = self._found.pop(pair, None)
        if found is None:
            found = measure(self._studio, *pair, report)
        self._found[pair] = found
        while len(self._found) > self._capacity:
            self._found.popitem(last=False)
        return found


def move(
    studio: Studio,
    face: Face,
    relevance: global_directions.TextRelevance,
    alpha: float,
    beta: float,
) -> tuple[Edited, int]:
    """A face moved along a direction, and how many channels the direction has.

    Nothing but arrays changes between calls, so that a slider compiles nothing.
    """
    styles, image, delta, kept = jax.device_get(
        _move(
            studio.generator,
            face.styles,
            relevance,
            jnp.float32(alpha),
            jnp.float32(beta),
        )
    )
    # An edit of no strength is still in W+.
    w_plus = None if alpha else face.w_plus
    moved = Face(face.name, w_plus, styles, images.to_uint8(image))
    note = {"alpha": alpha, "beta": beta, "channels": int(kept)}
    about = f"α {alpha:g}, β {beta:.3g}, {kept} channels"
    return Edited(moved, about, delta, note), int(kept)


def warm_up(studio: Studio) -> None:
    """Compiles drawing and moving, so that the first edit is as fast as the others."""
    face = session.draw(studio, 0, 1.0)
    size = len(face.styles)
    nothing = global_directions.TextRelevance(
        jnp.zeros(size),
        jnp.zeros(size),
        global_directions.select_layers(studio.layout, "all"),
        studio.layout,
    )
    move(studio, face, nothing, 0.0, 0.0)


def beta_for(relevance: global_directions.TextRelevance, num_channels: int) -> float:
    """The threshold, to four decimals, of so many channels or barely more.

    Raises:
      UserError: fewer channels were measured.
    """
    try:
        exact = global_directions.beta_for(relevance, num_channels)
    except ValueError as error:
        raise UserError(str(error)) from None
    return float(np.floor(exact * 1e4) / 1e4)


def sheet(
    studio: Studio,
    face: Face,
    relevance: global_directions.TextRelevance,
    alphas: Sequence[float],
    counts: Sequence[int],
) -> Image.Image:
    """A sheet of a face at several strengths and numbers of channels.

    Raises:
      UserError: fewer channels were measured.
    """

    def image(alpha: float, beta: float) -> np.ndarray:
        return move(studio, face, relevance, alpha, beta)[0].face.image

    betas = [beta_for(relevance, count) for count in counts]
    return images.grid(
        [np.stack([image(alpha, beta) for alpha in alphas]) for beta in betas],
        row_labels=[f"{count} channels" for count in counts],
        column_labels=[f"alpha {alpha:g}" for alpha in alphas],
    )


def map_face(studio: Studio, face: Face, name: str, strength: float) -> Edited:
    """A face edited by a mapper.

    Raises:
      UserError: no such mapper, or the face is not in the mapper's space.
    """
    if name not in studio.mappers:
        raise UserError(f"mapper: expected one of --mapper, found {name!r}")
    network = studio.mappers[name]
    in_s = network.config.space == "s"
    if not in_s and face.w_plus is None:
        raise UserError(
            "this mapper edits in W+, and the start was edited in S: draw or upload one"
        )
    latent = face.styles if in_s else face.w_plus
    mapped = np.asarray(_map(network, latent, jnp.float32(strength)))
    return Edited(
        session.make_face(studio, face.name, mapped, space=network.config.space),
        f"{name}, strength {strength:g}",
    )


def optimize(
    studio: Studio, face: Face, prompt: str, settings: Settings
) -> Iterator[tuple[int, Edited]]:
    """Optimizes a face towards a text: in W+, or in S where it is not in W+.

    Returns:
      The number of steps done and the face so far, about twice a second and last, as
      the optimization goes on. A UserError comes out of it where the loss is not
      finite.

    Raises:
      UserError: a setting is wrong.
    """
    text = _text("prompt", prompt)
    if not 1 <= settings.steps <= MAX_STEPS:
        raise UserError(f"steps: expected 1 to {MAX_STEPS}, found {settings.steps}")
    if min(settings) < 0 or not np.isfinite(settings).all():
        raise UserError("learning rate and weights: expected numbers of at least 0")
    if settings.id_lambda and studio.networks.identity is None:
        raise UserError("identity: expected --identity for this generator")
    feature = clip.encode_prompts(studio.networks.clip, studio.tokenizer, [text])[0]
    return _steps(studio, face, text, feature, settings)


def _steps(
    studio: Studio, face: Face, text: str, feature: jax.Array, settings: Settings
) -> Iterator[tuple[int, Edited]]:
    """The steps of `optimize`, whose settings are in order."""
    space = "s" if face.w_plus is None else "w_plus"
    latent = jnp.asarray(face.styles if face.w_plus is None else face.w_plus)
    static = {"space": space, "use_identity": settings.id_lambda > 0}
    state = _start(studio.networks, latent, feature, settings, **static)
    shown = time.monotonic()
    for done in range(1, settings.steps + 1):
        state = _step(studio.networks, state, settings, **static)
        # Without it, steps would be queued sooner than pictures are due.
        jax.block_until_ready(state)
        last = done == settings.steps
        if not last and time.monotonic() - shown < _SHOW_EVERY:
            continue
        if int(state.failed_at) >= 0:
            raise UserError(f"the loss was not finite at step {int(state.failed_at)}")
        total = float(state.history["total"][done - 1])
        packed = np.asarray(latents.pack(state.latent))
        about = f"{text}: step {done} of {settings.steps}, loss {total:.4f}"
        yield (
            done,
            Edited(session.make_face(studio, face.name, packed, space=space), about),
        )
        shown = time.monotonic()


def _text(name: str, text: str) -> str:
    if not text.strip():
        raise UserError(f"{name}: expected a text, found none")
    return text.strip()


@jax.jit
def _move(
    generator: Network,
    flat: jax.Array,
    relevance: global_directions.TextRelevance,
    alpha: jax.Array,
    beta: jax.Array,
) -> tuple[jax.Array, ...]:
    """Flat styles, image, direction and its number of channels."""
    direction = global_directions.make_direction(relevance, beta)
    moved = flat + alpha * direction.delta
    kept = global_directions.count_kept(relevance, beta)
    return moved, session.render(generator, moved), direction.delta, kept


@jax.jit
def _map(network: Network, latent: jax.Array, strength: jax.Array) -> jax.Array:
    """One latent after a mapper, W+ or flat S as it came."""
    config = network.config
    batch: Any = latent[None]
    if config.space == "s":
        batch = spaces.unflatten_styles(batch, config.style_layout)
    edited = mapper.edit(Network(network.params, config), batch, strength=strength)
    return latents.pack(edited)[0]


def _problem(
    space: str, settings: Settings, use_identity: bool
) -> optimization.Problem:
    """The official problem with settings that may be traced."""
    problem = optimization.official(optimization.OptimizationConfig(space=space))
    objective = {**problem.objective, "l2": (settings.l2_lambda, losses.latent_l2)}
    if use_identity:
        objective["identity"] = (settings.id_lambda, losses.identity_distance)
    rate = optimizers.ramped(settings.learning_rate, settings.steps)
    return problem._replace(
        objective=objective, optimizer=optax.adam(rate), steps=MAX_STEPS
    )


@functools.partial(jax.jit, static_argnames=("space", "use_identity"))
def _start(
    networks: losses.Networks,
    latent: jax.Array,
    text: jax.Array,
    settings: Settings,
    *,
    space: str,
    use_identity: bool,
) -> optimization.State:
    problem = _problem(space, settings, use_identity)
    whole: Any = latent
    if space == "s":
        layout = networks.generator.config.style_layout
        whole = spaces.unflatten_styles(latent, layout)
    return optimization.start(networks, whole, text, problem=problem)


@functools.partial(
    jax.jit, static_argnames=("space", "use_identity"), donate_argnames="state"
)
def _step(
    networks: losses.Networks,
    state: optimization.State,
    settings: Settings,
    *,
    space: str,
    use_identity: bool,
) -> optimization.State:
    problem = _problem(space, settings, use_identity)
    return optimization.step(networks, state, problem=problem)
