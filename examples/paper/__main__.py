"""python -m examples.paper: the paper's tables and figures, on any generator.

  python -m examples.paper --figures=figure6,figure24
  python -m examples.paper --mapper=outputs/mappers/best/a-smiling-face
  python -m examples.paper --generator=models/ffhq --clip=models/clip \\
    --identity=models/identity --l2_lambda=0.008 --id_lambda=0.005 --steps=300 \\
    --learning_rate=0.1 --directions=models/directions/relevance.safetensors

Writes under --outdir: table1.md (seconds of the three methods on this device),
table2.md (similarity of mapper steps), figure3.jpg (prompts with their weights),
figure6.jpg (strength and threshold of a direction), figure9.jpg (three methods on the
same faces), figure24.jpg (a near and a far target). Started again with the same flags,
it makes what is missing.
"""

import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image

from examples.paper import paper_figures, paper_tables
from examples.paper.setup import ESTIMATE, Prompt, Setup
from styleclip_jax import latents, loading, losses, parallel
from styleclip_jax.batch import journal
from styleclip_jax.cli import edit_flags, latent_flags, program
from styleclip_jax.editing import estimation
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files, images, tables

MAKERS: dict[str, Callable[[Setup], Image.Image | str]] = {
    "figure3": paper_figures.figure3,
    "figure6": paper_figures.figure6,
    "figure9": paper_figures.figure9,
    "figure24": paper_figures.figure24,
    "table1": paper_tables.table1,
    "table2": paper_tables.table2,
}

VALUES = flags.FlagValues()
latent_flags.define(VALUES)
for _name, _default, _help in (
    ("figures", ",".join(MAKERS), f"What to make, of {', '.join(MAKERS)}."),
    (
        "prompts",
        "a face with blonde hair,a bearded man,a smiling face,"
        "a person wearing sunglasses",
        "Texts, with commas between; Figures 6 and 24 show the first.",
    ),
    ("l2_lambda", "0.0045", "Weight of the latent distance: one, or one per prompt."),
    ("id_lambda", "0", "Weight of the identity distance: one, or one per prompt."),
    ("alphas", "-6,-3,3,6,9", "Strengths on Figures 6 and 24."),
    ("betas", "", "Thresholds on Figure 6; those of --num_channels if empty."),
    (
        "num_channels",
        "40,10,160",
        "Numbers of channels on Figure 6; the first is that of the other figures.",
    ),
    ("mapper", "", "Model directories of mappers for some of the prompts."),
):
    flags.DEFINE_list(
        _name, _default.split(",") if _default else [], _help, flag_values=VALUES
    )
for _name, _text, _help in (
    ("neutral", "a face", "Text that directions lead away from."),
    ("far", "a tiger", "Text of Figure 24 that the generator cannot draw."),
    ("clip", None, "CLIP by directory or hub name; the embedded one if absent."),
    (
        "identity",
        None,
        "Model directory of a face recognition network, for --id_lambda; the embedded "
        "one if absent, for the embedded generator.",
    ),
    (
        "directions",
        None,
        "File of channel relevance; if absent, it is estimated for each prompt.",
    ),
    ("templates", None, "File of templates; the official ones if absent."),
    ("outdir", "outputs/paper", "Folder for the results."),
):
    flags.DEFINE_string(_name, _text, _help, flag_values=VALUES)
flags.DEFINE_integer(
    "steps", 80, "Steps of the optimization.", lower_bound=1, flag_values=VALUES
)
flags.DEFINE_float(
    "learning_rate", 0.1, "Of the optimization.", lower_bound=0, flag_values=VALUES
)
flags.DEFINE_float("alpha", 5.0, "Strength on Figure 9.", flag_values=VALUES)


def main(values: flags.FlagValues) -> None:
    """Makes each table and figure that is not there yet."""
    unknown = set(values.figures) - set(MAKERS)
    if unknown or not values.figures:
        raise UserError(
            f"--figures: expected some of {', '.join(MAKERS)}, "
            f"found {', '.join(values.figures) or 'none'}"
        )
    setup = _prepare(values)
    outdir = journal.begin(
        "examples.paper", values, _inputs(values), neutral=("figures", "outdir")
    )
    for name in values.figures:
        path = outdir / f"{name}{'.md' if name.startswith('table') else '.jpg'}"
        if path.exists():
            print(f"kept: {path}", flush=True)
            continue
        made = _make(name, setup)
        if isinstance(made, str):
            tables.write_text(path, made)
        else:
            images.save_sheet(path, made)
        print(path, flush=True)


def _make(name: str, setup: Setup) -> Image.Image | str:
    try:
        return MAKERS[name](setup)
    except ValueError as error:
        # Too few channels for --num_channels, or a threshold that keeps none.
        raise UserError(f"{name}: {error}") from None


def _prepare(values: flags.FlagValues) -> Setup:
    """Reads all networks and checks all flags."""
    prompts = _prompts(values)
    numbers = {
        name: [edit_flags.number(values, name, text) for text in values[name].value]
        for name in ("alphas", "betas", "num_channels")
    }
    if not any(alpha > 0 for alpha in numbers["alphas"]):
        raise UserError("--alphas: expected one above 0 at least, found none")
    counts = numbers["num_channels"]
    if not counts or not all(x >= 1 and x.is_integer() for x in counts):
        raise UserError(
            "--num_channels: expected whole numbers from 1 up, "
            f"found {','.join(values.num_channels) or 'none'}"
        )
    directory = loading.generator_directory(values.generator)
    generator = loading.load_generator(directory)
    model, tokenizer = loading.load_clip(values.clip)
    identity = None
    if any(prompt.id_lambda for prompt in prompts):
        if values.generator is not None and values.identity is None:
            raise UserError("--id_lambda: needs --identity beside --generator")
        identity = loading.load_identity(values.identity)
    networks = losses.Networks(generator, model, identity)
    relevance = None
    if values.directions is not None:
        origins = loading.origins(values.generator, values.clip)
        relevance, _ = loading.read_relevance(values.directions, networks, *origins)
    mesh = parallel.make_mesh(jax.local_devices()[:1])
    label = latent_flags.one_hot_label(values, generator.config)

    @functools.cache
    def samples() -> estimation.Samples:
        return estimation.draw_samples(generator, ESTIMATE, mesh, label=label)

    source = latent_flags.read(values, generator, default_seeds="20,10,3,4")
    if source.space == "s":
        raise UserError(f"--latents: expected z, w or W+, found S in {values.latents}")
    return Setup(
        networks=networks,
        tokenizer=tokenizer,
        templates=loading.load_templates(values.templates),
        w_plus=latents.convert(
            generator,
            jnp.asarray(source.load(np.arange(len(source)))),
            space=source.space,
            truncation_psi=source.truncation_psi,
            cutoff=source.truncation_cutoff,
            to="w_plus",
            label=label,
        ),
        prompts=prompts,
        neutral=edit_flags.text(values, "neutral"),
        far=edit_flags.text(values, "far"),
        steps=values.steps,
        learning_rate=values.learning_rate,
        alpha=values.alpha,
        alphas=numbers["alphas"],
        betas=numbers["betas"],
        num_channels=[int(count) for count in counts],
        mappers={
            loading.mapper_prompt(path) or pathlib.Path(path).name.replace("-", " "): (
                loading.load_mapper(path, directory, generator.config)
            )
            for path in values.mapper
        },
        samples=samples,
        relevance=relevance,
    )


def _prompts(values: flags.FlagValues) -> list[Prompt]:
    """The prompts with their weights."""
    texts = [text.strip() for text in values.prompts]
    if not texts or not all(texts):
        raise UserError(f"--prompts: expected texts, found {values.prompts}")
    weights = []
    for name in ("l2_lambda", "id_lambda"):
        found = [edit_flags.number(values, name, text) for text in values[name].value]
        if len(found) not in (1, len(texts)) or min(found) < 0:
            raise UserError(
                f"--{name}: expected one number from 0 up, or one for each of the "
                f"{len(texts)} prompts, found {','.join(values[name].value)}"
            )
        weights.append(found * len(texts) if len(found) == 1 else found)
    return [Prompt(*parts) for parts in zip(texts, *weights, strict=True)]


def _inputs(values: flags.FlagValues) -> dict[str, str]:
    """Hashes of what is read."""
    directory = loading.generator_directory(values.generator)
    found = {
        "generator": checkpoints.fingerprint(directory),
        "clip": loading.clip_fingerprint(values.clip) or values.clip,
    }
    for name in ("latents", "directions", "templates"):
        if values[name].value is not None:
            found[name] = files.hash_file(values[name].value)
    for path in values.mapper:
        found[path] = checkpoints.fingerprint(path)
    return found


def entry() -> None:
    """The program."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
