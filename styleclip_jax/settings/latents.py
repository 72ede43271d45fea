"""Settings of the latents of a run: their source, pictures, sheets and films."""

import dataclasses
import math
from typing import Literal, NamedTuple

from styleclip_jax import checks
from styleclip_jax.errors import UserError
from styleclip_jax.settings.output import FILM_FORMATS

# Spaces of latents, each of which comes of those before it.
SPACES = ("z", "w", "w_plus", "s")
# Spaces that edits move in.
EDIT_SPACES = ("w_plus", "s")
Noise = Literal["const", "random", "none", "moving"]
# Noises of pictures; a "moving" one is of use to gradients alone.
NOISES: tuple[Noise, ...] = ("const", "random", "none")
# Paths of films.
CURVES = ("spline", "linear", "spherical")


@dataclasses.dataclass(frozen=True)
class SourceSettings:
    """Source of the latents of a run: seeds or a file, and their truncation.

    Attributes:
      seeds: Seeds of random latents, such as 0-15 or 1,5,8-11; drawn as in
        stylegan2-ada-pytorch.
      latents: File of latents instead of seeds: an array, or what tools of inversion
        write (.npy, .npz, .safetensors, .pt), or a folder of these.
      truncation_psi: Truncation of z and w: 1 is none, 0 the average.
      truncation_cutoff: Number of leading rows that are truncated; all if absent.
    """

    seeds: str | None = None
    latents: str | None = None
    truncation_psi: float = 0.7
    truncation_cutoff: int | None = None

    def __post_init__(self) -> None:
        if self.seeds is not None and self.latents is not None:
            raise UserError(
                "seeds and latents: expected one of them, found both",
                field="seeds",
                also=["latents"],
            )
        if not -4 <= self.truncation_psi <= 4:
            raise UserError(
                f"truncation_psi: expected -4 to 4, found {self.truncation_psi}",
                field="truncation_psi",
            )
        cutoff = self.truncation_cutoff
        if cutoff is not None and cutoff < 0:
            raise UserError(
                f"truncation_cutoff: expected at least 0, found {cutoff}",
                field="truncation_cutoff",
            )


# Value of `TunedSettings.tuned` for none.
LEFT_OUT = "none"


@dataclasses.dataclass(frozen=True)
class TunedSettings:
    """Generators that were tuned to the photos of the latents.

    Attributes:
      tuned: Folder of generators tuned to each latent's photo by styleclip-invert; that
        beside its latents if absent, and none to leave them out.
    """

    tuned: str | None = None


@dataclasses.dataclass(frozen=True)
class PictureRequest:
    """Settings of pictures: space of the latents, and noise.

    Attributes:
      space: Latent space of the file of latents; told by their shape if absent.
      noise: Noise of the layers: the stored one (const), random, or none.
      seed: Seed of random noise.
      rotate: Angle in degrees by which a StyleGAN3 turns its images; of a film several,
        such as 0,360, which it passes evenly.
      translate: Way to the right and down that a StyleGAN3 moves its images by, in
        widths, such as 0.1,0; of a film several, such as 0,0,0.5,0.
    """

    space: str | None = dataclasses.field(default=None, metadata={"choices": SPACES})
    noise: Noise = dataclasses.field(default="const", metadata={"choices": NOISES})
    seed: int = 0
    rotate: tuple[float, ...] | None = None
    translate: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name, count in (("rotate", 1), ("translate", 2)):
            found = getattr(self, name)
            if found is None:
                continue
            if not found or len(found) % count or not all(map(math.isfinite, found)):
                shown = ",".join(f"{x:g}" for x in found) or "none"
                expected = "numbers" if count == 1 else "pairs of numbers"
                raise UserError(
                    f"{name}: expected finite {expected}, found {shown}", field=name
                )

    @property
    def is_placed(self) -> bool:
        """Whether images are rotated or translated."""
        return self.rotate is not None or self.translate is not None


# Spaces of films, and that of their frames' latents.
FILM_SPACES = {"z": "z", "w": "w_plus", "s": "s"}

# Fastest that GIFs are played.
_GIF_FPS = 50


class FilmSettings(NamedTuple):
    """Settings of a film, none of them absent."""

    curve: str = "spline"
    frames: int = 25
    loop: bool = True
    num_films: int = 1
    film_format: str = "gif"
    fps: int = 25


_FILM_FIELDS = FilmSettings._fields


@dataclasses.dataclass(frozen=True)
class ArrangementSettings:
    """Latents derived from those of the source, in sheets and films.

    Attributes:
      rows: Seeds of the rows of a sheet of mixed styles, such as 85,100; numbers of
        latents in the file, if there is one.
      cols: Seeds of its columns, such as 55,821, or numbers of latents as well.
      styles: Rows of W+ that a mixed latent takes from its column, such as 0-6; if
        absent the first 7 of 18, or as large a share.
      truncation_sweep: Truncations of a sheet, such as -1,0,0.7,1, in place of
        truncation_psi; a column each.
      interpolate: Space of a film through the latents; w takes latents in W+ as well.
      curve: Path of the film; spline if absent, spherical for z alone.
      frames: Number of frames from one latent to the next; 25 if absent.
      loop: Whether the film returns to its first latent; it does if absent.
      num_films: Number of paths side by side, among which the latents are shared out in
        their order; 1 if absent. Each latent of a sweep has one.
      film_format: Format of the film; gif if absent, mp4 needs the extra film.
      fps: Frames per second; 25 if absent.
    """

    rows: str | None = None
    cols: str | None = None
    styles: str | None = None
    truncation_sweep: tuple[float, ...] | None = None
    interpolate: str | None = dataclasses.field(
        default=None, metadata={"choices": tuple(FILM_SPACES)}
    )
    curve: str | None = dataclasses.field(default=None, metadata={"choices": CURVES})
    frames: int | None = None
    loop: bool | None = None
    num_films: int | None = None
    film_format: str | None = dataclasses.field(
        default=None, metadata={"choices": FILM_FORMATS}
    )
    fps: int | None = None

    def __post_init__(self) -> None:
        for name, other in (("rows", "cols"), ("cols", "rows"), ("styles", "rows")):
            if getattr(self, name) is not None and getattr(self, other) is None:
                raise _wants(name, other)
        for name in ("truncation_sweep", "interpolate"):
            if self.rows is not None and getattr(self, name) is not None:
                raise UserError(
                    f"rows: expected no {name} beside mixed styles, found both",
                    field="rows",
                    also=[name],
                )
        given = {n for n in _FILM_FIELDS if getattr(self, n) is not None}
        if self.interpolate is None and given:
            raise _wants(min(given), "interpolate")
        if self.interpolate is not None:
            checks.one_of(self, interpolate=FILM_SPACES)
            self._check_film()
        if self.truncation_sweep is not None:
            self._check_sweep()

    def _check_film(self) -> None:
        film = self.film
        checks.one_of(film, curve=CURVES, film_format=FILM_FORMATS)
        checks.at_least(film, 1, "frames", "num_films", "fps")
        if film.curve == "spherical" and self.interpolate != "z":
            raise UserError(
                f"curve: expected spline or linear in {self.interpolate}, found "
                "spherical, which is for z",
                field="curve",
            )
        if film.film_format == "gif" and film.fps > _GIF_FPS:
            raise UserError(
                f"fps: expected at most {_GIF_FPS} of a gif, found {film.fps}",
                field="fps",
            )
        if self.truncation_sweep is not None and self.num_films is not None:
            raise UserError(
                "num_films: expected none beside truncation_sweep, whose latents have "
                f"a film each, found {self.num_films}",
                field="num_films",
                also=["truncation_sweep"],
            )

    def _check_sweep(self) -> None:
        sweep = self.truncation_sweep or ()
        if not sweep or not all(-4 <= psi <= 4 for psi in sweep):
            found = ",".join(f"{psi:g}" for psi in sweep) or "none"
            raise UserError(
                f"truncation_sweep: expected numbers from -4 to 4, found {found}",
                field="truncation_sweep",
            )

    @property
    def film(self) -> FilmSettings:
        """Settings of the film, with the defaults of what is absent."""
        given = {n: getattr(self, n) for n in _FILM_FIELDS}
        return FilmSettings(**{n: x for n, x in given.items() if x is not None})


def _wants(field: str, other: str) -> UserError:
    """Error of a field that means something beside another alone."""
    return UserError(
        f"{field}: expected {other} beside it, found {field} alone",
        field=field,
        also=[other],
    )


@dataclasses.dataclass(frozen=True)
class DataRequest:
    """Latents to train on.

    Attributes:
      latents: File of latents (.npy, .npz, .safetensors); sampled if absent.
      validation_latents: File of latents held out.
      truncation_psi: Truncation of z and w.
    """

    latents: str | None = None
    validation_latents: str | None = None
    truncation_psi: float = 0.7
