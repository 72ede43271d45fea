"""The least that the networks must compute and move, to compare with the machine.

Multiply-adds are those of direct convolutions. Winograd's algorithm needs fewer, so a
share of this limit may be above 1.
"""

from typing import NamedTuple

from benchmarks import worker
from styleclip_jax.models import stylegan2


class Layer(NamedTuple):
    """Least work of a layer for one image.

    Attributes:
      macs: multiply-adds.
      activations: numbers that are read and written once.
      weights: numbers that are read once for all images.
    """

    macs: int
    activations: int
    weights: int


def synthesis_layers(config: stylegan2.GeneratorConfig) -> list[Layer]:
    """Work of every convolution, FIRs left out.

    An upsampling convolution multiplies each input pixel by each tap, as a transposed
    convolution does that skips the inserted zeros.
    """
    found, before = [], 0
    for index, channels in enumerate(config.channels):
        pixels = (4 << index) ** 2
        if index:
            taps = 9 * before * channels
            moved = pixels // 4 * before + pixels * channels
            found.append(Layer(pixels // 4 * taps, moved, taps))
        taps = 9 * channels * channels
        found.append(Layer(pixels * taps, 2 * pixels * channels, taps))
        # The image so far has a fourth of the pixels.
        moved = pixels * channels + 3 * (pixels + pixels // 4)
        found.append(Layer(pixels * channels * 3, moved, channels * 3))
        before = channels
    return found


def synthesis_macs(config: stylegan2.GeneratorConfig) -> int:
    """Multiply-adds of one image: every convolution once."""
    return sum(layer.macs for layer in synthesis_layers(config))


def synthesis_seconds(
    config: stylegan2.GeneratorConfig,
    batch: int,
    *,
    rate: float,
    bandwidth: float,
    num_bytes: int,
) -> float:
    """Least time of a batch of images: each layer computes or moves, what takes longer.

    Args:
      config: of the generator.
      batch: number of images.
      rate: operations per second, two for a multiply-add.
      bandwidth: bytes per second.
      num_bytes: bytes of a number.
    """

    def seconds(layer: Layer) -> float:
        moved = (batch * layer.activations + layer.weights) * num_bytes
        return max(2 * batch * layer.macs / rate, moved / bandwidth)

    return sum(map(seconds, synthesis_layers(config)))


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
