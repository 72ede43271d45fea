"""styleclip-train-generator: train a StyleGAN2 of one's own.

  styleclip-train-generator --data=photos.zip --workdir=outputs/mine --kimg=5000
  styleclip-train-generator --data=few --resume_from=models/ffhq --freeze_layers=10
  styleclip-train-generator --resolution=32 --channel_base=2048 --channel_max=128 \\
    --w_dim=128 --kimg=200

The last one learns drawn faces, without any download.

Writes under --workdir: last and best, each a generator for all programs' --generator,
with its discriminator in it; metrics.jsonl, a line per tick; sheets/, samples of fixed
seeds; metrics/, what styleclip-metrics says of snapshots; checkpoints/, from which the
same command goes on after an interruption; and run.json. Several processes: the same
command in each, with --coordinator_address, --num_processes and --process_id. Exit
code 1 says that a loss was not finite.
"""

import pathlib

from absl import flags

from styleclip_jax.cli import processes, program
from styleclip_jax.settings.generator_training import (
    NEUTRAL_FIELDS,
    GanRunConfig,
    ImageDataSettings,
    RecipeSettings,
)

# Flags that say where, how long and how often, not what.
_NEUTRAL_FLAGS = ("workdir", *NEUTRAL_FIELDS, *processes.FLAGS)

VALUES = flags.FlagValues()
program.define(ImageDataSettings, VALUES)
program.define(RecipeSettings, VALUES)
program.define(GanRunConfig, VALUES)
flags.DEFINE_string(
    "workdir", "outputs/generator", "Folder for the run.", flag_values=VALUES
)
processes.define(VALUES)
program.define_profile(VALUES)


def main(values: flags.FlagValues) -> int:
    """Trains from the last checkpoint on."""
    data = program.build(ImageDataSettings, values)
    recipe = program.build(RecipeSettings, values)
    run = program.build(GanRunConfig, values)

    from . import generator_run, training

    request = generator_run.GeneratorRequest(
        data=data,
        recipe=recipe,
        run=run,
        workdir=pathlib.Path(values.workdir),
        settings=program.settings(values, _NEUTRAL_FLAGS),
    )
    return training.carry_out(values, request, generator_run.train)


def entry() -> None:
    """The console script."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
