"""Editors of optimization and mappers: a configuration becomes an `Editor`."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from styleclip_jax import latents, loading, losses, parallel, traced
from styleclip_jax.batch import editor
from styleclip_jax.batch.editor import Editor, Frozen, Outcome
from styleclip_jax.editing import objectives, prompts, searching
from styleclip_jax.editing.loaded import Loaded
from styleclip_jax.editing.prompts import Prompts
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files, text_files
from styleclip_jax.methods import mapper, optimization
from styleclip_jax.models import clip
from styleclip_jax.models.network import Network
from styleclip_jax.progress import Pace, Report, ignore, take_steps
from styleclip_jax.settings.edits import MappingConfig, OptimizationSettings


def optimize(
    loaded: Loaded,
    texts: Prompts,
    config: OptimizationSettings,
    *,
    objective: losses.Objective | None = None,
    optimizer: optax.GradientTransformation | None = None,
    feature: jax.Array | None = None,
    networks: losses.Networks | None = None,
) -> Editor:
    """Editor of latent optimization, or of a variant of it.

    Args:
      loaded: loaded networks.
      texts: prompts.
      config: settings of the optimization.
      objective: {name: (weight, loss)} terms beside the official ones, or in place of
        those of the same name.
      optimizer: any optax transformation in place of the official one.
      feature: [E] feature, or [T, E] for several prompts, in place of the prompts'.
      networks: networks that losses see, in place of the loaded ones.

    Raises:
      UserError: a prompt is too long, or there is no network for the identity.
    """
    models, mesh = loaded.models, loaded.mesh
    model, _ = loaded.clip()
    inputs = models.fingerprints("clip")
    if feature is None:
        features = encode(loaded, texts)
    else:
        features = jnp.atleast_2d(feature)
        inputs["feature"] = files.hash_bytes(jax.device_get(features).tobytes())
    identity = None
    if config.id_lambda:
        models.require_identity(config.id_lambda)
        identity = loaded.identity()
        inputs |= models.fingerprints("identity")
    frozen: Any = (clip.without_text(model), identity)
    if networks is None:
        networks = losses.Networks(loaded.generator, model, identity)
    else:
        frozen = (networks.clip, networks.identity)
    placed = parallel.replicate(networks, mesh)
    problem, sharding = _problem_of(config), parallel.over_batch(mesh)
    inputs |= objectives.inputs(config.objective)
    neutral = encode_neutral(loaded, texts, config)
    record = dataclasses.asdict(config) | record_prompts(texts)
    if objective is None and optimizer is None:
        compiled = _compiled(config, sharding)
    else:
        problem = problem._replace(
            objective={**problem.objective, **(objective or {})},
            optimizer=optimizer or problem.optimizer,
        )
        compiled = compile_steps(problem, sharding)
        record["objective"] = {
            n: weight for n, (weight, _) in problem.objective.items()
        }

    stride, pace = compiled.stride, Pace()

    def run(
        networks: losses.Networks,
        batch: Any,
        setting: int,
        report: Report,
        steps: int = config.steps,
    ) -> Outcome:
        state = compiled.start(networks, batch, features[setting], neutral)
        state = take_steps(
            compiled.step, networks, state, steps, report, stride=stride, pace=pace
        )
        return _optimized(compiled.finish(networks, state))

    def through(
        generator: Network, batch: Any, setting: int, report: Report
    ) -> Outcome:
        return run(placed.replace(generator=generator), batch, setting, report)

    edit = functools.partial(run, placed)

    def memory(batch: Any) -> int:
        arguments = (placed, batch, features[0], neutral)
        return bytes_of_steps(compiled.start, compiled, sharding, *arguments)

    def apply(generator: Network, weights: Any, batch: Any) -> Outcome:
        others, text, neutral = weights
        run = functools.partial(optimization.optimize, problem=problem)
        over_batch = jax.vmap(run, in_axes=(None, 0, None, None))
        parts = losses.Networks(generator, *others)
        return _optimized(over_batch(parts, batch, text, neutral))

    optimizing = Editor(
        method="optimization",
        space=config.space,
        title=texts.title,
        settings=texts.name_settings([[{}]] * len(texts.texts)),
        steps=config.steps,
        unit="step",
        record=record,
        inputs=inputs | texts.inputs,
        about=describe(loaded, texts),
        edit=edit,
        through=through,
        probe=lambda batch: edit(batch, 0, ignore, min(2 * stride, config.steps)),
        memory=memory,
        freeze=lambda: Frozen(apply, (frozen, features[0], neutral)),
        from_average=config.mode == "free_generation",
        quicker="fewer steps, or a method of one pass: direction, mapper, stylemc",
    )
    if not searching.is_asked(config):
        return optimizing
    aimed = list(zip(texts.texts, features, strict=True))
    return searching.search(loaded, optimizing, aimed, config.budget)


@functools.lru_cache(maxsize=8)
def _compiled(
    config: OptimizationSettings, sharding: jax.sharding.Sharding
) -> optimization.Compiled:
    """Compiled parts of an optimization, the same for the same settings."""
    # The module of a term of a user's own is in no words.
    said = None if objectives.inputs(config.objective) else config
    return compile_steps(_problem_of(config), sharding, said)


def _problem_of(config: OptimizationSettings) -> optimization.Problem:
    """Official problem, with the further terms that are asked for."""
    problem = optimization.official(config)
    preprocess = optimization.PREPROCESSINGS[config.clip_preprocess]
    terms = objectives.extend(problem.objective, config.objective, preprocess)
    return problem._replace(objective=terms)


def compile_steps(
    problem: optimization.Problem, sharding: jax.sharding.Sharding, said: Any = None
) -> optimization.Compiled:
    """Parts of an optimization, with as many steps in a call as suit the devices."""
    stride = parallel.steps_per_call(problem.steps, sharding)
    return optimization.compiled(problem, sharding=sharding, stride=stride, said=said)


def bytes_of_steps(
    start: Any,
    parts: optimization.Compiled,
    sharding: jax.sharding.Sharding,
    networks: losses.Networks,
    *source: Any,
) -> int:
    """Bytes on each device that an optimization takes, by the compiler.

    Args:
      start: jitted (networks, source) → state before the first step.
      parts: parts of the optimization.
      sharding: sharding of its state.
      networks: networks on the devices.
      *source: further arguments of `start`, or their shapes with shardings.
    """
    state = parallel.shapes_of(sharding, start, networks, *source)
    return max(
        parallel.bytes_needed(start, networks, *source),
        parallel.bytes_needed(parts.step, networks, state),
        parallel.bytes_needed(parts.finish, networks, state),
    )


def _optimized(result: optimization.Result) -> Outcome:
    """Edits of an optimization; one that ended out of reach failed after all steps."""
    steps = result.history["total"].shape[-1]
    return Outcome(
        result.image,
        {"original": result.source.latent, "edited": result.latent},
        result.terms,
        editor.failures(result.image, result.failed_at, steps),
        result.film,
        result.history,
    )


def surplus_of_optimization(config: OptimizationSettings) -> dict[str, str]:
    """Flags that are of no use beside these settings, and why."""
    return objectives.surplus(config) | searching.surplus(config)


def surplus_of_mapping(config: MappingConfig) -> dict[str, str]:
    """Flags that are of no use with mappers, and why."""
    return {
        "prompts_file": "a mapper is for one prompt, expected several mapper with "
        "commas between"
    } | searching.surplus(config)


def map_latents(loaded: Loaded, texts: None, config: MappingConfig) -> Editor:
    """Editor of mappers, which were trained for their texts.

    Raises:
      UserError: there is no mapper, one is of another generator, or of another space
        than the others, or a level does not exist.
    """
    models, generator = loaded.models, loaded.generator
    if not config.mapper:
        raise UserError(
            "method: mapper needs mapper with a model directory",
            field="method",
            also=["mapper"],
        )
    found = [models.load_mapper(path, generator.config) for path in config.mapper]
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
    strengths = [x.config.strength for x in found]
    mapping = at_once(
        _mapping(config.factor, levels),
        generator,
        networks,
        found[0],
        said=(config.factor, levels),
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
            f"{strength if config.factor is None else config.factor:g}"
            for path, prompt, strength in zip(
                config.mapper, trained_for, strengths, strict=True
            )
        ],
    )
    if config.strength != searching.AUTO:
        return mapping
    for path in config.mapper:
        if loading.mapper_prompt(path) is None:
            raise UserError(
                f"strength: expected a number, since {path} does not name the prompt "
                f"that {searching.AUTO} would fit",
                field="strength",
            )
    model, tokenizer = loaded.clip()
    features = clip.encode_prompts(model, tokenizer, trained_for)
    aimed = list(zip(trained_for, features, strict=True))
    searched = searching.search(loaded, mapping, aimed, config.budget, units=strengths)
    return searched._replace(
        inputs={**mapping.inputs, **models.fingerprints("clip")},
        about=[models.describe_clip(model), *searched.about],
    )


@functools.lru_cache(maxsize=8)
def _mapping(
    strength: float | None, levels: tuple[str, ...] | None
) -> Callable[[Network, Network, Any], Outcome]:
    """Function (generator, mapper, latents) → edits, the same for the same settings."""

    def apply(generator: Network, network: Network, batch: Any) -> Outcome:
        latent = mapper.edit(network, batch, strength=strength, levels=levels)
        space = latents.SPACES[network.config.space]
        return editor.finished(batch, latent, space.synthesize(generator, latent))

    return apply


@functools.lru_cache(maxsize=16)
def _jit(apply: Callable[..., Outcome], *said: Any) -> Any:
    """Compiled function, the same program for the same function."""
    name = f"{apply.__module__}.{apply.__qualname__}"
    return jax.jit(traced.keep(name, apply, *said))


def at_once(
    apply: Callable[[Network, Any, Any], Outcome],
    generator: Network,
    weights: Sequence[Any],
    frozen: Any,
    said: Sequence[Any] = (),
    **about: Any,
) -> Editor:
    """Editor of a method that makes edits in one pass.

    Args:
      apply: (generator, weights, latents) → edits.
      generator: generator on the devices.
      weights: weights of each setting, on the devices.
      frozen: weights of the first setting, as they were before.
      said: values that `apply` holds, as `traced.keep` takes them.
      **about: other attributes of the `Editor`.
    """
    run = _jit(apply, *said)

    def through(
        generator: Network, batch: Any, setting: int, report: Report
    ) -> Outcome:
        edits = run(generator, weights[setting], batch)
        report(1)
        return edits

    edit = functools.partial(through, generator)
    return Editor(
        steps=1,
        unit="edit",
        edit=edit,
        through=through,
        probe=lambda batch: edit(batch, 0, ignore),
        memory=lambda batch: parallel.bytes_needed(run, generator, weights[0], batch),
        freeze=lambda: Frozen(apply, frozen),
        **about,
    )


def encode(loaded: Loaded, texts: Prompts) -> jax.Array:
    """CLIP features [T, E] of prompts, each with the weighted texts beside it.

    The distance is linear in the feature of its text, d(t) = 1 − (s ⟨u, t⟩ + b) / 100,
    so a weighted sum of distances is, up to a constant, the distance to the weighted
    sum of features. Several texts cost what one does.

    Raises:
      UserError: a text is too long.
    """
    model, tokenizer = loaded.clip()
    features = clip.encode_prompts(model, tokenizer, texts.texts)
    if not texts.beside:
        return features
    others = clip.encode_prompts(model, tokenizer, [x.text for x in texts.beside])
    weights = jnp.array([[x.weight] for x in texts.beside])
    return features + jnp.sum(weights * others, axis=0)


def encode_neutral(
    loaded: Loaded, texts: Prompts, config: objectives.ObjectiveConfig
) -> jax.Array | None:
    """CLIP feature [E] of the neutral text, None where no term reads it.

    It counts as often as the texts in all, so that its difference to the feature of
    `encode` is the sum of all steps, Σᵢ wᵢ (tᵢ − n).

    Raises:
      UserError: the text is missing or too long.
    """
    if not objectives.read_neutral(config.objective):
        return None
    model, tokenizer = loaded.clip()
    text = text_files.require("neutral", config.neutral)
    return texts.total * clip.encode_prompts(model, tokenizer, [text])[0]


def describe(loaded: Loaded, texts: Prompts) -> list[str]:
    """Lines on the CLIP and the texts of edits, for people."""
    model, _ = loaded.clip()
    return [
        loaded.models.describe_clip(model),
        *prompts.shorten(texts.texts, "prompt: "),
        *(f"beside: {text}" for text in texts.beside),
    ]


def record_prompts(texts: Prompts) -> dict[str, Any]:
    """Record of prompts by the names of their flags."""
    alone = texts.texts[0] if texts.file is None else None
    beside: dict[str, list[str]] = {}
    for text in texts.beside:
        name = "also" if text.weight > 0 else "avoid"
        beside.setdefault(name, []).append(f"{text.text}={abs(text.weight):g}")
    return {"prompt": alone, "prompts_file": texts.file} | beside
