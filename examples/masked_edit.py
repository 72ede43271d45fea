"""A masked edit: only what a mask marks may change.

A term pulls the rest of the image back to the source, so that the latent finds an edit
that fits in; what difference is left there is pasted over.

  python -m examples.masked_edit
"""

import functools

import jax.numpy as jnp

import examples
from styleclip_jax import loading, losses
from styleclip_jax.evaluation import metrics
from styleclip_jax.io import images
from styleclip_jax.methods import optimization
from styleclip_jax.models import clip


def change_outside(networks, edit, *, mask):
    """Mean squared change where the mask [H, W, 1] is 0, [B]."""
    del networks
    return metrics.pixel_l2((1 - mask) * edit.image, (1 - mask) * edit.source.image)


def edit(networks, w_plus, text, mask, config, weight=20.0):
    """The official edit within a mask; returns its result and the pasted images."""
    problem = optimization.official(config)
    loss = functools.partial(change_outside, mask=mask)
    terms = {**problem.objective, "outside": (weight, loss)}
    result = examples.optimize(
        problem._replace(objective=terms), networks, w_plus, text
    )
    return result, mask * result.image + (1 - mask) * result.source.image


def main():
    generator, (model, words) = loading.load_generator(), loading.load_clip()
    networks = losses.Networks(generator, model)
    w_plus = examples.sample_latents(generator, 4)
    (text,) = clip.encode_prompts(model, words, ["a person wearing sunglasses"])
    # The band of the eyes.
    size = generator.config.resolution
    mask = jnp.zeros((size, size, 1)).at[3 * size // 10 : 6 * size // 10].set(1)
    config = optimization.OptimizationConfig(
        steps=40, learning_rate=0.05, l2_lambda=0.002
    )
    for weight in (0.0, 20.0):
        result, pasted = edit(networks, w_plus, text, mask, config, weight)
        print(f"weight {weight:g}: change {result.terms['outside'].mean():.1e} outside")
    sheet = images.grid([result.source.image, result.image, pasted])
    print(images.save_sheet("outputs/examples/masked_edit.png", sheet))


if __name__ == "__main__":
    main()
