"""A task that costs nothing, and its stream into a folder."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import parallel
from styleclip_jax.batch import stream
from styleclip_jax.batch.journal import Journal
from styleclip_jax.batch.source import LatentSource
from tests import tiny

COUNT, SIZE = 21, 2


def task(variants: int = 2) -> stream.Task:
    """Two cheap results for each latent."""

    @jax.jit
    def compute(latent: jax.Array, variant: jax.Array) -> stream.Outcome:
        mean = latent.mean(axis=(1, 2))
        image = jnp.tanh(mean)[:, None, None, None] * jnp.ones((8, 8, 3))
        failed_at = jnp.where(jnp.isfinite(mean), -1, 0)
        packed = {"original": latent, "edited": latent + variant}
        return stream.Outcome(image, packed, {"mean": mean}, failed_at)

    return stream.Task(
        variants=variants,
        prepare=lambda batch: batch,
        compute=lambda latent, rows, variant, report: compute(latent, variant),
        describe=lambda row, variant: {"row": row, "variant": variant},
        image_format="jpg",
        png_level=1,
        probe=lambda latent, rows: compute(latent, 0),
    )


def source(broken: int | None = None) -> LatentSource:
    """COUNT random latents, one of them maybe not finite."""
    array = np.random.RandomState(0).randn(COUNT, 4, 12).astype(np.float32)
    if broken is not None:
        array[broken] = np.nan
    config = tiny.GENERATOR
    layout = config.style_layout
    return LatentSource("w_plus", range(COUNT), array, layout, config.z_dim)


def stream_into(
    outdir: pathlib.Path, devices: int = 1, latents: LatentSource | None = None
) -> tuple[bool, stream.Failures]:
    """Whether everything is done, and what could not be written."""
    outdir.mkdir(exist_ok=True)
    work, latents = task(), latents or source()
    count = len(latents) * work.variants
    journal = Journal(outdir, count, "w_plus", tiny.GENERATOR)
    mesh = parallel.make_mesh(jax.devices()[:devices])
    failures = stream.run(work, latents, journal, SIZE, mesh, lambda count: None)
    return stream.finish(journal), failures
