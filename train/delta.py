"""styleclip-train-delta: train one network that edits by any prompt.

  styleclip-train-delta --workdir=outputs/delta --train_steps=800
  styleclip-edit --method=delta --delta=outputs/delta/best --prompt="a smiling face"

It learns from pictures of random latents, or of a file of them by --latents, and reads
no text. Writes under --workdir: best and last, a network each for styleclip-edit
--method=delta; metrics.jsonl; sheets/, latents held out, others, and edits towards
them; checkpoints/, from which the same command goes on after an interruption; and
run.json. Several processes: the same command in each, with --coordinator_address,
--num_processes and --process_id. Exit code 1 says that a loss was not finite.
"""

import pathlib

from absl import flags

from styleclip_jax.cli import processes, program
from styleclip_jax.settings.deltas import Architecture, TrainingConfig
from styleclip_jax.settings.latents import DataRequest
from styleclip_jax.settings.networks import (
    CLIP_FIELDS,
    GENERATOR_FIELDS,
    ModelSettings,
)
from styleclip_jax.settings.training import NEUTRAL_FIELDS, DeltaRunConfig

_MODELS = (*GENERATOR_FIELDS, *CLIP_FIELDS, "class_")
# Flags that say where, how long and how often, not what.
_NEUTRAL_FLAGS = ("workdir", *NEUTRAL_FIELDS, *processes.FLAGS)

VALUES = flags.FlagValues()
program.define(ModelSettings, VALUES, _MODELS)
program.define(DataRequest, VALUES)
program.define(Architecture, VALUES)
program.define(TrainingConfig, VALUES)
program.define(DeltaRunConfig, VALUES)
flags.DEFINE_string(
    "workdir", "outputs/delta", "Folder for the run.", flag_values=VALUES
)
processes.define(VALUES)
program.define_profile(VALUES)


def main(values: flags.FlagValues) -> int:
    """Trains from the last checkpoint on."""
    run = program.build(DeltaRunConfig, values)
    settings = program.build(TrainingConfig, values)

    from styleclip_jax.loading import Models

    from . import delta_run, training

    request = delta_run.DeltaRequest(
        models=program.build(Models, values, _MODELS),
        data=program.build(DataRequest, values),
        run=run,
        workdir=pathlib.Path(values.workdir),
        settings=program.settings(values, _NEUTRAL_FLAGS),
        architecture=program.build(Architecture, values),
        training=settings,
    )
    return training.carry_out(values, request, delta_run.train)


def entry() -> None:
    """The console script."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
