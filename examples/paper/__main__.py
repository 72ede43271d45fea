"""python -m examples.paper: the paper's tables and figures, on any generator.

  python -m examples.paper --figures=figure6,figure24
  python -m examples.paper --mapper=outputs/mappers/best/a-smiling-face
  python -m examples.paper --generator=models/ffhq --clip=models/clip \\
    --identity=models/identity --l2_lambda=0.008 --id_lambda=0.005 --steps=300 \\
    --learning_rate=0.1 --directions=models/directions/relevance.safetensors

Writes under --outdir: table1.md (seconds of the three methods on this device),
table2.md (similarity of mapper steps), figure3.jpg (prompts with their weights),
figure6.jpg (strength and threshold of a direction), figure9.jpg (three methods on the
same faces), figure24.jpg (a near and a far target). --figures=stylegan2_table writes
stylegan2_table.md, Table 1 of StyleGAN2: a row for each of --generators, beside --data;
--figures=training_ablations writes training_ablations.md, short trainings of StyleGAN2
on drawn faces with and without its parts, --kimg thousand images each.
Started again with the same flags, it makes what is missing.
"""

from collections.abc import Callable

from absl import flags
from PIL import Image

from examples.paper import paper_figures, paper_tables, setup, training_table
from examples.paper.requests import Content, Request
from examples.paper.setup import Setup
from styleclip_jax.batch import run_folder
from styleclip_jax.batch.source import SourceRequest
from styleclip_jax.cli import program
from styleclip_jax.errors import UserError
from styleclip_jax.io import images, tables
from styleclip_jax.loading import Models
from styleclip_jax.settings.networks import CLIP_FIELDS, GENERATOR_FIELDS

MAKERS: dict[str, Callable[[Setup], Image.Image | str]] = {
    "figure3": paper_figures.figure3,
    "figure6": paper_figures.figure6,
    "figure9": paper_figures.figure9,
    "figure24": paper_figures.figure24,
    "table1": paper_tables.table1,
    "table2": paper_tables.table2,
    "stylegan2_table": paper_tables.stylegan2_table,
    "training_ablations": training_table.training_ablations,
}
# What is made if nothing is named: all of StyleCLIP's.
DEFAULTS = [name for name in MAKERS if name.startswith(("figure", "table"))]
_MODELS = (
    *(*GENERATOR_FIELDS, "remat", *CLIP_FIELDS),
    *("identity", "class_", "templates"),
)

VALUES = program.Values()
program.define(Models, VALUES, _MODELS)
program.define(SourceRequest, VALUES)
program.define(Content, VALUES)
flags.DEFINE_list(
    "figures",
    DEFAULTS,
    f"What to make, of {', '.join(MAKERS)}.",
    flag_values=VALUES,
)
flags.DEFINE_string(
    "outdir", "outputs/paper", "Folder for the results.", flag_values=VALUES
)


def main(values: program.Values) -> None:
    """Makes each table and figure that is not there yet."""
    _carry_out(_parse(values))


def _parse(values: program.Values) -> Request:
    """The request of the flags.

    Raises:
      UserError: a flag is wrong.
    """
    unknown = set(values.figures) - set(MAKERS)
    if unknown or not values.figures:
        raise UserError(
            f"figures: expected some of {', '.join(MAKERS)}, "
            f"found {', '.join(values.figures) or 'none'}",
            field="figures",
        )
    return Request(
        models=program.build(Models, values, _MODELS),
        source=program.build(SourceRequest, values),
        content=program.build(Content, values),
        figures=tuple(values.figures),
        outdir=values.outdir,
        settings=program.settings(values, ("figures", "outdir")),
    )


def _carry_out(request: Request) -> None:
    loaded = setup.load(request)
    outdir = run_folder.begin(
        request.outdir,
        program="examples.paper",
        settings={**request.settings, **request.models.record()},
        inputs=request.inputs,
    )
    for name in request.figures:
        path = outdir / f"{name}{'.jpg' if name.startswith('figure') else '.md'}"
        if path.exists():
            print(f"kept: {path}", flush=True)
            continue
        made = _make(name, loaded)
        if isinstance(made, str):
            tables.write_text(path, made)
        else:
            images.save_sheet(path, made)
        print(path, flush=True)


def _make(name: str, loaded: Setup) -> Image.Image | str:
    try:
        return MAKERS[name](loaded)
    except ValueError as error:
        # Too few channels for num_channels, or a threshold that keeps none.
        raise UserError(f"{name}: {error}") from None


def entry() -> None:
    """The program."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
