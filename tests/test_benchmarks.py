"""The benchmarks run without a peer; what they print is computed right.

Peers need torch, which the tests do without: `benchmarks.compare` itself compares their
results with ours before it takes any time.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import (
    compare,
    compilers,
    limit,
    machine,
    predictions,
    report,
    rows,
    training,
)
from styleclip_jax.errors import UserError
from styleclip_jax.io import images
from styleclip_jax.models import stylegan2
from styleclip_jax.toy import attributes, drawing, face_set
from tests import programs


def run(module: str, *flags: str) -> str:
    """What a benchmark prints."""
    done = subprocess.run(
        [sys.executable, "-m", module, *flags],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_multiply_adds_of_a_small_generator() -> None:
    config = stylegan2.GeneratorConfig(resolution=8, channels=(5, 3))
    first = 16 * (9 * 5 * 5 + 5 * 3)
    second = 16 * 9 * 5 * 3 + 64 * (9 * 3 * 3 + 3 * 3)
    assert limit.synthesis_macs(config) == first + second


def test_config_f_needs_74_billion() -> None:
    assert round(limit.macs("synthesis", 1024) / 1e9) == 74


def test_stylegan3_needs_285_billion_in_t_and_124_in_r() -> None:
    published = (*(512,) * 7, 323, 203, 128, 81, 51, 32, 32)
    assert limit.config_of("stylegan3_t", 1024).channels == published
    found = [limit.macs(f"stylegan3_{x}", 1024) for x in "tr"]
    assert [round(x / 1e9) for x in found if x] == [285, 124]
    assert limit.macs("stylegan3_t_gradient", 1024) == 2 * (found[0] or 0)
    assert rows.parse("stylegan3_r_gradient_64").question == "stylegan3_r_gradient"


def test_traffic_counts_what_each_kernel_reads_and_writes() -> None:
    text = """HloModule m

%inner (p: f32[4]) -> f32[4] {
  ROOT %n = f32[4]{0} negate(%p)
}

ENTRY %main (x: f32[2,8], k: bf16[8]) -> f32[2,8] {
  %x = f32[2,8]{1,0} parameter(0)
  %k = bf16[8]{0} parameter(1)
  %conv = (f32[2,8]{1,0}, u8[16]{0}) custom-call(%x, %k), custom_call_target="c"
  %y = f32[2,8]{1,0} get-tuple-element(%conv), index=0
  ROOT %z = f32[2,8]{1,0} fusion(%y, %x), kind=kLoop, calls=%inner
}
"""
    # 64 bytes an image, 16 the kernel, 16 the scratch.
    assert compilers.traffic(text) == (2, (64 + 16 + 64 + 16) + 3 * 64)


def test_memory_of_a_program_is_that_of_values_still_needed() -> None:
    def chain(x: jax.Array) -> jax.Array:
        y = x + 1.0
        return jnp.sum(jax.jit(lambda z: jnp.sin(z) * z)(y)) + jnp.sum(y)

    jaxpr = jax.make_jaxpr(chain)(jnp.zeros(1000)).jaxpr
    # y, its sine, and their product, while x is gone.
    assert training.held(jaxpr) == 3 * 4000
    turns = {"generator": 1.0, "paths": 0.25}
    cost = training.Cost({"generator": 8.0, "paths": 4.0}, turns, 0, {})
    assert cost.per_step == 9


def test_predictions_are_of_products_or_of_bytes() -> None:
    machine = predictions.Machine("m", "cuda", {"highest": 1e9, "default": 4e9}, 1e9)
    assert predictions.predicted(machine, flops=8e6, moved=4e6) == [8, 4]


def test_first_words_of_a_name_choose_all_such_rows() -> None:
    chosen = rows.choose(["clip", "synthesis_512", "mapper_64_x3", "clip_forward"])
    assert [row.name for row in chosen] == [
        *("clip_forward", "clip_gradient", "synthesis_512", "mapper_64_x3")
    ]
    assert chosen[-1] == rows.Row("mapper_64_x3", "mapper", 64, 3)


@pytest.mark.parametrize("name", ["clap", "clip_forward_64", "synthesis", "mapper_6"])
def test_a_row_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UserError):
        rows.parse(name)


def test_a_busy_machine_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "load", lambda: 0.51)
    assert programs.run(compare, ["compare", "--rows=synthesis_8"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "0.51 cores" in line
    assert "--any_load" in line


def test_work_of_others_is_load() -> None:
    assert 0 <= machine.load() <= 1.1 * (os.cpu_count() or 1)


def _run(seconds: float, **ratios: float) -> dict[str, Any]:
    """Run of one row."""

    def side(median: float) -> dict[str, Any]:
        spread = {"median": median, "min": median, "max": median}
        return {"seconds": spread, "cpu": spread, "peak_gb": 1.0}

    peers = {
        name: {**side(ratio * seconds), "ratio": ratio, "cpu_ratio": 2.0}
        for name, ratio in ratios.items()
    }
    row = rows.parse("synthesis_256")._asdict()
    return {
        "date": "2026-01-02",
        "cpu": "a CPU",
        "cores": 2,
        "load": 0.1,
        "allocator": "same",
        "repeats": 5,
        "versions": {"jax": "1"},
        "gflops": 100.0,
        "rows": [
            {
                **row,
                "load": 0.2,
                "of_limit": 1.5,
                "sides": {"ours": side(seconds), **peers},
            }
        ],
    }


def test_the_best_torch_is_the_quickest_peer() -> None:
    *_, cells = report.table(_run(0.5, official=3.0, lean=1.25, compiled=1.5)).split(
        "\n"
    )
    found = [cell.strip() for cell in cells.strip("|").split("|")]
    assert found[:8] == [
        *("synthesis_256", "0.5", "1.5", "0.625", "0.75"),
        *("3.00", "1.25", "2.00"),
    ]


def test_a_table_takes_the_place_of_the_last() -> None:
    document = f"before {report.BEGIN} old {report.END} after"
    once = report.put(document, "new")
    assert once == f"before {report.BEGIN}\nnew\n{report.END} after"
    assert report.put(once, "new") == once
    with pytest.raises(UserError, match="marks"):
        report.put("no marks", "new")


def test_two_runs_are_compared_row_by_row() -> None:
    *_, last = report.changes(_run(0.6, lean=1.5), _run(0.5, lean=1.8)).split("\n")
    assert last == "| synthesis_256 | 0.6 | 0.5 | 1.20 | 1.50 | 1.80 |"


def test_the_measurements_have_the_marks_of_a_table() -> None:
    root = pathlib.Path(report.__file__).parents[1]
    document = (root / "docs" / "measurements.md").read_text()
    assert report.put(document, "new").count("\nnew\n") == 1


@pytest.mark.shown
def test_a_comparison_without_a_peer_measures_our_side(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run.json"
    flags = ("--rows=synthesis_8_x2", "--repeats=1", "--any_load", f"--json={path}")
    printed = run("benchmarks.compare", *flags)
    (row,) = json.loads(path.read_text())["rows"]
    assert list(row["sides"]) == ["ours"]
    assert row["sides"]["ours"]["seconds"]["median"] > 0
    assert "| synthesis_8_x2 |" in printed


@pytest.mark.slow
def test_every_metric_of_features_has_its_time() -> None:
    flags = ("--images=20", "--features=8", "--neighborhood=4", "--turns=1")
    printed = run("benchmarks.features", *flags)
    _, _, *rows = printed.splitlines()
    assert [row.split("|")[1].strip() for row in rows][3:] == [
        "Fréchet distance",
        "kernel distance",
        "precision, recall",
    ]


@pytest.mark.slow
def test_every_format_has_its_rate() -> None:
    flags = ("--resolutions=8", "--cores=1", "--turns=1", "--seconds=0.01")
    printed = run("benchmarks.writers", *flags)
    _, _, *rows = printed.splitlines()
    cells = [row.strip("|").split("|") for row in rows]
    assert len({format_ for _, format_, *_ in cells}) == 7
    assert all(float(rate) > 0 for *_, rate in cells)


@pytest.mark.slow
def test_inversions_and_edits_are_told_from_their_pictures(
    tmp_path: pathlib.Path,
) -> None:
    def write(folder: str, *pictures: np.ndarray) -> None:
        (tmp_path / folder).mkdir(parents=True)
        for i, picture in enumerate(pictures):
            images.write(tmp_path / folder / f"{i}.png", picture)

    # Files are there, so that the programs do not run: inversions 3 and 1 levels away,
    # and for either prompt a face that smiles without sunglasses.
    photos = face_set.DrawnFaces(2).load(np.arange(2))
    away = np.where(photos < 128, [[[[3]]], [[[1]]]], [[[[-3]]], [[[-1]]]])
    write("pixel/images", *(photos + away).astype(np.uint8))
    images.write(tmp_path / "pixel/grid.png", photos[0])
    face = attributes.sample_face(np.random.default_rng(0))
    smiling = dataclasses.replace(face, mouth="smile", glasses="none")
    for prompt in ("a_smiling_face", "a_face_with_sunglasses"):
        write(f"pixel/{prompt}/images", *[drawing.draw(smiling, 64)] * 2)
    flags = (f"--workdir={tmp_path}", "--count=2", "--rows=pixel")
    *_, row = run("benchmarks.inversions", *flags).splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["pixel", "2.00", "3.0"]
    ends = [cell.split("→")[-1].strip() for cell in cells]
    assert (ends[4:6], ends[8:10]) == (["1.00"] * 2, ["0.00"] * 2)
