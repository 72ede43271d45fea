"""Stream of batches: the same for any devices and processes, few in memory."""

import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import parallel
from styleclip_jax.batch import journal as batch_journal
from styleclip_jax.batch import source as batch_source
from styleclip_jax.batch import stream
from styleclip_jax.errors import UserError
from styleclip_jax.io import latent_files
from tests import tiny

COUNT, SIZE = 21, 2


# The stream by itself, with a task that costs nothing.


def fake_task(variants: int = 2) -> stream.Task:
    @jax.jit
    def compute(latent: jax.Array, variant: jax.Array) -> stream.Outcome:
        mean = latent.mean(axis=(1, 2))
        image = jnp.tanh(mean)[:, None, None, None] * jnp.ones((8, 8, 3))
        failed_at = jnp.where(jnp.isfinite(mean), -1, 0)
        packed = {"original": latent, "edited": latent + variant}
        return stream.Outcome(image, packed, {"mean": mean}, failed_at)

    return stream.Task(
        variants=variants,
        prepare=lambda batch: batch,
        compute=lambda latent, rows, variant, report: compute(latent, variant),
        describe=lambda row, variant: {"row": row, "variant": variant},
        image_format="jpg",
        probe=lambda latent, rows: compute(latent, 0),
    )


def fake_source(broken: int | None = None) -> batch_source.Source:
    array = np.random.RandomState(0).randn(COUNT, 4, 12).astype(np.float32)
    if broken is not None:
        array[broken] = np.nan
    config = tiny.GENERATOR
    layout = config.style_layout
    return batch_source.Source("w_plus", range(COUNT), array, layout, config.z_dim)


def stream_into(
    outdir: pathlib.Path, devices: int = 1, source: batch_source.Source | None = None
) -> tuple[bool, stream.Failures]:
    outdir.mkdir(exist_ok=True)
    task, source = fake_task(), source or fake_source()
    count = len(source) * task.variants
    journal = batch_journal.Journal(outdir, count, "w_plus", tiny.GENERATOR)
    mesh = parallel.make_mesh(jax.devices()[:devices])
    failures = stream.run(task, source, journal, SIZE, mesh, lambda count: None)
    return stream.finish(journal), failures


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("processes", [1, 3])
def test_batches_do_not_depend_on_devices_and_processes(
    monkeypatch: pytest.MonkeyPatch, devices: int, processes: int
) -> None:
    done = np.zeros(2 * COUNT, bool)
    done[[0, 8, 9, 10, 11]] = True
    found = []
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    for index in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        for step in stream.steps(COUNT, SIZE, devices, done):
            assert step.rows.shape == (devices * SIZE,)
            for rows, wanted in zip(
                step.rows.reshape(devices, SIZE),
                step.wanted.reshape(devices, SIZE),
                strict=True,
            ):
                if wanted.any():
                    found.append((rows.tolist(), wanted.tolist()))
    # Rows 4 and 5 are done, row 0 is done in part.
    batches = [([i, i + 1], [True, True]) for i in range(0, 20, 2) if i != 4]
    assert found == [*batches, ([20, 20], [True, False])]


def test_host_memory_holds_a_few_batches(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are loaded at most a few ahead of those that are written."""
    loaded, ahead = [], []
    source, append = fake_source(), batch_journal.Journal.append
    take = latent_files.take

    def load(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
        loaded.append(len(rows))
        return take(array, rows)

    def slowly(
        self: batch_journal.Journal, indices: list[int], *arguments: Any, **options
    ):
        time.sleep(0.02)
        append(self, indices, *arguments, **options)
        ahead.append(sum(loaded) - self.done.sum() / 2)

    monkeypatch.setattr(latent_files, "take", load)
    monkeypatch.setattr(batch_journal.Journal, "append", slowly)
    stream_into(tmp_path / "out", source=source)
    assert max(ahead[:-2]) <= 5 * SIZE


def test_largest_batch_is_found_by_trying() -> None:
    tried = []

    def seconds(size: int) -> float:
        tried.append(size)
        if size > 16:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 3 GiB")
        # Fastest per item from 4 on.
        return max(size / 4, 1.0)

    assert stream.largest(seconds, 1000, by_speed=False) == 16
    assert tried == [1, 2, 4, 8, 16, 32]
    assert stream.largest(seconds, 1000, by_speed=True) == 4
    assert stream.largest(seconds, 5, by_speed=False) == 8
    with pytest.raises(UserError, match="not even one latent"):
        stream.largest(lambda size: seconds(99), 4, by_speed=True)
    task = fake_task()
    mesh = parallel.make_mesh()
    assert stream.find_batch_size(fake_source(), task, mesh) in (1, 2, 4, 8)
