"""Several CLIPs at once: an edit has to convince all of them.

What one CLIP mistakes for the prompt, another seldom does. The loss is the mean of
theirs.

  python -m examples.several_clips openai/clip-vit-base-patch32 models/other_clip
"""

import sys

import examples
import styleclip_jax
from styleclip_jax.io import images


def main():
    session = styleclip_jax.load(clip=["embedded", *sys.argv[1:]])
    faces, prompt = examples.sample(session, 4), "a person wearing sunglasses"
    made = session.optimize(faces, prompt, **examples.SETTINGS)
    print(images.save_sheet("outputs/examples/several_clips.png", made.sheet()))


if __name__ == "__main__":
    main()
