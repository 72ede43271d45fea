"""python -m train.global_directions: channel relevance of a generator.

  python -m train.global_directions --output=exact.safetensors
  python -m train.global_directions --output=fast.safetensors --method=jacobian \\
    --compare=exact.safetensors

Without --generator and --clip it works on the embedded models. Of a file that is there
already it prints the report again, with --compare beside another one. Work
that is done is kept in a folder beside the output, so that the same command
goes on after an interruption; the folder goes when the output is there. Several
processes (--coordinator_address, --num_processes, --process_id; the same command and
the same folder in each) share the channels of the exact method.
"""

import dataclasses
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from styleclip_jax import loading, losses, parallel, progress, spaces
from styleclip_jax.cli import latent_flags, processes, program
from styleclip_jax.editing import estimation
from styleclip_jax.errors import UserError
from styleclip_jax.io import direction_files
from styleclip_jax.methods import global_directions
from styleclip_jax.methods.channel_relevance import RelevanceConfig

from . import relevance_run

VALUES = flags.FlagValues()
program.define(RelevanceConfig, VALUES)
processes.define(VALUES)
flags.DEFINE_string("output", None, "File to write, .safetensors.", flag_values=VALUES)
flags.DEFINE_string(
    "generator",
    None,
    "Model directory; the embedded one if absent.",
    flag_values=VALUES,
)
flags.DEFINE_string(
    "clip",
    None,
    "CLIP by directory or hub name (openai/clip-vit-base-patch32); the embedded one "
    "if absent.",
    flag_values=VALUES,
)
flags.DEFINE_integer(
    "class", None, "Class, for class-conditional generators.", flag_values=VALUES
)
flags.DEFINE_integer(
    "batch_size",
    32,
    "Images at a time, rounded up to a multiple of the devices.",
    lower_bound=1,
    flag_values=VALUES,
)
flags.DEFINE_string(
    "compare",
    None,
    "File of relevance to report the agreement with.",
    flag_values=VALUES,
)
flags.DEFINE_list(
    "pairs",
    [
        "face:smiling face",
        "face with hair:face with blonde hair",
        "female face:male face",
        "face with eyes:face with blue eyes",
    ],
    "Pairs neutral:prompt to compare at, with commas between.",
    flag_values=VALUES,
)
flags.DEFINE_string(
    "templates",
    None,
    "File of prompt templates for --pairs; the official ones if absent.",
    flag_values=VALUES,
)

_OVERLAPS = (20, 100)
_QUANTILES = (0.05, 0.25, 0.5)


def main(values: flags.FlagValues) -> int:
    """Measures what is not measured yet, writes it and reports."""
    config = program.build(RelevanceConfig, values)
    processes.connect(values)
    primary = jax.process_index() == 0
    if config.method != "exact" and jax.process_count() > 1:
        raise UserError(
            f"--method: {config.method} takes one process, found {jax.process_count()}"
        )
    output = _output(values.output)
    generator = loading.load_generator(values.generator)
    clip, tokenizer = loading.load_clip(values.clip)
    networks = losses.Networks(generator, clip)
    origins = loading.origins(values.generator, values.clip)
    label = latent_flags.one_hot_label(values, generator.config)
    layers = _layers(generator.config.style_layout, config)
    settings = dataclasses.asdict(config) | {"class": values["class"].value}
    if primary:
        print(
            f"generator: {origins[0]}, {generator.config.resolution}²\n"
            f"clip: {origins[1]}, {clip.config.image_size}²\n"
            f"layers: {len(layers)} with {_num_channels(networks, layers)} channels"
        )
    # Read before hours of work, so that a wrong flag says so at once.
    expected = None
    texts: dict[str, jax.Array] = {}
    if values.compare is not None:
        expected, _ = loading.read_relevance(values.compare, networks, *origins)
        texts = _text_directions(values, clip, tokenizer)
    if not parallel.agree(output.exists()):
        mesh = parallel.make_mesh(jax.local_devices())
        run = {"settings": settings, "generator": origins[0], "clip": origins[1]}
        with parallel.first_alone():
            work = relevance_run.Work(output.with_name(f"{output.name}.partial"), run)
            samples = _draw(networks, config, mesh, label, work)
        measured = _measure(
            networks, samples, config, layers, mesh, values.batch_size, work
        )
        if not primary:
            return 0
        direction_files.write_relevance(
            output,
            direction_files.RelevanceFile(
                measured.rows,
                samples.mean,
                samples.std,
                layers,
                {"settings": settings} | _summary(measured, networks, config, layers),
            ),
            layout=generator.config.style_layout,
            generator=origins[0],
            clip=origins[1],
        )
        work.remove()
    if not primary:
        return 0
    found, about = loading.read_relevance(output, networks, *origins)
    difference = relevance_run.difference(about.get("settings", {}), settings)
    if difference:
        raise UserError(
            f"--output: {output} is of a run with {difference}; use another name"
        )
    _print_summary(about)
    if expected is not None:
        _print_agreement(found, expected, texts)
    print(f"relevance: {output}")
    return 0


def _draw(
    networks: losses.Networks,
    config: RelevanceConfig,
    mesh: jax.sharding.Mesh,
    label: jax.Array | None,
    work: relevance_run.Work,
) -> estimation.Samples:
    """Samples and statistics, kept for a run that goes on."""
    generator = networks.generator
    kept = work.load("samples")
    if kept is None:
        with progress.bar(config.num_statistics, "sample") as bar:
            samples = estimation.draw_samples(
                generator, config, mesh, label=label, report=bar.update
            )
        flat = np.asarray(spaces.flatten_styles(samples.styles))
        kept = {"styles": flat, "mean": samples.mean, "std": samples.std}
        work.save("samples", kept)
    layout = generator.config.style_layout
    styles = spaces.unflatten_styles(jnp.asarray(kept["styles"]), layout)
    return estimation.Samples(styles, kept["mean"], kept["std"])


def _measure(
    networks: losses.Networks,
    samples: estimation.Samples,
    config: RelevanceConfig,
    layers: tuple[int, ...],
    mesh: jax.sharding.Mesh,
    batch_size: int,
    work: relevance_run.Work,
) -> relevance_run.Measured:
    started = time.monotonic()
    total = _num_channels(networks, layers) * config.num_samples
    shown = jax.process_index() == 0
    with progress.bar(total, "channel·sample", shown=shown) as bar:
        measured = relevance_run.measure(
            networks,
            samples,
            config,
            layers,
            mesh=mesh,
            batch_size=batch_size,
            work=work,
            report=bar.update,
        )
    if shown:
        print(f"measured in {time.monotonic() - started:.1f} s")
    return measured


def _summary(
    measured: relevance_run.Measured,
    networks: losses.Networks,
    config: RelevanceConfig,
    layers: tuple[int, ...],
) -> dict[str, Any]:
    """Cost and convergence, for the file."""
    count, embed_dim = measured.rows.shape
    if config.method == "exact":
        cost = {"images": 2 * count * config.num_samples}
    else:
        passes = min(embed_dim, _num_channels(networks, layers))
        cost = {"derivative_passes": passes * config.num_samples}
    steps = zip(
        relevance_run.checkpoints_of(config.num_samples),
        measured.convergence,
        strict=True,
    )
    summary: dict[str, Any] = {
        "cost": cost,
        "quantiles": list(_QUANTILES),
        "convergence": {str(n): _quantiles(cosines) for n, cosines in steps},
    }
    if config.clip_resolution:
        summary["lower_resolution"] = _quantiles(measured.lower)
    return summary


def _quantiles(values: np.ndarray) -> list[float]:
    return [round(float(x), 4) for x in np.quantile(values, _QUANTILES)]


def _print_summary(about: dict[str, Any]) -> None:
    names = ", ".join(f"{100 * q:g} %" for q in about["quantiles"])
    print(f"cosine to the final relevance, by samples; quantiles {names} of channels:")
    for count, values in sorted(about["convergence"].items(), key=lambda x: int(x[0])):
        print(f"  {count:>5}  " + "  ".join(f"{value:.3f}" for value in values))
    if "lower_resolution" in about:
        values = "  ".join(f"{value:.3f}" for value in about["lower_resolution"])
        print(f"cosine of the lower resolution to the whole image: {values}")


def _print_agreement(
    found: global_directions.Relevance,
    expected: global_directions.Relevance,
    texts: dict[str, jax.Array],
) -> None:
    """Prints how far two files agree, by channel and by text."""
    layers = sorted({*found.layers} & {*expected.layers})
    common = global_directions.channels_of(found.layout, layers)
    cosines = np.sum(np.asarray(found.table * expected.table), axis=1)[common]
    if not cosines.size:
        raise UserError("--compare: the two files have no layer in common")
    values = "  ".join(f"{x:.3f}" for x in _quantiles(cosines))
    names = ", ".join(f"{100 * q:g} %" for q in _QUANTILES)
    print(f"agreement over {common.sum()} channels")
    print(f"  cosine of relevance, quantiles {names}: {values}")
    counts = [n for n in _OVERLAPS if n <= common.sum()] or [int(common.sum())]
    for name, text in texts.items():
        ours, theirs = (
            global_directions.relevance_for(x, text) for x in (found, expected)
        )
        scores = [global_directions.agreement(ours, theirs, n) for n in counts]
        overlaps = "  ".join(
            f"top {n} {100 * score.overlap:.0f} %"
            for n, score in zip(counts, scores, strict=True)
        )
        print(
            f"  {name}: rank correlation {scores[0].rank_correlation:.3f}, {overlaps}"
        )


def _text_directions(
    values: flags.FlagValues, clip: Any, tokenizer: Any
) -> dict[str, jax.Array]:
    """Text direction of each of --pairs."""
    templates = loading.load_templates(values.templates)
    found = {}
    for pair in values.pairs:
        neutral, colon, prompt = (part.strip() for part in pair.partition(":"))
        if not (neutral and colon and prompt):
            raise UserError(f"--pairs: expected neutral:prompt, found {pair!r}")
        try:
            found[f"{neutral} → {prompt}"] = global_directions.text_direction(
                clip, tokenizer, neutral, prompt, templates
            )
        except ValueError as error:
            raise UserError(f"--pairs: {error}") from None
    return found


def _output(text: str | None) -> pathlib.Path:
    if not text or pathlib.Path(text).suffix != ".safetensors":
        raise UserError(f"--output: expected a .safetensors file, found {text!r}")
    return pathlib.Path(text)


def _layers(
    layout: global_directions.Layout, config: RelevanceConfig
) -> tuple[int, ...]:
    try:
        return global_directions.select_layers(layout, config.layers)
    except ValueError as error:
        raise UserError(f"--{error}") from None


def _num_channels(networks: losses.Networks, layers: tuple[int, ...]) -> int:
    layout = networks.generator.config.style_layout
    return sum(layout[i].channels for i in layers)


def entry() -> None:
    """The program."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
