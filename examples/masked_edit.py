"""A masked edit: only what a mask marks may change.

A term pulls the rest of the image back to the source, so that the latent finds an edit
that fits in; what difference is left there is pasted over.

  python -m examples.masked_edit
"""

import functools

import numpy as np

import examples
import styleclip_jax
from styleclip_jax.evaluation import metrics
from styleclip_jax.io import images


def change_outside(networks, edit, *, mask):
    """Mean squared change where the mask [H, W, 1] is 0, [B]."""
    del networks
    return metrics.pixel_l2((1 - mask) * edit.image, (1 - mask) * edit.source.image)


def edit(session, faces, prompt, mask, *, weight=20.0, **settings):
    """The official edit within a mask, and its images pasted into those before."""
    loss = functools.partial(change_outside, mask=mask)
    objective = {"outside": (weight, loss)}
    made = session.optimize(faces, prompt, objective=objective, **settings)
    return made, mask * made.images + (1 - mask) * made.before.images


def main():
    session = styleclip_jax.load()
    faces, prompt = examples.sample(session, 4), "a person wearing sunglasses"
    # The band of the eyes.
    height, width = session.generator.config.image_shape
    mask = np.zeros((height, width, 1), np.float32)
    mask[3 * height // 10 : 6 * height // 10] = 1
    for weight in (0.0, 20.0):
        made, pasted = edit(
            session, faces, prompt, mask, weight=weight, **examples.SETTINGS
        )
        print(f"weight {weight:g}: change {made.terms['outside'].mean():.1e} outside")
    sheet = images.grid([faces.images, made.images, pasted])
    print(images.save_sheet("outputs/examples/masked_edit.png", sheet))


if __name__ == "__main__":
    main()
