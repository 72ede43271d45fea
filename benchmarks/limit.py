"""The least that the networks must multiply and add, to compare with the machine."""

from benchmarks import worker
from styleclip_jax.models import stylegan2


def synthesis_macs(config: stylegan2.GeneratorConfig) -> int:
    """Multiply-adds of one image: every convolution once, FIRs left out.

    An upsampling convolution multiplies each input pixel by each tap, as a transposed
    convolution does that skips the inserted zeros.
    """
    total, before = 0, 0
    for index, channels in enumerate(config.channels):
        pixels = (4 << index) ** 2
        total += pixels * channels * (9 * channels + 3)
        total += pixels // 4 * 9 * before * channels
        before = channels
    return total


def macs(question: str, resolution: int) -> int | None:
    """Multiply-adds per item of a question, None where they are not counted."""
    if question == "matmul":
        return worker.MATMUL_SIZE**3
    if question in ("synthesis", "synthesis_gradient"):
        # The gradient by w has the forward pass, and as much again for the images of
        # the layers before.
        passes = 2 if question.endswith("gradient") else 1
        return passes * synthesis_macs(config_f(resolution))
    return None


def config_f(resolution: int) -> stylegan2.GeneratorConfig:
    """Config F, cut off at a resolution."""
    channels = stylegan2.GeneratorConfig().channels
    return stylegan2.GeneratorConfig(
        resolution=resolution, channels=channels[: resolution.bit_length() - 2]
    )
