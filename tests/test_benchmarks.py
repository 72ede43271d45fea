"""The benchmarks run without a peer, and the limit is counted right."""

import subprocess
import sys

import pytest

from benchmarks import compilers, limit, predictions
from styleclip_jax.models import stylegan2


def test_multiply_adds_of_a_small_generator() -> None:
    config = stylegan2.GeneratorConfig(resolution=8, channels=(5, 3))
    first = 16 * (9 * 5 * 5 + 5 * 3)
    second = 16 * 9 * 5 * 3 + 64 * (9 * 3 * 3 + 3 * 3)
    assert limit.synthesis_macs(config) == first + second


def test_config_f_needs_74_billion() -> None:
    assert round(limit.macs("synthesis", 1024) / 1e9) == 74


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


def test_predictions_are_of_products_or_of_bytes() -> None:
    machine = predictions.Machine("m", "cuda", {"highest": 1e9, "default": 4e9}, 1e9)
    assert predictions.predicted(machine, flops=8e6, moved=4e6) == [8, 4]


@pytest.mark.slow
def test_a_comparison_without_a_peer_prints_our_column() -> None:
    flags = ("--questions=synthesis", "--resolution=8", "--runs=1", "--batches=2")
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.compare", *flags],
        capture_output=True,
        text=True,
        check=True,
    )
    cells = [x.strip() for x in found.stdout.splitlines()[-1].strip("|").split("|")]
    assert cells[0] == "synthesis, batch 2"
    assert float(cells[1]) > 0
    assert cells[2:4] == ["", ""]


@pytest.mark.slow
def test_every_format_has_its_rate() -> None:
    flags = ("--resolutions=8", "--cores=1", "--turns=1", "--seconds=0.01")
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.writers", *flags],
        capture_output=True,
        text=True,
        check=True,
    )
    _, _, *rows = found.stdout.splitlines()
    cells = [row.strip("|").split("|") for row in rows]
    assert len({format_ for _, format_, *_ in cells}) == 7
    assert all(float(rate) > 0 for *_, rate in cells)
