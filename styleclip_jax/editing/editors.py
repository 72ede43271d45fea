"""Editors of the three methods: each takes a configuration and gives an `Editor`."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from styleclip_jax import latents, loading, losses, parallel
from styleclip_jax.batch.editor import Editor, Edits, Frozen
from styleclip_jax.editing import estimation, prompts
from styleclip_jax.editing.prompts import Prompts
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, direction_files, files
from styleclip_jax.methods import global_directions, mapper, optimization
from styleclip_jax.methods.optimization import OptimizationConfig
from styleclip_jax.models import bpe, clip
from styleclip_jax.models.network import Network
from styleclip_jax.progress import Listener, Report, ignore, take_steps

# The threshold that is found for each pair of texts.
AUTO = "auto"


class Loaded(NamedTuple):
    """Networks that editors are made of.

    Attributes:
      models: names of them.
      generator: on the devices of the mesh.
      label: [c_dim] class of samples, None for an unconditional generator.
      mesh: devices to spread batches over.
      clip: gives the CLIP and its tokenizer.
      identity: gives the face recognition network.
      templates: gives the templates of directions' texts.
      listener: is told of work before the edits.
    """

    models: loading.Models
    generator: Network
    label: jax.Array | None
    mesh: jax.sharding.Mesh
    clip: Callable[[], tuple[clip.Clip, bpe.Tokenizer]]
    identity: Callable[[], Network]
    templates: Callable[[], Sequence[str]]
    listener: Listener


@dataclasses.dataclass(frozen=True)
class MappingConfig:
    """Edits by mappers.

    Attributes:
      mapper: Model directory of a mapper, or several with commas between.
      strength: Factor of a mapper's step, any number; that of its training if absent.
      levels: Levels that a mapper may move, of coarse, medium and fine; all if absent.
    """

    mapper: tuple[str, ...] | None = None
    strength: float | None = None
    levels: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class DirectionConfig:
    """Edits along global directions.

    Attributes:
      neutral: Text that a direction leads away from.
      directions: File of channel relevance (styleclip-measure-directions makes it); if
        absent, relevance for the prompt is estimated on the spot.
      num_samples: Samples that relevance is estimated from without a file of it.
      saved_direction: File of one direction, as the app saves it, in place of texts.
      alpha: Strength of a direction, one or several with commas between.
      beta: Least relevance of a channel, one or several; or auto, the largest of 0.10
        to 0.29 that keeps more than 20 channels.
      num_channels: Number of channels instead of a least relevance.
    """

    neutral: str = "a face"
    directions: str | None = None
    num_samples: int = dataclasses.field(default=16, metadata={"lower_bound": 1})
    saved_direction: str | None = None
    alpha: tuple[str, ...] = ("4",)
    beta: tuple[str, ...] = (AUTO,)
    num_channels: int | None = dataclasses.field(
        default=None, metadata={"lower_bound": 1}
    )


class Variant(NamedTuple):
    """Parts of an optimization that are others than the official ones.

    Attributes:
      objective: {name: (weight, loss)}, terms beside the official ones, or in place of
        those of the same name.
      optimizer: any optax transformation, in place of Adam with the learning rate.
      feature: [E] or [T, E], what the prompts stand for in place of their features.
      networks: what losses see in place of the session's networks.
    """

    objective: losses.Objective | None = None
    optimizer: optax.GradientTransformation | None = None
    feature: jax.Array | None = None
    networks: losses.Networks | None = None

    def of(self, problem: optimization.Problem) -> optimization.Problem:
        """The variant of a problem."""
        return problem._replace(
            objective={**problem.objective, **(self.objective or {})},
            optimizer=self.optimizer or problem.optimizer,
        )


def optimize(
    loaded: Loaded,
    texts: Prompts,
    config: OptimizationConfig,
    variant: Variant = Variant(),
) -> Editor:
    """The editor of latent optimization.

    Raises:
      UserError: a prompt is too long, there is no network for the identity, or there
        are not as many features as prompts.
    """
    models, mesh = loaded.models, loaded.mesh
    model, tokenizer = loaded.clip()
    inputs = models.fingerprints("clip")
    if variant.feature is None:
        features = clip.encode_prompts(model, tokenizer, texts.texts)
    else:
        features = jnp.atleast_2d(variant.feature)
        inputs["feature"] = files.hash_bytes(jax.device_get(features).tobytes())
    identity = None
    if config.id_lambda:
        if not models.has_identity:
            raise UserError(
                f"id_lambda: {config.id_lambda} needs a face recognition network, "
                "expected identity with it",
                field="id_lambda",
                also=["identity"],
            )
        identity = loaded.identity()
        inputs |= models.fingerprints("identity")
    networks = losses.Networks(loaded.generator, model, identity)
    networks = parallel.replicate(networks, mesh)
    problem = optimization.official(config)
    compiled = _compiled(config, parallel.over_batch(mesh))

    def edit(
        batch: Any, setting: int, report: Report, steps: int = config.steps
    ) -> Edits:
        state = compiled.start(networks, batch, features[setting])
        state = take_steps(compiled.step, networks, state, steps, report)
        return _optimized(compiled.finish(networks, state))

    def apply(generator: Network, weights: Any, batch: Any) -> Edits:
        others, text = weights
        run = functools.partial(optimization.optimize, problem=problem)
        over_batch = jax.vmap(run, in_axes=(None, 0, None))
        parts = losses.Networks(generator, *others)
        return _optimized(over_batch(parts, batch, text))

    about = [_describe_clip(models, model), *prompts.shorten(texts.texts, "prompt: ")]
    return Editor(
        method="optimization",
        space=config.space,
        title=texts.title,
        settings=texts.name_settings([[{}]] * len(texts.texts)),
        steps=config.steps,
        unit="step",
        record=dataclasses.asdict(config) | _record_prompts(texts),
        inputs=inputs | texts.inputs,
        about=about,
        edit=edit,
        probe=lambda batch: edit(batch, 0, ignore, min(2, config.steps)),
        freeze=lambda: Frozen(apply, ((_without_text(model), identity), features[0])),
    )


@functools.lru_cache(maxsize=8)
def _compiled(
    config: OptimizationConfig, sharding: jax.sharding.Sharding
) -> optimization.Compiled:
    """The parts of the official optimization; the same again for the same settings."""
    return optimization.compiled(optimization.official(config), sharding=sharding)


def _without_text(model: clip.Clip) -> clip.Clip:
    """A CLIP that can only look at images."""
    kept = {n: x for n, x in model.params.items() if not n.startswith("text")}
    return Network(kept, model.config)


def _optimized(result: optimization.Result) -> Edits:
    return Edits(
        result.source.latent,
        result.latent,
        result.image,
        result.terms,
        result.failed_at,
        result.film,
    )


def map_latents(loaded: Loaded, config: MappingConfig) -> Editor:
    """The editor of mappers.

    Raises:
      UserError: there is none, one is of another generator, or of another space than
        the others, or a level does not exist.
    """
    models, generator = loaded.models, loaded.generator
    if not config.mapper:
        raise UserError(
            "method: mapper needs mapper with a model directory",
            field="method",
        )
    found = [
        loading.load_mapper(path, models.generator_directory, generator.config)
        for path in config.mapper
    ]
    trained_for = [loading.mapper_prompt(path) or str(path) for path in config.mapper]
    space = found[0].config.space
    if {network.config.space for network in found} != {space}:
        raise UserError(
            f"mapper: expected mappers of one space, here {space}", field="mapper"
        )
    levels = config.levels
    unknown = set(levels or ()) - set(mapper.LEVELS)
    if unknown or levels == ():
        raise UserError(
            f"levels: expected some of {', '.join(mapper.LEVELS)}, "
            f"found {', '.join(levels or ()) or 'none'}",
            field="levels",
        )

    networks = parallel.replicate(found, loaded.mesh)
    names = [f"mapper{i}" if i else "mapper" for i in range(len(found))]
    settings = [{"mapper": str(path)} for path in config.mapper]
    strengths = (x.config.strength for x in found)
    return _at_once(
        _mapping(config.strength, levels),
        generator,
        networks,
        found[0],
        method="mapper",
        space=space,
        title=prompts.title(trained_for),
        settings=settings if len(found) > 1 else [{}],
        record=dataclasses.asdict(config),
        inputs={
            name: checkpoints.fingerprint(path)
            for name, path in zip(names, config.mapper, strict=True)
        },
        about=[
            f"mapper: {path}, for {prompt!r}, strength "
            f"{strength if config.strength is None else config.strength:g}"
            for path, prompt, strength in zip(
                config.mapper, trained_for, strengths, strict=True
            )
        ],
    )


@functools.lru_cache(maxsize=8)
def _mapping(
    strength: float | None, levels: tuple[str, ...] | None
) -> Callable[[Network, Network, Any], Edits]:
    """(generator, mapper, latents) → edits; the same function for the same settings."""

    def apply(generator: Network, network: Network, batch: Any) -> Edits:
        latent = mapper.edit(network, batch, strength=strength, levels=levels)
        space = latents.SPACES[network.config.space]
        return _edits(batch, latent, space.synthesize(generator, latent))

    return apply


def direct(loaded: Loaded, texts: Prompts, config: DirectionConfig) -> Editor:
    """The editor of directions that are made of texts.

    Raises:
      UserError: a number or text is wrong, or the file of relevance does not fit.
    """
    models = loaded.models
    neutral = prompts.text("neutral", config.neutral)
    alphas = numbers("alpha", config.alpha)
    counts, settings, weights = [], [], []
    for relevance in relevances(loaded, texts, config):
        betas = choose_betas(relevance, config)
        kept = [int(global_directions.count_kept(relevance, beta)) for beta in betas]
        made = [global_directions.make_direction(relevance, beta) for beta in betas]
        pairs = zip(betas, kept, strict=True)
        counts.append(", ".join(f"{beta:.3g} keeps {count}" for beta, count in pairs))
        settings.append(
            [{"alpha": a, "beta": round(b, 6)} for b in betas for a in alphas]
        )
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
        for prompt, count in zip(texts.texts, counts, strict=True)
    ]
    return _move(
        loaded,
        weights,
        title=f"{neutral} to {texts.title}",
        settings=texts.name_settings(settings),
        record=dataclasses.asdict(config) | _record_prompts(texts),
        inputs=inputs,
        about=[
            _describe_clip(models, model),
            *prompts.shorten(lines, "direction: "),
        ],
    )


def direct_by_file(loaded: Loaded, config: DirectionConfig) -> Editor:
    """The editor of the direction of a file, which needs no text and no CLIP.

    Raises:
      UserError: a number is wrong, or the file does not fit the generator.
    """
    path, layout = str(config.saved_direction), loaded.generator.config.style_layout
    origin = loaded.models.generator_origin()
    delta, about = direction_files.read_direction(path, layout=layout, generator=origin)
    direction = global_directions.Direction(jnp.asarray(delta), layout)
    alphas = numbers("alpha", config.alpha)
    notes = ", ".join(f"{name} {value}" for name, value in about.items())
    saved = f", saved with {notes}" if notes else ""
    return _move(
        loaded,
        [(direction, jnp.float32(alpha)) for alpha in alphas],
        title=pathlib.Path(path).stem,
        settings=[{"alpha": alpha} for alpha in alphas],
        record=dataclasses.asdict(config),
        inputs={"saved_direction": files.hash_file(path)},
        about=[f"direction: {path}{saved}"],
    )


def direct_by_value(
    loaded: Loaded, direction: global_directions.Direction, *, alpha: float, title: str
) -> Editor:
    """The editor of a direction.

    Args:
      loaded: networks.
      direction: Δs.
      alpha: strength.
      title: what it edits towards.
    """
    return _move(
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


def _move(
    loaded: Loaded,
    weights: Sequence[tuple[global_directions.Direction, jax.Array]],
    **about: Any,
) -> Editor:
    """The editor of directions with their strengths, one for each setting."""

    placed = parallel.replicate(list(weights), loaded.mesh)
    options = {"method": "direction", "space": "s"} | about
    return _at_once(_along, loaded.generator, placed, weights[0], **options)


def _along(generator: Network, weights: Any, batch: Any) -> Edits:
    """Edits along a direction with its strength."""
    latent = global_directions.edit(batch, *weights)
    return _edits(batch, latent, latents.SPACES["s"].synthesize(generator, latent))


# The same program for the same function.
_jit = functools.lru_cache(maxsize=16)(jax.jit)


def _at_once(
    apply: Callable[[Network, Any, Any], Edits],
    generator: Network,
    weights: Sequence[Any],
    frozen: Any,
    **about: Any,
) -> Editor:
    """The editor of a method that makes edits in one pass.

    Args:
      apply: (generator, weights, latents) → edits.
      generator: on the devices.
      weights: of each setting, on the devices.
      frozen: those of the first one, as they were before.
      **about: other attributes of the `Editor`.
    """
    run = _jit(apply)

    def edit(batch: Any, setting: int, report: Report) -> Edits:
        edits = run(generator, weights[setting], batch)
        report(1)
        return edits

    return Editor(
        steps=1,
        unit="edit",
        edit=edit,
        probe=lambda batch: edit(batch, 0, ignore),
        freeze=lambda: Frozen(apply, frozen),
        **about,
    )


def _edits(original: Any, latent: Any, image: jax.Array) -> Edits:
    """The edits of a method that makes them at once."""
    moved = jax.tree.map(
        lambda a, b: jnp.sum(jnp.square(a - b), axis=range(1, a.ndim)), latent, original
    )
    l2 = jax.tree.reduce(jnp.add, moved)
    finite = jnp.isfinite(l2) & jnp.all(jnp.isfinite(image), axis=(1, 2, 3))
    return Edits(original, latent, image, {"l2": l2}, jnp.where(finite, -1, 0))


def relevances(
    loaded: Loaded, texts: Prompts, config: DirectionConfig
) -> Iterator[global_directions.TextRelevance]:
    """Relevance for each prompt, from the file or estimated on the spot.

    Raises:
      UserError: a text is missing or too long, or the file does not fit.
    """
    neutral = prompts.text("neutral", config.neutral)
    (model, tokenizer), templates = loaded.clip(), loaded.templates()
    deltas = [
        global_directions.text_direction(model, tokenizer, neutral, prompt, templates)
        for prompt in texts.texts
    ]
    if config.directions is not None:
        table, _ = loading.read_relevance(
            config.directions, loaded.models, loaded.generator, model
        )
        yield from (global_directions.relevance_for(table, text) for text in deltas)
        return
    mesh = loaded.mesh
    networks = parallel.replicate(losses.Networks(loaded.generator, model), mesh)
    how = estimation.configure(config.num_samples)
    samples = estimation.draw_samples(loaded.generator, how, mesh, label=loaded.label)
    with loaded.listener.bar(config.num_samples * len(deltas), "sample") as report:
        for text in deltas:
            yield estimation.estimate(
                networks, samples, text, how, mesh=mesh, report=report
            )


def choose_betas(
    relevance: global_directions.TextRelevance, config: DirectionConfig
) -> list[float]:
    """Thresholds that the configuration asks for.

    Raises:
      UserError: one is no threshold, or keeps no channel.
    """
    if config.num_channels is not None:
        return [global_directions.beta_for(relevance, config.num_channels)]
    betas = []
    for value in config.beta:
        if value == AUTO:
            betas.append(global_directions.automatic_beta(relevance))
        else:
            betas += numbers("beta", [value])
        global_directions.check_beta(relevance, betas[-1])
    return betas


def numbers(field: str, values: Sequence[str | float]) -> list[float]:
    """Texts or numbers as finite numbers.

    Raises:
      UserError: one is none.
    """
    found = []
    for value in values:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{field}: expected numbers, found {value!r}", field=field)
        found.append(number)
    return found


def _record_prompts(texts: Prompts) -> dict[str, Any]:
    """Prompts by the names of their flags."""
    alone = texts.texts[0] if texts.file is None else None
    return {"prompt": alone, "prompts_file": texts.file}


def _describe_clip(models: loading.Models, model: clip.Clip) -> str:
    return f"clip: {models.clip or 'embedded'}, {model.config.image_size}²"
