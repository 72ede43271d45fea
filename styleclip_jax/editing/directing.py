"""Editors of global directions: made of texts, read from files, or given by value."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import checks, latents, loading, losses, parallel
from styleclip_jax.batch.editor import Editor, Outcome, finished
from styleclip_jax.editing import (
    direction_expressions,
    direction_sources,
    editors,
    estimation,
    prompts,
    searching,
)
from styleclip_jax.editing.direction_expressions import DirectionConfig
from styleclip_jax.editing.loaded import Loaded
from styleclip_jax.editing.prompts import Prompts
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, text_files
from styleclip_jax.methods import global_directions
from styleclip_jax.models.network import Network
from styleclip_jax.settings.edits import AUTO, reads_texts
from styleclip_jax.settings.networks import CLIP_FIELDS

# Strength that a search for α begins with, and the share of the channels that it has.
FIRST_ALPHA, _SEARCHED_SHARE = 5.0, 0.4
# Flags of directions that are made of texts.
_OF_TEXTS = (
    *("prompt", "prompts_file", *CLIP_FIELDS, "neutral", "directions"),
    *("num_samples", "beta", "num_channels", "templates"),
)


def surplus(config: DirectionConfig) -> dict[str, str]:
    """Flags that are of no use beside these settings, and why."""
    found = {}
    if not reads_texts(config):
        given = "direction" if config.channel is None else "channel"
        found = dict.fromkeys(_OF_TEXTS, f"is of no use with {given}")
    if config.directions is not None:
        found.setdefault("num_samples", "is of no use with directions")
    if config.num_channels is not None:
        found.setdefault("beta", "expected beta or num_channels, found both")
    if not config.searches:
        found.setdefault("budget", f"is of use with alpha={AUTO} alone")
    return found


def direct(loaded: Loaded, texts: Prompts | None, config: DirectionConfig) -> Editor:
    """Editor of directions that are made of texts, or read.

    Raises:
      UserError: a number or text is wrong, or a file does not fit.
    """
    if texts is None:
        return _direct_by_name(loaded, config)
    models = loaded.models
    neutral = text_files.require("neutral", config.neutral)
    given = [FIRST_ALPHA] if config.searches else config.alpha
    alphas = checks.numbers("alpha", given)
    # What is found is no setting.
    named = [{} if config.searches else {"alpha": alpha} for alpha in alphas]
    counts, settings, weights = [], [], []
    # Directions beside the prompts', one for each β; they come first.
    beside: list[list[global_directions.Direction]] = []
    names = [*(x.text for x in texts.beside), *texts.texts]
    factors = [x.weight for x in texts.beside]
    for relevance in relevances(loaded, Prompts(tuple(names)), config):
        betas = choose_betas(relevance, config)
        kept = [int(global_directions.count_kept(relevance, beta)) for beta in betas]
        made = [global_directions.make_direction(relevance, beta) for beta in betas]
        pairs = zip(betas, kept, strict=True)
        counts.append(", ".join(f"{beta:.3g} keeps {count}" for beta, count in pairs))
        if len(beside) < len(factors):
            beside.append([factors[len(beside)] * direction for direction in made])
            continue
        made = [sum(parts, start) for start, *parts in zip(made, *beside, strict=True)]
        settings.append([x | {"beta": round(b, 6)} for b in betas for x in named])
        weights += [(direction, jnp.float32(a)) for direction in made for a in alphas]
    (model, _), templates = loaded.clip(), loaded.templates()
    inputs = models.fingerprints("clip") | texts.inputs
    for name, path in (
        ("directions", config.directions),
        ("templates", models.templates),
    ):
        if path is not None:
            inputs[name] = files.hash_file(path)
    channels = sum(layer.channels for layer in loaded.generator.config.style_layout)
    lines = [
        f"from {neutral!r} to {prompt!r}, {len(templates)} templates, of {channels} "
        f"channels beta {count}"
        for prompt, count in zip(names, counts, strict=True)
    ]
    editor = move_along(
        loaded,
        weights,
        title=f"{neutral} to {texts.title}",
        settings=texts.name_settings(settings),
        record=dataclasses.asdict(config) | editors.record_prompts(texts),
        inputs=inputs,
        about=[
            models.describe_clip(model),
            *prompts.shorten(lines, "direction: "),
        ],
    )
    if not config.searches:
        return editor
    aimed = zip(texts.texts, editors.encode(loaded, texts), settings, strict=True)
    return searching.search(
        loaded,
        editor,
        [(text, feature) for text, feature, group in aimed for _ in group],
        config.budget,
        units=[FIRST_ALPHA],
    )


def _direct_by_name(loaded: Loaded, config: DirectionConfig) -> Editor:
    """Editor of a direction of files or channels, which needs no text and no CLIP.

    Raises:
      UserError: a number is wrong, or a file or channel does not fit the generator.
    """
    alphas = checks.numbers("alpha", config.alpha)
    found = direction_sources.read(loaded, direction_expressions.terms(config))
    return move_along(
        loaded,
        [(found.direction, jnp.float32(alpha)) for alpha in alphas],
        title=found.title,
        settings=[{"alpha": alpha} for alpha in alphas],
        record=dataclasses.asdict(config),
        inputs=found.inputs,
        about=[f"direction: {note}" for note in found.notes],
    )


def read(loaded: Loaded, path: files.Path) -> global_directions.Direction:
    """Direction of a file, or of the expression that a text is.

    Raises:
      UserError: the text is wrong, or a file or channel does not fit the generator.
    """
    return direction_sources.read(loaded, direction_expressions.parse(path)).direction


def direct_by_value(
    loaded: Loaded, direction: global_directions.Direction, *, alpha: float, title: str
) -> Editor:
    """Editor of a direction.

    Args:
      loaded: loaded networks.
      direction: direction Δs.
      alpha: strength of the direction.
      title: caption of the edits: what they edit towards.
    """
    return move_along(
        loaded,
        [(direction, jnp.float32(alpha))],
        title=title,
        settings=[{"alpha": float(alpha)}],
        record={"alpha": [alpha]},
        inputs={
            "direction": files.hash_bytes(jax.device_get(direction.delta).tobytes())
        },
        about=[f"direction: {title}"],
    )


def move_along(
    loaded: Loaded,
    weights: Sequence[tuple[global_directions.Direction, jax.Array]],
    **about: Any,
) -> Editor:
    """Editor of directions with their strengths, one for each setting."""

    placed = parallel.replicate(list(weights), loaded.mesh)
    options = {"method": "direction", "space": "s"} | about
    return editors.at_once(_along, loaded.generator, placed, weights[0], **options)


def _along(generator: Network, weights: Any, batch: Any) -> Outcome:
    """Moves latents along a direction with its strength."""
    latent = global_directions.edit(batch, *weights)
    return finished(batch, latent, latents.SPACES["s"].synthesize(generator, latent))


def text_directions(
    loaded: Loaded, texts: Prompts, neutral: str | None
) -> list[jax.Array]:
    """Text directions: the unit vector [E] from the neutral text to each prompt.

    Raises:
      UserError: a text is missing or too long, or CLIP sees no difference.
    """
    neutral = text_files.require("neutral", neutral)
    (model, tokenizer), templates = loaded.clip(), loaded.templates()
    return [
        global_directions.text_direction(model, tokenizer, neutral, prompt, templates)
        for prompt in texts.texts
    ]


def relevances(
    loaded: Loaded, texts: Prompts, config: DirectionConfig
) -> Iterator[global_directions.TextRelevance]:
    """Channel relevance for each prompt, from the file or estimated on the spot.

    Raises:
      UserError: a text is missing or too long, the file does not fit, or what networks
        find is not finite.
    """
    deltas = text_directions(loaded, texts, config.neutral)
    model, _ = loaded.clip()
    if config.directions is not None:
        table, _ = loading.read_relevance(
            config.directions, loaded.models, loaded.generator, model
        )
        for text, prompt in zip(deltas, texts.texts, strict=True):
            found = global_directions.relevance_for(table, text)
            yield _finite(found, prompt)
        return
    mesh = loaded.mesh
    networks = parallel.replicate(losses.Networks(loaded.generator, model), mesh)
    how = estimation.configure(config.num_samples)
    samples = estimation.draw_samples(loaded.generator, how, mesh, label=loaded.label)
    total = config.num_samples * len(deltas)
    quicker = "fewer num_samples, or directions that are measured once"
    with loaded.listener.long_bar(total, "image", quicker) as report:
        for text, prompt in zip(deltas, texts.texts, strict=True):
            found = estimation.estimate(
                networks, samples, text, how, mesh=mesh, report=report
            )
            yield _finite(found, prompt)


def _finite(
    relevance: global_directions.TextRelevance, prompt: str
) -> global_directions.TextRelevance:
    """Relevance whose values and deviations are finite."""
    found = (relevance.value, relevance.std)
    if not all(np.isfinite(np.asarray(x)).all() for x in found):
        raise UserError(
            f"generator and clip: the relevance of channels for {prompt!r} is not "
            "finite, expected networks that were trained",
            field="generator",
            also=["clip"],
        )
    return relevance


def choose_betas(
    relevance: global_directions.TextRelevance, config: DirectionConfig
) -> list[float]:
    """Thresholds β that the configuration asks for.

    Raises:
      UserError: a value is no threshold, or keeps no channel.
    """
    if config.num_channels is not None:
        return [global_directions.beta_for(relevance, config.num_channels)]
    if config.searches and config.beta == (AUTO,):
        measured = global_directions.channels_of(relevance.layout, relevance.layers)
        count = math.ceil(_SEARCHED_SHARE * measured.sum())
        return [global_directions.beta_for(relevance, count)]
    betas = []
    for value in config.beta:
        if value == AUTO:
            betas.append(global_directions.automatic_beta(relevance))
        else:
            betas += checks.numbers("beta", [value])
        global_directions.check_beta(relevance, betas[-1])
    return betas
