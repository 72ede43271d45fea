"""Arrangements of latents derived from a few: mixed styles, truncations, and films."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import blends, latents, spaces
from styleclip_jax.batch import result_lines
from styleclip_jax.batch.source import (
    DerivedSource,
    LatentSource,
    SourceRequest,
    parse_seeds,
)
from styleclip_jax.errors import UserError
from styleclip_jax.io import films
from styleclip_jax.models import generators
from styleclip_jax.settings.latents import (
    FILM_SPACES,
    SPACES,
    ArrangementSettings,
    FilmSettings,
)

# Seeds where nothing is said: a film's, and a sweep's.
_FILM_SEEDS, _SWEEP_SEEDS = "0-7", "0-3"
# Rows of W+ that come from the column, as in NVIDIA's tool: 7 of the 18 at 1024².
_MIXED, _OF_ALL = 7, 18
# Frames of a film on the sheet, for each pair of latents.
_SHOWN = 8
# Pixels of a film as GIF, which is in memory as a whole: some gigabytes.
_GIF_PIXELS = 2**29


@dataclasses.dataclass(frozen=True)
class ArrangementRequest(ArrangementSettings):
    """Latents derived from those of the source, which open by their settings."""

    def open(
        self,
        request: SourceRequest,
        generator: generators.Generator,
        *,
        default_seeds: str,
        space: str | None,
        label: jax.Array | None,
    ) -> "Arrangement":
        """Opens the source, and derives from it what is asked for.

        Args:
          request: source of the latents.
          generator: the generator, on its devices.
          default_seeds: seeds of plain pictures, where there are none.
          space: latent space of the file; None tells it by the shape.
          label: [c_dim] one-hot class, None for an unconditional generator.

        Raises:
          UserError: the source does not fit the generator, or what is asked for.
        """
        rows: list[int] = []
        cols: list[int] = []
        if self.rows is not None and self.cols is not None:
            rows, cols = parse_seeds(self.rows, "rows"), parse_seeds(self.cols, "cols")
            if request.seeds is not None:
                raise UserError(
                    "seeds: expected none beside rows and cols, which are seeds, found "
                    f"{request.seeds}",
                    field="seeds",
                )
            default_seeds = ",".join(map(str, rows + cols))
        elif self.truncation_sweep is not None:
            default_seeds = _SWEEP_SEEDS
        elif self.interpolate is not None:
            default_seeds = _FILM_SEEDS
        source = request.open(
            generator.config, default_seeds=default_seeds, space=space
        )
        if rows:
            return _mix(rows, cols, self.styles, source, generator, label)
        found = Arrangement(source)
        if self.truncation_sweep is not None:
            found = _sweep(self.truncation_sweep, source, generator, label)
        if self.interpolate is not None:
            film = self.film
            if self.truncation_sweep is not None:
                film = film._replace(num_films=len(source))
            found = _film(self.interpolate, film, found.source, generator, label)
        return found


class Film(NamedTuple):
    """Film of an arrangement.

    Attributes:
      format: of `films.FORMATS`.
      num_frames: number of frames.
      num_films: number of films side by side: frame i shows the latents from i times
        this number on.
      fps: frames per second.
    """

    format: str
    num_frames: int
    num_films: int
    fps: int


class Arrangement(NamedTuple):
    """Arrangement of latents: their source, and their places on a sheet and in a film.

    Attributes:
      source: source of the latents.
      cells: for each row of the sheet the numbers of its latents, -1 where there is
        none; no rows for latents that stand for themselves.
      row_labels: caption left of each row.
      column_labels: caption above each column.
      title: caption of the sheet.
      film: the film, if one is asked for.
    """

    source: LatentSource
    cells: Sequence[Sequence[int]] = ()
    row_labels: Sequence[str] = ()
    column_labels: Sequence[str] = ()
    title: str = ""
    film: Film | None = None


def _derived(
    source: LatentSource, space: str, unit: str, names: Sequence[str], **functions: Any
) -> DerivedSource:
    """Source of latents derived from those of another, which has the settings."""
    return DerivedSource(
        space=space,
        origins=range(len(names)),
        array=None,
        layout=source.layout,
        z_dim=source.z_dim,
        truncation_psi=source.truncation_psi,
        truncation_cutoff=source.truncation_cutoff,
        unit=unit,
        names=tuple(names),
        notes=source.notes,
        **functions,
    )


def _names(source: LatentSource) -> list[str]:
    return [result_lines.name(source.origin(row)) for row in range(len(source))]


def _refuse_styles(source: LatentSource, field: str) -> None:
    """Refuses latents in S, for what happens in W+."""
    if source.space == "s":
        raise UserError(
            f"{field}: expected latents in z, w or w_plus, found s", field=field
        )


def _mix(
    rows: Sequence[int],
    cols: Sequence[int],
    text: str | None,
    source: LatentSource,
    generator: generators.Generator,
    label: jax.Array | None,
) -> Arrangement:
    """Sheet of mixed styles: the rows' latents with rows of W+ of the columns'.

    Args:
      rows, cols: numbers of latents in the file, or the seeds that the source is of.
      text: rows of W+ that come from the column; None for the usual share.
      source, generator, label: as in `ArrangementRequest.open`.
    """
    _refuse_styles(source, "rows")
    picked = list(range(len(source)))
    if source.array is not None:
        for field, numbers in (("rows", rows), ("cols", cols)):
            if max(numbers) >= len(source):
                raise UserError(
                    f"{field}: expected 0 to {len(source) - 1} of this file, found "
                    f"{max(numbers)}",
                    field=field,
                )
        picked = [*rows, *cols]
    names = [result_lines.name(source.origin(number)) for number in picked]
    num_rows = generator.config.num_rows
    if text is None:
        text = f"0-{max(1, _MIXED * num_rows // _OF_ALL) - 1}"
    styles = parse_seeds(text, "styles")
    if max(styles) >= num_rows:
        raise UserError(
            f"styles: expected 0 to {num_rows - 1}, the rows of W+ of this generator, "
            f"found {max(styles)}",
            field="styles",
        )
    chosen = np.isin(np.arange(num_rows), styles)
    known = source.convert(
        generator, source.load(np.array(picked)), to="w_plus", label=label
    )
    # The latents of the margins come first, each mixed with itself.
    of_row, of_col = np.arange(len(rows)), len(rows) + np.arange(len(cols))
    margins = np.arange(len(picked))
    first = np.concatenate([margins, np.repeat(of_row, len(cols))])
    second = np.concatenate([margins, np.tile(of_col, len(rows))])
    named = [f"{names[i]} + {names[j]}" for i in of_row for j in of_col]
    grid = len(picked) + np.arange(len(rows) * len(cols)).reshape(len(rows), -1)
    return Arrangement(
        _derived(
            source,
            "w_plus",
            "cell",
            [*names, *named],
            fetch=lambda rows: (first[rows], second[rows]),
            derive=functools.partial(_mixed, known, chosen),
        ),
        cells=[[-1, *of_col], *([i, *grid[i]] for i in of_row)],
        row_labels=["", *names[: len(rows)]],
        column_labels=["", *names[len(rows) :]],
        title=f"rows {text} of W+ from the column",
    )


@jax.jit
def _mixed(known: jax.Array, chosen: jax.Array, pair: Any) -> jax.Array:
    first, second = pair
    return blends.mix(known[first], known[second], chosen)


def _sweep(
    sweep: Sequence[float],
    source: LatentSource,
    generator: generators.Generator,
    label: jax.Array | None,
) -> Arrangement:
    """Sheet of truncations: a row per latent, a column per truncation."""
    _refuse_styles(source, "truncation_sweep")
    psi = np.array(sweep, np.float32)

    def fetch(rows: np.ndarray) -> Any:
        return source.load(rows // len(psi)), psi[rows % len(psi), None, None]

    def derive(fetched: Any) -> jax.Array:
        latent, psi = fetched
        cutoff = source.truncation_cutoff
        if source.space == "w_plus":
            w_avg = generator.params["mapping"]["w_avg"]
            return _truncate(latent, w_avg, psi, cutoff)
        return latents.convert(
            generator,
            latent,
            space=source.space,
            truncation_psi=psi,
            cutoff=cutoff,
            to="w_plus",
            label=label,
        )

    names, labels = _names(source), [f"psi {value:g}" for value in sweep]
    return Arrangement(
        _derived(
            source,
            "w_plus",
            "cell",
            [f"{name}, {label}" for name in names for label in labels],
            fetch=fetch,
            derive=derive,
        ),
        cells=np.arange(len(names) * len(psi)).reshape(len(names), -1).tolist(),
        row_labels=names,
        column_labels=labels,
        title="truncation",
    )


_truncate = jax.jit(spaces.truncate, static_argnames="cutoff")


def _film(
    interpolate: str,
    settings: FilmSettings,
    source: LatentSource,
    generator: generators.Generator,
    label: jax.Array | None,
) -> Arrangement:
    """Films through the latents, with frames of each pair on the sheet."""
    space, num_films = FILM_SPACES[interpolate], settings.num_films
    above = SPACES[: SPACES.index(space) + 1]
    if source.space not in above:
        raise UserError(
            f"interpolate: expected latents in {' or '.join(above)} for a film in "
            f"{interpolate}, found {source.space}",
            field="interpolate",
        )
    count, rest = divmod(len(source), num_films)
    if rest or count < 2:
        raise UserError(
            f"interpolate: expected 2 latents or more for a film, and as many for each "
            f"of {num_films}, found {len(source)}",
            field="interpolate",
        )
    between = settings.frames
    num_frames = count * between if settings.loop else (count - 1) * between + 1
    num_pixels = num_frames * num_films * math.prod(generator.config.image_shape)
    if settings.film_format == "gif" and num_pixels > _GIF_PIXELS:
        raise UserError(
            f"film_format: expected mp4 for {num_frames} frames of {num_films} × "
            f"{generator.config.size_text}, found gif",
            field="film_format",
        )
    films.require(settings.film_format)
    batch = source.load(np.arange(len(source)))
    if space != "z":
        batch = source.convert(generator, batch, to=space, label=label)
    known = jnp.asarray(latents.pack(batch))
    # [K, films, …]: all films pass their keyframes at the same time.
    keyframes = jnp.swapaxes(known.reshape(num_films, count, *known.shape[1:]), 0, 1)

    def fetch(rows: np.ndarray) -> Any:
        position = rows // num_films / between
        return position.astype(np.float32), rows % num_films

    def derive(fetched: Any) -> Any:
        found = _points(keyframes, *fetched, curve=settings.curve, closed=settings.loop)
        return spaces.unflatten_styles(found, source.layout) if space == "s" else found

    names = _names(source)
    pairs = count if settings.loop else count - 1

    def ends(film: int, pair: int) -> tuple[str, str]:
        first = film * count
        return names[first + pair], names[first + (pair + 1) % count]

    def name(frame: int, film: int) -> str:
        pair, step = divmod(frame, between)
        if not step:
            return names[film * count + pair]
        return "{} to {}, {:.2f}".format(*ends(film, pair), step / between)

    shown = min(_SHOWN, between + 1)
    steps = np.rint(np.linspace(0, between, shown)).astype(int)
    places = [(film, pair) for film in range(num_films) for pair in range(pairs)]
    return Arrangement(
        _derived(
            source,
            space,
            "frame",
            [name(t, film) for t in range(num_frames) for film in range(num_films)],
            fetch=fetch,
            derive=derive,
        ),
        cells=[
            [(pair * between + t) % num_frames * num_films + film for t in steps]
            for film, pair in places
        ],
        row_labels=[" to ".join(ends(*place)) for place in places],
        title=f"{settings.curve} in {interpolate}",
        film=Film(settings.film_format, num_frames, num_films, settings.fps),
    )


@functools.partial(jax.jit, static_argnames=("curve", "closed"))
def _points(
    keyframes: jax.Array,
    position: jax.Array,
    film: jax.Array,
    *,
    curve: str,
    closed: bool,
) -> jax.Array:
    """Points [B, …] of films, by their positions and the numbers of the films, [B]."""

    def one(position: jax.Array, film: jax.Array) -> jax.Array:
        found = blends.interpolate(keyframes, position, curve=curve, closed=closed)
        return found[film]

    return jax.vmap(one)(position, film)
