"""styleclip-generate: sample images, or render latents.

styleclip-generate --seeds=0-15 --truncation_psi=0.7
styleclip-generate --latents=outputs/edit/edited.npy --images=npy

Writes under --outdir: w_plus.npy (styles.npz for S), images/, metrics.jsonl (a line per
image), grid.png and run.json. Started again with the same flags, it goes on where it
stopped. Several processes as with styleclip-edit. Exit code 1 says that some images are
not finite or could not be written.
"""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from styleclip_jax import latents, loading, parallel, progress
from styleclip_jax.batch import journal, stream
from styleclip_jax.batch.journal import Journal
from styleclip_jax.cli import latent_flags, processes, program
from styleclip_jax.io import checkpoints, files, images, latent_files
from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network

VALUES = flags.FlagValues()
latent_flags.define(VALUES)
journal.define(VALUES, outdir="outputs/generate", grid=16)
stream.define(VALUES)
flags.DEFINE_enum(
    "space",
    None,
    latent_files.SPACES,
    "Space of --latents; told by their shape if absent.",
    flag_values=VALUES,
)
flags.DEFINE_enum(
    "noise",
    "const",
    stylegan2.NOISES,
    "Noise of the layers: the stored one, a random one, or none.",
    flag_values=VALUES,
)
flags.DEFINE_integer("seed", 0, "Seed of --noise=random.", flag_values=VALUES)


_pack = jax.jit(latents.pack)


@functools.partial(jax.jit, static_argnames=("noise",))
def _render(
    generator: Network, latent: Any, keys: jax.Array, noise: stylegan2.Noise
) -> jax.Array:
    """Images [B, H, W, 3] of W+ or S, each with its own key."""
    synthesize = (
        stylegan2.synthesize_styles
        if isinstance(latent, tuple)
        else stylegan2.synthesize
    )

    def one(latent: Any, key: jax.Array) -> jax.Array:
        batch = jax.tree.map(lambda x: x[None], latent)
        return synthesize(
            generator.params, batch, config=generator.config, noise=noise, key=key
        )[0]

    return jax.vmap(one)(latent, keys)


def main(values: flags.FlagValues) -> int:
    """Renders every latent that is not rendered yet."""
    stream.check_batch_size(values)
    processes.connect(values)
    directory = loading.generator_directory(values.generator)
    mesh = parallel.make_mesh(jax.local_devices())
    generator = parallel.replicate(loading.load_generator(directory), mesh)
    config = generator.config
    source = latent_flags.read(
        values, generator, default_seeds="0-15", space=values.space
    )
    space = "s" if source.space == "s" else "w_plus"
    primary = jax.process_index() == 0
    if primary:
        print(
            f"generator: {directory}, {config.resolution}², {config.num_rows} rows of "
            f"W+\nlatents: {len(source)} in {source.space}"
        )
    name = "styles" if space == "s" else "w_plus"
    label = latent_flags.one_hot_label(values, config)
    keys = jax.random.split(jax.random.key(values.seed), len(source))
    render = functools.partial(_render, generator, noise=values.noise)

    def compute(
        latent: Any, rows: np.ndarray, variant: int, report: progress.Report
    ) -> stream.Outcome:
        image = render(latent, parallel.shard(keys[rows], mesh))
        finite = jnp.all(jnp.isfinite(image), axis=(1, 2, 3))
        report(1)
        failed_at = jnp.where(finite, -1, 0)
        return stream.Outcome(image, {name: _pack(latent)}, {}, failed_at)

    task = stream.Task(
        variants=1,
        prepare=functools.partial(
            latents.convert,
            generator,
            space=source.space,
            truncation_psi=source.truncation_psi,
            cutoff=source.truncation_cutoff,
            to=space,
            label=label,
        ),
        compute=compute,
        describe=lambda row, variant: source.origin(row),
        image_format=values.images,
        probe=lambda latent, rows: compute(latent, rows, 0, lambda count: None),
    )
    outdir, size = stream.begin(
        "styleclip-generate",
        values,
        functools.partial(_inputs, values, directory),
        functools.partial(stream.find_batch_size, source, task, mesh),
    )
    journal = Journal(outdir, len(source), space, config, [name], jax.process_index())
    total = stream.count_open(len(source), size, journal.done)
    with progress.bar(total, "image", shown=primary) as bar:
        failures = stream.run(task, source, journal, size, mesh, bar.update)
    if not stream.finish(journal):
        stream.report_unwritten(failures, journal)
        return program.EXIT_FAILED_ITEMS
    if primary:
        print(f"latents: {journal.paths[name]}")
    if primary and values.grid:
        shown = min(values.grid, len(source))
        pictures = np.asarray(render(journal.read(name, shown), keys[:shown]))
        print(f"sheet: {_write_sheet(outdir, pictures)}")
    return journal.report_failures(journal, "image", shown=primary)


def _inputs(values: flags.FlagValues, directory: pathlib.Path) -> dict[str, str]:
    """Hashes of what the run reads."""
    inputs = {"generator": checkpoints.fingerprint(directory)}
    if values.latents is not None:
        inputs["latents"] = files.hash_file(values.latents)
    return inputs


def _write_sheet(outdir: pathlib.Path, pictures: np.ndarray) -> pathlib.Path:
    columns = min(8, len(pictures))
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    return images.save_sheet(outdir / "grid.png", images.grid(rows))


def entry() -> None:
    """The console script."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
