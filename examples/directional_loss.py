"""A directional CLIP loss: the image moves in CLIP as the text does.

StyleGAN-NADA's loss (Gal et al. 2021) beside the official one.

  python -m examples.directional_loss
"""

import functools

import examples
from styleclip_jax import loading, losses
from styleclip_jax.evaluation import metrics
from styleclip_jax.io import images
from styleclip_jax.methods import optimization
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


def edit(networks, w_plus, text, neutral, config, weight=1.0):
    """The official edit with one more term; w_plus [B, L, D], text and neutral [E]."""
    problem = optimization.official(config)
    loss = functools.partial(directional_distance, neutral=neutral)
    terms = {**problem.objective, "directional": (weight, loss)}
    return examples.optimize(problem._replace(objective=terms), networks, w_plus, text)


def main():
    generator, (model, words) = loading.load_generator(), loading.load_clip()
    networks = losses.Networks(generator, model)
    w_plus = examples.sample_latents(generator, 4)
    neutral, text = clip.encode_prompts(model, words, ["a face", "a bald person"])
    config = optimization.OptimizationConfig(
        steps=40, learning_rate=0.05, l2_lambda=0.002
    )
    for weight in (0.0, 1.0):
        result = edit(networks, w_plus, text, neutral, config, weight)
        distance = result.terms["directional"].mean()
        print(f"weight {weight:g}: directional distance {distance:.3f}")
    sheet = images.grid([result.source.image, result.image])
    print(images.save_sheet("outputs/examples/directional_loss.png", sheet))


if __name__ == "__main__":
    main()
