"""The networks of a run, its faces and its settings, and the edits of each method.

Edits are of one face at a time, so that every figure uses the same compiled programs.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from styleclip_jax import latents, losses
from styleclip_jax.editing import estimation
from styleclip_jax.evaluation import measure, metrics
from styleclip_jax.methods import global_directions, mapper, optimization
from styleclip_jax.models import bpe, clip, stylegan2
from styleclip_jax.models.network import Network

Result = TypeVar("Result")

# Samples that a direction's relevance is averaged over, without a file of it.
ESTIMATE = estimation.estimate_config(num_samples=16)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A text with the weights of its optimization.

    Attributes:
      text: the prompt.
      l2_lambda: weight of the distance to the source latent.
      id_lambda: weight of the distance to the source's identity.
    """

    text: str
    l2_lambda: float
    id_lambda: float


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """All that the tables and figures are made of.

    Attributes:
      networks: generator, CLIP and, if a prompt asks for it, identity.
      tokenizer: of CLIP.
      templates: for the texts of directions.
      w_plus: [N, L, D] the faces.
      prompts: with their weights.
      neutral: text that directions lead away from.
      far: text of something that the generator cannot draw.
      steps, learning_rate: of the optimization.
      alpha: strength of a direction.
      alphas: strengths on sheets of several.
      betas: thresholds on the sheet of several; empty for those of `num_channels`.
      num_channels: numbers of channels of directions; the first is that of all figures
        but the sheet of several.
      mappers: by the prompt that they were trained for.
      samples: draws the samples for a relevance that no file gives.
      relevance: from a file, or None.
    """

    networks: losses.Networks
    tokenizer: bpe.Tokenizer
    templates: list[str]
    w_plus: jax.Array
    prompts: list[Prompt]
    neutral: str
    far: str
    steps: int
    learning_rate: float
    alpha: float
    alphas: list[float]
    betas: list[float]
    num_channels: list[int]
    mappers: Mapping[str, Network]
    samples: Callable[[], estimation.Samples]
    relevance: global_directions.Relevance | None

    def face(self, index: int) -> jax.Array:
        """W+ of a face, [1, L, D]; they are used in turn."""
        row = index % len(self.w_plus)
        return self.w_plus[row : row + 1]

    def styles(self, index: int) -> Any:
        """The same face in S, a tuple of [1, C]."""
        generator = self.networks.generator
        return _to_styles(generator, self.face(index))


def render(setup: Setup, latent: Any) -> jax.Array:
    """Images [B, H, W, 3] of W+ or S."""
    space = "s" if isinstance(latent, tuple) else "w_plus"
    return _renderer(space)(setup.networks.generator, latent)


def optimize(setup: Setup, index: int, prompt: Prompt) -> optimization.Result:
    """A face's edit by optimization; leaves of [1, …]."""
    config = optimization.OptimizationConfig(
        steps=setup.steps,
        learning_rate=setup.learning_rate,
        l2_lambda=prompt.l2_lambda,
        id_lambda=prompt.id_lambda,
    )
    compiled = _compiled(config)
    state = compiled.start(setup.networks, setup.face(index), _text(setup, prompt.text))
    for _ in range(setup.steps):
        state = compiled.step(setup.networks, state)
    return compiled.finish(setup.networks, state)


def map_latent(setup: Setup, index: int, network: Network) -> Any:
    """A face's edit by a mapper, in the mapper's space."""
    source = setup.face(index)
    if network.config.space == "s":
        source = setup.styles(index)
    return _map(network, source)


@functools.cache
def text_relevance(setup: Setup, text: str) -> global_directions.TextRelevance:
    """Relevance of all channels for a text, from the file or estimated."""
    direction = global_directions.text_direction(
        setup.networks.clip, setup.tokenizer, setup.neutral, text, setup.templates
    )
    if setup.relevance is not None:
        return global_directions.relevance_for(setup.relevance, direction)
    return estimate(setup, direction)


def estimate(setup: Setup, direction: jax.Array) -> global_directions.TextRelevance:
    """Relevance for a direction [E] between texts, to first order."""
    networks = losses.Networks(setup.networks.generator, setup.networks.clip)
    return estimation.estimate(networks, setup.samples(), direction, ESTIMATE)


def direct(setup: Setup, index: int, text: str, beta: float, alpha: float) -> Any:
    """A face's edit by a direction, a tuple of [1, C]."""
    found = global_directions.make_direction(text_relevance(setup, text), beta)
    return _direct(setup.styles(index), found, jnp.float32(alpha))


def threshold(setup: Setup, text: str) -> float:
    """β of the figures that have one."""
    found = text_relevance(setup, text)
    return global_directions.beta_for(found, setup.num_channels[0])


def clip_score(setup: Setup, image: jax.Array, text: str) -> jax.Array:
    """Cosine of images and a text, [B]."""
    return _score(setup.networks.clip, image, _text(setup, text))


def timed(function: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds until a result is there, and the result."""
    started = time.perf_counter()
    result = jax.block_until_ready(function())
    return time.perf_counter() - started, result


@functools.cache
def _text(setup: Setup, text: str) -> jax.Array:
    return clip.encode_prompts(setup.networks.clip, setup.tokenizer, [text])[0]


@functools.cache
def _compiled(config: optimization.OptimizationConfig) -> optimization.Compiled:
    return optimization.compiled(optimization.official(config), sharding=None)


@functools.cache
def _renderer(space: str) -> Callable[[Network, Any], jax.Array]:
    return jax.jit(latents.SPACES[space].synthesize)


@jax.jit
def _to_styles(generator: Network, w_plus: jax.Array) -> Any:
    return stylegan2.to_styles(generator, w_plus)


@jax.jit
def _map(network: Network, latent: Any) -> Any:
    return mapper.edit(network, latent)


_direct = jax.jit(global_directions.edit)


@jax.jit
def _score(network: clip.Clip, image: jax.Array, text: jax.Array) -> jax.Array:
    return metrics.clip_score(measure.encode_images(network, image), text)
