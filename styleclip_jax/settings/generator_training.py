"""Settings of the training of a generator: data, networks, recipe, rhythm."""

import dataclasses

from styleclip_jax import checks
from styleclip_jax.errors import UserError
from styleclip_jax.settings.augmentation import PIPELINES
from styleclip_jax.settings.gan_training import RECIPES

# Sizes of networks and their recipes: auto as stylegan2-ada-pytorch chooses by
# resolution and batch, e and f as the rows of StyleGAN2's Table 1.
CONFIGS = ("auto", "e", "f")
AUGMENTATIONS = ("ada", "fixed", "none")
# Fields that say where, how long and how often, not what.
NEUTRAL_FIELDS = (
    *("kimg", "kimg_per_tick", "snapshot_ticks", "metric_ticks", "sheet_size"),
)


@dataclasses.dataclass(frozen=True)
class ImageDataSettings(checks.Config):
    """Images to train on.

    Attributes:
      data: Images of one size: a folder, or a zip as NVIDIA's dataset_tool.py writes
        it, with classes in dataset.json if there are any; drawn faces if absent.
      resolution: Resolution of the generator, a power of two; that of the images if
        absent, and larger images are averaged down to it.
      mirror: Take each image a second time, mirrored.
    """

    data: str | None = None
    resolution: int | None = None
    mirror: bool = False

    def __post_init__(self) -> None:
        found = self.resolution
        if found is not None and (found < 8 or found & (found - 1)):
            raise UserError(
                f"resolution: expected a power of two from 8 up, found {found}",
                field="resolution",
            )


@dataclasses.dataclass(frozen=True)
class RecipeSettings(checks.Config):
    """Networks of a training, and how they are trained.

    Attributes:
      config: Size and recipe: auto by resolution and batch, as stylegan2-ada-pytorch
        chooses; f, StyleGAN2's large networks; e, half as many channels and more R1.
      channel_base: Product of channels and resolution, where channels are fewer than
        channel_max; that of config if absent.
      channel_max: Most channels of a layer.
      w_dim: Length of z and w.
      num_mapping_layers: Dense layers of the mapping; those of config if absent.
      recipe: Whose loop it is: nvidia, or rosinality's.
      resume_from: Model directory of a generator to begin with, with its discriminator
        in it where styleclip-convert or an earlier training has put one; for transfer.
      freeze_layers: Number of layers of the discriminator, the highest resolutions
        first, that stay as they are; for transfer to few images.
      learning_rate: Learning rate of both networks; that of config if absent.
      r1_gamma: Weight γ of R1; that of config if absent.
      path_weight: Weight of the path lengths' penalty; 0 for none.
      r1_interval: Steps from one R1 to the next; 1 for R1 in every step.
      path_interval: Steps from one penalty of path lengths to the next.
      style_mixing: Probability that late rows of W+ take another w.
      augment: Augmentation of what the discriminator sees: ada moves its probability,
        fixed keeps it, none has none.
      augment_pipe: Transforms: blit, geom, color, bg or bgc for several of these.
      augment_p: First probability, or the fixed one.
      augment_target: Share of real images with a positive sign that ada aims at.
      mixed_precision: Compute the four highest resolutions in bfloat16, with clamped
        activations, as official generators of many images were trained.
    """

    config: str = dataclasses.field(default="auto", metadata={"choices": CONFIGS})
    channel_base: int | None = dataclasses.field(
        default=None, metadata={"lower_bound": 1}
    )
    channel_max: int = dataclasses.field(default=512, metadata={"lower_bound": 1})
    w_dim: int = dataclasses.field(default=512, metadata={"lower_bound": 1})
    num_mapping_layers: int | None = dataclasses.field(
        default=None, metadata={"lower_bound": 1}
    )
    recipe: str = dataclasses.field(default="nvidia", metadata={"choices": RECIPES})
    resume_from: str | None = None
    freeze_layers: int = dataclasses.field(default=0, metadata={"lower_bound": 0})
    learning_rate: float | None = None
    r1_gamma: float | None = None
    path_weight: float = 2.0
    r1_interval: int = dataclasses.field(default=16, metadata={"lower_bound": 1})
    path_interval: int = dataclasses.field(default=4, metadata={"lower_bound": 1})
    style_mixing: float = 0.9
    augment: str = dataclasses.field(default="ada", metadata={"choices": AUGMENTATIONS})
    augment_pipe: str = dataclasses.field(
        default="bgc", metadata={"choices": tuple(PIPELINES)}
    )
    augment_p: float = 0.0
    augment_target: float = 0.6
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        checks.one_of(self, config=CONFIGS, recipe=RECIPES, augment=AUGMENTATIONS)
        checks.one_of(self, augment_pipe=PIPELINES)
        checks.at_least(self, 0, "freeze_layers", "path_weight", "augment_p")
        checks.at_least(self, 1, "channel_max", "w_dim", "r1_interval", "path_interval")
        for name in ("style_mixing", "augment_p", "augment_target"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"{name}: expected 0 to 1, found {getattr(self, name)}", field=name
                )


@dataclasses.dataclass(frozen=True)
class GanRunConfig(checks.Config):
    """Length and rhythm of a training, and what it reports.

    Attributes:
      kimg: Thousands of images that the discriminator is shown; more go on with a run.
      batch_size: Images per step over all devices, rounded up to a multiple of their
        number; by resolution if absent.
      kimg_per_tick: Thousands of images from one line of metrics to the next.
      snapshot_ticks: Ticks from one snapshot, sheet and checkpoint to the next.
      metric_ticks: Ticks from one value of the metric to the next; 0 for none.
      metric: Metric by which the best snapshot is kept, such as fid50k_full; fd_judge
        for drawn faces if absent.
      metric_samples: Samples of the metric, in place of its own number.
      features: Model directories of the networks of the metric, as styleclip-metrics
        takes them.
      sheet_size: Samples on a sheet.
      seed: Seed of the initial weights, of shuffling and of all draws.
    """

    kimg: float = 25_000.0
    batch_size: int | None = dataclasses.field(
        default=None, metadata={"lower_bound": 1}
    )
    kimg_per_tick: float = 4.0
    snapshot_ticks: int = dataclasses.field(default=50, metadata={"lower_bound": 1})
    metric_ticks: int = dataclasses.field(default=50, metadata={"lower_bound": 0})
    metric: str | None = None
    metric_samples: int | None = dataclasses.field(
        default=None, metadata={"lower_bound": 2}
    )
    features: tuple[str, ...] = ()
    sheet_size: int = dataclasses.field(default=32, metadata={"lower_bound": 1})
    seed: int = dataclasses.field(default=0, metadata={"lower_bound": 0})

    def __post_init__(self) -> None:
        checks.at_least(self, 0, "kimg", "seed", "metric_ticks")
        checks.at_least(self, 1, "snapshot_ticks", "sheet_size")
        if not self.kimg_per_tick > 0:
            raise UserError(
                f"kimg_per_tick: expected more than 0, found {self.kimg_per_tick}",
                field="kimg_per_tick",
            )
