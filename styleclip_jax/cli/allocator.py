"""Allocator settings: the process keeps freed memory, for large arrays on a CPU.

glibc returns large blocks to the system when they are freed, and the system hands them
out again page by page, zeroed. A step of an optimization at 1024² has gigabytes of
temporary arrays that live for one call, so this costs a good part of the time.
"""

import ctypes
import os
import sys

# Environment variable that leaves the allocator as it is if set to 0.
SWITCH = "STYLECLIP_KEEP_MEMORY"

# Parameters of mallopt, from malloc.h, and their values: one arena for all threads,
# always the heap instead of a mapping per block, never give the top of the heap back,
# grow it by 256 MB.
_PARAMETERS = {-8: 1, -4: 0, -1: -1, -2: 2**28}
_SET_ALREADY = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Tells the allocator to keep freed memory; to be called before arrays are made.

    The allocator must be glibc's, as on most Linux systems. One that was chosen or
    tuned by the environment is left alone.

    Returns:
      Whether the allocator was told.
    """
    if os.environ.get(SWITCH) == "0" or not sys.platform.startswith("linux"):
        return False
    if any(name.startswith(_SET_ALREADY) for name in os.environ):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return all(libc.mallopt(*pair) == 1 for pair in _PARAMETERS.items())
