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
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from styleclip_jax import spaces
from styleclip_jax.models import layers, linen, mapping, param_trees, runtime
from styleclip_jax.models.network import Network
from styleclip_jax.ops import convolutions, norms
from styleclip_jax.settings.latents import NOISES, Noise

_EPSILON = 1e-8


@dataclasses.dataclass(frozen=True)
class GeneratorConfig(runtime.Pyramid):
    """Static architecture of a generator; the defaults are config F at 1024².

    Precision and type are those of the synthesis, whose styles, demodulation and images
    are float32 always; the mapping of z to w is exact.

    Attributes:
      resolution: width and height of the image, a power of two from 8 up.
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


Generator = Network[GeneratorConfig]


class Activations(NamedTuple):
    """Activations between two layers: all that the synthesis has made so far.

    Attributes:
      x: [B, h, w, C] features.
      rgb: [B, h, w, 3] sum of the toRGB layers that have run, None before the first.
    """

    x: jax.Array
    rgb: spaces.Image | None


def init(key: jax.Array, config: GeneratorConfig) -> Any:
    """Random parameters with the official initialisation, as a nested dict."""
    return _Generator(config).init(key)["params"]


@functools.cache
def param_shapes(config: GeneratorConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its flat name, such as "mapping/fc0/kernel"."""
    return param_trees.shapes_of(init, config)


@functools.cache
def noise_shapes(config: GeneratorConfig) -> dict[str, tuple[int, int]]:
    """Height and width of each layer's noise, by the layer's name: "b8/conv0"."""
    return {
        layer.name: (layer.resolution, layer.resolution)
        for layer in config.style_layout
        if not layer.is_torgb
    }


def with_noise(generator: Generator, noise: Mapping[str, jax.Array]) -> Generator:
    """A generator whose stored noise is another one, [h, w] or [B, h, w] by layer."""
    params = param_trees.flatten(generator.params)
    params |= {f"synthesis/{layer}/noise_const": x for layer, x in noise.items()}
    return Network(param_trees.unflatten(params), generator.config)


def map_latents(
    generator: Generator,
    z: spaces.Z,
    label: jax.Array | None = None,
) -> spaces.W:
    """w of each z, without truncation.

    Args:
      generator: the generator.
      z: [B, z_dim], standard normal.
      label: [B, c_dim] one-hot classes; given exactly when the generator is
        class-conditional.

    Returns:
      [B, w_dim] float32.

    Raises:
      ValueError: z or the label does not fit the generator.
    """
    config = generator.config
    _expect("z", z, (config.z_dim,))
    if config.c_dim and label is None:
        raise ValueError(f"this generator has {config.c_dim} classes and needs a label")
    if label is not None:
        _expect("label", label, (config.c_dim,))
    return _apply(generator, _Generator.map_latents, z, label)


def to_styles(generator: Generator, w_plus: spaces.WPlus) -> spaces.Styles:
    """Style vectors of W+ latents [B, L, D]: the layers' affine outputs, in order.

    The vectors of toRGB layers are those before stylegan2-ada-pytorch's factor of
    1/sqrt(channels), which belongs to the layer (as in StyleCLIP's StyleSpace).

    Raises:
      ValueError: the latents do not fit the generator.
    """
    config = generator.config
    _expect("w_plus", w_plus, (config.num_rows, config.w_dim))
    return _apply(generator, _Generator.to_styles, w_plus)


def synthesize_styles(
    generator: Generator,
    styles: spaces.Styles,
    *,
    noise: Noise = "const",
    key: jax.Array | None = None,
) -> spaces.Image:
    """Images of style vectors.

    Args:
      generator: the generator.
      styles: tuple of [B, channels] in the order of `generator.config.style_layout`.
      noise: "const" adds the stored noise (what StyleCLIP edits with), "random" draws
        it from `key`, "none" adds none.
      key: PRNG key for random noise.

    Returns:
      [B, H, W, 3] float32, nominally in [-1, 1] and not clipped.

    Raises:
      ValueError: the styles do not fit the generator, or the noise is not one of the
        three, or is random and has no key.
    """
    done = synthesize_layers(generator, styles, noise=noise, key=key)
    assert done.rgb is not None
    return done.rgb


def synthesize_layers(
    generator: Generator,
    styles: spaces.Styles,
    activations: Activations | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
    noise: Noise = "const",
    key: jax.Array | None = None,
) -> Activations:
    """Activations after some layers, from those of the earlier ones.

    It is a part of `synthesize_styles`: whatever only changes late layers needs the
    early ones once.

    Args:
      generator: the generator.
      styles: tuple of all style vectors; those from `start` to `stop` are used.
      activations: result for the layers before `start`; None when `start` is 0.
      start: index in `generator.config.style_layout` of the first layer to run.
      stop: index after the last layer to run, None for all. After a toRGB layer, the
        result's `rgb` is the image at that layer's resolution.
      noise: the noise, as for `synthesize_styles`.
      key: the key, as for `synthesize_styles`, and the same for every part.

    Raises:
      ValueError: as for `synthesize_styles`, or the layers do not exist, or a later
        start has no activations or a start of 0 has some.
    """
    layout = generator.config.style_layout
    stop = len(layout) if stop is None else stop
    if not 0 <= start <= stop <= len(layout):
        raise ValueError(
            f"expected layers from 0 to {len(layout)}, found {start} to {stop}"
        )
    if (start == 0) != (activations is None):
        raise ValueError("activations go with a start after the first layer")
    if len(styles) != len(layout):
        raise ValueError(f"expected {len(layout)} style vectors, found {len(styles)}")
    for layer, style in zip(layout, styles, strict=True):
        _expect(f"style of {layer.name}", style, (layer.channels,))
    if noise not in NOISES:
        raise ValueError(f"noise must be one of {', '.join(NOISES)}, found {noise!r}")
    if noise == "random" and key is None:
        raise ValueError("random noise needs a PRNG key")
    inputs = (styles, activations, noise, key, start, stop)
    return _apply(generator, _Generator.synthesize, *inputs)


def synthesize(
    generator: Generator,
    w_plus: spaces.WPlus,
    *,
    noise: Noise = "const",
    key: jax.Array | None = None,
) -> spaces.Image:
    """Images of W+ latents [B, L, D]; see `synthesize_styles`."""
    styles = to_styles(generator, w_plus)
    return synthesize_styles(generator, styles, noise=noise, key=key)


def _apply(generator: Generator, method: Callable[..., Any], *inputs: Any) -> Any:
    params = {"params": generator.params}
    return _Generator(generator.config).apply(params, *inputs, method=method)


def _expect(name: str, array: jax.Array, shape: tuple[int, ...]) -> None:
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
        expected = ", ".join(map(str, ("N", *shape)))
        raise ValueError(f"{name}: expected [{expected}], found {list(array.shape)}")


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

    def _modulate(self, x: jax.Array, style: jax.Array) -> jax.Array:
        return x * style[:, None, None, :].astype(x.dtype)

    def _clamp(self, x: jax.Array) -> jax.Array:
        clamp = self.config.conv_clamp
        return x if clamp is None else jnp.clip(x, -clamp, clamp)


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
            "noise_const", nn.initializers.normal(1.0), (self.resolution,) * 2
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
            convolutions.upsample_conv3x3 if self.upsample else convolutions.conv3x3
        )
        x = convolve(self._modulate(x, style), self.kernel.astype(x.dtype), precision)
        x = self._modulate(x, demodulation)
        if noise != "none":
            x = x + self._noise(noise, key, x)
        return self._clamp(layers.leaky_relu(x + self.bias.astype(x.dtype)))

    def _noise(self, noise: Noise, key: jax.Array | None, x: jax.Array) -> jax.Array:
        if noise == "const":
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
        style = style / math.sqrt(self.in_channels)
        # Three columns for each example are less to multiply than its activations,
        # which are then read once.
        kernel = style[:, :, None] * self.kernel[0, 0]
        rgb = convolutions.convolve_pixels(
            x, kernel.astype(x.dtype), self.config.precision
        )
        return self._clamp(rgb.astype(jnp.float32) + self.bias)


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
                rgb = image if rgb is None else convolutions.upsample_rgb(rgb) + image
            else:
                x = getattr(self, name)(x, style, noise, key_of[name])
        return Activations(x, rgb)


class _Synthesis(linen.Module):
    """Synthesis network: W+ to styles, and styles to the image."""

    config: GeneratorConfig

    def setup(self) -> None:
        # noise and layers (the module itself being argument 0) are static.
        remat = functools.partial(nn.remat, static_argnums=(3, 5))
        block = remat(_Block) if self.config.remat else _Block
        for resolution in (4 << i for i in range(len(self.config.channels))):
            setattr(self, f"b{resolution}", block(self.config, resolution))
        self.const = self.param(
            "const", nn.initializers.normal(1.0), (4, 4, self.config.channels[0])
        )

    def to_styles(self, w_plus: jax.Array) -> spaces.Styles:
        styles = []
        for layer in self.config.style_layout:
            block, name = layer.name.split("/")
            styles.append(getattr(self, block).style(name, w_plus[:, layer.row]))
        return tuple(styles)

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


class _Generator(linen.Module):
    """Whole network; each public function of this module calls one method."""

    config: GeneratorConfig

    def setup(self) -> None:
        config = self.config
        self.mapping = mapping.Mapping(
            config.w_dim, config.c_dim, config.num_mapping_layers
        )
        self.synthesis = _Synthesis(self.config)

    def map_latents(self, z: jax.Array, label: jax.Array | None) -> jax.Array:
        return self.mapping(z, label)

    def to_styles(self, w_plus: jax.Array) -> spaces.Styles:
        return self.synthesis.to_styles(w_plus)

    def synthesize(self, *inputs: Any) -> Activations:
        return self.synthesis(*inputs)

    def __call__(self) -> spaces.Styles:
        """Touches every parameter; used for initialisation alone."""
        config = self.config
        label = jnp.zeros((1, config.c_dim)) if config.c_dim else None
        w = self.map_latents(jnp.zeros((1, config.z_dim)), label)
        # A layer that makes its style has made its other parameters, too.
        return self.to_styles(spaces.broadcast_w(w, config.num_rows))
