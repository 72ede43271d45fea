"""Several CLIPs at once: an edit has to convince all of them.

What one CLIP mistakes for the prompt, another seldom does. The features of a prompt lie
side by side in one vector, and the loss takes it apart again.

  python -m examples.several_clips openai/clip-vit-base-patch32 models/other_clip
"""

import sys

import jax.numpy as jnp
import numpy as np

import examples
from styleclip_jax import loading, losses
from styleclip_jax.io import images
from styleclip_jax.methods import optimization
from styleclip_jax.models import clip


def mean_clip_distance(networks, edit):
    """Mean over CLIPs of the official CLIP loss, [B]; networks.clip is a tuple."""
    ends = np.cumsum([network.config.embed_dim for network in networks.clip])
    texts = jnp.split(edit.text, ends[:-1], axis=-1)
    distances = [
        losses.clip_distance(
            losses.Networks(networks.generator, network), edit._replace(text=text)
        )
        for network, text in zip(networks.clip, texts, strict=True)
    ]
    return sum(distances) / len(distances)


def edit(generator, clips, w_plus, prompt, config):
    """The official edit; w_plus [B, L, D], clips a list of (network, tokenizer)."""
    texts = [clip.encode_prompts(*pair, [prompt])[0] for pair in clips]
    networks = losses.Networks(generator, tuple(network for network, _ in clips))
    problem = optimization.official(config)
    terms = {**problem.objective, "clip": (1.0, mean_clip_distance)}
    return examples.optimize(
        problem._replace(objective=terms), networks, w_plus, jnp.concatenate(texts)
    )


def main():
    generator = loading.load_generator()
    w_plus = examples.sample_latents(generator, 4)
    # The embedded one, and those of the command line.
    clips = [loading.load_clip(name) for name in (None, *sys.argv[1:])]
    config = optimization.OptimizationConfig(
        steps=40, learning_rate=0.05, l2_lambda=0.002
    )
    result = edit(generator, clips, w_plus, "a person wearing sunglasses", config)
    sheet = images.grid([result.source.image, result.image])
    print(images.save_sheet("outputs/examples/several_clips.png", sheet))


if __name__ == "__main__":
    main()
