"""Perceptions of photos: LPIPS by a network that is named, or a stand-in for it."""

import math

import jax
import jax.numpy as jnp

from styleclip_jax import places, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints
from styleclip_jax.loading import Models
from styleclip_jax.methods.perception import Perception
from styleclip_jax.models import alexnet, irse50, lpips, vgg16
from styleclip_jax.models.generators import GeneratorConfig
from styleclip_jax.models.network import Network

# Networks with weights of LPIPS by their kinds, and their smallest images.
_NETWORKS = {
    "vgg16": (vgg16, vgg16.Vgg16Config, 16),
    "alexnet": (alexnet, alexnet.AlexNetConfig, alexnet.SMALLEST),
}


def _see(network: Network, image: spaces.Image) -> jax.Array:
    """Stand-in for LPIPS: pixels, and features of faces that say who it is.

    The squared distance of two images is the mean of squared differences plus a
    hundredth of that of the features, with more of which pixels count too little.
    """
    pixels = image.reshape(len(image), -1)
    parts = (pixels / math.sqrt(pixels.shape[1]), 0.1 * irse50.features(network, image))
    return jnp.concatenate(parts, axis=1)


def load(
    models: Models, generator: GeneratorConfig, field: str, largest: int | None
) -> Perception:
    """Perception of images of a generator.

    Args:
      models: names of the networks.
      generator: configuration of the generator.
      field: weight that asks for it.
      largest: width and height to which LPIPS shrinks larger images, None for none.

    Raises:
      UserError: there is no network, or it cannot see such images.
    """
    if models.lpips is None:
        if not models.has_identity:
            raise UserError(
                f"{field}: needs a network that sees photos, expected lpips with one, "
                "or identity",
                field=field,
                also=["lpips", "identity"],
            )
        return Perception(models.load_identity(generator), _see)
    where = places.find("lpips", models.lpips)
    kind = checkpoints.kind_of(where)
    if kind not in _NETWORKS:
        raise UserError(
            f"lpips: expected a network of {' or '.join(_NETWORKS)}, found "
            f"{kind or 'none'} in {models.lpips}",
            field="lpips",
        )
    module, config, least = _NETWORKS[kind]
    network = checkpoints.load_network(
        where, kind=kind, config_type=config, param_shapes=module.param_shapes
    )
    if not network.config.lpips:
        raise UserError(
            f"lpips: expected a network with the weights of LPIPS, found {models.lpips}"
            " without",
            field="lpips",
        )
    if min(generator.image_shape) < least:
        raise UserError(
            f"lpips: {kind} sees images of {least}² or more, found a generator of "
            f"{generator.size_text}",
            field="lpips",
        )
    return Perception(models.of_other(network), lpips.features, largest)
