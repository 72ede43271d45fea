"""The script for whoever has a card runs without one, and survives what fails."""

import gzip
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import limit
from benchmarks.accelerator import cards, kernels, parts, run, setting
from styleclip_jax.models import stylegan2


def test_a_layer_takes_what_is_longer_to_compute_or_to_move() -> None:
    config = stylegan2.GeneratorConfig(resolution=8, channels=(5, 3))
    moved = [2 * 16 * 5, 16 * 5 + 3 * 20, 16 * 5 + 64 * 3, 2 * 64 * 3, 64 * 3 + 3 * 80]
    weights = [9 * 5 * 5, 5 * 3, 9 * 5 * 3, 9 * 3 * 3, 3 * 3]
    slow: dict[str, Any] = {"rate": 1e99, "bandwidth": 1.0, "num_bytes": 2}
    found = limit.synthesis_seconds(config, 3, **slow)
    assert found == 2 * (3 * sum(moved) + sum(weights))
    slow = {"rate": 1.0, "bandwidth": 1e99, "num_bytes": 2}
    found = limit.synthesis_seconds(config, 3, **slow)
    assert found == 2 * 3 * limit.synthesis_macs(config)


def test_every_card_has_a_rate_for_every_way() -> None:
    kinds = {setting.product(way) for way in setting.WAYS}
    for rates in cards.RATES.values():
        assert rates.products.keys() == kinds


def lines(folder: pathlib.Path) -> list[dict[str, Any]]:
    text = (folder / "measurements.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def run_parts(folder: pathlib.Path, seconds: float, **found: Any) -> run.Report:
    """Runs parts of functions by name, each a part with one item or an iterator."""
    report = run.Report(folder / "measurements.jsonl")
    run.carry_out(
        {name: run.Part(1, items) for name, items in found.items()},
        report,
        run.Clock(seconds),
    )
    return report


def broken() -> dict[str, Any]:
    raise RuntimeError("no such kernel")


def test_parts_survive_the_failure_of_another(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks_between() -> Iterator[run.Item]:
        yield run.Item("before", lambda: {"seconds": 1.0})
        broken()

    def last() -> Iterator[run.Item]:
        yield run.Item("breaks", broken)
        yield run.Item("after", lambda: {"a": {"seconds": 2.0}, "b": {"note": "n"}})

    report = run_parts(tmp_path, 60, first=breaks_between, last=last)
    assert report.failed
    rows = [(x["part"], x["what"], x.get("error_text")) for x in lines(tmp_path)]
    error = "RuntimeError: no such kernel"
    assert rows == [
        ("first", "before", None),
        ("first", "preparation", error),
        ("last", "breaks", error),
        ("last", "after a", None),
        ("last", "after b", None),
    ]
    printed = capsys.readouterr().out.splitlines()
    assert error in printed[3]
    assert "| 2000 |" in printed[5]
    assert len({line.count("|") for line in printed}) == 1


def test_parts_that_do_not_fit_are_skipped_with_a_note(tmp_path: pathlib.Path) -> None:
    def some() -> Iterator[run.Item]:
        yield run.Item("one", lambda: {"seconds": 1.0})

    report = run_parts(tmp_path, 0, some=some)
    assert not report.failed
    assert lines(tmp_path) == [
        {"part": "some", "what": "one", "note": "skipped: no time left"}
    ]


def test_the_longest_kernels_are_those_of_the_streams(tmp_path: pathlib.Path) -> None:
    def named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
        return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}

    def kernel(pid: int, tid: int, name: str, duration: float) -> dict[str, Any]:
        return {"ph": "X", "pid": pid, "tid": tid, "name": name, "dur": duration}

    events = [
        named("process_name", 1, 0, "/device:GPU:0"),
        named("process_name", 2, 0, "/host:CPU"),
        named("thread_name", 1, 7, "Stream #7(Compute)"),
        named("thread_name", 1, 8, "XLA Modules"),
        kernel(1, 7, "fusion", 2.0),
        kernel(1, 7, "conv", 3.0),
        kernel(1, 7, "fusion", 2.0),
        kernel(1, 8, "jit_step", 7.0),
        kernel(2, 7, "python", 9.0),
    ]
    path = tmp_path / "plugins" / "host.trace.json.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": events}).encode()))
    assert kernels.longest(tmp_path, 1) == (7.0, [("fusion", 4.0)])


def test_a_trace_without_kernels_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="expected a trace with kernels"):
        kernels.longest(tmp_path, 10)


# Packages of ours that are left out of what the script for a card asks for.
HIDDEN = ("ftfy", "jaxtyping", "orbax", "regex", "scipy", "tokenizers", "tqdm")
IMPORT_WITHOUT = f"""
import importlib.machinery, sys

class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, *rest):
        hidden = name.split(".")[0] in {(*HIDDEN, "transformers")}
        return None if hidden else super().find_spec(name, *rest)

finders = sys.meta_path
finders[finders.index(importlib.machinery.PathFinder)] = Finder
import benchmarks.accelerator.__main__
import tests.golden_networks
"""


@pytest.mark.slow
def test_the_script_for_a_card_needs_few_packages() -> None:
    subprocess.run([sys.executable, "-c", IMPORT_WITHOUT], check=True)


@pytest.mark.shown
def test_the_script_for_a_card_measures_every_part_in_tiny(
    tmp_path: pathlib.Path,
) -> None:
    command = [sys.executable, "-m", "benchmarks.accelerator", "--toy"]
    found = subprocess.run(
        [*command, "--minutes=60", f"--outdir={tmp_path}"],
        capture_output=True,
        text=True,
        check=False,
    )
    rows = lines(tmp_path)
    assert not found.returncode, [x for x in rows if "error_text" in x] or found.stderr
    assert {row["part"] for row in rows} == parts.of(toy=True, outdir=tmp_path).keys()
    assert not [row for row in rows if row.get("note", "").startswith("skipped")]
    assert all(row["seconds"] > 0 for row in rows if "seconds" in row)
    by_name = {row["what"]: row for row in rows}
    assert by_name["generator, highest"]["error"] < 1e-5
    assert by_name["generator, bfloat16"]["error"] > 1e-4
    assert by_name["bits as it is: images, highest"]["calls_equal"]
    # A table row for each line of the file, below two of heading.
    table = [line for line in found.stdout.splitlines() if line.startswith("| ")]
    assert len(table) == len(rows) + 1
