"""The least that the networks must compute and move, to compare with the machine.

Multiply-adds are those of direct convolutions. Winograd's algorithm needs fewer, so a
share of this limit may be above 1.
"""

import dataclasses
from typing import Any, NamedTuple

from benchmarks import worker
from styleclip_jax.models import cutoffs, stylegan2, stylegan3

# Questions about StyleGAN3, and what NVIDIA's configurations say beside the resolution:
# channels are at most `most`, and `base` over a layer's cutoff.
_STYLEGAN3: dict[str, dict[str, Any]] = {
    "stylegan3_t": {"base": 2**14, "most": 512},
    "stylegan3_r": {"base": 2**15, "most": 1024, "kernel_size": 1, "radial": True},
}
_GRADIENT = "_gradient"


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


def stylegan3_macs(config: stylegan3.GeneratorConfig) -> int:
    """Multiply-adds of one image: every convolution once, filters left out."""
    total = 0
    for layer in cutoffs.layers(config):
        # The convolution has all that a window touches.
        taps = 1 if layer.filters is None else config.kernel_size
        pixels = (layer.in_size + taps - 1) ** 2
        total += pixels * taps**2 * layer.inputs * layer.outputs
    return total


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
    if question.removesuffix(_GRADIENT) in ("synthesis", *_STYLEGAN3):
        # The gradient by w has the forward pass, and as much again for the images of
        # the layers before.
        passes = 2 if question.endswith(_GRADIENT) else 1
        config = config_of(question, resolution)
        if isinstance(config, stylegan3.GeneratorConfig):
            return passes * stylegan3_macs(config)
        return passes * synthesis_macs(config)
    return None


def config_of(
    question: str, resolution: int
) -> stylegan2.GeneratorConfig | stylegan3.GeneratorConfig:
    """Configuration of the generator of a question: a StyleGAN3 if it names one."""
    found = _STYLEGAN3.get(question.removesuffix(_GRADIENT))
    if found is None:
        config = config_f(resolution)
        return narrow(config) if question == "training_narrow" else config
    plain = stylegan3.GeneratorConfig(resolution=resolution)
    channels = tuple(
        round(min(found["base"] / layer.cutoff, found["most"]))
        for layer in cutoffs.layers(plain)[:-1]
    )
    further = {k: v for k, v in found.items() if k not in ("base", "most")}
    return dataclasses.replace(plain, channels=channels, **further)


def narrow(config: stylegan2.GeneratorConfig) -> stylegan2.GeneratorConfig:
    """A small generator, as one trains it here."""
    width = worker.GAN_WIDTH
    channels = tuple(
        min(worker.GAN_CHANNELS // (4 << i), width) for i in range(len(config.channels))
    )
    return dataclasses.replace(config, z_dim=width, w_dim=width, channels=channels)


def config_f(resolution: int) -> stylegan2.GeneratorConfig:
    """Config F, cut off at a resolution."""
    channels = stylegan2.GeneratorConfig().channels
    return stylegan2.GeneratorConfig(
        resolution=resolution, channels=channels[: resolution.bit_length() - 2]
    )
