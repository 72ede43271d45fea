"""Generators, whatever their architecture: z → w, W+ → styles, styles → image.

The configuration of a generator gives the module that computes it, so that nothing here
or above knows which one it is.
"""

import abc
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.models import linen, mapping, param_trees, runtime
from styleclip_jax.models.network import Config, Network
from styleclip_jax.settings.latents import NOISES, Noise


class GeneratorConfig(runtime.Staged):
    """Base of configurations of generators: what all of them say.

    Attributes:
      resolution: width and height of the image.
      z_dim: length of z.
      w_dim: length of w.
      c_dim: number of classes, 0 for an unconditional generator.
      num_mapping_layers: dense layers from z to w.
    """

    resolution: int
    z_dim: int
    w_dim: int
    c_dim: int
    num_mapping_layers: int

    @property
    @abc.abstractmethod
    def num_rows(self) -> int:
        """Number of W+ rows."""

    @property
    @abc.abstractmethod
    def style_layout(self) -> tuple[spaces.StyleLayer, ...]:
        """Layout of S."""

    @property
    @abc.abstractmethod
    def style_fields(self) -> dict[str, Any]:
        """Fields by which networks in S keep its layout: arguments of `layout_of`."""

    @property
    @abc.abstractmethod
    def noise_shapes(self) -> dict[str, tuple[int, int]]:
        """Height and width of each layer's noise, by the layer's name: "b8/conv0"."""

    def shown_at(self, resolution: int) -> tuple[int, int]:
        """Height and width of what is shown of the image of a resolution."""
        return resolution, resolution

    def show(self, image: jax.Array) -> jax.Array:
        """What is shown of images [B, H, W, 3] of any resolution of this network."""
        return image

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of an image, as it is shown."""
        return self.shown_at(self.resolution)

    def size_at(self, resolution: int) -> spaces.Size:
        """Size of what is shown of the image of a resolution."""
        height, width = self.shown_at(resolution)
        return height if height == width else (height, width)

    @property
    def image_size(self) -> spaces.Size:
        """Size of an image, as it is shown."""
        return self.size_at(self.resolution)

    @property
    def size_text(self) -> str:
        """Size of an image for people: 64², or 16×32 with the width first."""
        return spaces.describe_size(self.image_size)

    def expect_square(self, field: str) -> None:
        """Refuses images that are not square, where only square ones do.

        Raises:
          UserError: names the field that cannot be had with them.
        """
        if isinstance(self.image_size, tuple):
            raise UserError(
                f"{field}: expected a generator of square images with it, found one of "
                f"{self.size_text}",
                field=field,
            )

    def expect_image(self, name: str, image: jax.Array) -> None:
        """Refuses an array that is not as large as an image.

        Raises:
          ValueError: names the array, whose shape is not [H, W, 3].
        """
        expected = [*self.image_shape, 3]
        if list(image.shape) != expected:
            raise ValueError(f"{name}: expected {expected}, found {list(image.shape)}")

    @property
    def has_transform(self) -> bool:
        """Whether its images can be rotated and translated inside of the network."""
        return False

    @property
    def turns(self) -> bool:
        """Whether a rotation inside of the network shows the same, but rotated."""
        return False

    @abc.abstractmethod
    def synthesis(self) -> "Synthesis":
        """Module that makes styles of W+, and images of styles."""


Generator = Network[GeneratorConfig]


def init(key: jax.Array, config: GeneratorConfig) -> Any:
    """Random parameters with the official initialisation, as a nested dict."""
    return _Generator(config).init(key)["params"]


@functools.cache
def param_shapes(config: GeneratorConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its flat name, such as "mapping/fc0/kernel"."""
    return param_trees.shapes_of(init, config)


class Activations(NamedTuple):
    """Activations between two layers: all that the synthesis has made so far.

    Attributes:
      x: [B, h, w, C] features.
      rgb: [B, h, w, 3] sum of the toRGB layers that have run, None before the first.
    """

    x: jax.Array
    rgb: spaces.Image | None


def with_noise(
    generator: Network[Config], noise: Mapping[str, jax.Array]
) -> Network[Config]:
    """A generator whose stored noise is another one, [h, w] or [B, h, w] by layer."""
    params = param_trees.flatten(generator.params)
    params |= {noise_name(layer): x for layer, x in noise.items()}
    return Network(param_trees.unflatten(params), generator.config)


def noise_name(layer: str) -> str:
    """Flat name of the stored noise of a layer, such as "b8/conv0"."""
    return f"synthesis/{layer}/noise_const"


def with_transform(generator: Network[Config], transform: jax.Array) -> Network[Config]:
    """A generator whose images are placed otherwise, whatever makes them.

    Args:
      generator: the generator, whose own transform is replaced.
      transform: [3, 3] or [B, 3, 3], from (x, y, 1) of the image shown to those of the
        image as it is generated, in widths from its centre.

    Raises:
      ValueError: the generator has none.
    """
    name = _transform_name(generator.config)
    if transform.shape[-2:] != (3, 3) or transform.ndim > 3:
        raise ValueError(
            f"transform: expected [3, 3] or [B, 3, 3], found {list(transform.shape)}"
        )
    params = param_trees.flatten(generator.params)
    params[name] = transform
    return Network(param_trees.unflatten(params), generator.config)


def moved(generator: Network[Config], transform: jax.Array) -> Network[Config]:
    """A generator whose images are moved from where its own transform has them.

    Args:
      generator: the generator.
      transform: [3, 3] or [B, 3, 3], from (x, y, 1) of the image shown to those of the
        image before, as of `with_transform`.

    Raises:
      ValueError: the generator has none.
    """
    own = param_trees.flatten(generator.params)[_transform_name(generator.config)]
    return with_transform(generator, jnp.matmul(own, transform, precision="highest"))


def _transform_name(config: Any) -> str:
    """Flat name of the transform of a generator that has one."""
    if not config.has_transform:
        raise ValueError("this generator has no transform, as a StyleGAN3 has")
    return f"synthesis/{config.style_layout[0].name}/transform"


def placing(
    rotate: float | jax.Array = 0.0,
    translate: tuple[float | jax.Array, float | jax.Array] = (0.0, 0.0),
) -> jax.Array:
    """Transform [3, 3] of an image that is rotated, then translated.

    Args:
      rotate: angle in degrees, of the sign of gen_images.py.
      translate: to the right and down, in widths of the image.

    Source: gen_images.py of stylegan3, whose matrix is the inverse.
    """
    angle = jnp.deg2rad(jnp.float32(rotate))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = map(jnp.float32, translate)
    # Inverse of [[cos, sin, x], [−sin, cos, y], [0, 0, 1]].
    return jnp.array(
        [
            [cos, -sin, sin * y - cos * x],
            [sin, cos, -sin * x - cos * y],
            [0, 0, 1],
        ]
    )


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
    transform: jax.Array | None = None,
) -> spaces.Image:
    """Images of style vectors.

    Args:
      generator: the generator.
      styles: tuple of [B, channels] in the order of `generator.config.style_layout`.
      noise: "const" adds the stored noise (what StyleCLIP edits with), "random" draws
        it from `key`, "none" adds none. "moving" is "const" with a gradient.
      key: PRNG key for random noise.
      transform: place of the image, [3, 3] or [B, 3, 3], see `with_transform`; None
        for the generator's own.

    Returns:
      [B, H, W, 3] float32, nominally in [-1, 1] and not clipped.

    Raises:
      ValueError: the styles do not fit the generator, or the noise is not one of
        these, or is random and has no key.
    """
    done = synthesize_layers(
        generator, styles, noise=noise, key=key, transform=transform
    )
    assert done.rgb is not None
    return generator.config.show(done.rgb)


def synthesize_layers(
    generator: Generator,
    styles: spaces.Styles,
    activations: Activations | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
    noise: Noise = "const",
    key: jax.Array | None = None,
    transform: jax.Array | None = None,
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
        result's `rgb` is the image at that layer's resolution, of which
        `generator.config.show` shows a part.
      noise: the noise, as for `synthesize_styles`.
      key: the key, as for `synthesize_styles`, and the same for every part.
      transform: the transform, as for `synthesize_styles`; the first layer has it.

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
    if noise not in (*NOISES, "moving"):
        raise ValueError(f"noise must be one of {', '.join(NOISES)}, found {noise!r}")
    if noise == "random" and key is None:
        raise ValueError("random noise needs a PRNG key")
    if transform is not None:
        generator = with_transform(generator, transform)
    inputs = (styles, activations, noise, key, start, stop)
    return _apply(generator, _Generator.synthesize, *inputs)


def synthesize(
    generator: Generator,
    w_plus: spaces.WPlus,
    *,
    noise: Noise = "const",
    key: jax.Array | None = None,
    transform: jax.Array | None = None,
) -> spaces.Image:
    """Images of W+ latents [B, L, D]; see `synthesize_styles`."""
    styles = to_styles(generator, w_plus)
    return synthesize_styles(
        generator, styles, noise=noise, key=key, transform=transform
    )


def _apply(generator: Generator, method: Callable[..., Any], *inputs: Any) -> Any:
    params = {"params": generator.params}
    return _Generator(generator.config).apply(params, *inputs, method=method)


def _expect(name: str, array: jax.Array, shape: tuple[int, ...]) -> None:
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
        expected = ", ".join(map(str, ("N", *shape)))
        raise ValueError(f"{name}: expected [{expected}], found {list(array.shape)}")


class Synthesis(linen.Module):
    """Base of synthesis networks, whose stages have the layers of a resolution."""

    config: GeneratorConfig

    def to_styles(self, w_plus: jax.Array) -> spaces.Styles:
        """Style vectors of W+ [B, L, D], by the layers' own affine layers."""
        styles = []
        for layer in self.config.style_layout:
            stage, name = layer.name.split("/")
            styles.append(getattr(self, stage).style(name, w_plus[:, layer.row]))
        return tuple(styles)


class _Generator(linen.Module):
    """Whole network; each public function calls one method."""

    config: GeneratorConfig

    def setup(self) -> None:
        config = self.config
        self.mapping = mapping.Mapping(
            config.w_dim, config.c_dim, config.num_mapping_layers
        )
        self.synthesis = config.synthesis()

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
