"""The three methods behind one interface, for styleclip-edit.

Each takes its flags and gives an `Editor`: what it edits in, how many edits it makes of
a latent, and the function that makes them for a batch.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from styleclip_jax import assets, losses, parallel
from styleclip_jax.cli import directions as cli_directions
from styleclip_jax.cli import flags as cli
from styleclip_jax.cli import mappers
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files
from styleclip_jax.methods import global_directions, mapper, optimization
from styleclip_jax.methods.channel_relevance import RelevanceConfig
from styleclip_jax.methods.optimization import OptimizationConfig
from styleclip_jax.models import clip
from styleclip_jax.models.network import Network

AUTO = "auto"

# Samples of the relevance that is measured for one prompt.
_NUM_SAMPLES = 16
_NUM_STATISTICS = 10_000


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


class Editor(NamedTuple):
    """A method with everything that it needs, ready to edit.

    Attributes:
      space: latent space that it edits in, w_plus or s.
      title: what it edits towards.
      settings: of each edit that it makes of a latent, such as {"alpha": 4.0}.
      steps: units of work per latent.
      unit: what they are called.
      inputs: hashes of the files that it reads.
      about: lines to print.
      edit: (latents, report) → one `Edits` per setting.
    """

    space: str
    title: str
    settings: list[dict[str, float]]
    steps: int
    unit: str
    inputs: dict[str, str]
    about: list[str]
    edit: Callable[[Any, cli.Report], list[Edits]]


def define(values: flags.FlagValues) -> None:
    """Defines the flags of all methods."""
    cli.define(OptimizationConfig, values)
    define_string = functools.partial(flags.DEFINE_string, flag_values=values)
    define_string("method", "optimization", f"How to edit: {', '.join(METHODS)}.")
    define_string("prompt", None, "Text to edit towards.")
    define_string(
        "clip",
        None,
        "CLIP by directory or hub name (openai/clip-vit-base-patch32); the embedded "
        "one if absent.",
    )
    define_string(
        "identity",
        None,
        "Model directory of a face recognition network, for --id_lambda; the embedded "
        "one if absent, for the embedded generator.",
    )
    define_string("mapper", None, "Model directory of a mapper.")
    flags.DEFINE_float(
        "strength",
        None,
        "Factor of a mapper's step, any number; that of its training if absent.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "levels",
        None,
        "Levels that a mapper may move, of coarse, medium and fine; all if absent.",
        flag_values=values,
    )
    define_string("neutral", "a face", "Text that a direction leads away from.")
    define_string(
        "directions",
        None,
        "File of channel relevance (train.global_directions makes it); if absent, "
        "relevance for the prompt is estimated on the spot.",
    )
    flags.DEFINE_list(
        "alpha",
        ["4"],
        "Strength of a direction, one or several with commas between.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "beta",
        [AUTO],
        "Least relevance of a channel, one or several; or auto, the largest of 0.10 "
        "to 0.29 that keeps more than 20 channels.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_channels",
        None,
        "Number of channels instead of --beta.",
        lower_bound=1,
        flag_values=values,
    )
    define_string(
        "templates",
        None,
        "File of templates with {} for a direction's texts; the official ones if "
        "absent.",
    )


# Flags that only one method reads.
_OWN_FLAGS = {
    "optimization": (
        "identity",
        *(
            field.name
            for field in dataclasses.fields(OptimizationConfig)
            if field.name != "film_frames"
        ),
    ),
    "mapper": ("mapper", "strength", "levels"),
    "direction": (
        "neutral",
        "directions",
        "alpha",
        "beta",
        "num_channels",
        "templates",
    ),
}


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
    for other, names in _OWN_FLAGS.items():
        given = [name for name in names if other != method and values[name].present]
        if given:
            raise UserError(
                f"--{given[0]}: is a flag of --method={other}, found with {method}"
            )
    return METHODS[method](values, generator, mesh)


def _optimization(
    values: flags.FlagValues, generator: Network, mesh: jax.sharding.Mesh
) -> Editor:
    prompt = _text(values, "prompt")
    config = cli.build(OptimizationConfig, values)
    model, tokenizer = assets.load_clip(values.clip)
    text = clip.encode_prompts(model, tokenizer, [prompt])[0]
    inputs = _clip_input(values)
    identity = None
    if config.id_lambda:
        if values.generator is not None and values.identity is None:
            raise UserError(
                f"--id_lambda: {config.id_lambda} needs a face recognition network, "
                "expected --identity with it"
            )
        identity = assets.load_identity(values.identity)
        directory = assets.identity_directory(values.identity)
        inputs["identity"] = checkpoints.fingerprint(directory)
    networks = parallel.replicate(losses.Networks(generator, model, identity), mesh)
    problem = optimization.official(config)
    compiled = optimization.compiled(problem, sharding=parallel.over_batch(mesh))

    def edit(batch: Any, report: cli.Report) -> list[Edits]:
        state = compiled.start(networks, batch, text)
        state = cli.take_steps(compiled.step, networks, state, config.steps, report)
        result = compiled.finish(networks, state)
        return [
            Edits(
                result.source.latent,
                result.latent,
                result.image,
                result.terms,
                result.failed_at,
                result.film,
            )
        ]

    return Editor(
        space=config.space,
        title=prompt,
        settings=[{}],
        steps=config.steps,
        unit="step",
        inputs=inputs,
        about=[_describe_clip(values, model), f"prompt: {prompt}"],
        edit=edit,
    )


def _mapper(
    values: flags.FlagValues, generator: Network, mesh: jax.sharding.Mesh
) -> Editor:
    if values.mapper is None:
        raise UserError("--method: mapper needs --mapper with a model directory")
    directory = assets.generator_directory(values.generator)
    network = mappers.load(values.mapper, directory, generator.config)
    trained_for = mappers.prompt_of(values.mapper) or str(values.mapper)
    levels = values.levels
    unknown = set(levels or ()) - set(mapper.LEVELS)
    if unknown or levels == []:
        raise UserError(
            f"--levels: expected some of {', '.join(mapper.LEVELS)}, "
            f"found {', '.join(levels) or 'none'}"
        )
    config = network.config
    strength = config.strength if values.strength is None else values.strength
    networks = parallel.replicate((generator, network), mesh)
    space = optimization.SPACES[config.space]

    @jax.jit
    def run(networks: tuple[Network, Network], batch: Any) -> Edits:
        generator, network = networks
        latent = mapper.edit(
            network.params, batch, config=config, strength=strength, levels=levels
        )
        return _edits(batch, latent, space.synthesize(generator, latent))

    def edit(batch: Any, report: cli.Report) -> list[Edits]:
        edits = jax.block_until_ready(run(networks, batch))
        report(1)
        return [edits]

    return Editor(
        space=config.space,
        title=trained_for,
        settings=[{}],
        steps=1,
        unit="edit",
        inputs={"mapper": checkpoints.fingerprint(values.mapper)},
        about=[f"mapper: {values.mapper}, for {trained_for!r}, strength {strength:g}"],
        edit=edit,
    )


def _direction(
    values: flags.FlagValues, generator: Network, mesh: jax.sharding.Mesh
) -> Editor:
    prompt, neutral = _text(values, "prompt"), _text(values, "neutral")
    alphas = [_number(values, "alpha", text) for text in values.alpha]
    model, tokenizer = assets.load_clip(values.clip)
    networks = parallel.replicate(losses.Networks(generator, model), mesh)
    templates = assets.load_templates(values.templates)
    try:
        text = global_directions.text_direction(
            model, tokenizer, neutral, prompt, templates
        )
    except ValueError as error:
        raise UserError(f"--{error}") from None
    relevance = _relevance(values, networks, text, mesh)
    betas = _betas(values, relevance)
    kept = [int(global_directions.count_kept(relevance, beta)) for beta in betas]
    directions = [global_directions.make_direction(relevance, beta) for beta in betas]

    @jax.jit
    def run(generator: Network, batch: Any, direction: Any, alpha: jax.Array) -> Edits:
        latent = global_directions.edit(batch, direction, alpha)
        image = optimization.SPACES["s"].synthesize(generator, latent)
        return _edits(batch, latent, image)

    def edit(batch: Any, report: cli.Report) -> list[Edits]:
        edits = []
        for direction in directions:
            for alpha in alphas:
                made = run(networks.generator, batch, direction, jnp.float32(alpha))
                edits.append(jax.device_get(made))
                report(1)
        return edits

    inputs = _clip_input(values)
    for name in ("directions", "templates"):
        if values[name].value is not None:
            inputs[name] = files.hash_file(str(values[name].value))
    channels = ", ".join(f"{b:.3g} keeps {n}" for b, n in zip(betas, kept, strict=True))
    return Editor(
        space="s",
        title=f"{neutral} to {prompt}",
        settings=[{"alpha": a, "beta": round(b, 6)} for b in betas for a in alphas],
        steps=len(alphas) * len(betas),
        unit="edit",
        inputs=inputs,
        about=[
            _describe_clip(values, model),
            f"direction: from {neutral!r} to {prompt!r}, {len(templates)} templates",
            f"beta: {channels} of {sum(x.channels for x in relevance.layout)} channels",
        ],
        edit=edit,
    )


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


def _relevance(
    values: flags.FlagValues,
    networks: losses.Networks,
    text: jax.Array,
    mesh: jax.sharding.Mesh,
) -> global_directions.TextRelevance:
    """Relevance from the file, or estimated for this text."""
    if values.directions is not None:
        origins = cli_directions.origins(values.generator, values.clip)
        table, _ = cli_directions.read_relevance(values.directions, networks, *origins)
        return global_directions.relevance_for(table, text)
    config = RelevanceConfig(
        method="jacobian", num_samples=_NUM_SAMPLES, num_statistics=_NUM_STATISTICS
    )
    layout = networks.generator.config.style_layout
    layers = global_directions.select_layers(layout, config.layers)
    samples = cli_directions.draw_samples(networks.generator, config, mesh)
    with cli.progress(config.num_samples, "sample") as progress:
        return global_directions.estimate_relevance(
            networks,
            samples.styles,
            jnp.asarray(samples.std),
            text,
            jax.random.key(config.seed),
            layers=layers,
            batch_size=max(4, mesh.size),
            place=functools.partial(parallel.shard, mesh=mesh),
            report=progress.update,
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
        if text == AUTO:
            betas.append(global_directions.automatic_beta(relevance))
        else:
            betas.append(_number(values, "beta", text))
        try:
            global_directions.check_beta(relevance, betas[-1])
        except ValueError as error:
            raise UserError(f"--beta: {error}") from None
    return betas


def _number(values: flags.FlagValues, name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise UserError(f"--{name}: expected numbers, found {text!r}")
    return number


def _text(values: flags.FlagValues, name: str) -> str:
    found = values[name].value
    text = (found or "").strip()
    if not text:
        raise UserError(f"--{name}: expected a text, found {found!r}")
    return text


def _clip_input(values: flags.FlagValues) -> dict[str, str]:
    """Hash of the CLIP; one from the hub goes by its name."""
    return {"clip": assets.clip_fingerprint(values.clip) or values.clip}


def _describe_clip(values: flags.FlagValues, model: Network) -> str:
    return f"clip: {values.clip or 'embedded'}, {model.config.image_size}²"
