"""Pictures of many latents: renders a source into the files of styleclip-generate."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import latents, parallel
from styleclip_jax.batch import runs, stream
from styleclip_jax.batch.editor import Outcome
from styleclip_jax.batch.source import SourceRequest
from styleclip_jax.io import images, latent_files
from styleclip_jax.loading import Models
from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.progress import Listener, Report, ignore

PROGRAM = "styleclip-generate"

_pack = jax.jit(latents.pack)


@functools.partial(jax.jit, static_argnames=("noise",))
def _render(
    generator: Network, latent: Any, keys: jax.Array, noise: stylegan2.Noise
) -> jax.Array:
    """Renders W+ or S as images [B, H, W, 3], each with its own key."""
    synthesize = (
        stylegan2.synthesize_styles
        if isinstance(latent, tuple)
        else stylegan2.synthesize
    )

    def one(latent: Any, key: jax.Array) -> jax.Array:
        batch = jax.tree.map(lambda x: x[None], latent)
        return synthesize(generator, batch, noise=noise, key=key)[0]

    return jax.vmap(one)(latent, keys)


@dataclasses.dataclass(frozen=True)
class PictureRequest:
    """Settings of pictures: space of the latents, and noise.

    Attributes:
      space: Latent space of the file of latents; told by their shape if absent.
      noise: Noise of the layers: the stored one (const), random, or none.
      seed: Seed of random noise.
    """

    space: str | None = dataclasses.field(
        default=None, metadata={"choices": latent_files.SPACES}
    )
    noise: stylegan2.Noise = dataclasses.field(
        default="const", metadata={"choices": stylegan2.NOISES}
    )
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Request:
    """Request for pictures of the latents of a source.

    Attributes:
      models: names of the networks; the generator is used.
      source: source of the latents.
      picture: settings of the pictures.
      output: files to write.
      settings: all of this by the names of the flags, for run.json.
    """

    models: Models
    source: SourceRequest
    picture: PictureRequest
    output: runs.Output
    settings: Mapping[str, Any]


def carry_out(request: Request, listener: Listener) -> runs.Summary:
    """Renders every latent that is not rendered yet, and writes the sheet.

    Args:
      request: pictures to render.
      listener: listener for the progress.

    Returns:
      Summary of the run.

    Raises:
      UserError: as in `runs.carry_out`, or the latents do not fit the generator.
    """
    models, output, picture = request.models, request.output, request.picture
    mesh = parallel.make_mesh(jax.local_devices())
    generator = models.load_generator()
    generator = parallel.replicate(generator, mesh)
    config = generator.config
    source = request.source.open(config, default_seeds="0-15", space=picture.space)
    listener.tell(
        f"generator: {models.generator_directory}, {config.resolution}², "
        f"{config.num_rows} rows of W+"
    )
    for line in source.describe():
        listener.tell(line)
    label = models.one_hot_label(config)
    space = "s" if source.space == "s" else "w_plus"
    name = "styles" if space == "s" else "w_plus"
    keys = jax.random.split(jax.random.key(picture.seed), len(source))
    render = functools.partial(_render, generator, noise=picture.noise)

    def noise_of(rows: np.ndarray) -> jax.Array:
        return parallel.shard(keys[rows], mesh)

    def compute(latent: Any, rows: np.ndarray, variant: int, report: Report) -> Outcome:
        image = render(latent, noise_of(rows))
        finite = jnp.all(jnp.isfinite(image), axis=(1, 2, 3))
        report(1)
        failed_at = jnp.where(finite, -1, 0)
        return Outcome(image, {name: _pack(latent)}, {}, failed_at)

    task = stream.Task(
        variants=1,
        prepare=functools.partial(source.convert, generator, to=space, label=label),
        compute=compute,
        describe=lambda row, variant: source.origin(row),
        image_format=output.images,
        png_level=output.png_level,
        probe=lambda latent, rows: compute(latent, rows, 0, ignore),
        memory=lambda latent, rows: parallel.bytes_needed(
            _render, generator, latent, noise_of(rows), noise=picture.noise
        ),
    )

    def inputs() -> dict[str, str]:
        found = models.fingerprints("generator")
        if request.source.latents is not None:
            found["latents"] = latent_files.hash_source(request.source.latents)
        return found

    work = runs.Work(
        program=PROGRAM,
        settings={**request.settings, **models.record()},
        inputs=inputs,
        output=output,
        source=source,
        task=task,
        space=space,
        names=(name,),
        steps=1,
        unit="image",
        result="image",
    )
    done = runs.carry_out(work, config, mesh, listener)
    if done.complete and jax.process_index() == 0:
        listener.tell(f"latents: {done.journal.paths[name]}")
        if output.grid:
            shown = min(output.grid, len(source))
            found = render(done.journal.read(name, shown), keys[:shown])
            sheet = images.grid(_rows(np.asarray(found)))
            path = images.save_sheet(done.journal.outdir / "grid.png", sheet)
            listener.tell(f"sheet: {path}")
    return done


def _rows(pictures: np.ndarray) -> list[np.ndarray]:
    columns = min(8, len(pictures))
    return [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
