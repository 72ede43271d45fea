"""Stream of batches: the same for any devices and processes, few in memory."""

import dataclasses
import pathlib
import sys
import time
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import batch, parallel
from styleclip_jax.batch import batch_sizes, stream
from styleclip_jax.batch.journal import Journal, Kept
from styleclip_jax.batch.source import LatentSource
from styleclip_jax.editing.session import Session
from styleclip_jax.errors import UserError
from styleclip_jax.io import latent_files
from styleclip_jax.methods import global_directions
from tests import fuzzing, programs, tiny
from tests.batch import fakes


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("processes", [1, 3])
def test_batches_do_not_depend_on_devices_and_processes(
    monkeypatch: pytest.MonkeyPatch, devices: int, processes: int
) -> None:
    done = np.zeros(2 * fakes.COUNT, bool)
    done[[0, 8, 9, 10, 11]] = True
    found = []
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    for index in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        for step in stream.steps(fakes.COUNT, fakes.SIZE, devices, done):
            assert step.rows.shape == (devices * fakes.SIZE,)
            for rows, wanted in zip(
                step.rows.reshape(devices, fakes.SIZE),
                step.wanted.reshape(devices, fakes.SIZE),
                strict=True,
            ):
                if wanted.any():
                    found.append((rows.tolist(), wanted.tolist()))
    # Rows 4 and 5 are done, row 0 is done in part.
    batches = [([i, i + 1], [True, True]) for i in range(0, 20, 2) if i != 4]
    assert found == [*batches, ([20, 20], [True, False])]


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
def test_default_batch_gives_every_device_some(devices: int) -> None:
    for count in range(1, 200):
        size = parallel.default_batch_size(count, devices)
        assert 1 <= size <= 8
        batches = -(-count // size)
        assert batches >= min(count, devices)
        # One more would leave a device without work.
        assert size == min(8, count) or -(-count // (size + 1)) < devices
    assert parallel.default_batch_size(16, 8) == 2
    assert parallel.default_batch_size(12, 8) == 1
    assert parallel.default_batch_size(10_000, 8) == 8


@pytest.mark.slow
def test_embedded_models_on_one_and_four_devices(tmp_path: pathlib.Path) -> None:
    """What docs/scale.md promises: forward passes to the bit, gradients closely."""
    found = {}
    for devices in (1, 4):
        session = Session(devices=jax.devices()[:devices])
        layout = session.generator.config.style_layout
        delta = np.random.RandomState(0).randn(sum(x.channels for x in layout))
        moved = session.moving(
            global_directions.Direction(jnp.asarray(delta, jnp.float32), layout), 0.3
        )
        optimized = session.optimization("a smiling face", steps=2)
        for name, editor in (("moved", moved), ("optimized", optimized)):
            outdir = tmp_path / f"{name}{devices}"
            options = {"batch_size": 2, "images": "npy", "grid": 0}
            batch.run(session, editor, seeds="0-7", outdir=outdir, **options)
            found[name, devices] = outdir
    expected = programs.hashes(found["moved", 1])
    assert len(expected) == 8 + 3
    assert programs.hashes(found["moved", 4]) == expected
    one, four = (found["optimized", devices] for devices in (1, 4))
    assert (one / "original.npy").read_bytes() == (four / "original.npy").read_bytes()
    # Not latents: Adam's first steps have the size of the learning rate, and where a
    # gradient is all but zero its rounding decides their sign.
    for index in range(8):
        name = f"images/{index:06d}.npy"
        images = [np.load(outdir / name) for outdir in (one, four)]
        np.testing.assert_allclose(*images, rtol=0, atol=1e-3)
    moved_by = np.load(one / "edited.npy") - np.load(one / "original.npy")
    assert np.abs(moved_by).max() > 1e-2


def test_host_memory_holds_a_few_batches(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are loaded at most a few ahead of those that are written."""
    loaded, ahead = [], []
    source, append = fakes.source(), Journal.append
    take = latent_files.take

    def load(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
        loaded.append(len(rows))
        return take(array, rows)

    def slowly(self: Journal, indices: list[int], *arguments: Any, **options):
        time.sleep(0.02)
        append(self, indices, *arguments, **options)
        ahead.append(sum(loaded) - self.done.sum() / 2)

    monkeypatch.setattr(latent_files, "take", load)
    monkeypatch.setattr(Journal, "append", slowly)
    fakes.stream_into(tmp_path / "out", latents=source)
    assert max(ahead[:-2]) <= 5 * fakes.SIZE


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no peak to reset")
def test_memory_does_not_grow_with_the_latents(tmp_path: pathlib.Path) -> None:
    config = dataclasses.replace(tiny.GENERATOR, w_dim=512)
    shape = config.num_rows, config.w_dim
    mesh = parallel.make_mesh(jax.devices()[:1])

    def grown(count: int) -> int:
        outdir, work = tmp_path / str(count), fakes.task(1, "none")
        outdir.mkdir()
        array = np.broadcast_to(np.float32(0), (count, *shape))
        about = config.style_layout, config.z_dim
        latents = LatentSource("w_plus", range(count), array, *about)
        kept = Kept.latents("w_plus", config, ("original", "edited"))
        before = fuzzing.reset_peak()
        journal = Journal(outdir, count, kept)
        stream.run(work, latents, journal, 50, mesh, lambda count: None)
        assert stream.finish(journal)
        return fuzzing.peak() - before

    # What is compiled and imported, and a chunk of those that are put in order.
    grown(2000)
    few, many = grown(2100), grown(6000)
    # A quarter of the latents' own size.
    held = 2 * 4 * int(np.prod(shape)) * (6000 - 2100)
    assert many - few < held / 4, (few, many)


@pytest.mark.parametrize(
    "text",
    [
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3221225472 bytes.",
        "UNKNOWN: Failed to determine best cudnn convolution algorithm for: %cudnn",
        "INTERNAL: Failed to allocate 268435456 bytes for new constant",
        "CUDNN_STATUS_ALLOC_FAILED in cudnnCreate",
        "INTERNAL: CUDA error: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        "Ran out of memory in memory space hbm. Used 17.2G of 15.7G hbm.",
    ],
)
def test_lack_of_memory_is_known_by_its_texts(text: str) -> None:
    error = jax.errors.JaxRuntimeError(text)
    assert parallel.is_out_of_memory(error)

    def seconds(size: int) -> float:
        if size > 2:
            raise error
        return 1.0

    assert batch_sizes.largest(seconds, 100) == 2
    predicted = batch_sizes.largest_predicted(seconds, lambda size: size, 1000, 100)
    assert predicted == 2
    other = jax.errors.JaxRuntimeError("INVALID_ARGUMENT: shapes")
    assert not parallel.is_out_of_memory(other)
    assert not parallel.is_out_of_memory(ValueError(text))


def test_largest_batch_is_found_by_trying() -> None:
    tried = []

    def seconds(size: int) -> float:
        tried.append(size)
        if size > 16:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 3 GiB")
        # Some 9 % faster per item with each doubling.
        return size**0.875

    assert batch_sizes.largest(seconds, 1000) == 16
    assert tried == [1, 2, 4, 8, 16, 32]
    assert batch_sizes.largest(seconds, 5) == 8
    # Fastest per item from 4 on.
    assert batch_sizes.largest(lambda size: max(size / 4, 1.0), 1000) == 4
    with pytest.raises(UserError, match="not even one latent"):
        batch_sizes.largest(lambda size: seconds(99), 4)
    task = fakes.task()
    mesh = parallel.make_mesh()
    assert stream.find_batch_size(fakes.source(), task, mesh) in (1, 2, 4, 8)


@pytest.mark.parametrize(
    ("fits", "limit", "fastest", "tried"),
    [
        # 10 bytes and 20 for each latent: 90 % of 1,000 bytes are 44 latents.
        (1000, 1000, 1000, [8, 40]),
        # More than the latents are not asked for.
        (1000, 20, 1000, [8, 16]),
        (1000, 5, 1000, [5]),
        # The compiler does not know of what libraries take.
        (700, 1000, 1000, [8, 40, 20]),
        (100, 1000, 1000, [8, 4, 40, 20, 10, 5]),
        # A larger one is no faster.
        (1000, 1000, 8, [8, 40]),
    ],
)
def test_memory_predicts_the_largest_batch(
    fits: int, limit: int, fastest: int, tried: list[int]
) -> None:
    found, compiled = [], []

    def memory(size: int) -> float:
        compiled.append(size)
        return 10 + 20 * size

    def seconds(size: int) -> float:
        found.append(size)
        if 10 + 20 * size > fits:
            raise jax.errors.JaxRuntimeError("CUDNN_STATUS_ALLOC_FAILED")
        return max(1.0, size / fastest)

    best = batch_sizes.largest_predicted(seconds, memory, 1000, limit)
    assert found == tried
    assert compiled == [1, min(8, limit)]
    assert best == max(n for n in tried if n <= fastest and 10 + 20 * n <= fits)


def test_memory_that_does_not_suffice_for_one_latent_is_said() -> None:
    def fail(size: int) -> float:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 3 GiB")

    with pytest.raises(UserError, match="not even one latent"):
        batch_sizes.largest_predicted(fail, fail, 1000, 10)
    # A compiler that says nothing leaves it to trying.
    assert (
        batch_sizes.largest_predicted(lambda size: 1.0, lambda size: 0, 1000, 30) == 24
    )

    def break_down(size: int) -> float:
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: shapes")

    with pytest.raises(jax.errors.JaxRuntimeError, match="shapes"):
        batch_sizes.largest_predicted(break_down, lambda size: 1, 1000, 10)


def test_devices_that_know_their_memory_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With 21 latents of 192 bytes on two devices."""
    stats = {"bytes_limit": 3000, "bytes_in_use": 1000}
    found = [stats, stats | {"bytes_in_use": 1500}]
    mesh = parallel.make_mesh(jax.devices()[:2])
    assert parallel.free_memory(mesh) is None
    devices = [types.SimpleNamespace(memory_stats=lambda x=x: x) for x in found]
    fake: Any = types.SimpleNamespace(devices=np.array(devices))
    assert parallel.free_memory(fake) == 1500
    tried = []
    task, free = fakes.task(), 1500

    def probe(latent: jax.Array, rows: np.ndarray) -> None:
        tried.append(len(rows) // 2)

    monkeypatch.setattr(parallel, "free_memory", lambda mesh: free)
    task = task._replace(probe=probe)
    assert stream.find_batch_size(fakes.source(), task, mesh) in tried
    # 1,350 bytes hold three latents for each device.
    assert set(tried) == {3}
