"""Settings of measures: relevance of channels, evaluations, searches for directions."""

import dataclasses

from styleclip_jax import checks
from styleclip_jax.errors import UserError

METHODS = ("exact", "jacobian")

ROUNDINGS = ("torch", "tf", "none")

PATH_SPACES = ("w", "z")

PATH_SAMPLINGS = ("end", "full")


@dataclasses.dataclass(frozen=True)
class RelevanceConfig(checks.Config):
    """Settings of a measurement of relevance; the defaults are the official scripts'.

    Attributes:
      method: exact renders every channel at both ends; jacobian takes the derivative
        at the sample, at a small part of the cost.
      layers: layers to measure: all, resolutions such as 4-128 (the official torch
        script's), or names such as b8 or b8/conv0 with commas between. Never toRGB.
      num_samples: number of samples per channel.
      num_statistics: number of samples for the mean and deviation of every channel.
      strength: standard deviations to either side of the mean; exact alone.
      restore: put a channel back to the sample's own value after its turn, as the
        paper says. The official code does not: a channel that has had its turn stays
        at its mean for all later ones. Exact alone.
      rounding: rounding of images to 8 bits before CLIP: torch or tf as in the
        official scripts, or none. Exact alone.
      clip_resolution: let CLIP see the sum of the toRGB layers up to this resolution,
        where that is enough to see the channel; 0 for the whole image. Exact alone.
      truncation_psi: truncation of the samples.
      truncation_cutoff: number of W+ rows to truncate; from the number of rows on, all
        of them, as the official TensorFlow code does.
      seed: seed of the samples, NumPy's RandomState as in the official scripts.
    """

    method: str = "exact"
    layers: str = "all"
    num_samples: int = 100
    num_statistics: int = 100_000
    strength: float = 5.0
    restore: bool = False
    rounding: str = "torch"
    clip_resolution: int = 0
    truncation_psi: float = 0.7
    truncation_cutoff: int = 8
    seed: int = 5

    def __post_init__(self) -> None:
        checks.one_of(self, method=METHODS, rounding=ROUNDINGS)
        checks.at_least(self, 1, "num_samples")
        if self.num_statistics < max(2, self.num_samples):
            raise UserError(
                f"num_statistics must be at least 2 and num_samples "
                f"({self.num_samples}), found {self.num_statistics}",
                field="num_statistics",
            )
        if not 0 < self.strength < float("inf"):
            raise UserError(
                f"strength must be positive, found {self.strength}", field="strength"
            )
        resolution = self.clip_resolution
        if resolution and (resolution < 4 or resolution & (resolution - 1)):
            raise UserError(
                f"clip_resolution must be 0 or a power of two from 4 up, "
                f"found {resolution}",
                field="clip_resolution",
            )
        if resolution and self.method != "exact":
            raise UserError(
                f"clip_resolution needs method exact, found {self.method}",
                field="clip_resolution",
            )
        if not -4 <= self.truncation_psi <= 4:
            raise UserError(
                f"truncation_psi must be from -4 to 4, found {self.truncation_psi}",
                field="truncation_psi",
            )
        checks.at_least(self, 0, "truncation_cutoff")
        if not 0 <= self.seed < 2**32:
            raise UserError(
                f"seed must be from 0 to 2^32 - 1, found {self.seed}", field="seed"
            )


@dataclasses.dataclass(frozen=True)
class MeasureSettings:
    """File to write, and the comparison with another one.

    Attributes:
      output: File to write, .safetensors.
      batch_size: Images at a time, rounded up to a multiple of the devices.
      compare: File of relevance to report the agreement with.
      pairs: Pairs neutral:prompt to compare at, with commas between.
    """

    output: str | None = None
    batch_size: int = dataclasses.field(default=32, metadata={"lower_bound": 1})
    compare: str | None = None
    pairs: tuple[str, ...] = (
        "face:smiling face",
        "face with hair:face with blonde hair",
        "female face:male face",
        "face with eyes:face with blue eyes",
    )


TABLES = ("edits", "mapper_similarity")


@dataclasses.dataclass(frozen=True)
class EvaluationRequest:
    """Request for the tables of an evaluation.

    Attributes:
      edits: Folders of styleclip-edit, with commas between.
      target: Target that the judge looks for, as ATTRIBUTE:VALUE (hair_color:blonde);
        for drawn faces alone, such as the embedded generator's. One for all, for each
        folder, or for each prompt of each folder in order; an empty one asks for
        nothing.
      tables: Tables to make, of edits, mapper_similarity; edits if absent.
      mapper: Model directories of the mappers in the table mapper_similarity.
      eval_clip: CLIPs that score edits one after the other, a row each, in place of
        clip; best ones that no edit was made with.
      neutral: Text that edits lead away from; that of the edits, or "a face", if
        absent.
      pairs: File of pairs of texts, one a line with a | between, whose probabilities
        an edit should leave alone; for the disentanglement.
      zero_shot: File of texts, one a line, for zero-shot classification of images, or
        of originals and edits.
      images: Images, or folders of images, that are classified by zero_shot.
      outdir: Folder for the results.
      batch_size: Number of edits or images at a time, rounded up to a multiple of
        the devices.
      seed: Seed of the bootstrap and of the judge's random steps.
      lpips: Model directory of a VGG16 with the weights of LPIPS, which says how much
        of an image an edit changes.
      mask: Picture of the images' size, whose white part edits may change: LPIPS is
        measured outside of it as well.
    """

    edits: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    tables: tuple[str, ...] | None = None
    mapper: tuple[str, ...] = ()
    eval_clip: tuple[str, ...] = ()
    neutral: str | None = None
    pairs: str | None = None
    zero_shot: str | None = None
    images: tuple[str, ...] = ()
    outdir: str = "outputs/evaluate"
    batch_size: int = dataclasses.field(default=16, metadata={"lower_bound": 1})
    seed: int = dataclasses.field(default=0, metadata={"lower_bound": 0})
    lpips: str | None = None
    mask: str | None = None

    def __post_init__(self) -> None:
        wanted, tables = self.wanted, ", ".join(TABLES)
        if set(wanted) - set(TABLES) or self.tables == ():
            raise UserError(
                f"tables: expected some of {tables}, "
                f"found {','.join(wanted) or 'none'}",
                field="tables",
            )
        if "edits" in wanted and not self.edits:
            raise UserError(
                "edits: expected folders of styleclip-edit, found none", field="edits"
            )
        if "mapper_similarity" in wanted and not self.mapper:
            raise UserError(
                "mapper: expected mappers for their similarity, found none",
                field="mapper",
            )
        if self.mask is not None and self.lpips is None:
            raise UserError(
                "mask: expected lpips with a network that looks outside of it",
                field="mask",
                also=["lpips"],
            )
        if self.images and self.zero_shot is None:
            raise UserError(
                "images: expected zero_shot with texts to classify them by",
                field="images",
                also=["zero_shot"],
            )

    @property
    def wanted(self) -> tuple[str, ...]:
        """Tables to make."""
        if self.tables is not None:
            return self.tables
        return ("edits",) if self.edits or not self.images else ()


@dataclasses.dataclass(frozen=True)
class FindConfig(checks.Config):
    """Settings of a search for directions.

    Attributes:
      layers: Layers that directions move most: all, resolutions such as 4-16, or names
        such as b8 or b8/conv0 with commas between. What else reads their rows of W+
        moves too.
      num_components: Number of directions.
      alpha: Strength on the sheet and for the names, in standard deviations of w along
        the direction.
      seeds: Seeds of the faces that names are found on; the first are on the sheet.
      texts: File of texts to name directions by, one a line; common ones on
        portraits if absent.
      outdir: Folder for the results.
    """

    layers: str = "all"
    num_components: int = dataclasses.field(default=10, metadata={"lower_bound": 1})
    alpha: float = 2.0
    seeds: str = "0-15"
    texts: str | None = None
    outdir: str = "outputs/directions"

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "num_components")
        if not 0 < self.alpha < float("inf"):
            raise UserError(
                f"alpha: expected more than 0, found {self.alpha}", field="alpha"
            )


@dataclasses.dataclass(frozen=True)
class PathLengthConfig(checks.Config):
    """Settings of the perceptual path length; the defaults are official ppl2_wend's.

    Attributes:
      space: latents that paths lead through: w on straight lines, z on the sphere.
      sampling: end measures steps from the first end of each path, full from random
        points of it.
      crop: cut images to the face's middle, as the official FFHQ metric of 2019 did.
      epsilon: length of a step, as a share of its path.
      largest: resolution that larger images are averaged down to.
    """

    space: str = "w"
    sampling: str = "end"
    crop: bool = False
    epsilon: float = 1e-4
    largest: int = 256

    def __post_init__(self) -> None:
        checks.one_of(self, space=PATH_SPACES, sampling=PATH_SAMPLINGS)
        checks.at_least(self, 1, "largest")
        if not 0 < self.epsilon < 1:
            raise UserError(
                f"epsilon must be above 0 and below 1, found {self.epsilon}",
                field="epsilon",
            )
