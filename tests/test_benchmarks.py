"""The benchmarks run without a peer, and the limit is counted right."""

import subprocess
import sys

import pytest

from benchmarks import limit
from styleclip_jax.models import stylegan2


def test_multiply_adds_of_a_small_generator() -> None:
    config = stylegan2.GeneratorConfig(resolution=8, channels=(5, 3))
    first = 16 * (9 * 5 * 5 + 5 * 3)
    second = 16 * 9 * 5 * 3 + 64 * (9 * 3 * 3 + 3 * 3)
    assert limit.synthesis_macs(config) == first + second


def test_config_f_needs_74_billion() -> None:
    assert round(limit.macs("synthesis", 1024) / 1e9) == 74


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
