"""Objectives: terms that edits may weigh, in a table, or of a user's own module."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from styleclip_jax import losses
from styleclip_jax.editing import own_modules
from styleclip_jax.errors import UserError
from styleclip_jax.io import text_files
from styleclip_jax.settings.edits import ObjectiveConfig


class Term(NamedTuple):
    """Term of an objective.

    Attributes:
      loss: f(networks, edit) → [B].
      weight: weight where none is given.
      through_clip: whether it takes CLIP's `preprocess`, as `losses.clip_distance`.
      reads_neutral: whether it reads `losses.Edit.neutral`.
    """

    loss: Callable[..., Any]
    weight: float = 1.0
    through_clip: bool = False
    reads_neutral: bool = False


OBJECTIVES: dict[str, Term] = {
    "clip": Term(losses.clip_distance, through_clip=True),
    "directional": Term(
        losses.directional_distance, through_clip=True, reads_neutral=True
    ),
    "pixels": Term(losses.pixel_distance),
    "sparse": Term(losses.latent_l1, weight=0.005),
}


def extend(
    objective: losses.Objective,
    asked: Sequence[str] | None,
    preprocess: Callable[..., Any],
) -> losses.Objective:
    """Objective with further terms, or with another weight of the term clip.

    Args:
      objective: {name: (weight, loss)}.
      asked: NAME or NAME=WEIGHT of terms, see `ObjectiveConfig`.
      preprocess: input of CLIP for terms that look through it.

    Raises:
      UserError: there is no such term, or one is there twice.
    """
    found = dict(objective)
    for name, weight in _parse(asked):
        term = _find(name)
        loss = term.loss
        if term.through_clip:
            loss = functools.partial(loss, preprocess=preprocess)
        found[name] = (term.weight if weight is None else weight, loss)
    return found


def read_neutral(asked: Sequence[str] | None) -> bool:
    """Whether a term may read the neutral text; those of a user's own may."""
    return any(_find(name).reads_neutral for name, _ in _parse(asked))


def surplus(config: ObjectiveConfig) -> dict[str, str]:
    """Flags that are of no use beside the terms of a configuration, and why."""
    if read_neutral(config.objective):
        return {}
    return {"neutral": "is of no use without a term of objective that reads it"}


def inputs(asked: Sequence[str] | None) -> dict[str, str]:
    """Hash of the module of each term of a user's own."""
    own = [name for name, _ in _parse(asked) if ":" in name]
    return {name: own_modules.fingerprint(name) for name in own}


def _parse(asked: Sequence[str] | None) -> list[tuple[str, float | None]]:
    """Names and weights of terms."""
    found = [text_files.split_weight(text) for text in asked or ()]
    names = [name for name, _ in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"objective: expected each term once, found {twice} twice",
            field="objective",
        )
    return found


def _find(name: str) -> Term:
    """Term by its name, or by module:NAME."""
    found = own_modules.find(name, OBJECTIVES, field="objective", what="a function")
    if name in OBJECTIVES:
        return found
    if not callable(found):
        raise UserError(
            f"objective: expected {name} to be a function of networks and edit, "
            f"found {type(found).__name__}",
            field="objective",
        )
    return Term(found, reads_neutral=True)
