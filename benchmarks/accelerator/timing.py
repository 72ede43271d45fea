"""Timing of one function on a device: compile seconds, median of runs, memory."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

_WARM_UPS, _RUNS, _LEAST_RUNS = 3, 20, 3
# Seconds that the runs of one function may take.
_SECONDS = 2.0


class Program(NamedTuple):
    """Compiled function.

    Attributes:
      call: the function.
      seconds: time that tracing and compilation took.
      operations: number of floating-point operations of a call, as XLA counts them
        before it optimizes; 0 where it does not.
      gigabytes: memory of arguments, results and what is between; 0 where unknown.
    """

    call: Callable[..., Any]
    seconds: float
    operations: float
    gigabytes: float


def compiled(function: Callable[..., Any], *inputs: Any) -> Program:
    """Compiles a function, jitted or not, for inputs like these."""
    if not hasattr(function, "lower"):
        function = jax.jit(function)
    started = time.perf_counter()
    lowered = function.lower(*inputs)
    program = lowered.compile()
    seconds = time.perf_counter() - started
    operations = (lowered.cost_analysis() or {}).get("flops", 0.0)
    return Program(program, seconds, operations, _gigabytes(program.memory_analysis()))


def measure(
    function: Callable[..., Any] | Program, *inputs: Any, carry: int | None = None
) -> dict[str, Any]:
    """Compiles a function, if it is not, and times its calls.

    Args:
      function: the function.
      *inputs: its arguments.
      carry: number of the argument that is replaced by the result of every call, such
        as a state that a call uses up.

    Returns:
      seconds (median of the runs), fastest, runs, compile_seconds, operations,
      program_gb, and peak_gb, the most that the device has held since the start.
    """
    program = function if isinstance(function, Program) else compiled(function, *inputs)
    arguments = list(inputs)

    def turn() -> float:
        started = time.perf_counter()
        result = jax.block_until_ready(program.call(*arguments))
        seconds = time.perf_counter() - started
        if carry is not None:
            arguments[carry] = result
        return seconds

    warm = [turn()]
    while len(warm) < _WARM_UPS and sum(warm) < _SECONDS / 2:
        warm.append(turn())
    count = min(_RUNS, max(_LEAST_RUNS, int(_SECONDS / warm[-1])))
    runs = [turn() for _ in range(count)]
    return {
        "seconds": statistics.median(runs),
        "fastest": min(runs),
        "runs": count,
        "compile_seconds": program.seconds,
        "operations": program.operations,
        "program_gb": program.gigabytes,
        "peak_gb": peak_gigabytes(),
    }


def peak_gigabytes() -> float | None:
    """Most memory that the first device has held so far, None where it does not say."""
    found = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return found and found / 1e9


def _gigabytes(found: Any) -> float:
    if found is None:
        return 0.0
    total = found.argument_size_in_bytes + found.output_size_in_bytes
    return (total + found.temp_size_in_bytes - found.alias_size_in_bytes) / 1e9
