"""Batch sizes: the largest that fit into the memory, found by trying or predicted."""

import math
from collections.abc import Callable

import jax

from styleclip_jax import parallel
from styleclip_jax.errors import UserError

# Speedup that a larger batch must bring.
_GAIN = 1.05
# Share of an accelerator's free memory that a batch may take by prediction, and the
# size that tells with a size of 1 how much a latent takes.
_SHARE, _SMALL_BATCH = 0.9, 8


def largest(seconds: Callable[[int], float], limit: int) -> int:
    """Largest size of 1, 2, 4, … that fits and is faster per item than the one before.

    Args:
      seconds: (size) → time that a batch takes; may run out of memory.
      limit: size that need not be exceeded.

    Raises:
      UserError: not even a size of 1 fits.
    """
    best, size, rate = 0, 1, 0.0
    while size < 2 * limit:
        found = size / _or_infinite(seconds, size)
        if found <= _GAIN * rate:
            break
        best, rate, size = size, found, 2 * size
    return _checked(best)


def largest_predicted(
    seconds: Callable[[int], float],
    memory: Callable[[int], float],
    free: int,
    limit: int,
) -> int:
    """Largest size whose memory fits by prediction, or a small one that is as fast.

    Memory is on a line through its values at 1 and a small size. What it predicts is
    tried once; a size that does not fit after all is halved.

    Args:
      seconds: (size) → time that a batch takes; may run out of memory.
      memory: (size) → bytes that a batch takes, by the compiler; may run out of memory.
      free: bytes that are free.
      limit: size that need not be exceeded.

    Raises:
      UserError: not even a size of 1 fits.
    """
    budget, one = _SHARE * free, _or_infinite(memory, 1)
    if one == math.inf:
        return _checked(0)
    # That many times one, constant part and all, fit; so do that many together.
    small = min(limit, _SMALL_BATCH, max(1, int(budget / max(one, 1))))
    each = (_or_infinite(memory, small) - one) / (small - 1) if small > 1 else math.inf
    fitting = 1 + (budget - one) / each if each > 0 else math.inf
    large = _even(max(small, int(min(limit, fitting))))
    best, rate = 0, 0.0
    for size in dict.fromkeys((small, large)):
        while size > best:
            took = _or_infinite(seconds, size)
            if took < math.inf:
                if size / took > _GAIN * rate:
                    best, rate = size, size / took
                break
            size //= 2
    return _checked(best)


def _even(size: int) -> int:
    """Size of whole tiles of the devices, where it is more than one."""
    return size - size % _SMALL_BATCH if size > _SMALL_BATCH else size


def _or_infinite(function: Callable[[int], float], size: int) -> float:
    """Value of a function of a size, infinite where that does not fit."""
    try:
        return function(size)
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not parallel.is_out_of_memory(error):
            raise
        return math.inf


def _checked(size: int) -> int:
    if not size:
        raise UserError(
            "batch_size: not even one latent fits into the memory", field="batch_size"
        )
    return size
