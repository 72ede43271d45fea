"""How near are inverted photos to their faces, and do edits succeed on them?

  nice taskset -c 1 python -m benchmarks.inversions --workdir=outputs/inversions

Drawn faces that no network was trained on, embedded models. A row is a way to invert
them, as flags of styleclip-invert; each is then edited by directions, through the tuned
generators where there are some. All is read from the pictures that the programs wrote.
A row whose files are there is not made again, and a run that was stopped goes on.
"""

import functools
import os
import pathlib
import resource
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags

from styleclip_jax import loading
from styleclip_jax.evaluation import metrics
from styleclip_jax.io import images, tables
from styleclip_jax.models import irse50
from styleclip_jax.ops import pixels
from styleclip_jax.toy import attributes, face_set, judge

COUNT = flags.DEFINE_integer("count", 64, "Number of faces.")
FIRST = flags.DEFINE_integer("first", 0, "Number of the first face.")
WORKDIR = flags.DEFINE_string("workdir", "outputs/inversions", "Folder of all files.")
ROWS = flags.DEFINE_list(
    "rows", ["pixel", "projector", "pixel-tuned"], "Rows of the table."
)
EDITS = flags.DEFINE_bool("edits", True, "Edits the faces as well.")

# Ways to invert, by name.
_WAYS = {
    "pixel": (),
    "projector": ("--objective=projector",),
    "pixel-tuned": ("--tune_steps=350",),
    "projector-tuned": ("--objective=projector", "--tune_steps=350"),
    "pixel-official": (
        *("--tune_steps=350", "--tune_rate=3e-4", "--tune_noise_rate=0"),
        *("--tune_ramp_up=0", "--tune_ramp_down=0"),
    ),
}
# Prompts, what the judge is to find, and how far a direction goes.
_PROMPTS = {
    "a smiling face": ("mouth", "smile", "3"),
    "a face with sunglasses": ("glasses", "sunglasses", "3"),
}
_DIRECTION = ("--method=direction", "--num_channels=100")


class Seen(NamedTuple):
    """What networks see in pictures.

    Attributes:
      image: [N, H, W, 3] in [-1, 1].
      identity: [N, E] features of faces.
      found: {attribute: [N]} the judge's answers.
    """

    image: np.ndarray
    identity: np.ndarray
    found: dict[str, np.ndarray]


@functools.cache
def _looks() -> Any:
    person, critic = loading.load_identity(), judge.load()

    @jax.jit
    def look(image: jax.Array) -> Any:
        return irse50.features(person, image), judge.predict(critic, image)

    return look


def _see(folder: pathlib.Path) -> Seen:
    """What there is in the pictures of a folder."""
    paths = sorted(folder.glob("*.png"))[: COUNT.value]
    image = np.stack([np.asarray(pixels.to_float(images.read(x))) for x in paths])
    return Seen(image, *jax.device_get(_looks()(image)))


def _seconds(program: str, *arguments: str) -> float:
    """CPU seconds of a program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", f"styleclip_jax.cli.{program}", *arguments]
    subprocess.run(command, check=True, env=dict(os.environ))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _draw(folder: pathlib.Path) -> None:
    """Draws the faces that are to be inverted."""
    numbers = np.arange(FIRST.value, FIRST.value + COUNT.value)
    faces = face_set.DrawnFaces(int(numbers[-1]) + 1).load(numbers)
    for i, face in enumerate(faces):
        images.write(folder / f"{i:06d}.png", face)


def _edit(photos: Seen, before: Seen, inverted: pathlib.Path, prompt: str) -> list[str]:
    """Cells on edits by a prompt: targets before and after, by the judge and by the
    check of pixels, other attributes kept, identity.
    """
    attribute, value, alpha = _PROMPTS[prompt]
    outdir = inverted / prompt.replace(" ", "_")
    if not (outdir / "images").is_dir():
        _seconds(
            *("edit", f"--latents={inverted / 'w_plus.npy'}", f"--prompt={prompt}"),
            *(*_DIRECTION, f"--alpha={alpha}", f"--outdir={outdir}"),
        )
    after = _see(outdir / "images")
    index, check = attributes.index(attribute, value), judge.CHECKS[attribute, value]
    pair = (photos, after)
    judged = [np.mean(x.found[attribute] == index) for x in pair]
    checked = [np.mean([check(image) for image in x.image]) for x in pair]
    targets = [f"{a:.2f} → {b:.2f}" for a, b in (judged, checked)]
    kept = judge.kept(before.found, after.found, attribute).mean()
    same = metrics.identity_similarity(before.identity, after.identity)
    return [*targets, f"{kept:.3f}", f"{same.mean():.3f}"]


def main(_: list[str]) -> None:
    """Prints a row for each way."""
    workdir, rows = pathlib.Path(WORKDIR.value), []
    (workdir / "photos").mkdir(parents=True, exist_ok=True)
    _draw(workdir / "photos")
    photos = _see(workdir / "photos")
    for name in ROWS.value:
        outdir, seconds = workdir / name, "as before"
        if not (outdir / "grid.png").is_file():
            asked = (f"--photos={workdir / 'photos'}", "--noalign", *_WAYS[name])
            found = _seconds("invert", *asked, f"--outdir={outdir}")
            seconds = f"{found / COUNT.value:.1f}"
        made = _see(outdir / "images")
        levels = pixels.mean_levels(made.image, photos.image)
        same = metrics.identity_similarity(photos.identity, made.identity)
        row = [
            name,
            f"{levels.mean():.2f}",
            f"{levels.max():.1f}",
            f"{same.mean():.3f}",
        ]
        if EDITS.value:
            for prompt in _PROMPTS:
                row += _edit(photos, made, outdir, prompt)
        rows.append([*row, seconds])
    columns = ["inversion", "levels", "largest", "identity"]
    if EDITS.value:
        for prompt in _PROMPTS:
            columns += [prompt, "by pixels", "kept", "identity"]
    print(tables.markdown([*columns, "CPU s per face"], rows), end="")


if __name__ == "__main__":
    app.run(main)
