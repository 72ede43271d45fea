"""Kernels of a trace: which of them take the time."""

import collections
import gzip
import json
import pathlib
from collections.abc import Iterator
from typing import Any


def longest(folder: pathlib.Path, count: int) -> tuple[float, list[tuple[str, float]]]:
    """Longest kernels of a trace that `jax.profiler.trace` wrote.

    Args:
      folder: folder of the trace.
      count: number of kernels.

    Returns:
      Microseconds of all kernels, and the names and microseconds of the longest.

    Raises:
      ValueError: the trace has no kernels.
    """
    total: collections.Counter[str] = collections.Counter()
    for path in folder.rglob("*.trace.json.gz"):
        for event in _kernels(json.loads(gzip.decompress(path.read_bytes()))):
            total[event["name"]] += event["dur"]
    if not total:
        raise ValueError(f"{folder}: expected a trace with kernels, found none")
    return sum(total.values()), total.most_common(count)


def _kernels(trace: Any) -> Iterator[dict[str, Any]]:
    """Events of kernels: those of a device's streams, or of the operations of a CPU."""
    events = trace["traceEvents"]
    names: dict[str, dict[Any, str]] = {"process_name": {}, "thread_name": {}}
    for event in events:
        if event.get("name") in names:
            place = (event["pid"], event.get("tid"))
            names[event["name"]][place] = event["args"]["name"]
    devices = {pid for (pid, _), x in names["process_name"].items() if "/device:" in x}
    threads = {
        place: x for place, x in names["thread_name"].items() if place[0] in devices
    }
    # GPUs have streams, TPUs a line of operations; other lines sum these up.
    streams = {place for place, x in threads.items() if x.startswith("Stream")}
    streams = streams or {place for place, x in threads.items() if x == "XLA Ops"}
    for event in events:
        if event.get("ph") != "X":
            continue
        place = (event["pid"], event["tid"])
        on_host = not devices and "hlo_op" in event.get("args", {})
        if place in streams or on_host:
            yield event
