"""Settings of a generator's metrics: what is measured, against which data, how often.

The table of metrics is here, since flags name them; what they compute is in
`evaluation.generator_metrics` and `evaluation.path_length`.
"""

import dataclasses
from typing import Literal, NamedTuple

from styleclip_jax import checks
from styleclip_jax.settings.latents import NOISES, Noise
from styleclip_jax.settings.measures import PathLengthConfig

Measure = Literal[
    "frechet", "kernel", "inception_score", "precision_recall", "path", "attributes"
]


class Metric(NamedTuple):
    """Metric of a generator, as NVIDIA's code names and defines it.

    Attributes:
      measure: what is computed.
      network: network whose features it takes: inception, vgg16 or judge.
      samples: number of samples of the generator.
      reals: largest number of images of the data; None for all, 0 for none.
      path: settings of a path length.
    """

    measure: Measure
    network: str
    samples: int
    reals: int | None = 0
    path: PathLengthConfig = PathLengthConfig()


# Numbers of images: of official metrics, and of those by the judge.
_MANY, _FEW = 50_000, 10_000


def _path(space: str, sampling: str) -> Metric:
    """Path length of 2019, on the middle of faces."""
    config = PathLengthConfig(space=space, sampling=sampling, crop=True)
    return Metric("path", "vgg16", _MANY, path=config)


METRICS = {
    "fid50k_full": Metric("frechet", "inception", _MANY, None),
    "fid50k": Metric("frechet", "inception", _MANY, _MANY),
    "kid50k_full": Metric("kernel", "inception", _MANY, 1_000_000),
    "kid50k": Metric("kernel", "inception", _MANY, _MANY),
    "is50k": Metric("inception_score", "inception", _MANY),
    "pr50k3_full": Metric("precision_recall", "vgg16", _MANY, 200_000),
    "pr50k3": Metric("precision_recall", "vgg16", _MANY, _MANY),
    "ppl2_wend": Metric("path", "vgg16", _MANY),
    "ppl_wend": _path("w", "end"),
    "ppl_wfull": _path("w", "full"),
    "ppl_zend": _path("z", "end"),
    "ppl_zfull": _path("z", "full"),
    "fd_judge": Metric("frechet", "judge", _FEW, _FEW),
    "kd_judge": Metric("kernel", "judge", _FEW, _FEW),
    "pr_judge": Metric("precision_recall", "judge", _FEW, _FEW),
    "ppl_judge": Metric("path", "judge", _FEW),
    "attributes": Metric("attributes", "judge", _FEW, _FEW),
}

# Metrics that are computed where none are named: those of StyleGAN2's Table 1.
DEFAULTS = (
    *("fid50k", "pr50k3", "ppl2_wend"),
    *("fd_judge", "kd_judge", "pr_judge", "ppl_judge"),
)


@dataclasses.dataclass(frozen=True)
class MetricsSettings(checks.Config):
    """Metrics of a generator, and what it is compared with.

    Attributes:
      data: Images that the generator was trained on: a folder, or a zip as NVIDIA's
        dataset_tool.py writes it; or statistics of them for Fréchet distances alone, as
        .npz of pytorch-fid or .pkl of NVIDIA's code. For the embedded generator drawn
        faces if absent.
      features: Model directories of the networks that look at the images, as
        styleclip-convert writes them: Inception for fid, kid and is, VGG16 for pr and
        ppl. If absent the embedded judge, for the embedded generator.
      metrics: Metrics, such as fid50k_full,ppl2_wend,pr50k3_full; if absent, all of
        Table 1 that the networks allow.
      num_samples: Number of samples in place of the metrics' own, for quick looks;
        values of different numbers do not compare.
      repeats: Number of runs with other seeds, whose mean and deviation count.
      mirror: Take each image of the data a second time, mirrored.
      seed: First seed of the samples.
      noise: Noise of the generator's layers; random as in NVIDIA's code.
      outdir: Folder for the results.
      batch_size: Number of images per device at a time; auto tries how many fit, or on
        a CPU how many are fastest. If absent, 8, or fewer so that every device has
        some.
      keep_features: Keep the features of all samples, which take gigabytes.
      data_cache: Folder in which features of data are kept for further runs; none for
        no such folder, and one of the user's if absent.
    """

    data: str | None = None
    features: tuple[str, ...] = ()
    metrics: tuple[str, ...] | None = None
    num_samples: int | None = dataclasses.field(
        default=None, metadata={"lower_bound": 2}
    )
    repeats: int = dataclasses.field(default=1, metadata={"lower_bound": 1})
    mirror: bool = False
    seed: int = dataclasses.field(default=0, metadata={"lower_bound": 0})
    noise: Noise = dataclasses.field(default="random", metadata={"choices": NOISES})
    outdir: str = "outputs/metrics"
    batch_size: str | None = None
    keep_features: bool = False
    data_cache: str | None = None

    def __post_init__(self) -> None:
        checks.one_of(self, noise=NOISES)
        checks.at_least(self, 1, "repeats")
        checks.at_least(self, 0, "seed")
        if self.num_samples is not None:
            checks.at_least(self, 2, "num_samples")
        checks.some_of(self, metrics=METRICS)

    def samples_of(self, metric: Metric) -> int:
        """Number of samples that a metric takes here."""
        return self.num_samples or metric.samples
