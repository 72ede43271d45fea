"""Files of trainings on disks that fail."""

import errno
import logging
import os
import pathlib
import resource

import numpy as np

from tests import programs
from train import training_files


def test_checkpoint_that_finds_no_space_is_a_line(tmp_path: pathlib.Path) -> None:
    state = {"x": np.random.RandomState(0).randn(99_999)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    level = logging.getLogger("absl").level

    def save() -> None:
        with training_files.Checkpoints(tmp_path) as saved:
            saved.save(1, state)
            saved.last()

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        message = programs.refusal(save)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    folder, reason = tmp_path / "checkpoints", os.strerror(errno.EFBIG)
    assert message == f"{folder}: cannot write ({reason})"
    assert logging.getLogger("absl").level == level
    save()
    with training_files.Checkpoints(tmp_path) as saved:
        step, found = saved.restore({"x": np.zeros(99_999)})
    assert step == 1
    np.testing.assert_array_equal(found["x"], state["x"])
