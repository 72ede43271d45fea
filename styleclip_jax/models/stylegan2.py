"""Generator of StyleGAN2 (skip architecture): z → w, W+ → styles, styles → image.

Every modulated convolution scales the activations, not the weights. With style s,
shared weight W and demodulation factor d,

  y_o = d_o · Σ_{i,k} W_{k,i,o} · (s_i · x_i),   d_o = (Σ_i s_i² Σ_k W²_{k,i,o} + ε)^-½

equals a convolution with the modulated and demodulated weight of the paper (Karras et
al. 2020, eq. 1 to 3), since s scales input channels and d output channels. The batch
then shares one ordinary convolution, also under `vmap`.
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from styleclip_jax import spaces
from styleclip_jax.models import canvas, generators, layers, linen
from styleclip_jax.models.network import Network
from styleclip_jax.ops import convolutions, norms, upsampling
from styleclip_jax.settings.latents import Noise

_EPSILON = 1e-8


@dataclasses.dataclass(frozen=True)
class GeneratorConfig(canvas.Canvas):
    """Static architecture of a generator; the defaults are config F at 1024².

    Precision and type are those of the synthesis, whose styles, demodulation and images
    are float32 always; the mapping of z to w is exact.

    Attributes:
      resolution: width and height of the image, a power of two from 8 up; see `Canvas`
        for images that are not square.
      z_dim: length of z.
      w_dim: length of w.
      c_dim: number of classes, 0 for an unconditional generator.
      num_mapping_layers: dense layers from z to w.
      channels: feature channels at 4², 8², …, resolution².
      conv_clamp: bound on the activations of every layer, None for none. Official
        mixed-precision generators were trained with 256 and keep it in float32.
    """

    resolution: int = 1024
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    num_mapping_layers: int = 8
    channels: tuple[int, ...] = (512, 512, 512, 512, 512, 256, 128, 64, 32)
    conv_clamp: float | None = None

    @property
    def num_rows(self) -> int:
        """Number of W+ rows."""
        return spaces.num_rows(self.resolution)

    @property
    def style_layout(self) -> tuple[spaces.StyleLayer, ...]:
        """Layout of S."""
        return spaces.style_layout(self.channels)

    @property
    def style_fields(self) -> dict[str, Any]:
        """Fields by which networks in S keep its layout."""
        return {"channels": self.channels}

    @property
    def noise_shapes(self) -> dict[str, tuple[int, int]]:
        """Height and width of each layer's noise, by the layer's name: "b8/conv0"."""
        return {
            layer.name: self.shape_at(layer.resolution)
            for layer in self.style_layout
            if not layer.is_torgb
        }

    def synthesis(self) -> generators.Synthesis:
        """Module from W+ to styles, and from styles to images."""
        return _Synthesis(self)


Generator = Network[GeneratorConfig]


# Functions of every generator.
init = generators.init
param_shapes = generators.param_shapes
Activations = generators.Activations
map_latents = generators.map_latents
to_styles = generators.to_styles
synthesize_styles = generators.synthesize_styles
synthesize_layers = generators.synthesize_layers
synthesize = generators.synthesize
with_noise = generators.with_noise


class _ModulatedLayer(linen.Module):
    """Base of the convolutions and toRGB: the affine layer that makes the style."""

    config: GeneratorConfig
    in_channels: int

    def setup(self) -> None:
        self.affine = layers.Dense(
            self.in_channels, self.config.precision, bias_value=1.0
        )

    def style(self, w: jax.Array) -> jax.Array:
        return self.affine(w)


class _StyledConv(_ModulatedLayer):
    """Modulated 3×3 convolution, noise, bias and activation."""

    features: int
    resolution: int
    upsample: bool

    def setup(self) -> None:
        super().setup()
        self.kernel = self.param(
            "kernel",
            nn.initializers.normal(1.0),
            (3, 3, self.in_channels, self.features),
        )
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,))
        self.noise_const = self.param(
            "noise_const",
            nn.initializers.normal(1.0),
            self.config.shape_at(self.resolution),
        )
        self.noise_strength = self.param("noise_strength", nn.initializers.zeros, ())

    def __call__(
        self, x: jax.Array, style: jax.Array, noise: Noise, key: jax.Array | None
    ) -> jax.Array:
        # The equalised scale goes onto the style, which is far smaller than the
        # kernel.
        style = style / math.sqrt(9 * self.in_channels)
        power = norms.kernel_power(self.kernel)
        precision = self.config.precision
        demodulation = lax.rsqrt(
            jnp.dot(style**2, power, precision=precision) + _EPSILON
        )
        convolve = (
            upsampling.upsample_conv3x3 if self.upsample else convolutions.conv3x3
        )
        x = convolve(layers.scale(x, style), self.kernel.astype(x.dtype), precision)
        x = layers.scale(x, demodulation)
        if noise != "none":
            x = x + self._noise(noise, key, x)
        x = layers.leaky_relu(x + self.bias.astype(x.dtype))
        return layers.clamp(x, self.config.conv_clamp)

    def _noise(self, noise: Noise, key: jax.Array | None, x: jax.Array) -> jax.Array:
        if noise == "moving":
            value = self.noise_const[..., None]
        elif noise == "const":
            # Data, not a weight: training the generator must not move it.
            value = lax.stop_gradient(self.noise_const)[..., None]
        else:
            assert key is not None
            value = jax.random.normal(key, (*x.shape[:3], 1))
        return (value * self.noise_strength).astype(x.dtype)


class _ToRGB(_ModulatedLayer):
    """Modulated 1×1 convolution to RGB, without demodulation."""

    def setup(self) -> None:
        super().setup()
        self.kernel = self.param(
            "kernel", nn.initializers.normal(1.0), (1, 1, self.in_channels, 3)
        )
        self.bias = self.param("bias", nn.initializers.zeros, (3,))

    def __call__(self, x: jax.Array, style: jax.Array) -> jax.Array:
        return layers.to_rgb(
            x,
            style,
            self.kernel,
            self.bias,
            bound=self.config.conv_clamp,
            precision=self.config.precision,
        )


class _Block(linen.Module):
    """Layers of one resolution: conv0 (upsampling, from 8² up), conv1, torgb."""

    config: GeneratorConfig
    resolution: int

    def setup(self) -> None:
        config, resolution = self.config, self.resolution
        index = resolution.bit_length() - 3
        features = config.channels[index]
        if index:
            before = config.channels[index - 1]
            self.conv0 = _StyledConv(config, before, features, resolution, True)
        self.conv1 = _StyledConv(config, features, features, resolution, False)
        self.torgb = _ToRGB(config, features)

    def style(self, layer: str, w: jax.Array) -> jax.Array:
        return getattr(self, layer).style(w)

    def __call__(
        self,
        activations: Activations,
        styles: spaces.Styles,
        noise: Noise,
        key: jax.Array | None,
        layers: tuple[str, ...],
    ) -> Activations:
        """Runs some of the layers, in order, each with its style vector."""
        x, rgb = activations
        x = x.astype(self.config.dtype_at(self.resolution))
        keys: Any = (None, None) if key is None else jax.random.split(key)
        key_of = {"conv0": keys[0], "conv1": keys[1]}
        for name, style in zip(layers, styles, strict=True):
            if name == "torgb":
                image = self.torgb(x, style)
                rgb = image if rgb is None else upsampling.upsample_rgb(rgb) + image
            else:
                x = getattr(self, name)(x, style, noise, key_of[name])
        return Activations(x, rgb)


class _Synthesis(generators.Synthesis):
    """Synthesis network: W+ to styles, and styles to the image."""

    config: GeneratorConfig

    def setup(self) -> None:
        # noise and layers (the module itself being argument 0) are static.
        remat = functools.partial(nn.remat, static_argnums=(3, 5))
        block = remat(_Block) if self.config.remat else _Block
        for resolution in (4 << i for i in range(len(self.config.channels))):
            setattr(self, f"b{resolution}", block(self.config, resolution))
        self.const = self.param(
            "const",
            nn.initializers.normal(1.0),
            (*self.config.base, self.config.channels[0]),
        )

    def __call__(
        self,
        styles: spaces.Styles,
        activations: Activations | None,
        noise: Noise,
        key: jax.Array | None,
        start: int,
        stop: int,
    ) -> Activations:
        if activations is None:
            batch = styles[0].shape[0]
            x = jnp.broadcast_to(self.const, (batch, *self.const.shape))
            activations = Activations(x, None)
        names = [layer.name.split("/") for layer in self.config.style_layout]
        for index in range(len(self.config.channels)):
            # conv1 and torgb at 4², then three layers per resolution.
            first = max(start, 3 * index - 1)
            last = min(stop, 3 * index + 2)
            if first < last:
                block = getattr(self, names[first][0])
                layers = tuple(name for _, name in names[first:last])
                block_key = None if key is None else jax.random.fold_in(key, index)
                activations = block(
                    activations, styles[first:last], noise, block_key, layers
                )
        return activations
