"""python -m benchmarks.compare: how fast are we, beside the best torch?

  python -m benchmarks.compare --rows=synthesis,clip --peer_python=PYTHON \
    --peer_dirs=STYLECLIP,CLIP --json=outputs/benchmarks.json

Peers are the official code, a lean version of it in torch (`benchmarks/lean.py`), and
that one compiled. Ours and each of them are processes on the same cores, with the same
random weights and inputs. They warm up, their results are compared, and then they take
turns, so that both see the same machine. Without a Python for peers there are none.

Times are medians per item (image, latent, example). Ratios are a peer's time over ours
of the same turns; the best torch is the peer with the lowest.
"""

import datetime
import json
import pathlib
import platform
import statistics
import tempfile
import time
from typing import Any

import numpy as np
from absl import flags

from benchmarks import limit, machine, report, rows, sides, worker
from styleclip_jax.cli import program
from styleclip_jax.errors import UserError

# Busy cores from which on times are not to be trusted: threads of torch spin when cores
# are contended for.
LOAD_LIMIT = 0.5

# Settings of JAX: whatever takes time to compile is kept.
_CACHE_ALL = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}

VALUES = flags.FlagValues()
flags.DEFINE_list(
    "rows",
    [row.name for row in rows.TABLE],
    "Rows by name; the first words of a name stand for all that begin so. Sizes and "
    "batches may be others: synthesis_64_x4.",
    flag_values=VALUES,
)
flags.DEFINE_integer(
    "repeats", 5, "Turns that count, for each side.", lower_bound=1, flag_values=VALUES
)
flags.DEFINE_string(
    "json",
    "outputs/benchmarks.json",
    "File for all that was measured.",
    flag_values=VALUES,
)
flags.DEFINE_bool(
    "any_load",
    False,
    f"For trials: measure even if others keep more than {LOAD_LIMIT} cores busy.",
    flag_values=VALUES,
)
flags.DEFINE_enum(
    "allocator",
    "same",
    sides.ALLOCATORS,
    "Memory allocator: the same tuned settings on both sides, as it comes on both, or "
    "each side as a user starts it (ours tunes itself).",
    flag_values=VALUES,
)
flags.DEFINE_list(
    "peer_dirs",
    [],
    "Checkouts: of StyleCLIP first, of OpenAI's CLIP unless it is installed, and of "
    "NVIDIA's stylegan3 for its rows and those of training; rosinality's "
    "stylegan2-pytorch, alone, for training_rosinality.",
    flag_values=VALUES,
)
flags.DEFINE_string(
    "peer_python",
    None,
    "Python with torch, torchvision, ftfy, regex, and click and imageio for "
    "directions, scipy for stylegan3; without it there is no peer.",
    flag_values=VALUES,
)


def measure(row: rows.Row, setting: sides.Setting, repeats: int) -> dict[str, Any]:
    """What is measured of a row: its place in the JSON file.

    Raises:
      UserError: results are too far apart.
    """
    summaries: dict[str, dict[str, Any]] = {"ours": {}}
    versions: dict[str, str] = {}
    loads, all_ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        # Pair by pair, since four sides do not fit into memory; ours is compiled once.
        cache = {"JAX_COMPILATION_CACHE_DIR": folder, **_CACHE_ALL}
        for name in row.peers if setting.peer_python else ("",):
            peer = sides.start(name, row, folder, setting) if name else None
            ours = sides.start("ours", row, folder, setting, **cache)
            pair = [side for side in (peer, ours) if side]
            _take_turns(pair, row.warm_ups)
            apart = sides.apart(ours, peer) if peer else None
            # Not a number is too far, too.
            if apart is not None and not apart.l2 <= row.tolerance:
                raise UserError(
                    f"{row.name}: results of {name} are {apart.l2:.1e} apart from ours "
                    f"(relative L2), expected at most {row.tolerance:.0e}"
                )
            loads.append(_take_turns(pair, repeats))
            for side in pair:
                side.leave()
                versions |= side.ready["versions"]
            all_ours.append(ours)
            if peer and apart:
                summaries[name] = {
                    **_summary([peer]),
                    "ratio": _ratio(peer, ours, "seconds"),
                    "cpu_ratio": _ratio(peer, ours, "cpu"),
                    "apart": apart._asdict(),
                }
    summaries["ours"] = _summary(all_ours)
    return {
        **row._asdict(),
        "load": max((load for load in loads if load is not None), default=None),
        "versions": versions,
        "sides": summaries,
    }


def _take_turns(pair: list[sides.Side], count: int) -> float | None:
    """Lets both work in turns; cores that others kept busy meanwhile, if known."""
    before, began = machine.busy_seconds(), time.monotonic()
    for _ in range(count):
        for side in pair:
            side.take_turn()
    after, took = machine.busy_seconds(), time.monotonic() - began
    if before is None or after is None:
        return None
    own = sum(turn["cpu"] for side in pair for turn in side.turns[-count:])
    return max(0.0, after - before - own) / took


def _summary(alike: list[sides.Side]) -> dict[str, Any]:
    """What one side took; ours has a process per peer, the first of which compiled."""

    def spread(key: str) -> dict[str, float]:
        values = [x for side in alike for x in side.per_item(key)]
        middle = statistics.median(values)
        return {"median": middle, "min": min(values), "max": max(values)}

    first = alike[0]
    return {
        "seconds": spread("seconds"),
        "cpu": spread("cpu"),
        "peak_gb": max(turn["peak"] for side in alike for turn in side.counted),
        "import_seconds": first.import_seconds,
        "load_seconds": first.load_seconds,
        "first_seconds": first.turns[0]["seconds"],
    }


def _ratio(peer: sides.Side, ours: sides.Side, key: str) -> float:
    """The peer's median over ours."""
    theirs, mine = (statistics.median(side.per_item(key)) for side in (peer, ours))
    return theirs / mine


def _check_load(any_load: bool) -> float:
    load = machine.load()
    if load > LOAD_LIMIT and not any_load:
        raise UserError(
            f"others keep {load:.2f} cores busy, expected at most {LOAD_LIMIT}; wait, "
            "or take --any_load for a trial"
        )
    return load


def main(values: flags.FlagValues) -> None:
    """Writes the JSON file, row by row, and prints its table."""
    chosen = rows.choose(values.rows)
    setting = sides.Setting(
        values.allocator, values.peer_python, tuple(values.peer_dirs)
    )
    run: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "cpu": machine.cpu(),
        "cores": machine.cores(),
        "load": _check_load(values.any_load),
        "allocator": values.allocator,
        "repeats": values.repeats,
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "gflops": None,
        "rows": [],
    }
    path = pathlib.Path(values.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    for row in (rows.parse("matmul"), *chosen):
        found = measure(row, setting, values.repeats)
        run["versions"] |= found.pop("versions")
        if row.question == "matmul":
            # The best that either side reached.
            best = min(side["seconds"]["min"] for side in found["sides"].values())
            run["gflops"] = 2 * worker.MATMUL_SIZE**3 / best / 1e9
            continue
        run["rows"].append(found)
        macs = limit.macs(row.question, row.resolution)
        if macs is not None:
            seconds = found["sides"]["ours"]["seconds"]["median"]
            found["of_limit"] = 2 * macs / seconds / run["gflops"] / 1e9
        path.write_text(json.dumps(run, indent=1) + "\n")
        print(report.line(found), flush=True)
    print(f"\n{report.table(run)}\n{path}")


if __name__ == "__main__":
    program.run(main, VALUES)
