"""Setup of a run: its session and its faces, and the edits of each method.

Edits are of one face at a time, so that every figure uses the same compiled programs.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from examples.paper.requests import Content, Prompt, Request
from styleclip_jax import loading
from styleclip_jax.batch.editor import Editor
from styleclip_jax.editing import directing
from styleclip_jax.editing.directing import DirectionConfig
from styleclip_jax.editing.faces import Edit, Faces
from styleclip_jax.editing.prompts import Prompts
from styleclip_jax.editing.session import Session
from styleclip_jax.errors import UserError
from styleclip_jax.evaluation import measuring, metrics
from styleclip_jax.loading import Models
from styleclip_jax.methods import global_directions
from styleclip_jax.models import clip

_DEFAULT_SEEDS = "25,48,3,4"


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """All that the tables and figures are made of.

    Attributes:
      session: loaded networks, on one device.
      faces: the faces, in W+.
      content: what is shown of them.
      mappers: editors by the prompt that their mappers were trained for.
      models: names of the networks.
      outdir: folder for the results.
    """

    session: Session
    faces: Faces
    content: Content
    mappers: Mapping[str, Editor]
    models: Models
    outdir: str

    def face(self, index: int) -> Faces:
        """One face; they are used in turn."""
        return self.faces[index % len(self.faces)]


def load(request: Request) -> Setup:
    """Reads all files.

    Raises:
      UserError: one is missing or does not fit the others.
    """
    models, source, content = request.models, request.source, request.content
    session = Session(models, devices=jax.local_devices()[:1])
    needs_identity = any(content.id_lambda)
    for name in ("clip", "templates", *["identity"] * needs_identity):
        getattr(session, name)
    if content.directions is not None:
        path = content.directions
        loading.read_relevance(path, models, session.generator, session.clip)
    truncation: dict[str, Any] = {
        "truncation_psi": source.truncation_psi,
        "truncation_cutoff": source.truncation_cutoff,
    }
    if source.latents is not None:
        faces = session.read(source.latents, **truncation)
    else:
        seeds = _DEFAULT_SEEDS if source.seeds is None else source.seeds
        faces = session.sample(seeds, **truncation)
    if faces.space == "s":
        raise UserError(
            f"latents: expected z, w or W+, found S in {source.latents}",
            field="latents",
        )
    mappers = {_prompt_of(path): session.mapping(path) for path in content.mapper}
    return Setup(session, faces, content, mappers, models, request.outdir)


def _prompt_of(mapper: str) -> str:
    """The prompt of a mapper, or the words of its folder's name."""
    return loading.mapper_prompt(mapper) or pathlib.Path(mapper).name.replace("-", " ")


def optimize(setup: Setup, index: int, prompt: Prompt) -> Edit:
    """A face's edit by optimization."""
    return setup.session.edit(setup.face(index), optimization(setup, prompt))


@functools.cache
def optimization(setup: Setup, prompt: Prompt) -> Editor:
    """The editor of `optimize`."""
    return setup.session.optimization(
        prompt.text,
        steps=setup.content.steps,
        learning_rate=setup.content.learning_rate,
        l2_lambda=prompt.l2_lambda,
        id_lambda=prompt.id_lambda,
    )


def direct(setup: Setup, index: int, text: str, beta: float, alpha: float) -> Edit:
    """A face's edit by a direction."""
    found = global_directions.make_direction(text_relevance(setup, text), beta)
    return setup.session.move(setup.face(index), found, alpha)


@functools.cache
def text_relevance(setup: Setup, text: str) -> global_directions.TextRelevance:
    """Relevance of all channels for a text, from the file or estimated."""
    (found,) = directing.relevances(
        setup.session.loaded, Prompts((text,)), direction_config(setup)
    )
    return found


def direction_config(setup: Setup) -> DirectionConfig:
    """How directions are found."""
    return DirectionConfig(setup.content.neutral, setup.content.directions)


def threshold(setup: Setup, text: str) -> float:
    """β of the figures that have one."""
    found = text_relevance(setup, text)
    return global_directions.beta_for(found, setup.content.counts[0])


def clip_score(setup: Setup, image: np.ndarray, text: str) -> jax.Array:
    """Cosine of images and a text, [B]."""
    (feature,) = setup.session.encode(text)
    return _score(setup.session.clip, image, feature)


@jax.jit
def _score(network: clip.Clip, image: jax.Array, text: jax.Array) -> jax.Array:
    return metrics.clip_score(measuring.encode_images(network, image), text)
