"""Checks on a device: golden data, 8-bit differences, and bits of two processes."""

import contextlib
import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator import golden, setting
from benchmarks.accelerator.run import Item, Values
from styleclip_jax import latents, loading
from styleclip_jax.models import stylegan2
from styleclip_jax.ops import pixels

# Setting that promises equal bits, and what XLA needs for it on GPUs.
_PROMISED = "deterministic"
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
_PROCESS_SECONDS = 150


def parity(size: setting.Size) -> Iterator[Item]:
    """Results of the official code, computed in every way."""
    if not golden.ROOT.is_dir():
        note = "skipped: no golden data, which the repository has in tests/"
        yield Item("golden data", lambda: {"note": note})
        return
    found = list(itertools.islice(golden.results(), size.golden))
    for name in size.ways:
        for result in found:
            config = setting.ways(size.ways, result.network.config).get(name)
            if config is not None:
                measure = functools.partial(
                    _compare, result, config, exact=name == setting.EXACT
                )
                yield Item(f"{result.what}, {name}", measure)


def embedded(size: setting.Size) -> Iterator[Item]:
    """Images of the embedded generator in every way, in levels of 8 bits."""
    network = loading.load_generator()
    z = latents.seeded_batch(range(size.faces), network.config.z_dim)
    plain = {"space": "z", "truncation_psi": 0.7, "cutoff": None, "to": "w_plus"}
    w_plus = latents.convert(network, z, **plain)

    def levels(config: Any) -> np.ndarray:
        image = jax.jit(stylegan2.synthesize)(network.replace(config=config), w_plus)
        return np.asarray(pixels.to_uint8(image)).astype(int)

    exact = functools.cache(lambda: levels(network.config))

    def differ(config: Any) -> Values:
        apart = np.abs(levels(config) - exact())
        note = f"levels apart: mean {apart.mean():.3f}, largest {apart.max()}"
        return {"note": note, "mean_levels": apart.mean(), "largest": int(apart.max())}

    for name, config in setting.ways(size.ways, network.config).items():
        if config != network.config:
            yield Item(f"embedded faces, {name}", functools.partial(differ, config))


def bits(toy: bool) -> Iterator[Item]:
    """Whether calls and processes agree bit by bit."""
    platform = jax.local_devices()[0].platform
    if platform == "tpu":
        note = "skipped: a TPU belongs to one process"
        yield Item("bits", lambda: {"note": note})
        return
    settings = {"as it is": ""}
    if platform in ("gpu", "cuda", "rocm"):
        settings[_PROMISED] = _DETERMINISTIC
    yield Item("bits", functools.partial(_compare_processes, settings, toy))


def _compare_processes(settings: dict[str, str], toy: bool) -> dict[str, Values]:
    """Rows on images and gradients: whether two calls agree, and two processes.

    Args:
      settings: flags of XLA by name; all processes run side by side.
      toy: tiny sizes.
    """
    with contextlib.ExitStack() as stack:
        processes = {
            name: [stack.enter_context(_process(flags, toy)) for _ in range(2)]
            for name, flags in settings.items()
        }
        said = {
            name: [json.loads(_answer(process)) for process in pair]
            for name, pair in processes.items()
        }
    rows = {}
    for name, (first, second) in said.items():
        for way, (call, again) in first.items():
            for i, what in enumerate(("gradient", "images")):
                calls = call[i] == again[i]
                both = call[i] == second[way][0][i]
                row: Values = {"calls_equal": calls, "processes_equal": both}
                row["note"] = (
                    f"two calls {'equal' if calls else 'differ'}, "
                    f"two processes {'equal' if both else 'differ'}"
                )
                if name == _PROMISED and not (calls and both):
                    row["error_text"] = row["note"]
                rows[f"{name}: {what}, {way}"] = row
    return rows


@contextlib.contextmanager
def _process(flags: str, toy: bool) -> Iterator[subprocess.Popen[str]]:
    """A process that says its bits; it is killed if it still runs at the end."""
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
        # This process holds most of the memory already.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "PYTHONPATH": str(golden.REPOSITORY),
    }
    command = [sys.executable, "-m", "benchmarks.accelerator.bits"]
    process = subprocess.Popen(
        [*command, "--toy"] if toy else command,
        env=environment,
        cwd=golden.REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _answer(process: subprocess.Popen[str]) -> str:
    """Last line that a process says.

    Raises:
      RuntimeError: it failed; the message has the end of what it said.
    """
    out, error = process.communicate(timeout=_PROCESS_SECONDS)
    if process.returncode:
        raise RuntimeError(f"a process for bits failed: {error[-500:]}")
    return out.splitlines()[-1]


def _compare(result: golden.Golden, config: Any, *, exact: bool) -> Values:
    """Relative L2 error of a result; at full precision it must be that of float32."""
    network = result.network.replace(config=config)
    found = np.asarray(jax.jit(result.function)(network, result.input))
    expected = result.expected
    error = np.linalg.norm(found.reshape(expected.shape) - expected)
    error = float(error / np.linalg.norm(expected))
    values: Values = {"error": error, "allowed": result.relative}
    if error <= result.relative:
        values["note"] = "as on a CPU"
    elif exact:
        values["error_text"] = f"expected at most {result.relative:.1e}"
    return values
