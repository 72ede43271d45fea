"""styleclip-generate: sample images, or render latents.

styleclip-generate --seeds=0-15 --truncation_psi=0.7
styleclip-generate --latents=outputs/edit/edited.npy --images=npy
"""

import functools
import pathlib
from typing import Any

import jax
import numpy as np
from absl import flags

from styleclip_jax import assets, parallel
from styleclip_jax.cli import flags as cli
from styleclip_jax.cli import latents as cli_latents
from styleclip_jax.cli import outputs
from styleclip_jax.io import checkpoints, files, images, latents
from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network

VALUES = flags.FlagValues()
cli_latents.define(VALUES)
outputs.define(VALUES, outdir="outputs/generate", grid=16)
flags.DEFINE_enum(
    "space",
    None,
    latents.SPACES,
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


def main(values: flags.FlagValues) -> None:
    """Renders every latent and writes latents, images, a sheet and run.json."""
    directory = assets.generator_directory(values.generator)
    generator = assets.load_generator(directory)
    config = generator.config
    source = cli_latents.read(
        values, generator, default_seeds="0-15", space=values.space
    )
    space = "s" if source.latents.space == "s" else "w_plus"
    print(
        f"generator: {directory}, {config.resolution}², {config.num_rows} rows of W+\n"
        f"latents: {len(source)} in {source.latents.space}"
    )
    inputs = {"generator": checkpoints.fingerprint(directory)}
    if values.latents is not None:
        inputs["latents"] = files.hash_file(values.latents)
    label = cli_latents.one_hot_label(values, config)
    outdir = outputs.begin("styleclip-generate", values, inputs)

    mesh = parallel.make_mesh()
    generator = parallel.replicate(generator, mesh)
    keys = jax.random.split(jax.random.key(values.seed), len(source))
    kept: list[np.ndarray] = []
    sheet: list[np.ndarray] = []
    with (
        images.Writer() as writer,
        cli.progress(len(source), "image") as progress,
    ):
        for rows, batch in cli_latents.batches(source, config, values.batch_size, mesh):
            latent = cli_latents.convert(
                generator,
                batch,
                space=source.latents.space,
                truncation_psi=source.truncation_psi,
                cutoff=source.truncation_cutoff,
                to=space,
                label=label,
            )
            padded = parallel.pad(np.asarray(rows), len(jax.tree.leaves(batch)[0]))
            batch_keys = parallel.shard(keys[padded], mesh)
            image = np.asarray(_render(generator, latent, batch_keys, values.noise))
            kept.append(cli_latents.pack(latent)[: len(rows)])
            for row, picture in zip(rows, image, strict=False):
                if row < values.grid:
                    sheet.append(picture)
                if values.images != "none":
                    name = f"{row:06d}.{values.images}"
                    writer.submit(outdir / "images" / name, picture)
            progress.update(len(rows))
    path = outdir / ("styles.npz" if space == "s" else "w_plus.npy")
    latents.write(
        path, latents.Latents(np.concatenate(kept), space), config.style_layout
    )
    print(f"latents: {path}")
    if sheet:
        print(f"sheet: {_write_sheet(outdir, sheet)}")


def _write_sheet(outdir: pathlib.Path, pictures: list[np.ndarray]) -> pathlib.Path:
    columns = min(8, len(pictures))
    rows = [
        np.stack(pictures[i : i + columns]) for i in range(0, len(pictures), columns)
    ]
    return images.save_sheet(outdir / "grid.png", images.grid(rows))


def entry() -> None:
    """The console script."""
    cli.run(main, VALUES)


if __name__ == "__main__":
    entry()
