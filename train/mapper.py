"""styleclip-train-mapper: train latent mappers, for one prompt or several.

  styleclip-train-mapper --prompt="a face with blonde hair" --workdir=outputs/blonde
  styleclip-train-mapper --prompts_file=prompts.txt --latents=train.npy --space=s \\
    --generator=models/ffhq --identity=models/arcface

Writes under --workdir: best/PROMPT and last/PROMPT, a mapper each for
styleclip-edit --method=mapper; metrics.jsonl, a line per prompt; sheets/, edits of
latents held out; checkpoints/, from which the same command goes on after an
interruption; and run.json. Several processes: the same command in each, with
--coordinator_address, --num_processes and --process_id. Exit code 1 says that a loss
was not finite.
"""

import dataclasses
import pathlib
from typing import TYPE_CHECKING

from absl import flags

from styleclip_jax.cli import processes, program
from styleclip_jax.editing import prompts
from styleclip_jax.errors import UserError
from styleclip_jax.settings.edits import PromptRequest
from styleclip_jax.settings.latents import DataRequest
from styleclip_jax.settings.mappers import ArchitectureSettings, TrainingConfig
from styleclip_jax.settings.networks import (
    CLIP_FIELDS,
    GENERATOR_FIELDS,
    ModelSettings,
)
from styleclip_jax.settings.training import NEUTRAL_FIELDS, RunConfig

if TYPE_CHECKING:
    from .mapper_run import MapperRequest

_MODELS = (*GENERATOR_FIELDS, "remat", *CLIP_FIELDS, "identity", "class_")
# Flags that say where, how long and how often, not what.
_NEUTRAL_FLAGS = ("workdir", *NEUTRAL_FIELDS, *processes.FLAGS)

VALUES = flags.FlagValues()
program.define(ModelSettings, VALUES, _MODELS)
program.define(PromptRequest, VALUES)
program.define(DataRequest, VALUES)
program.define(ArchitectureSettings, VALUES)
program.define(TrainingConfig, VALUES)
program.define(RunConfig, VALUES)
flags.DEFINE_string(
    "workdir", "outputs/mapper", "Folder for the run.", flag_values=VALUES
)
processes.define(VALUES)
program.define_profile(VALUES)


def main(values: flags.FlagValues) -> int:
    """Trains from the last checkpoint on."""
    request = _parse(values)

    from . import mapper_run, training

    return training.carry_out(values, request, mapper_run.train)


def _parse(values: flags.FlagValues) -> "MapperRequest":
    """The request of the flags.

    Raises:
      UserError: a flag is wrong, or goes with no other one.
    """
    run = program.build(RunConfig, values)
    objective = program.build(TrainingConfig, values)

    from styleclip_jax.loading import Models

    from .mapper_run import Architecture, MapperRequest

    models = program.build(Models, values, _MODELS)
    if objective.id_lambda and not models.has_identity:
        if values["id_lambda"].present:
            raise UserError(
                f"id_lambda: {objective.id_lambda} with another generator needs a face "
                "recognition network, expected identity with it",
                field="id_lambda",
                also=["identity"],
            )
        objective = dataclasses.replace(objective, id_lambda=0.0)
    return MapperRequest(
        prompts=prompts.read(program.build(PromptRequest, values), tell=print),
        models=models,
        architecture=program.build(Architecture, values),
        training=objective,
        data=program.build(DataRequest, values),
        run=run,
        workdir=pathlib.Path(values.workdir),
        settings=program.settings(values, _NEUTRAL_FLAGS),
    )


def entry() -> None:
    """The console script."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
