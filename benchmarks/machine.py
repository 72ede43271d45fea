"""Machine of a comparison: its CPU, and how busy others keep it."""

import os
import pathlib
import platform
import time

_STAT = pathlib.Path("/proc/stat")


def cpu() -> str:
    """Model of the CPU."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    return next(models, platform.machine())


def cores() -> int:
    """Number of cores that this process and its children may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def busy_seconds() -> float | None:
    """CPU seconds of all processes since the machine started; None if unknown."""
    if not _STAT.exists():
        return None
    user, nice, system, _, _, *interrupts = map(int, _STAT.read_text().split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def load() -> float:
    """Cores that are busy, over a second; the average of a minute where unknown."""
    # A process that waits between two lines would else see more than all cores busy.
    began, before = time.monotonic(), busy_seconds()
    if before is None:
        return os.getloadavg()[0]
    time.sleep(1)
    after = busy_seconds()
    assert after is not None
    return (after - before) / (time.monotonic() - began)
