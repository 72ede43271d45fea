"""styleclip-find-directions: directions of a generator without any text or photo.

  styleclip-find-directions
  styleclip-find-directions --layers=4-16 --num_components=20 --texts=texts.txt

The directions are those in which w moves the styles of some layers most, the
eigenvectors of the layers' weights (SeFa). CLIP names both ends of each by the texts
that its pictures move to.

Files under --outdir: a direction in each sefa-NN.safetensors, of which --alpha counts
standard deviations in styleclip-edit --method=direction --direction=FILE --alpha=-2,2;
directions.json and directions.md with names and scores, grid.png, and run.json.
"""

from absl import flags

from styleclip_jax.cli import program
from styleclip_jax.settings.measures import FindConfig
from styleclip_jax.settings.networks import (
    CLIP_FIELDS,
    GENERATOR_FIELDS,
    ModelSettings,
)

_MODELS = (*GENERATOR_FIELDS, *CLIP_FIELDS, "class_", "templates")

VALUES = flags.FlagValues()
program.define(ModelSettings, VALUES, _MODELS)
program.define(FindConfig, VALUES)
program.define_profile(VALUES)


def main(values: flags.FlagValues) -> None:
    """Finds, draws and names the directions."""
    config = program.build(FindConfig, values)

    from styleclip_jax.cli import profiling
    from styleclip_jax.editing import finding
    from styleclip_jax.loading import Models

    request = finding.Request(
        models=program.build(Models, values, _MODELS),
        config=config,
        settings=program.settings(values, ("outdir",)),
    )
    finding.carry_out(request, profiling.listener(values))


def entry() -> None:
    """Console script of styleclip-find-directions."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
