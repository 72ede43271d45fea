"""Files of trainings on disks that fail."""

import errno
import logging
import os
import pathlib
import resource
import shutil
import types
from typing import Any

import numpy as np
import pytest
from orbax.checkpoint._src.serialization import tensorstore_utils

from styleclip_jax.io import files
from styleclip_jax.progress import SILENT
from tests import processes, programs
from train import generator_run, training, training_files


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


def test_damaged_checkpoint_is_a_line_and_the_one_before_goes_on(
    tmp_path: pathlib.Path,
) -> None:
    state, template = {"x": np.arange(9.0)}, {"x": np.zeros(9)}
    with training_files.Checkpoints(tmp_path) as saved:
        for step in (1, 2):
            saved.save(step, state)
    folder = tmp_path / "checkpoints"
    # A kill may leave one more than are kept.
    shutil.copytree(folder / "1", folder / "0")
    for path in (folder / "2").rglob("*"):
        if path.is_file():
            os.truncate(path, 3)

    def restore() -> tuple[int, Any]:
        with training_files.Checkpoints(tmp_path) as saved:
            return saved.restore(template)

    message = programs.refusal(restore)
    assert message.startswith(f"{folder / '2'}: not a readable checkpoint (")
    assert sorted(x.name for x in folder.iterdir()) == ["1", "2"]
    shutil.rmtree(folder / "2")
    assert restore()[0] == 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('NOT_FOUND: Error writing "0/0" in OCDBT database', errno.ENOENT),
        ("Save failed: 8/40 params are missing .zarray", errno.ENOENT),
        ("Checkpoint directory does not exist: x", errno.ENOENT),
        ("RESOURCE_EXHAUSTED: [os_error_code='28']", errno.ENOSPC),
        ("Cannot pack: expected a tree", None),
    ],
)
def test_errors_of_tensorstore_are_those_of_the_disk(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    code: int | None,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError(text)

    with training_files.Checkpoints(tmp_path) as saved:
        monkeypatch.setattr(saved._manager, "save", fail)
        if code is None:
            with pytest.raises(ValueError, match=text):
                saved.save(1, {})
        else:
            message = programs.refusal(saved.save, 1, {})
            reason = os.strerror(code)
            assert message == f"{tmp_path / 'checkpoints'}: cannot write ({reason})"


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


@pytest.mark.parametrize("name", ["mapper", "generator"])
def test_folder_of_another_run_ends_all_processes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "precious").touch()
    nothing = types.SimpleNamespace(batch_size=2, resume_from=None, identity="")
    request: Any = types.SimpleNamespace(
        workdir=tmp_path,
        settings={},
        models=types.SimpleNamespace(record=dict),
        run=nothing,
        recipe=nothing,
        images=nothing,
    )

    def begin(index: int) -> None:
        if name == "mapper":
            training.begin(request, "p", {}, [], SILENT)
        else:
            generator_run._begin(request, request, [], SILENT)

    first, second = processes.run(monkeypatch, 2, begin)
    assert "expected a new or empty folder" in str(first)
    assert "another process refused the run" in str(second)
