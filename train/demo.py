"""Trains the embedded models, one stage at a time.

  python -m train.demo --stage=features,generator,judge,clip --workdir=outputs/demo

Every stage goes on where it was stopped, and writes its weights into the package.
"""

import pathlib
from collections.abc import Callable, Sequence

from absl import app, flags, logging

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
    "edits": demo_edits.run,
}

_ASSETS = pathlib.Path(__file__).parents[1] / "styleclip_jax" / "assets"
_STAGE = flags.DEFINE_list("stage", [], f"Stages to run: {', '.join(STAGES)}.")
_WORKDIR = flags.DEFINE_string(
    "workdir", "outputs/demo", "Folder for states and sheets."
)
_OUTPUT = flags.DEFINE_string("output", str(_ASSETS), "Folder for the weights.")


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    unknown = [name for name in _STAGE.value if name not in STAGES]
    if unknown or not _STAGE.value:
        raise app.UsageError(f"--stage: expected some of {', '.join(STAGES)}")
    logging.set_verbosity(logging.INFO)
    workdir = pathlib.Path(_WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    for name in _STAGE.value:
        STAGES[name](workdir, pathlib.Path(_OUTPUT.value))


if __name__ == "__main__":
    app.run(main)
