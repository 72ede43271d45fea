"""A directional CLIP loss: the image moves in CLIP as the text does.

StyleGAN-NADA's loss (Gal et al. 2021) beside the official one.

  python -m examples.directional_loss
"""

import functools

import examples
import styleclip_jax
from styleclip_jax.evaluation import metrics
from styleclip_jax.io import images
from styleclip_jax.models import clip, clip_input


def directional_distance(networks, edit, *, neutral):
    """1 − cosine of the step between images and that between texts, [B]."""

    def encode(image):
        image = clip_input.preprocess_clip(networks.clip, image)
        return clip.encode_image(networks.clip, image)

    before, after = encode(edit.source.image), encode(edit.image)
    # Nothing has moved at the start, so short steps count in proportion.
    return 1 - metrics.directional_similarity(
        before, after, neutral, edit.text, min_length=0.1
    )


def edit(session, faces, prompt, *, neutral, weight=1.0, **settings):
    """The official edit with one more term."""
    (feature,) = session.encode(neutral)
    loss = functools.partial(directional_distance, neutral=feature)
    objective = {"directional": (weight, loss)}
    return session.optimize(faces, prompt, objective=objective, **settings)


def main():
    session = styleclip_jax.load()
    faces = examples.sample(session, 4)
    texts = {"prompt": "a bald person", "neutral": "a face"}
    for weight in (0.0, 1.0):
        made = edit(session, faces, **texts, weight=weight, **examples.SETTINGS)
        distance = made.terms["directional"].mean()
        print(f"weight {weight:g}: directional distance {distance:.3f}")
    print(images.save_sheet("outputs/examples/directional_loss.png", made.sheet()))


if __name__ == "__main__":
    main()
