"""Generator of StyleGAN3, configurations T and R: W+ → styles, styles → image.

Features are samples of a continuous image, on a canvas with a margin around what is
shown. The input is a sum of waves, which a rotation and a translation move exactly;
layers keep frequencies below their cutoff, so that the image moves with its input.

Modulated convolutions scale activations, as in `stylegan2`. The kernel of an output,
and the style of an example, are divided by their root mean square; with power
P_io = Σ_k W²_kio, n of inputs and taps, and ⟨ ⟩ the mean over i, both cancel but for ε:

  y_o = d_o · Σ_{i,k} W_{k,i,o} · (s_i · x_i),
  d_o = (Σ_i s_i² P_io + ε ⟨s²⟩ Σ_i P_io / n)^-½.

Source: Karras et al. 2021, https://arxiv.org/abs/2106.12423.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from styleclip_jax import checks, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.models import cutoffs, generators, layers, linen
from styleclip_jax.models.generators import Activations
from styleclip_jax.models.network import Network
from styleclip_jax.ops import convolutions, filtering, norms, products
from styleclip_jax.settings.latents import Noise

_EPSILON = 1e-8
# Layers beside those of the features: the input and toRGB.
_OTHERS = 2
# Convolutions on CPUs are quickest on multiples of this size.
_TILE = 4
# Largest resolution.
_LARGEST = 8192


@dataclasses.dataclass(frozen=True)
class GeneratorConfig(generators.GeneratorConfig):
    """Static architecture of a generator; the defaults are config T at 1024².

    Precision and type are those of the synthesis; the mapping of z to w is exact.

    Attributes:
      resolution: width and height of the image, a power of two from 16 to 8192.
      z_dim: length of z.
      w_dim: length of w.
      c_dim: number of classes, 0 for an unconditional generator.
      num_mapping_layers: dense layers from z to w.
      channels: feature channels of each layer but toRGB; the input has the first.
      kernel_size: taps of the convolutions along an axis, 3 in T and 1 in R.
      radial: whether filters before the last layers are round, as in R.
      num_critical: last layers that reach the cutoff of the image.
      first_cutoff: cutoff of the input, in cycles per image.
      first_stopband: frequency from which the first filter stops.
      last_stopband_rel: the same of the last ones, relative to the cutoff.
      margin: pixels of the canvas on each side of what is shown.
      filter_size: taps of a filter, for each factor that it resamples by.
      upsampling: factor of the upsampling before each activation.
      conv_clamp: bound on the activations.
      output_scale: factor of the image.
    """

    resolution: int = 1024
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    num_mapping_layers: int = 2
    channels: tuple[int, ...] = (*(512,) * 7, 323, 203, 128, 81, 51, 32, 32)
    kernel_size: int = 3
    radial: bool = False
    num_critical: int = 2
    first_cutoff: float = 2.0
    first_stopband: float = 2**2.1
    last_stopband_rel: float = 2**0.3
    margin: int = 10
    filter_size: int = 6
    upsampling: int = 2
    conv_clamp: float | None = 256.0
    output_scale: float = 0.25

    def __post_init__(self) -> None:
        size = self.resolution
        if not 16 <= size <= _LARGEST or size & (size - 1):
            raise UserError(
                f"resolution must be a power of two from 16 to {_LARGEST}, found "
                f"{size}",
                field="resolution",
            )
        checks.at_least(self, 1, "first_cutoff", "first_stopband", "last_stopband_rel")
        checks.at_least(self, 0, "margin", "num_critical")
        if not self.num_critical < len(self.channels) or min(self.channels) < 1:
            raise UserError(
                f"channels must be a positive count for each of more layers than the "
                f"{self.num_critical} critical ones, found {self.channels}",
                field="channels",
            )
        if not self.first_cutoff < min(self.first_stopband, size / 2):
            raise UserError(
                "first_cutoff must be below first_stopband and half of the resolution, "
                f"found {self.first_cutoff}",
                field="first_cutoff",
            )
        if self.kernel_size not in (1, 3):
            raise UserError(
                f"kernel_size must be 1 or 3, found {self.kernel_size}",
                field="kernel_size",
            )
        if self.upsampling not in (2, 4) or self.filter_size not in range(2, 17, 2):
            raise UserError(
                "upsampling must be 2 or 4, and filter_size even and at most 16, found "
                f"{self.upsampling} and {self.filter_size}",
                field="upsampling",
            )
        super().__post_init__()

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Rates at which features are sampled, the smallest first."""
        return tuple(sorted({layer.rate for layer in cutoffs.layers(self)}))

    @property
    def num_rows(self) -> int:
        """Number of W+ rows."""
        return len(self.channels) + _OTHERS

    @property
    def style_layout(self) -> tuple[spaces.StyleLayer, ...]:
        """Layout of S: the input's four numbers, then the layers'."""
        return spaces.layout_of(**self.style_fields)

    @property
    def style_fields(self) -> dict[str, Any]:
        """Fields by which networks in S keep its layout."""
        found = cutoffs.layers(self)
        return {
            "channels": (4, *(layer.inputs for layer in found)),
            "layer_names": (
                f"b{found[0].in_rate}/input",
                *(layer.name for layer in found),
            ),
        }

    @property
    def noise_shapes(self) -> dict[str, tuple[int, int]]:
        """None: its layers have no noise."""
        return {}

    @property
    def has_transform(self) -> bool:
        """Whether its images can be rotated and translated inside of the network."""
        return True

    @property
    def turns(self) -> bool:
        """Whether it is an R: its kernels and filters have no axes that would show."""
        return self.kernel_size == 1 and self.radial

    def synthesis(self) -> generators.Synthesis:
        """Module from W+ to styles, and from styles to images."""
        return _Synthesis(self)


Generator = Network[GeneratorConfig]

# Functions of every generator.
init = generators.init
param_shapes = generators.param_shapes
map_latents = generators.map_latents
to_styles = generators.to_styles
synthesize_styles = generators.synthesize_styles
synthesize_layers = generators.synthesize_layers
synthesize = generators.synthesize


class _Input(linen.Module):
    """Input: waves of learned mixture, rotated and translated by the style."""

    config: GeneratorConfig

    def setup(self) -> None:
        first = cutoffs.layers(self.config)[0]
        channels = first.inputs
        self.affine = layers.Dense(
            4, self.config.precision, bias_value=(1.0, 0.0, 0.0, 0.0), kernel_std=0.0
        )
        self.kernel = self.param(
            "kernel", nn.initializers.normal(1.0), (channels, channels)
        )
        # Data, not weights: training the generator must not move them.
        self.freqs = lax.stop_gradient(
            self.param("freqs", _draw_frequencies, (channels, 2), first.cutoff)
        )
        self.phases = lax.stop_gradient(self.param("phases", _draw_phases, (channels,)))
        self.transform = lax.stop_gradient(
            self.param("transform", lambda key: jnp.eye(3))
        )

    def style(self, w: jax.Array) -> jax.Array:
        return self.affine(w)

    def __call__(self, style: jax.Array) -> jax.Array:
        first = cutoffs.layers(self.config)[0]
        size, rate, bandwidth = first.in_size, first.in_rate, first.cutoff
        turned, offset = _move(style, self.transform)
        # [B, C] each: frequencies per image's width, and phases, of the moved waves.
        fx, fy = (_combine(self.freqs, turned[:, :, i]) for i in range(2))
        phase = self.phases + _combine(self.freqs, offset)
        # Frequencies beyond the band fade out up to half of the rate.
        beyond = (jnp.sqrt(fx**2 + fy**2) - bandwidth) / (rate / 2 - bandwidth)
        amplitude = jnp.clip(1 - beyond, 0, 1)
        place = (np.arange(size, dtype=np.float32) + 0.5 - size / 2) / rate
        across = fx[:, None, :] * place[:, None] + phase[:, None, :]
        down = fy[:, None, :] * place[:, None]
        wave = jnp.sin(2 * np.pi * (across[:, None] + down[:, :, None]))
        wave = wave * amplitude[:, None, None, :]
        kernel = self.kernel / math.sqrt(first.inputs)
        asked = products.precision_of(wave.dtype, self.config.precision)
        return products.dot(wave, kernel, precision=asked)


def _combine(freqs: jax.Array, vector: jax.Array) -> jax.Array:
    """Sums [B, C] of frequencies [C, 2] times vectors [B, 2], exact everywhere."""
    return freqs[:, 0] * vector[:, :1] + freqs[:, 1] * vector[:, 1:]


def _move(style: jax.Array, transform: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Linear part [B, 2, 2] and offset [B, 2] of all that moves the image.

    With (c, s, x, y) the style over the length of (c, s), and T the transform,

      M = [[c, −s], [s, c]],   (M, −M (x, y)) ∘ T.
    """
    c, s, x, y = jnp.unstack(
        style / jnp.linalg.norm(style[:, :2], axis=1, keepdims=True), axis=1
    )
    matrix = jnp.stack([jnp.stack([c, -s], 1), jnp.stack([s, c], 1)], 1)
    transform = jnp.broadcast_to(transform, (style.shape[0], 3, 3))

    def apply(vector: jax.Array) -> jax.Array:
        return jnp.sum(matrix * vector[:, None, :], axis=2)

    columns = [apply(transform[:, :2, i]) for i in range(3)]
    own = apply(jnp.stack([x, y], 1))
    return jnp.stack(columns[:2], axis=2), columns[2] - own


def _draw_frequencies(
    key: jax.Array, shape: tuple[int, int], bandwidth: float
) -> jax.Array:
    """Frequencies [C, 2] that fill a disc of the bandwidth evenly."""
    freqs = jax.random.normal(key, shape)
    squares = jnp.sum(freqs**2, axis=1, keepdims=True)
    return freqs * bandwidth / (jnp.sqrt(squares) * jnp.exp(squares) ** 0.25)


def _draw_phases(key: jax.Array, shape: tuple[int]) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-0.5, maxval=0.5)


class _Convolution(linen.Module):
    """Modulated convolution, bias, and activation between two filters; or toRGB."""

    config: GeneratorConfig
    layer: cutoffs.Layer

    def setup(self) -> None:
        inputs, outputs = self.layer.inputs, self.layer.outputs
        taps = 1 if self.layer.filters is None else self.config.kernel_size
        self.affine = layers.Dense(inputs, self.config.precision, bias_value=1.0)
        self.kernel = self.param(
            "kernel", nn.initializers.normal(1.0), (taps, taps, inputs, outputs)
        )
        self.bias = self.param("bias", nn.initializers.zeros, (outputs,))
        # Mean square of what comes in, as training has seen it.
        self.magnitude_ema = lax.stop_gradient(
            self.param("magnitude_ema", nn.initializers.ones, ())
        )

    def style(self, w: jax.Array) -> jax.Array:
        return self.affine(w)

    def __call__(self, x: jax.Array, style: jax.Array) -> jax.Array:
        filters, gain = self.layer.filters, lax.rsqrt(self.magnitude_ema)
        if filters is None:
            return self._to_rgb(x, style * gain)
        power = norms.kernel_power(self.kernel)
        taps, inputs = self.kernel.shape[0], self.layer.inputs
        asked = products.precision_of(power.dtype, self.config.precision)
        # Parity: the official mean is over the batch, too. Only ε tells the two apart.
        floor = _EPSILON * jnp.mean(style**2, axis=1, keepdims=True)
        floor = floor * jnp.sum(power, axis=0) / (taps**2 * inputs)
        total = jnp.dot(style**2, power, precision=asked) + floor
        x = self._convolve(layers.scale(x, style))
        x = layers.scale(
            x, gain * lax.rsqrt(jnp.maximum(total, np.finfo(np.float32).tiny))
        )
        x = x + self.bias.astype(x.dtype)
        bound = self.config.conv_clamp
        x = filtering.between(
            x, filters, lambda x: layers.clamp(layers.leaky_relu(x), bound)
        )
        # Without the barrier XLA computes the filter anew for each of the next layer's
        # products, and takes minutes to compile that.
        return lax.optimization_barrier(x)

    def _convolve(self, x: jax.Array) -> jax.Array:
        """Convolution with all that a window touches, kernel_size − 1 pixels more."""
        kernel, precision = self.kernel.astype(x.dtype), self.config.precision
        if len(kernel) == 1:
            asked = products.precision_of(x.dtype, precision)
            return products.dot(x, kernel[0, 0], precision=asked)
        size = x.shape[1] + 2
        ends = (1, 1 + -size % _TILE)
        x = jnp.pad(x, ((0, 0), ends, ends, (0, 0)))
        return convolutions.canvas_conv3x3(x, kernel, precision)[:, :size, :size]

    def _to_rgb(self, x: jax.Array, style: jax.Array) -> jax.Array:
        rgb = layers.to_rgb(
            x,
            style,
            self.kernel,
            self.bias,
            bound=self.config.conv_clamp,
            precision=self.config.precision,
        )
        return rgb * self.config.output_scale


class _Stage(linen.Module):
    """Layers whose results are sampled at one rate."""

    config: GeneratorConfig
    rate: int

    def setup(self) -> None:
        found = cutoffs.layers(self.config)
        if found[0].in_rate == self.rate:
            self.input = _Input(self.config)
        convolution = nn.remat(_Convolution) if self.config.remat else _Convolution
        for layer in found:
            if layer.rate == self.rate:
                name = layer.name.split("/")[1]
                setattr(self, name, convolution(self.config, layer))

    def style(self, name: str, w: jax.Array) -> jax.Array:
        return getattr(self, name).style(w)

    def __call__(
        self, name: str, activations: Activations | None, style: jax.Array
    ) -> Activations:
        """Runs one of the layers."""
        module = getattr(self, name)
        if activations is None:
            return Activations(module(style), None)
        x = activations.x.astype(self.config.dtype_at(self.rate))
        made = module(x, style)
        return Activations(x, made) if name == "torgb" else Activations(made, None)


class _Synthesis(generators.Synthesis):
    """Synthesis network: W+ to styles, and styles to the image."""

    config: GeneratorConfig

    def setup(self) -> None:
        for rate in self.config.resolutions:
            setattr(self, f"b{rate}", _Stage(self.config, rate))

    def __call__(
        self,
        styles: spaces.Styles,
        activations: Activations | None,
        noise: Noise,
        key: jax.Array | None,
        start: int,
        stop: int,
    ) -> Activations | None:
        del noise, key  # it has none
        layout = self.config.style_layout
        for layer, style in zip(layout[start:stop], styles[start:stop], strict=True):
            stage, name = layer.name.split("/")
            activations = getattr(self, stage)(name, activations, style)
        return activations
