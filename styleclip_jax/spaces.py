"""Latent spaces Z, W, W+ and S of StyleGAN: shapes, layout and conversions.

Z and W are single vectors, W+ holds one row of W per layer of the generator, and S
(StyleSpace) holds the style vectors that those rows become inside the layers.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, UInt8

# Types of arrays, whose shapes tests check; they cost nothing at run time.
Z = Float[Array, "*batch z_dim"]
W = Float[Array, "*batch w_dim"]
WPlus = Float[Array, "*batch rows w_dim"]
StyleVector = Float[Array, "*batch _"]
# One style vector per layer in official order. A tuple because JAX sorts the keys of
# dicts, which would put b1024 before b4.
Styles = tuple[StyleVector, ...]
FlatStyles = Float[Array, "*batch channels"]
# Images in [-1, 1], those of 8 bits, and square ones that go into a network.
Image = Float[Array, "batch height width 3"]
Pixels = UInt8[Array, "batch height width 3"]
Square = Float[Array, "batch size size 3"]
Tokens = Integer[Array, "batch length"]
Feature = Float[Array, "batch feature"]
# Size of images: width of square ones, or height and width.
Size = int | tuple[int, int]
# Value of a loss or a metric for each example.
PerExample = Float[Array, " batch"]


class StyleLayer(NamedTuple):
    """Position of one style vector in the generator.

    Attributes:
      name: layer in the parameter tree, such as "b8/conv0".
      row: row of W+ that the vector is made from.
      channels: length of the vector, the number of input channels of the layer.
      is_torgb: whether the layer is a toRGB, which StyleCLIP leaves alone in S.
    """

    name: str
    row: int
    channels: int
    is_torgb: bool

    @property
    def resolution(self) -> int:
        """Resolution that the layer works at; width and height over a base of 4×4."""
        return int(self.name.split("/")[0].removeprefix("b"))

    @property
    def is_input(self) -> bool:
        """Whether the vector is the place of the whole image, as a StyleGAN3 has it."""
        return self.name.split("/")[-1] == "input"

    @property
    def moves(self) -> bool:
        """Whether edits in S move it: no colours, and no place of the whole image."""
        return not (self.is_torgb or self.is_input)


def shape_of(size: Size) -> tuple[int, int]:
    """Height and width of a size."""
    return size if isinstance(size, tuple) else (size, size)


def describe_size(size: Size) -> str:
    """Size for people: 64² or, width first, 16×32."""
    return f"{size[1]}×{size[0]}" if isinstance(size, tuple) else f"{size}²"


def num_rows(resolution: int) -> int:
    """Number of W+ rows of a generator: 18 at 1024², 14 at 256², 10 at 64²."""
    return 2 * (resolution.bit_length() - 1) - 2


def style_layout(channels: Sequence[int]) -> tuple[StyleLayer, ...]:
    """Layout of S for a generator with `channels` at 4², 8², 16², …

    A toRGB reads the same row of W+ as the upsampling convolution that follows it.
    """
    layers = [
        StyleLayer("b4/conv1", 0, channels[0], False),
        StyleLayer("b4/torgb", 1, channels[0], True),
    ]
    for k, (before, after) in enumerate(itertools.pairwise(channels)):
        block = f"b{8 << k}"
        layers += [
            StyleLayer(f"{block}/conv0", 1 + 2 * k, before, False),
            StyleLayer(f"{block}/conv1", 2 + 2 * k, after, False),
            StyleLayer(f"{block}/torgb", 3 + 2 * k, after, True),
        ]
    return tuple(layers)


def layout_of(
    channels: Sequence[int], layer_names: Sequence[str] = ()
) -> tuple[StyleLayer, ...]:
    """Layout of S by numbers and names, as configurations keep it.

    Args:
      channels: feature channels at 4², 8², 16², …; with names, channels of each layer.
      layer_names: names of layers that have a row of W+ each, in order; none for a
        generator whose layers follow from the channels, see `style_layout`.

    Raises:
      ValueError: there are names, but not another one for each number.
    """
    if not layer_names:
        return style_layout(channels)
    if len({*layer_names}) < len(layer_names):
        raise ValueError(f"expected a name for each layer, found {layer_names}")
    pairs = zip(layer_names, channels, strict=True)
    return tuple(
        StyleLayer(name, row, count, name.endswith("/torgb"))
        for row, (name, count) in enumerate(pairs)
    )


def channels_of(lengths: Sequence[int]) -> tuple[int, ...] | None:
    """Channels at 4², 8², … of the layout with style vectors of these lengths.

    None if no generator has them: conv, toRGB, then conv, conv, toRGB per resolution.
    """
    # conv1 at 4², then conv1 of each resolution.
    channels = (*lengths[:1], *lengths[3::3])
    if len(channels) < 2:
        return None
    expected = [layer.channels for layer in style_layout(channels)]
    return channels if list(lengths) == expected else None


def broadcast_w(w: W, rows: int) -> WPlus:
    """W+ [..., rows, D] whose rows all are w [..., D]."""
    return jnp.repeat(w[..., None, :], rows, axis=-2)


def truncate(
    w_plus: WPlus,
    w_avg: jax.Array,
    truncation_psi: float | jax.Array,
    cutoff: int | None = None,
) -> WPlus:
    """Latents pulled towards the average: w_avg + psi · (w − w_avg).

    Args:
      w_plus: [..., L, D].
      w_avg: [D] or [L, D].
      truncation_psi: 1 leaves the latent as it is, 0 gives the average.
      cutoff: number of leading rows to truncate; None for all of them.

    Returns:
      [..., L, D].

    Source: `truncation` of the official scripts (all rows), `truncation_cutoff` of
    stylegan2-ada-pytorch (8 in StyleCLIP's global directions).
    """
    truncated = w_avg + truncation_psi * (w_plus - w_avg)
    if cutoff is None:
        return truncated
    kept = jnp.arange(w_plus.shape[-2])[:, None] >= cutoff
    return jnp.where(kept, w_plus, truncated)


def flatten_styles(styles: Styles) -> FlatStyles:
    """Flat form [..., ΣC_i] of style vectors [..., C_i], used in files."""
    return jnp.concatenate(styles, axis=-1)


def unflatten_styles(flat: FlatStyles, layout: Sequence[StyleLayer]) -> Styles:
    """Style vectors of the flat form [..., ΣC_i]; undoes `flatten_styles`.

    Raises:
      ValueError: the last axis does not have the layout's total length.
    """
    total = sum(layer.channels for layer in layout)
    if flat.shape[-1] != total:
        raise ValueError(
            f"expected style vectors of {total} channels in all, "
            f"found an array of shape {tuple(flat.shape)}"
        )
    pieces, start = [], 0
    for layer in layout:
        pieces.append(flat[..., start : start + layer.channels])
        start += layer.channels
    return tuple(pieces)
