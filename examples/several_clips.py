"""Several CLIPs at once: an edit has to convince all of them.

What one CLIP mistakes for the prompt, another seldom does. The features of a prompt lie
side by side in one vector, and the loss takes it apart again.

  python -m examples.several_clips openai/clip-vit-base-patch32 models/other_clip
"""

import sys

import jax.numpy as jnp
import numpy as np

import examples
import styleclip_jax
from styleclip_jax import loading, losses
from styleclip_jax.io import images
from styleclip_jax.models import clip


def mean_clip_distance(networks, edit):
    """Mean over CLIPs of the official CLIP loss, [B]; networks.clip is a tuple."""
    ends = np.cumsum([network.config.embed_dim for network in networks.clip])
    texts = jnp.split(edit.text, ends[:-1], axis=-1)
    distances = [
        losses.clip_distance(networks.replace(clip=network), edit._replace(text=text))
        for network, text in zip(networks.clip, texts, strict=True)
    ]
    return sum(distances) / len(distances)


def edit(session, faces, prompt, clips, **settings):
    """The official edit; clips a list of (network, tokenizer)."""
    features = [clip.encode_prompts(*pair, [prompt]) for pair in clips]
    return session.optimize(
        faces,
        prompt,
        objective={"clip": (1.0, mean_clip_distance)},
        feature=jnp.concatenate(features, axis=-1),
        networks=session.networks().replace(clip=tuple(pair[0] for pair in clips)),
        **settings,
    )


def main():
    session = styleclip_jax.load()
    # The embedded one, and those of the command line.
    clips = [loading.load_clip(name) for name in (None, *sys.argv[1:])]
    faces, prompt = examples.sample(session, 4), "a person wearing sunglasses"
    made = edit(session, faces, prompt, clips, **examples.SETTINGS)
    print(images.save_sheet("outputs/examples/several_clips.png", made.sheet()))


if __name__ == "__main__":
    main()
