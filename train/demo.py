"""Trains the embedded models, one stage at a time.

  python -m train.demo --stage=features,generator,judge,clip --workdir=outputs/demo

Every stage goes on where it was stopped, and writes its weights into the package.
"""

import pathlib
from collections.abc import Callable

from absl import flags, logging

from styleclip_jax.cli import flags as cli
from styleclip_jax.errors import UserError
from train import (
    demo_clip,
    demo_edits,
    demo_generator,
    demo_identity,
    demo_judge,
    demo_report,
)

Stage = Callable[[pathlib.Path, pathlib.Path], None]
STAGES: dict[str, Stage] = {
    "features": demo_judge.run_features,
    "generator": demo_generator.run,
    "judge": demo_judge.run,
    "clip": demo_clip.run,
    "identity": demo_identity.run,
    "report": demo_report.run,
    "mappers": demo_edits.train_mappers,
    "directions": demo_edits.measure_directions,
    "tuning": demo_edits.tune,
    "edits": demo_edits.run,
}

_ASSETS = pathlib.Path(__file__).parents[1] / "styleclip_jax" / "assets"

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
    # Logging waits for the flags of its own.
    flags.FLAGS(["train.demo"])
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    workdir = pathlib.Path(values.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    for name in values.stage:
        STAGES[name](workdir, pathlib.Path(values.output))


if __name__ == "__main__":
    cli.run(main, VALUES)
