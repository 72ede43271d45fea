"""python -m train.demo: train the embedded models, one stage at a time.

  python -m train.demo --stage=features,generator,judge,clip --workdir=outputs/demo

Every stage goes on where it was stopped, and writes its weights into the package.
"""

import pathlib
from collections.abc import Callable

from absl import flags, logging

from styleclip_jax.cli import program
from styleclip_jax.errors import UserError

from . import (
    clip_stage,
    edits_stage,
    generator_stage,
    identity_stage,
    judge_stage,
    report_stage,
)

Stage = Callable[[pathlib.Path, pathlib.Path], None]
STAGES: dict[str, Stage] = {
    "features": judge_stage.run_features,
    "generator": generator_stage.run,
    "judge": judge_stage.run,
    "clip": clip_stage.run,
    "identity": identity_stage.run,
    "report": report_stage.run,
    "mappers": edits_stage.train_mappers,
    "directions": edits_stage.measure_directions,
    "tuning": edits_stage.tune,
    "edits": edits_stage.run,
}

_ASSETS = pathlib.Path(__file__).parents[2] / "styleclip_jax" / "assets"

VALUES = flags.FlagValues()
flags.DEFINE_list(
    "stage", [], f"Stages to run: {', '.join(STAGES)}.", flag_values=VALUES
)
for _name, _default, _help in (
    ("workdir", "outputs/demo", "Folder for states and sheets."),
    ("output", str(_ASSETS), "Folder for the weights."),
):
    flags.DEFINE_string(_name, _default, _help, flag_values=VALUES)


def main(values: flags.FlagValues) -> None:
    """Runs the stages in the given order."""
    unknown = [name for name in values.stage if name not in STAGES]
    if unknown or not values.stage:
        raise UserError(
            f"--stage: expected some of {', '.join(STAGES)}, "
            f"found {', '.join(unknown) or 'none'}"
        )
    # Logging waits until the flags of its own are parsed.
    flags.FLAGS(["train.demo"])
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    workdir = pathlib.Path(values.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    for name in values.stage:
        STAGES[name](workdir, pathlib.Path(values.output))


if __name__ == "__main__":
    program.run(main, VALUES)
