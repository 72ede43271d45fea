"""Pictures of many latents: renders a source into the files of styleclip-generate."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import latents, parallel, traced
from styleclip_jax.batch import run_folder, runs, stream
from styleclip_jax.batch.arrangements import Arrangement, ArrangementRequest, Film
from styleclip_jax.batch.editor import Outcome, failures
from styleclip_jax.batch.journal import Kept
from styleclip_jax.batch.source import SourceRequest
from styleclip_jax.batch.tuned import Generators
from styleclip_jax.errors import UserError
from styleclip_jax.io import films, images, latent_files
from styleclip_jax.loading import Models
from styleclip_jax.models import generators
from styleclip_jax.models.network import Network
from styleclip_jax.progress import Listener, Report, ignore
from styleclip_jax.settings.latents import LEFT_OUT, Noise, PictureRequest

PROGRAM = "styleclip-generate"

_pack = jax.jit(latents.pack)


@functools.partial(jax.jit, static_argnames=("noise",))
@functools.partial(traced.keep, "pictures.render")
def render(
    generator: Network,
    latent: Any,
    keys: jax.Array,
    places: jax.Array | None = None,
    *,
    noise: Noise,
) -> jax.Array:
    """Renders W+ or S as images [B, H, W, 3], each with its own key.

    Args:
      generator: the generator.
      latent: [B, L, D] W+, or a tuple of [B, C] styles.
      keys: [B] keys of random noise.
      places: [B, 3, 3] transforms of the images, None for a generator's own.
      noise: the noise.
    """
    synthesize = (
        generators.synthesize_styles
        if isinstance(latent, tuple)
        else generators.synthesize
    )

    def one(latent: Any, key: jax.Array, place: jax.Array | None) -> jax.Array:
        batch = jax.tree.map(lambda x: x[None], latent)
        image = synthesize(generator, batch, noise=noise, key=key, transform=place)
        return image[0]

    return jax.vmap(one)(latent, keys, places)


@dataclasses.dataclass(frozen=True)
class Request:
    """Request for pictures of the latents of a source.

    Attributes:
      models: names of the networks; the generator is used.
      source: source of the latents.
      picture: settings of the pictures.
      arrangement: latents that are derived from them, in sheets and films.
      output: files to write.
      settings: all of this by the names of the flags, for run.json.
      tuned: folder of tuned generators, see `TunedSettings`.
    """

    models: Models
    source: SourceRequest
    picture: PictureRequest
    arrangement: ArrangementRequest
    output: runs.Output
    settings: Mapping[str, Any]
    tuned: str | None = None


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
    label = models.one_hot_label(config)
    arrangement = request.arrangement.open(
        request.source,
        generator,
        default_seeds="0-15",
        space=picture.space,
        label=label,
    )
    source = arrangement.source
    listener.tell(models.describe_generator(config))
    for line in source.describe():
        listener.tell(line)
    tuned = _open_tuned(request, arrangement, generator, mesh)
    for line in tuned.describe():
        listener.tell(line)
    space = "s" if source.space == "s" else "w_plus"
    name = "styles" if space == "s" else "w_plus"
    # Derived latents share a key, so that they alone make the difference.
    num_keys = 1 if arrangement.cells else len(source)
    keys = jax.random.split(jax.random.key(picture.seed), num_keys)
    draw_image = functools.partial(render, noise=picture.noise)
    places = _places(picture, config, arrangement.film)

    def drawn(rows: np.ndarray) -> list[jax.Array]:
        """Keys of the noise of some latents, and transforms if there are any."""
        found = [latents.take(keys, rows % num_keys)]
        if places is not None:
            num_films = arrangement.film.num_films if arrangement.film else 1
            found.append(jnp.asarray(places[rows // num_films % len(places)]))
        return [parallel.shard(x, mesh) for x in found]

    def draw_all(latent: Any, rows: np.ndarray) -> jax.Array:
        def one(generator: Network, batch: Any) -> jax.Array:
            return draw_image(generator, *batch)

        return tuned.each(one, (latent, *drawn(rows)), rows)

    def compute(latent: Any, rows: np.ndarray, variant: int, report: Report) -> Outcome:
        image = draw_all(latent, rows)
        report(1)
        return Outcome(image, {name: _pack(latent)}, {}, failures(image, -1, 0))

    prepare = functools.partial(source.convert, generator, to=space, label=label)
    task = stream.Task(
        variants=1,
        prepare=prepare,
        compute=compute,
        describe=lambda row, variant: source.origin(row),
        image_format=output.images,
        png_level=output.png_level,
        probe=lambda latent, rows: compute(latent, rows, 0, ignore),
        memory=lambda latent, rows: parallel.bytes_needed(
            render, generator, latent, *drawn(rows), noise=picture.noise
        ),
    )

    def inputs() -> dict[str, str]:
        found = models.fingerprints("generator")
        if request.source.latents is not None:
            found["latents"] = latent_files.hash_source(request.source.latents)
        return found | tuned.inputs

    work = runs.Work(
        program=PROGRAM,
        settings={**request.settings, **models.record()},
        inputs=inputs,
        output=output,
        source=source,
        task=task,
        kept=Kept.latents(space, config, (name,)),
        steps=1,
        unit="image",
        result="image",
        quicker="batch_size=auto, images=jpg or tar, or several processes",
    )
    with run_folder.only_run(output.outdir, listener.tell):
        done = runs.carry_out(work, mesh, listener)
        if done.complete and jax.process_index() == 0:
            listener.tell(f"latents: {done.journal.paths[name]}")
            outdir = done.journal.outdir

            def draw(rows: np.ndarray) -> np.ndarray:
                latent = prepare(parallel.shard(source.load(rows), mesh))
                return np.asarray(stream.to_uint8(draw_all(latent, rows)))

            show = functools.partial(_show, outdir, draw, done.size * mesh.size)
            if output.grid:
                if arrangement.cells:
                    sheet = _arrange(arrangement, output.grid, show)
                else:
                    shown = min(output.grid, len(source))
                    found = np.stack([*show(np.arange(shown))])
                    sheet = images.grid(_rows(found))
                path = images.save_sheet(outdir / "grid.png", sheet)
                listener.tell(f"sheet: {path}")
            if arrangement.film:
                path = _write_film(outdir, arrangement.film, show)
                listener.tell(f"film: {path}")
    return done


def _open_tuned(
    request: Request, arrangement: Arrangement, generator: Network, mesh: Any
) -> Generators:
    """Generators of the latents; those of sheets and films are not tuned.

    Raises:
      UserError: as of `Generators.open`, or tuned ones are asked for by name with
        derived latents.
    """
    source, asked = request.source, request.tuned
    if arrangement.cells or arrangement.film:
        if asked not in (None, LEFT_OUT):
            raise UserError(
                "tuned: mixed and interpolated latents have no tuned generator, "
                f"expected {LEFT_OUT}",
                field="tuned",
            )
        asked = LEFT_OUT
    about = (asked, source.latents, len(arrangement.source))
    return Generators.open(request.models, generator, mesh, *about)


def _places(
    picture: PictureRequest, config: generators.GeneratorConfig, film: Film | None
) -> np.ndarray | None:
    """Transforms [T, 3, 3] of the frames of a film, or of all images; None for none.

    Raises:
      UserError: the generator has no transform, or there are several without a film.
    """
    if not picture.is_placed:
        return None
    name = "rotate" if picture.translate is None else "translate"
    if not config.has_transform:
        raise UserError(
            f"{name}: expected a generator that places its images, a StyleGAN3, found "
            "one that does not",
            field=name,
        )
    angles = np.array(picture.rotate or (0,))
    shifts = np.array(picture.translate or (0, 0)).reshape(-1, 2)
    if film is None and max(len(angles), len(shifts)) > 1:
        raise UserError(
            f"{name}: expected one place of all images, or interpolate beside it for a "
            "film, found several",
            field=name,
            also=["interpolate"],
        )
    time = np.linspace(0, 1, 1 if film is None else film.num_frames)

    def over_time(values: np.ndarray) -> jax.Array:
        return jnp.asarray(np.interp(time, np.linspace(0, 1, len(values)), values))

    paths = over_time(angles), (over_time(shifts[:, 0]), over_time(shifts[:, 1]))
    return np.asarray(jax.vmap(generators.placing)(*paths))


def _rows(pictures: np.ndarray) -> list[np.ndarray]:
    columns = min(8, len(pictures))
    return [pictures[i : i + columns] for i in range(0, len(pictures), columns)]


def _show(
    outdir: pathlib.Path,
    draw: Callable[[np.ndarray], np.ndarray],
    size: int,
    rows: np.ndarray,
) -> Iterator[np.ndarray]:
    """Images [H, W, 3] of 8 bits of some latents, of which a batch is in memory.

    Args:
      outdir: folder of the run; what it has as PNG is read.
      draw: (rows [B]) → images of 8 bits, [B, H, W, 3].
      size: number B of latents that are drawn at a time.
      rows: numbers of the latents.
    """
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        paths = [outdir / "images" / f"{row:06d}.png" for row in batch]
        if all(path.is_file() for path in paths):
            yield from map(images.read, paths)
        else:
            yield from draw(parallel.pad(batch, size))[: len(batch)]


def _arrange(
    arrangement: Arrangement,
    count: int,
    show: Callable[[np.ndarray], Iterator[np.ndarray]],
) -> Any:
    """Sheet of the first rows of an arrangement, besides those that begin empty."""
    heads = sum(row[0] < 0 for row in arrangement.cells)
    cells = arrangement.cells[: heads + count]
    wanted = np.array([cell for row in cells for cell in row if cell >= 0])
    found = show(wanted)
    return images.grid(
        [["" if cell < 0 else next(found) for cell in row] for row in cells],
        row_labels=arrangement.row_labels[: len(cells)],
        column_labels=arrangement.column_labels,
        title=arrangement.title,
    )


def _write_film(
    outdir: pathlib.Path,
    film: Film,
    show: Callable[[np.ndarray], Iterator[np.ndarray]],
) -> pathlib.Path:
    """Writes the film, unless it is there: films side by side, as square as may be."""
    path = outdir / f"film.{film.format}"
    if path.exists():
        return path
    columns = math.ceil(math.sqrt(film.num_films))
    pictures = show(np.arange(film.num_frames * film.num_films))
    # As many in turn from one iterator.
    frames = zip(*[pictures] * film.num_films, strict=True)
    tiled = (_side_by_side(frame, columns) for frame in frames)
    films.FORMATS[film.format](path, tiled, film.fps)
    return path


def _side_by_side(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Image of several [H, W, 3] uint8 in rows; what is left of the last is white."""
    empty = [np.full_like(pictures[0], 255)] * (-len(pictures) % columns)
    cells = [*pictures, *empty]
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])
