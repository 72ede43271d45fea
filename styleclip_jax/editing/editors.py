"""The three methods behind one interface, for styleclip-edit.

Each takes its flags and gives an `Editor`: what it edits in, how many edits it makes of
a latent, and the function that makes them for a batch.
"""

import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import flags

from styleclip_jax import latents, loading, losses, parallel, progress
from styleclip_jax.cli import edit_flags, program
from styleclip_jax.editing import estimation
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, direction_files, files
from styleclip_jax.methods import global_directions, mapper, optimization
from styleclip_jax.methods.optimization import OptimizationConfig
from styleclip_jax.models import clip
from styleclip_jax.models.network import Network


class Edits(NamedTuple):
    """One edit of each latent of a batch.

    Attributes:
      original: source latents.
      latent: edited latents.
      image: [B, H, W, 3] of the edited ones.
      terms: {name: [B]} for metrics.jsonl.
      failed_at: [B] step at which something was not finite, -1 for none.
      film: latents on the way with an axis of frames after that of the batch; None for
        the straight line between the two.
    """

    original: Any
    latent: Any
    image: jax.Array
    terms: dict[str, jax.Array]
    failed_at: jax.Array
    film: Any = None


class Frozen(NamedTuple):
    """One edit as a pure function, to be written to a file.

    Attributes:
      apply: (generator, weights, latents) → `Edits`.
      weights: tree of arrays.
    """

    apply: Callable[[Network, Any, Any], Edits]
    weights: Any


class Editor(NamedTuple):
    """A method with everything that it needs, ready to edit.

    Attributes:
      space: latent space that it edits in, w_plus or s.
      title: what it edits towards.
      settings: of each edit that it makes of a latent, such as {"alpha": 4.0}.
      steps: units of work per edit.
      unit: what they are called.
      inputs: hashes of the files that it reads.
      about: lines to print.
      edit: (latents, number of the setting, report) → `Edits` on the devices, which
        may still be under way.
      probe: (latents) → something on the devices that takes the memory of an edit.
      freeze: the edit of the first setting.
    """

    space: str
    title: str
    settings: list[dict[str, Any]]
    steps: int
    unit: str
    inputs: dict[str, str]
    about: list[str]
    edit: Callable[[Any, int, progress.Report], Edits]
    probe: Callable[[Any], Any]
    freeze: Callable[[], Frozen]


def prepare(
    values: flags.FlagValues, generator: Network, mesh: jax.sharding.Mesh
) -> Editor:
    """The editor that the flags ask for.

    Args:
      values: parsed flags.
      generator: on the devices of the mesh.
      mesh: devices to spread batches over.

    Raises:
      UserError: a flag is wrong, or of another method.
    """
    method = values.method
    if method not in METHODS:
        raise UserError(
            f"--method: expected {', '.join(METHODS)}, found {values.method!r}"
        )
    edit_flags.check(values)
    return METHODS[method](values, generator, mesh)


def _optimization(
    values: flags.FlagValues, generator: Network, mesh: jax.sharding.Mesh
) -> Editor:
    prompts = edit_flags.prompts(values)
    config = program.build(OptimizationConfig, values)
    model, tokenizer = loading.load_clip(values.clip)
    texts = clip.encode_prompts(model, tokenizer, prompts)
    inputs = _clip_input(values)
    identity = None
    if config.id_lambda:
        if values.generator is not None and values.identity is None:
            raise UserError(
                f"--id_lambda: {config.id_lambda} needs a face recognition network, "
                "expected --identity with it"
            )
        identity = loading.load_identity(values.identity)
        directory = loading.identity_directory(values.identity)
        inputs["identity"] = checkpoints.fingerprint(directory)
    networks = parallel.replicate(losses.Networks(generator, model, identity), mesh)
    problem = optimization.official(config)
    compiled = optimization.compiled(problem, sharding=parallel.over_batch(mesh))

    def edit(
        batch: Any, setting: int, report: progress.Report, steps: int = config.steps
    ) -> Edits:
        state = compiled.start(networks, batch, texts[setting])
        state = progress.take_steps(compiled.step, networks, state, steps, report)
        return _optimized(compiled.finish(networks, state))

    def apply(generator: Network, weights: Any, batch: Any) -> Edits:
        others, text = weights
        run = functools.partial(optimization.optimize, problem=problem)
        over_batch = jax.vmap(run, in_axes=(None, 0, None))
        parts = losses.Networks(generator, *others)
        return _optimized(over_batch(parts, batch, text))

    return Editor(
        space=config.space,
        title=edit_flags.title(prompts),
        settings=edit_flags.by_prompt(values, prompts, [[{}]] * len(prompts)),
        steps=config.steps,
        unit="step",
        inputs=inputs | edit_flags.prompts_input(values),
        about=[_describe_clip(values, model), *edit_flags.shorten(prompts, "prompt: ")],
        edit=edit,
        probe=lambda batch: edit(batch, 0, _ignore, min(2, config.steps)),
        freeze=lambda: Frozen(apply, ((_without_text(model), identity), texts[0])),
    )


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


def _mapper(
    values: flags.FlagValues, generator: Network, mesh: jax.sharding.Mesh
) -> Editor:
    if not values.mapper:
        raise UserError("--method: mapper needs --mapper with a model directory")
    if values.prompts_file is not None:
        raise UserError(
            "--prompts_file: a mapper is for one prompt, expected several --mapper "
            "with commas between"
        )
    directory = loading.generator_directory(values.generator)
    found = [
        loading.load_mapper(path, directory, generator.config) for path in values.mapper
    ]
    trained_for = [loading.mapper_prompt(path) or str(path) for path in values.mapper]
    space = found[0].config.space
    if {network.config.space for network in found} != {space}:
        raise UserError(f"--mapper: expected mappers of one space, here {space}")
    levels = values.levels
    unknown = set(levels or ()) - set(mapper.LEVELS)
    if unknown or levels == []:
        raise UserError(
            f"--levels: expected some of {', '.join(mapper.LEVELS)}, "
            f"found {', '.join(levels) or 'none'}"
        )

    def apply(generator: Network, network: Network, batch: Any) -> Edits:
        latent = mapper.edit(
            network,
            batch,
            strength=values.strength,
            levels=levels,
        )
        image = latents.SPACES[space].synthesize(generator, latent)
        return _edits(batch, latent, image)

    run = jax.jit(apply)
    networks = parallel.replicate(found, mesh)

    def edit(batch: Any, setting: int, report: progress.Report) -> Edits:
        edits = run(generator, networks[setting], batch)
        report(1)
        return edits

    names = [f"mapper{i}" if i else "mapper" for i in range(len(found))]
    settings = [{"mapper": str(path)} for path in values.mapper]
    strengths = (x.config.strength for x in found)
    return Editor(
        space=space,
        title=edit_flags.title(trained_for),
        settings=settings if len(found) > 1 else [{}],
        steps=1,
        unit="edit",
        inputs={
            name: checkpoints.fingerprint(path)
            for name, path in zip(names, values.mapper, strict=True)
        },
        about=[
            f"mapper: {path}, for {prompt!r}, strength "
            f"{strength if values.strength is None else values.strength:g}"
            for path, prompt, strength in zip(
                values.mapper, trained_for, strengths, strict=True
            )
        ],
        edit=edit,
        probe=lambda batch: edit(batch, 0, _ignore),
        freeze=lambda: Frozen(apply, found[0]),
    )


class _Steps(NamedTuple):
    """Directions with their strengths, one for each setting, and where they are from.

    Attributes:
      title, settings, inputs, about: those of the `Editor`.
      weights: a direction and α for each setting.
    """

    title: str
    settings: list[dict[str, Any]]
    inputs: dict[str, str]
    about: list[str]
    weights: list[tuple[global_directions.Direction, jax.Array]]


def _direction(
    values: flags.FlagValues, generator: Network, mesh: jax.sharding.Mesh
) -> Editor:
    if values.saved_direction is None:
        steps = _measured(values, generator, mesh)
    else:
        steps = _saved(values, generator)

    def apply(generator: Network, weights: Any, batch: Any) -> Edits:
        latent = global_directions.edit(batch, *weights)
        image = latents.SPACES["s"].synthesize(generator, latent)
        return _edits(batch, latent, image)

    run = jax.jit(apply)
    placed = parallel.replicate(steps.weights, mesh)

    def edit(batch: Any, setting: int, report: progress.Report) -> Edits:
        edits = run(generator, placed[setting], batch)
        report(1)
        return edits

    return Editor(
        space="s",
        title=steps.title,
        settings=steps.settings,
        steps=1,
        unit="edit",
        inputs=steps.inputs,
        about=steps.about,
        edit=edit,
        probe=lambda batch: edit(batch, 0, _ignore),
        freeze=lambda: Frozen(apply, steps.weights[0]),
    )


def _saved(values: flags.FlagValues, generator: Network) -> _Steps:
    """The direction of a file, which needs no text and no CLIP."""
    for name in edit_flags.OF_MEASURED:
        if values[name].present:
            raise UserError(f"--{name}: is of no use with --saved_direction")
    path, layout = values.saved_direction, generator.config.style_layout
    origin = loading.generator_origin(values.generator)
    delta, about = direction_files.read_direction(path, layout=layout, generator=origin)
    direction = global_directions.Direction(jnp.asarray(delta), layout)
    alphas = _alphas(values)
    notes = ", ".join(f"{name} {value}" for name, value in about.items())
    saved = f", saved with {notes}" if notes else ""
    return _Steps(
        title=pathlib.Path(path).stem,
        settings=[{"alpha": alpha} for alpha in alphas],
        inputs={"saved_direction": files.hash_file(path)},
        about=[f"direction: {path}{saved}"],
        weights=[(direction, jnp.float32(alpha)) for alpha in alphas],
    )


def _measured(
    values: flags.FlagValues, generator: Network, mesh: jax.sharding.Mesh
) -> _Steps:
    """Directions of texts, for each threshold."""
    prompts, neutral = edit_flags.prompts(values), edit_flags.text(values, "neutral")
    alphas = _alphas(values)
    model, tokenizer = loading.load_clip(values.clip)
    templates = loading.load_templates(values.templates)
    try:
        texts = [
            global_directions.text_direction(
                model, tokenizer, neutral, prompt, templates
            )
            for prompt in prompts
        ]
    except ValueError as error:
        raise UserError(f"--{error}") from None
    networks = parallel.replicate(losses.Networks(generator, model), mesh)
    counts, settings, weights = [], [], []
    for relevance in _relevances(values, networks, texts, mesh):
        betas = _betas(values, relevance)
        kept = [int(global_directions.count_kept(relevance, beta)) for beta in betas]
        made = [global_directions.make_direction(relevance, beta) for beta in betas]
        pairs = zip(betas, kept, strict=True)
        counts.append(", ".join(f"{beta:.3g} keeps {count}" for beta, count in pairs))
        settings.append(
            [{"alpha": a, "beta": round(b, 6)} for b in betas for a in alphas]
        )
        weights += [(direction, jnp.float32(a)) for direction in made for a in alphas]
    inputs = _clip_input(values) | edit_flags.prompts_input(values)
    for name in ("directions", "templates"):
        if values[name].value is not None:
            inputs[name] = files.hash_file(str(values[name].value))
    channels = sum(layer.channels for layer in generator.config.style_layout)
    lines = [
        f"from {neutral!r} to {prompt!r}, {len(templates)} templates, of {channels} "
        f"channels beta {count}"
        for prompt, count in zip(prompts, counts, strict=True)
    ]
    return _Steps(
        title=f"{neutral} to {edit_flags.title(prompts)}",
        settings=edit_flags.by_prompt(values, prompts, settings),
        inputs=inputs,
        about=[
            _describe_clip(values, model),
            *edit_flags.shorten(lines, "direction: "),
        ],
        weights=weights,
    )


def _alphas(values: flags.FlagValues) -> list[float]:
    return [edit_flags.number(values, "alpha", text) for text in values.alpha]


METHODS: dict[str, Callable[[flags.FlagValues, Network, jax.sharding.Mesh], Editor]] = {
    "optimization": _optimization,
    "mapper": _mapper,
    "direction": _direction,
}


def _edits(original: Any, latent: Any, image: jax.Array) -> Edits:
    """The edits of a method that makes them at once."""
    moved = jax.tree.map(
        lambda a, b: jnp.sum(jnp.square(a - b), axis=range(1, a.ndim)), latent, original
    )
    l2 = jax.tree.reduce(jnp.add, moved)
    finite = jnp.isfinite(l2) & jnp.all(jnp.isfinite(image), axis=(1, 2, 3))
    return Edits(original, latent, image, {"l2": l2}, jnp.where(finite, -1, 0))


def _relevances(
    values: flags.FlagValues,
    networks: losses.Networks,
    texts: Sequence[jax.Array],
    mesh: jax.sharding.Mesh,
) -> Iterator[global_directions.TextRelevance]:
    """Relevance for each text, from the file or estimated on the spot."""
    if values.directions is not None:
        origins = loading.origins(values.generator, values.clip)
        if values["num_samples"].present:
            raise UserError("--num_samples: is of no use with --directions")
        table, _ = loading.read_relevance(values.directions, networks, *origins)
        yield from (global_directions.relevance_for(table, text) for text in texts)
        return
    config = estimation.estimate_config(values.num_samples)
    samples = estimation.draw_samples(networks.generator, config, mesh)
    total, shown = config.num_samples * len(texts), jax.process_index() == 0
    with progress.bar(total, "sample", shown=shown) as bar:
        for text in texts:
            yield estimation.estimate(
                networks,
                samples,
                text,
                config,
                batch_size=max(4, mesh.size),
                place=functools.partial(parallel.shard, mesh=mesh),
                report=bar.update,
            )


def _betas(
    values: flags.FlagValues, relevance: global_directions.TextRelevance
) -> list[float]:
    if values.num_channels is not None:
        if values["beta"].present:
            raise UserError("--beta and --num_channels: expected one, found both")
        try:
            return [global_directions.beta_for(relevance, values.num_channels)]
        except ValueError as error:
            raise UserError(f"--{error}") from None
    betas = []
    for text in values.beta:
        if text == edit_flags.AUTO:
            betas.append(global_directions.automatic_beta(relevance))
        else:
            betas.append(edit_flags.number(values, "beta", text))
        try:
            global_directions.check_beta(relevance, betas[-1])
        except ValueError as error:
            raise UserError(f"--beta: {error}") from None
    return betas


def _ignore(count: int) -> None:
    """Reports to nobody."""


def _clip_input(values: flags.FlagValues) -> dict[str, str]:
    """Hash of the CLIP; one from the hub goes by its name."""
    return {"clip": loading.clip_fingerprint(values.clip) or values.clip}


def _describe_clip(values: flags.FlagValues, model: Network) -> str:
    return f"clip: {values.clip or 'embedded'}, {model.config.image_size}²"
