"""python -m benchmarks.report: put a run of benchmarks.compare into the documents.

  python -m benchmarks.report --run=outputs/benchmarks.json
  python -m benchmarks.report --run=NEW.json --against=OLD.json

The first puts the run's table between the two marks of docs/measurements.md, in place
of the table that is there. The second prints what changed from one run to the other.
"""

import json
import pathlib
from typing import Any

from absl import flags

from styleclip_jax.cli import program
from styleclip_jax.errors import UserError

BEGIN = "<!-- benchmarks.compare: begin -->"
END = "<!-- benchmarks.compare: end -->"
_PEERS = ("official", "lean", "compiled")

VALUES = flags.FlagValues()
flags.DEFINE_string(
    "run",
    "outputs/benchmarks.json",
    "File that benchmarks.compare wrote.",
    flag_values=VALUES,
)
flags.DEFINE_string(
    "against",
    None,
    "File of an earlier run, to compare with; nothing is written then.",
    flag_values=VALUES,
)
flags.DEFINE_string(
    "document",
    "docs/measurements.md",
    "Document with the marks of a table.",
    flag_values=VALUES,
)


def best(row: dict[str, Any]) -> str | None:
    """Peer of the lowest ratio."""
    peers = [name for name in _PEERS if name in row["sides"]]
    return min(peers, key=lambda name: row["sides"][name]["ratio"], default=None)


def table(run: dict[str, Any]) -> str:
    """The run in Markdown: where it was, and a line per row."""
    versions = ", ".join(f"{name} {x}" for name, x in sorted(run["versions"].items()))
    loads = [
        x for x in (run["load"], *(r["load"] for r in run["rows"])) if x is not None
    ]
    columns = (
        *("row", "ours (s)", "official", "lean", "compiled"),
        *("official / ours", "best torch / ours", "CPU time, best torch / ours"),
        *("peak GB: ours", "official", "best torch"),
        *("results apart: largest", "L2", "of limit, in direct multiply-adds"),
    )
    return "\n".join(
        (
            f"{run['date']}, {run['cores']} cores of {run['cpu']}, {versions}; "
            f"float32, allocator {run['allocator']}, medians of {run['repeats']} "
            f"turns; others kept up to {max(loads):.2f} cores busy; matrix products "
            f"reach {run['gflops']:.0f} GFLOP/s.",
            "",
            f"| {' | '.join(columns)} |",
            f"|---|{'---:|' * (len(columns) - 1)}",
            *(f"| {' | '.join(_cells(row))} |" for row in run["rows"]),
        )
    )


def line(row: dict[str, Any]) -> str:
    """What a row says, in short."""
    ratios = (
        f"{name} / ours {row['sides'][name]['ratio']:.2f}"
        for name in _PEERS
        if name in row["sides"]
    )
    return ", ".join((f"{row['name']}: ours {_seconds(row, 'ours')} s", *ratios))


def _seconds(row: dict[str, Any], side: str) -> str:
    return (
        f"{row['sides'][side]['seconds']['median']:.3g}" if side in row["sides"] else ""
    )


def _cells(row: dict[str, Any]) -> list[str]:
    quickest = best(row)

    def number(side: str | None, key: str, form: str = ".2f") -> str:
        found = row["sides"].get(side, {}).get(key)
        return "" if found is None else format(found, form)

    apart = [side["apart"] for side in row["sides"].values() if "apart" in side]
    largest, l2 = (
        f"{max(x[key] for x in apart):.0e}" if apart else ""
        for key in ("largest", "l2")
    )
    share = row.get("of_limit")
    return [
        row["name"],
        *(_seconds(row, side) for side in ("ours", *_PEERS)),
        *(number(side, "ratio") for side in ("official", quickest)),
        number(quickest, "cpu_ratio"),
        *(number(side, "peak_gb", ".1f") for side in ("ours", "official", quickest)),
        largest,
        l2,
        "" if share is None else f"{share:.2f}",
    ]


def changes(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Rows of two runs: our time and the ratio to the best torch, before and after."""
    before = {row["name"]: row for row in old["rows"]}
    lines = [
        "| row | ours before (s) | after | before / after | best torch / ours before "
        "| after |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in new["rows"]:
        if row["name"] not in before:
            continue
        pair = before[row["name"]], row
        seconds = [x["sides"]["ours"]["seconds"]["median"] for x in pair]
        ratios = [
            f"{x['sides'][name]['ratio']:.2f}" if (name := best(x)) else ""
            for x in pair
        ]
        cells = (
            row["name"],
            *(f"{x:.3g}" for x in seconds),
            f"{seconds[0] / seconds[1]:.2f}",
            *ratios,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def put(document: str, text: str) -> str:
    """The document with a text in place of what is between its marks.

    Raises:
      UserError: the marks are not there.
    """
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise UserError(f"document: expected the marks {BEGIN} and {END}, found none")
    return f"{head}{begin}\n{text}\n{end}{tail}"


def _read(path: str, flag: str) -> dict[str, Any]:
    try:
        return json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--{flag}: cannot read {path}: {error}") from None


def main(values: flags.FlagValues) -> None:
    """Writes the table, or prints the changes."""
    run = _read(values.run, "run")
    if values.against is not None:
        print(changes(_read(values.against, "against"), run))
        return
    path = pathlib.Path(values.document)
    path.write_text(put(path.read_text(), table(run)))


if __name__ == "__main__":
    program.run(main, VALUES)
