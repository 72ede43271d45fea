"""A task that costs nothing, and its stream into a folder."""

import errno
import itertools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import parallel
from styleclip_jax.batch import stream
from styleclip_jax.batch.journal import Journal, Kept
from styleclip_jax.batch.source import LatentSource
from tests import tiny

COUNT, SIZE = 21, 2
KEPT = Kept.latents("w_plus", tiny.GENERATOR, ("original", "edited"))


def task(variants: int = 2, image_format: str = "jpg") -> stream.Task:
    """Two cheap results for each latent."""

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
        image_format=image_format,
        png_level=1,
        probe=lambda latent, rows: compute(latent, 0),
        memory=lambda latent, rows: latent.nbytes,
    )


def source(broken: int | None = None) -> LatentSource:
    """COUNT random latents, one of them maybe not finite."""
    array = np.random.RandomState(0).randn(COUNT, 4, 12).astype(np.float32)
    if broken is not None:
        array[broken] = np.nan
    config = tiny.GENERATOR
    layout = config.style_layout
    return LatentSource("w_plus", range(COUNT), array, layout, config.z_dim)


def open_journal(
    outdir: pathlib.Path, work: stream.Task | None = None, process: int = 0
) -> Journal:
    """The journal of a task over `source`."""
    work = work or task()
    count = COUNT * work.variants
    return Journal(outdir, count, KEPT, process, work.image_format)


def stream_into(
    outdir: pathlib.Path,
    devices: int = 1,
    latents: LatentSource | None = None,
    work: stream.Task | None = None,
) -> tuple[bool, stream.Failures]:
    """Whether everything is done, and what could not be written."""
    outdir.mkdir(exist_ok=True)
    work, latents = work or task(), latents or source()
    journal = open_journal(outdir, work)
    mesh = parallel.make_mesh(jax.devices()[:devices])
    failures = stream.run(work, latents, journal, SIZE, mesh, lambda count: None)
    return stream.finish(journal), failures


class Killed(BaseException):
    """Ends everything, as a signal does."""


def fill_disk(calls: range) -> Callable[[int], None]:
    """For `count_calls`: there is no space in these calls."""

    def fail(call: int) -> None:
        if call in calls:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fail


def move_away(folder: pathlib.Path) -> Callable[[int], None]:
    """For `count_calls`: the folder has another name from the 30th call on."""

    def vanish(call: int) -> None:
        if call == 30:
            folder.rename(folder.with_name("elsewhere"))

    return vanish


def count_calls(
    monkeypatch: pytest.MonkeyPatch,
    fail: Callable[[int], Any],
    names: Sequence[str] = ("fsync",),
    folder: str | None = None,
) -> None:
    """Calls `fail` with the number of each call of these of `os` before it happens.

    With a folder, calls on something in it alone count.
    """
    calls = itertools.count()

    def is_inside(place: Any) -> bool:
        if isinstance(place, int):
            place = os.readlink(f"/proc/self/fd/{place}")
        return os.path.abspath(os.fspath(place)).startswith(folder or "")

    def count(name: str) -> None:
        function = getattr(os, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            places = [arguments[0], options.get("dir_fd")]
            if folder is None or any(is_inside(x) for x in places if x is not None):
                fail(next(calls))
            return function(*arguments, **options)

        monkeypatch.setattr(os, name, counted)

    for name in names:
        count(name)
