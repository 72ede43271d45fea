"""Files of trainings on disks that fail."""

import errno
import logging
import os
import pathlib
import resource

import numpy as np
import pytest
from orbax.checkpoint._src.serialization import tensorstore_utils

from styleclip_jax.io import files
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


def test_checkpoints_are_not_synced_where_the_file_system_cannot(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_synced() -> bool:
        return "file_io_sync" not in tensorstore_utils.get_ts_context().spec.to_json()

    state = {"x": np.arange(9.0)}
    for supported in (True, False):
        monkeypatch.setattr(files, "sync_folder", lambda _, x=supported: x)
        with training_files.Checkpoints(tmp_path) as saved:
            assert is_synced() == supported
            saved.save(1 + supported, state)
        assert is_synced()


LINES = [b'{"step": %d, "split": "training", "total": 1.0}\n' % i for i in range(1, 7)]


@pytest.mark.parametrize(
    ("content", "kept", "lost"),
    [
        (b"".join(LINES), [1, 2, 3, 4], 0),
        (b"".join(LINES)[:-9], [1, 2, 3, 4], 0),
        (LINES[0] + bytes(50) + b"\n" + LINES[2], [1, 3], 1),
        (LINES[0] + b"[]\n{}\n\n" + LINES[3], [1, 4], 3),
        (b'{"step": "1"}\n{"st\xff": 2}\n' + LINES[1], [2], 2),
        (b"", [], 0),
    ],
    ids=["whole", "cut", "zeros", "no metrics", "not text", "empty"],
)
def test_damaged_metrics_are_told_and_left_out(
    tmp_path: pathlib.Path, content: bytes, kept: list[int], lost: int
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content)
    told: list[str] = []
    metrics = training_files.Metrics(tmp_path, [None], 4, told.append)
    assert len(told) == bool(lost)
    if lost:
        assert f"note: {path} is damaged: {lost} of " in told[0]
    metrics.write(5, "training", {"total": np.float32([1])})
    assert path.read_bytes() == b"".join(LINES[i - 1] for i in [*kept, 5])
