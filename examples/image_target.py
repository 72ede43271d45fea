"""An image instead of a text as target: CLIP's features of a picture do as well.

The loss compares the edited image with a direction in CLIP's space, and does not ask
what the direction was made from.

  python -m examples.image_target
"""

import jax

import examples
import styleclip_jax
from styleclip_jax.io import images
from styleclip_jax.models import clip, clip_input
from styleclip_jax.ops import norms


@jax.jit
def encode(network, image):
    """Normalised features [B, E], with the same preprocessing as in the loss."""
    image = clip_input.preprocess_styleclip(network, image)
    return norms.unit(clip.encode_image(network, image))


def edit(session, faces, target, **settings):
    """The official edit; target [1, H, H, 3] in [-1, 1]."""
    feature = encode(session.clip, target)
    return session.optimize(faces, "the target", feature=feature, **settings)


def main():
    session = styleclip_jax.load()
    faces = examples.sample(session, 5)
    target = faces.images[4:]
    made = edit(session, faces[:4], target, **examples.SETTINGS)
    before, after = made.history["clip"][:, 0], made.terms["clip"]
    print(f"distance to the target: {before.mean():.3f} to {after.mean():.3f}")
    sheet = images.grid([made.before.images, made.images, target])
    print(images.save_sheet("outputs/examples/image_target.png", sheet))


if __name__ == "__main__":
    main()
