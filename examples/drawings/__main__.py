"""python -m examples.drawings: a folder of drawn faces or cats, to train on.

  python -m examples.drawings --kind=cats --num=200 --resolution=32 \\
    --output_dir=outputs/cats

Writes images of the seeds 0, 1, …, and attributes.jsonl, what each one shows.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from styleclip_jax.cli import program
from styleclip_jax.io import files, tables
from styleclip_jax.toy import attributes, cats, drawing

# (random numbers → what is drawn), (it, resolution) → picture.
KINDS: dict[str, tuple[Callable[..., Any], Callable[..., np.ndarray]]] = {
    "faces": (attributes.sample_face, drawing.draw),
    "cats": (cats.sample, cats.draw),
}
_SIZES = ["32", "64", "128", "256"]

VALUES = program.Values()
flags.DEFINE_enum("kind", "cats", [*KINDS], "What is drawn.", flag_values=VALUES)
flags.DEFINE_integer("num", 200, "Number of images.", lower_bound=1, flag_values=VALUES)
flags.DEFINE_enum("resolution", "32", _SIZES, "Width and height.", flag_values=VALUES)
flags.DEFINE_integer("seed", 0, "Seed.", lower_bound=0, flag_values=VALUES)
flags.DEFINE_string(
    "output_dir", "outputs/cats", "New folder for the images.", flag_values=VALUES
)


def main(values: program.Values) -> None:
    """Draws the images into a new folder."""
    sample, draw = KINDS[values.kind]
    lines = []
    with files.new_directory(values.output_dir) as folder:
        for i in range(values.num):
            one = sample(np.random.default_rng((values.seed, i)))
            name = f"{i:05d}.png"
            Image.fromarray(draw(one, int(values.resolution))).save(folder / name)
            lines.append(json.dumps({"image": name} | dataclasses.asdict(one)))
        tables.write_text(folder / "attributes.jsonl", "\n".join(lines) + "\n")
    print(f"{values.output_dir}: {values.num} {values.kind}")


if __name__ == "__main__":
    program.run(main, VALUES)
