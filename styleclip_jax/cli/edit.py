"""styleclip-edit: edit latents by a text prompt.

  styleclip-edit --prompt="a person with purple hair" --seeds=0-15
  styleclip-edit --prompt="a smiling face" --latents=w_plus.npy --steps=40 --space=s

Writes under --outdir: original.npy and edited.npy (.npz in S), images/, metrics.jsonl
(a line per latent), grid.png, films/ with --film_frames, and run.json. Started again
with the same flags, it goes on where it stopped. Exit code 1 says that some latents
could not be edited; metrics.jsonl says which.
"""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags

from styleclip_jax import assets, losses, parallel
from styleclip_jax.cli import flags as cli
from styleclip_jax.cli import latents as cli_latents
from styleclip_jax.cli import outputs
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files, images, latents
from styleclip_jax.methods import optimization
from styleclip_jax.models import clip
from styleclip_jax.models.network import Network

VALUES = flags.FlagValues()
cli_latents.define(VALUES)
outputs.define(VALUES, outdir="outputs/edit", grid=8)
cli.define(optimization.OptimizationConfig, VALUES)
flags.DEFINE_enum(
    "method", "optimization", ["optimization"], "How to edit.", flag_values=VALUES
)
flags.DEFINE_string("prompt", None, "Text to edit towards.", flag_values=VALUES)
flags.DEFINE_string(
    "clip",
    None,
    "CLIP by directory or hub name (openai/clip-vit-base-patch32); the embedded one "
    "if absent.",
    flag_values=VALUES,
)
flags.DEFINE_string(
    "identity",
    None,
    "Model directory of a face recognition network, for --id_lambda.",
    flag_values=VALUES,
)

# Seconds of work between two reports of progress.
_REPORT_EVERY = 1.0

Report = Callable[[int], None]
# Edits a batch of latents and reports the steps that it has taken.
Editor = Callable[[Any, Report], optimization.Result]


def main(values: flags.FlagValues) -> int:
    """Edits every latent that is not done yet."""
    prompt = (values.prompt or "").strip()
    if not prompt:
        raise UserError(f"--prompt: expected a text, found {values.prompt!r}")
    config = cli.build(optimization.OptimizationConfig, values)
    directory = assets.generator_directory(values.generator)
    generator = assets.load_generator(directory)
    clip_network, tokenizer = assets.load_clip(values.clip)
    identity = _load_identity(values, config)
    text = clip.encode_prompts(clip_network, tokenizer, [prompt])[0]
    source = _read_source(values, generator, config)
    label = cli_latents.one_hot_label(values, generator.config)
    print(
        f"generator: {directory}, {generator.config.resolution}², "
        f"{generator.config.num_rows} rows of W+\n"
        f"clip: {values.clip or 'embedded'}, {clip_network.config.image_size}²\n"
        f"latents: {len(source)} in {source.latents.space}, edited in {config.space}\n"
        f"prompt: {prompt}"
    )
    outdir = outputs.begin("styleclip-edit", values, _inputs(values, directory))

    mesh = parallel.make_mesh()
    networks = parallel.replicate(
        losses.Networks(generator, clip_network, identity), mesh
    )
    problem = optimization.official(config)
    edit = _optimizer(networks, text, problem, parallel.over_batch(mesh))
    convert = functools.partial(
        cli_latents.convert,
        networks.generator,
        space=source.latents.space,
        truncation_psi=source.truncation_psi,
        cutoff=source.truncation_cutoff,
        to=config.space,
        label=label,
    )
    with outputs.Journal(
        outdir, len(source), config.space, generator.config, values.images
    ) as journal:
        todo = len(source) - len(journal.lines)
        if todo < len(source):
            print(f"resumed: {len(source) - todo} of {len(source)} latents are done")
        with cli.progress(todo * config.steps, "step") as progress:
            for rows, batch in cli_latents.batches(
                source, generator.config, values.batch_size, mesh, journal.lines
            ):
                started = time.monotonic()
                report = functools.partial(_advance, progress, len(rows))
                result = _to_host(edit(convert(batch), report), len(rows))
                seconds = (time.monotonic() - started) / len(rows)
                if config.film_frames:
                    _write_films(outdir, networks, problem, rows, result)
                _write(journal, source, rows, result, seconds)
        journal.finish()
    if values.grid:
        print(f"sheet: {_write_sheet(journal, networks, problem, prompt, values.grid)}")
    print(f"latents: {journal.paths['edited']}")
    return _report_failures(journal)


def _advance(progress: Any, latents: int, steps: int) -> None:
    """Reports steps that a batch of latents has taken."""
    progress.update(latents * steps)


def _to_host(result: optimization.Result, count: int) -> Any:
    """The result as NumPy arrays, without the padding of the batch."""
    return jax.tree.map(lambda x: np.asarray(x)[:count], result)


def _load_identity(
    values: flags.FlagValues, config: optimization.OptimizationConfig
) -> Network | None:
    if values.identity is not None:
        return assets.load_identity(values.identity)
    if config.id_lambda:
        raise UserError(
            f"--id_lambda: {config.id_lambda} needs a face recognition network, "
            "expected --identity with it"
        )
    return None


def _read_source(
    values: flags.FlagValues, generator: Any, config: optimization.OptimizationConfig
) -> cli_latents.Source:
    if config.mode == "free_generation":
        if values.latents is not None or values.seeds is not None:
            raise UserError(
                "--mode: free_generation starts at the average latent, expected "
                "neither --latents nor --seeds"
            )
        w_avg = np.asarray(generator.params["mapping"]["w_avg"])[None]
        average = latents.Latents(w_avg, "w")
        return cli_latents.Source(average, [{"row": 0}], 1.0, None)
    source = cli_latents.read(values, generator, default_seeds="0-7")
    if source.latents.space == "s" and config.space != "s":
        raise UserError(
            f"--latents: {values.latents} is in s, expected --space=s with it"
        )
    return source


def _inputs(values: flags.FlagValues, generator: pathlib.Path) -> dict[str, str]:
    """Hashes of what the run reads; a CLIP from the hub goes by its name."""
    inputs = {"generator": checkpoints.fingerprint(generator)}
    clip_directory = assets.clip_source(values.clip)
    weights = pathlib.Path(clip_directory) / "model.safetensors"
    inputs["clip"] = (
        files.hash_file(weights) if weights.is_file() else str(clip_directory)
    )
    if values.identity is not None:
        inputs["identity"] = checkpoints.fingerprint(values.identity)
    if values.latents is not None:
        inputs["latents"] = files.hash_file(values.latents)
    return inputs


def _optimizer(
    networks: losses.Networks,
    text: jax.Array,
    problem: optimization.Problem,
    sharding: jax.sharding.NamedSharding,
) -> Editor:
    """Latent optimization of a batch, which reports its steps."""
    # One sharding for the state throughout: another one would compile again.
    start = jax.jit(
        jax.vmap(
            functools.partial(optimization.start, problem=problem),
            in_axes=(None, 0, None),
        ),
        out_shardings=sharding,
    )
    step = jax.jit(
        jax.vmap(
            functools.partial(optimization.step, problem=problem), in_axes=(None, 0)
        ),
        donate_argnums=1,
        out_shardings=sharding,
    )
    finish = jax.jit(
        jax.vmap(
            functools.partial(optimization.finish, problem=problem), in_axes=(None, 0)
        )
    )

    def edit(batch: Any, report: Report) -> optimization.Result:
        state = start(networks, batch, text)
        reported, since = 0, time.monotonic()
        # A loop here rather than in the program: XLA runs convolutions inside of loops
        # several times slower on CPU, and on accelerators steps are queued ahead.
        for done in range(1, problem.steps + 1):
            state = step(networks, state)
            if time.monotonic() - since > _REPORT_EVERY or done == problem.steps:
                jax.block_until_ready(state.step)
                report(done - reported)
                reported, since = done, time.monotonic()
        return finish(networks, state)

    return edit


def _write(
    journal: outputs.Journal,
    source: cli_latents.Source,
    rows: list[int],
    result: Any,
    seconds: float,
) -> None:
    lines = []
    for i, row in enumerate(rows):
        failed_at = int(result.failed_at[i])
        terms = {name: float(value[i]) for name, value in result.terms.items()}
        lines.append(
            {"index": row, **source.origins[row]}
            | ({"failed_at": failed_at} if failed_at >= 0 else terms)
            | {"seconds": round(seconds, 3)}
        )
    journal.write(
        rows,
        original=cli_latents.pack(result.source.latent),
        edited=cli_latents.pack(result.latent),
        image=result.image,
        lines=lines,
    )


def _write_films(
    outdir: pathlib.Path,
    networks: losses.Networks,
    problem: optimization.Problem,
    rows: list[int],
    result: Any,
) -> None:
    render = jax.jit(problem.space.synthesize)
    for i, row in enumerate(rows):
        film = jax.tree.map(lambda frames, i=i: frames[i], result.film)
        frames = np.concatenate(
            [result.source.image[i][None], render(networks.generator, film)]
        )
        images.write_film(outdir / "films" / f"{row:06d}.gif", frames)


def _write_sheet(
    journal: outputs.Journal,
    networks: losses.Networks,
    problem: optimization.Problem,
    prompt: str,
    count: int,
) -> pathlib.Path:
    """Sheet of the first latents before and after, from the files of the run."""
    render = jax.jit(problem.space.synthesize)
    rows = [
        np.asarray(render(networks.generator, journal.read(name, count)))
        for name in ("original", "edited")
    ]
    origins = [journal.lines[i] for i in range(len(rows[0]))]
    labels = [
        f"seed {o['seed']}" if "seed" in o else f"row {o['row']}" for o in origins
    ]
    sheet = images.grid(
        rows, row_labels=["original", "edited"], column_labels=labels, title=prompt
    )
    return images.save_sheet(journal.outdir / "grid.png", sheet)


def _report_failures(journal: outputs.Journal) -> int:
    failed = [line for line in journal.lines.values() if "failed_at" in line]
    for line in failed[:10]:
        print(
            f"failed: latent {line['index']}, the loss was not finite at step "
            f"{line['failed_at']}"
        )
    if failed:
        print(f"failed: {len(failed)} of {len(journal.lines)} latents")
    return cli.EXIT_FAILED_ITEMS if failed else 0


def entry() -> None:
    """The console script."""
    cli.run(main, VALUES)


if __name__ == "__main__":
    entry()
