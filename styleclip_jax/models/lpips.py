"""LPIPS: perceptual distance of two images, by the feature maps of a network.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", version 0.1 with a VGG16 or an AlexNet. With maps f_l of length 1 at every
pixel, weights w_l of their channels and P_l the pixels of stage l,

  d(a, b) = Σ_l 1/|P_l| Σ_p Σ_c w_lc (f_l(a)_pc − f_l(b)_pc)².

So d is the squared distance of the vectors of √(w_lc / |P_l|) f_lpc, too.
"""

from typing import Any

import jax
import jax.numpy as jnp

from styleclip_jax import spaces
from styleclip_jax.models import alexnet, vgg16
from styleclip_jax.models.network import Network
from styleclip_jax.ops import products, resampling

_EPSILON = 1e-10
# Modules of the networks, by their configurations.
_MODULES: dict[type, Any] = {
    vgg16.Vgg16Config: vgg16,
    alexnet.AlexNetConfig: alexnet,
}


def features(network: Network, image: spaces.Image) -> jax.Array:
    """Vectors whose squared distances are LPIPS.

    Args:
      network: a VGG16 or an AlexNet with the weights of LPIPS.
      image: [B, H, W, 3] in [-1, 1], at least 16 pixels high and wide, or 31.

    Returns:
      [B, N] float32, with every pixel and channel of every stage.

    Raises:
      UserError: the network has no such weights.
      ValueError: the image has another shape.

    Source: `vgg16.pt` with return_lpips, as NVIDIA's path length and projector use it.
    """
    module = _MODULES[type(network.config)]
    weights, maps = module.lpips_weights(network), module.feature_maps(network, image)
    parts = []
    for weight, x in zip(weights, maps, strict=True):
        _, height, width, _ = x.shape
        weighted = _unit(x) * jnp.sqrt(weight / (height * width))
        parts.append(weighted.reshape(len(x), -1))
    return jnp.concatenate(parts, axis=1)


def distance(
    network: Network,
    image: spaces.Image,
    other: spaces.Image,
    mask: jax.Array | None = None,
) -> jax.Array:
    """LPIPS [B] of two images: the sum of `stage_distances`, with their arguments."""
    return jnp.sum(stage_distances(network, image, other, mask), axis=1)


def stage_distances(
    network: Network,
    image: spaces.Image,
    other: spaces.Image,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Part of LPIPS that each stage of the network has.

    Args:
      network: a VGG16 or an AlexNet with the weights of LPIPS.
      image: [B, H, W, 3] in [-1, 1], at least 16 pixels high and wide, or 31.
      other: likewise.
      mask: weight of each pixel, [H, W] or [B, H, W], at least 0; all alike if absent.
        In each stage it is averaged over the area of a pixel there, and the mean over
        pixels is weighted by it. Features see beyond their pixel: a change next to the
        mask still counts, the less the farther away it is. The mean by a mask of zeros
        is NaN.

    Returns:
      [B, 5] float32.

    Raises:
      UserError: the network has no such weights.
      ValueError: an image or the mask has another shape.
    """
    if image.shape != other.shape:
        raise ValueError(
            f"expected images of one shape, found {list(image.shape)} and "
            f"{list(other.shape)}"
        )
    module = _MODULES[type(network.config)]
    weights = module.lpips_weights(network)
    # Not as one batch: mostly one of them alone is differentiated.
    pairs = zip(
        module.feature_maps(network, image),
        module.feature_maps(network, other),
        strict=True,
    )
    found = []
    for weight, (a, b) in zip(weights, pairs, strict=True):
        by_pixel = jnp.sum(weight * jnp.square(_unit(a) - _unit(b)), axis=-1)
        found.append(_mean(by_pixel, mask, image.shape))
    return jnp.stack(found, axis=1)


def _unit(x: jax.Array) -> jax.Array:
    """Maps of length 1 at every pixel; zero stays zero, and so does its derivative.

    Parity: the official code adds epsilon to the length.
    """
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    some = squares > 0
    # The root has no derivative at zero: its argument is 1 there instead.
    length = jnp.where(some, jnp.sqrt(jnp.where(some, squares, 1)), 0)
    return x / (length + _EPSILON)


def _mean(x: jax.Array, mask: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """Mean [B] over the pixels of maps [B, h, w], by a mask for images of a shape."""
    if mask is None:
        return jnp.mean(x, axis=(1, 2))
    size = shape[1:3]
    if mask.shape not in (size, (len(x), *size)):
        raise ValueError(
            f"mask: expected {list(size)}, for all images or for each, found "
            f"{list(mask.shape)}"
        )
    rows, columns = map(resampling.area_matrix, size, x.shape[1:])
    weights = mask.astype(jnp.float32).reshape(-1, *size, 1)
    weights = resampling.resize(weights, rows, columns, products.EXACT)[..., 0]
    weights = jnp.broadcast_to(weights, x.shape)
    return jnp.sum(weights * x, axis=(1, 2)) / jnp.sum(weights, axis=(1, 2))
