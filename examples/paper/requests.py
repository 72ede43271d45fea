"""Request of a run: what to make, of which networks and faces."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from styleclip_jax import checks
from styleclip_jax.batch.source import SourceRequest
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files, text_files
from styleclip_jax.loading import Models

# Rows of the table of trainings.
ABLATIONS = ("full", "without_paths", "not_lazy", "without_ada", "small", "large")


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A text with the weights of its optimization.

    Attributes:
      text: the prompt.
      l2_lambda: weight of the distance to the source latent.
      id_lambda: weight of the distance to the source's identity.
    """

    text: str
    l2_lambda: float
    id_lambda: float


@dataclasses.dataclass(frozen=True)
class Content:
    """Content of the tables and figures.

    Attributes:
      prompts: Texts, with commas between; Figures 6 and 24 show the first.
      l2_lambda: Weight of the latent distance: one, or one per prompt.
      id_lambda: Weight of the identity distance: one, or one per prompt.
      alphas: Strengths on Figures 6 and 24.
      betas: Thresholds on Figure 6; those of num_channels if empty.
      num_channels: Numbers of channels on Figure 6; the first is that of the other
        figures.
      mapper: Model directories of mappers for some of the prompts.
      neutral: Text that directions lead away from.
      far: Text of Figure 24 that the generator cannot draw.
      directions: File of channel relevance; if absent, it is estimated for each prompt.
      steps: Steps of the optimization.
      learning_rate: Learning rate of the optimization.
      alpha: Strength on Figure 9.
      generators: Generators of StyleGAN2's table, a row each; that of the other figures
        if absent.
      data: Images that they were trained on, one for all or one for each; drawn faces
        if absent.
      features: Model directories of Inception and VGG16; the embedded judge if absent.
      num_samples: Samples of StyleGAN2's table, in place of the metrics' own number.
      repeats: Runs of StyleGAN2's table with other seeds, as the paper has 10.
      ablations: Rows of the table of short trainings on drawn faces.
      kimg: Thousands of images of each of these trainings.
      training_seed: Seed of these trainings.
    """

    prompts: tuple[str, ...] = (
        "a face with blonde hair",
        "a bearded man",
        "a smiling face",
        "a person wearing sunglasses",
    )
    l2_lambda: tuple[float, ...] = (0.0045,)
    id_lambda: tuple[float, ...] = (0.0,)
    alphas: tuple[float, ...] = (-6.0, -3.0, 3.0, 6.0, 9.0)
    betas: tuple[float, ...] = ()
    num_channels: tuple[float, ...] = (40, 10, 160)
    mapper: tuple[str, ...] = ()
    neutral: str = "a face"
    far: str = "a tiger"
    directions: str | None = None
    steps: int = dataclasses.field(default=80, metadata={"lower_bound": 1})
    learning_rate: float = dataclasses.field(default=0.1, metadata={"lower_bound": 0})
    alpha: float = 4.0
    generators: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    num_samples: int | None = dataclasses.field(
        default=None, metadata={"lower_bound": 2}
    )
    repeats: int = dataclasses.field(default=1, metadata={"lower_bound": 1})
    ablations: tuple[str, ...] = ABLATIONS
    kimg: float = 50.0
    training_seed: int = dataclasses.field(default=0, metadata={"lower_bound": 0})

    def __post_init__(self) -> None:
        if not self.prompts or not all(map(text_files.clean, self.prompts)):
            raise UserError(
                f"prompts: expected texts, found {list(self.prompts)}", field="prompts"
            )
        for name in ("neutral", "far"):
            text_files.require(name, getattr(self, name))
        for name in ("l2_lambda", "id_lambda"):
            found: tuple[float, ...] = getattr(self, name)
            if len(found) not in (1, len(self.prompts)) or min(found) < 0:
                raise UserError(
                    f"{name}: expected one number from 0 up, or one for each of the "
                    f"{len(self.prompts)} prompts, found {_list(found)}",
                    field=name,
                )
        if len(self.data) not in (0, 1, len(self.generators)):
            raise UserError(
                f"data: expected one for all of {len(self.generators)} generators, or "
                f"one for each, found {len(self.data)}",
                field="data",
                also=["generators"],
            )
        checks.some_of(self, ablations=ABLATIONS)
        if not self.kimg > 0:
            raise UserError(
                f"kimg: expected more than 0, found {self.kimg:g}", field="kimg"
            )
        if not any(alpha > 0 for alpha in self.alphas):
            raise UserError(
                "alphas: expected one above 0 at least, found none", field="alphas"
            )
        counts = self.num_channels
        if not counts or not all(x >= 1 and float(x).is_integer() for x in counts):
            raise UserError(
                "num_channels: expected whole numbers from 1 up, "
                f"found {_list(counts) or 'none'}",
                field="num_channels",
            )

    @property
    def counts(self) -> list[int]:
        """Numbers of channels."""
        return [int(count) for count in self.num_channels]

    @property
    def weighted(self) -> list[Prompt]:
        """The prompts with their weights."""
        count = len(self.prompts)
        l2_lambda, id_lambda = (
            weights * count if len(weights) == 1 else weights
            for weights in (self.l2_lambda, self.id_lambda)
        )
        return [
            Prompt(text_files.clean(text), *weights)
            for text, *weights in zip(self.prompts, l2_lambda, id_lambda, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class Request:
    """Tables and figures to make, and of what.

    Attributes:
      models: names of the networks.
      source: the faces.
      content: what is shown of them.
      figures: names of the tables and figures.
      outdir: folder for the results.
      settings: what decides the results, by the names of the flags.
    """

    models: Models
    source: SourceRequest
    content: Content
    figures: tuple[str, ...]
    outdir: str
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        if any(self.content.id_lambda) and not self.models.has_identity:
            raise UserError(
                "id_lambda: needs identity beside generator",
                field="id_lambda",
                also=["identity", "generator"],
            )

    @property
    def inputs(self) -> dict[str, str]:
        """Hash of each input."""
        named = {
            "latents": self.source.latents,
            "directions": self.content.directions,
            "templates": self.models.templates,
        }
        found = self.models.fingerprints("generator", "clip")
        found |= {n: files.hash_file(path) for n, path in named.items() if path}
        return found | {x: checkpoints.fingerprint(x) for x in self.content.mapper}


def _list(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{x:g}" for x in numbers)
