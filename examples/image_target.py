"""An image instead of a text as target: CLIP's features of a picture do as well.

The loss compares the edited image with a direction in CLIP's space, and does not ask
what the direction was made from.

  python -m examples.image_target
"""

import jax

import examples
from styleclip_jax import loading, losses
from styleclip_jax.io import images
from styleclip_jax.methods import optimization
from styleclip_jax.models import clip, clip_input, stylegan2


def encode(network, image):
    """Normalised features [B, E], with the same preprocessing as in the loss."""
    image = clip_input.preprocess_styleclip(network, image)
    feature = clip.encode_image(network, image)
    return clip.normalize(feature)


def edit(networks, w_plus, target, config):
    """The official edit; w_plus [B, L, D], target [H, H, 3] in [-1, 1]."""
    feature = jax.jit(encode)(networks.clip, target[None])[0]
    return examples.optimize(optimization.official(config), networks, w_plus, feature)


def main():
    generator, (model, _) = loading.load_generator(), loading.load_clip()
    w_plus = examples.sample_latents(generator, 5)
    target = stylegan2.synthesize(generator, w_plus[4:])
    networks = losses.Networks(generator, model)
    config = optimization.OptimizationConfig(
        steps=40, learning_rate=0.05, l2_lambda=0.002
    )
    result = edit(networks, w_plus[:4], target[0], config)
    before, after = result.history["clip"][:, 0], result.terms["clip"]
    print(f"distance to the target: {before.mean():.3f} to {after.mean():.3f}")
    sheet = images.grid([result.source.image, result.image, target])
    print(images.save_sheet("outputs/examples/image_target.png", sheet))


if __name__ == "__main__":
    main()
