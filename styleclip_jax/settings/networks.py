"""Settings of networks: which ones a work uses, and how they are computed."""

import dataclasses

from styleclip_jax import checks

PRECISIONS = ("highest", "high", "default")
DTYPES = ("float32", "bfloat16")
# Type of activations: bfloat16 where the device is quicker with it, else float32.
AUTO = "auto"
# Activations of transformers by their names.
ACTIVATIONS = (
    *("quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"),
)
# Towers of a CLIP with a vision transformer.
TOWERS = ("own", "transformers")

# Fields of `ModelSettings` that name a generator and say how it is computed, whether or
# not it has gradients, and those of a CLIP, or several.
GENERATOR_FIELDS = ("generator", "precision", "dtype", "low_precision_from")
CLIP_FIELDS = (
    *("clip", "clip_weights", "clip_towers"),
    *("clip_precision", "clip_dtype"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputationSettings(checks.Config):
    """Computation of the networks of a work.

    Attributes:
      precision: Precision of products in float32, in all networks but CLIP: highest,
        or what the device makes of high and default, see docs/scale.md. A CPU is exact
        always. If absent, high for generators on accelerators, else highest.
      dtype: Type of a generator's activations; auto for bfloat16 where the device is
        quicker with it, else float32.
      low_precision_from: Resolution of the generator from which dtype applies, such as
        128; all if absent.
      remat: Compute a generator's and a CLIP's blocks again for gradients, which takes
        less memory and more time.
      clip_precision: Precision of CLIP's products in float32. A CLIP in low precision
        guides badly.
      clip_dtype: Type of CLIP's activations, likewise.
    """

    precision: str | None = dataclasses.field(
        default=None, metadata={"choices": PRECISIONS}
    )
    dtype: str = dataclasses.field(
        default="float32", metadata={"choices": (*DTYPES, AUTO)}
    )
    low_precision_from: int | None = None
    remat: bool = False
    clip_precision: str = dataclasses.field(
        default="highest", metadata={"choices": PRECISIONS}
    )
    clip_dtype: str = dataclasses.field(
        default="float32", metadata={"choices": (*DTYPES, AUTO)}
    )

    def __post_init__(self) -> None:
        if self.precision is not None:
            checks.one_of(self, precision=PRECISIONS)
        dtypes = (*DTYPES, AUTO)
        checks.one_of(self, dtype=dtypes, clip_dtype=dtypes)
        checks.one_of(self, clip_precision=PRECISIONS)


@dataclasses.dataclass(frozen=True)
class ModelSettings(ComputationSettings):
    """Models that a work uses, and how they are computed.

    Attributes:
      generator: Generator by model directory or hub name (owner/name, or
        owner/name@commit); the embedded one if absent.
      clip: CLIP by directory or hub name (openai/clip-vit-base-patch32), or several
        with commas, whose weighted mean counts; the embedded one, which is also named
        embedded, if absent.
      clip_weights: Weights of several CLIPs, of which the ratios count; equal if
        absent.
      clip_towers: Towers of a CLIP with a vision transformer; transformers for those of
        FlaxCLIPModel, which give the same and need transformers 4.57.
      identity: Face recognition network by model directory or hub name, for identity
        losses; the embedded one if absent, for the embedded generator.
      encoder: Encoder that photos are inverted from, e4e, pSp or ReStyle, by model
        directory or hub name.
      lpips: Network of LPIPS, a VGG16 or an AlexNet, by model directory or hub name.
      class_: Class of the samples, for class-conditional generators.
      templates: File of templates with {} for a direction's texts; the official ones
        if absent.
    """

    generator: str | None = None
    clip: str | None = None
    clip_weights: tuple[float, ...] | None = None
    clip_towers: str = dataclasses.field(default="own", metadata={"choices": TOWERS})
    identity: str | None = None
    encoder: str | None = None
    lpips: str | None = None
    class_: int | None = None
    templates: str | None = None
