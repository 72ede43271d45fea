"""Progress: how seldom the host waits, and what bars say while programs compile."""

import io
import re
import sys
import time
import types
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from styleclip_jax import parallel, progress
from tests.programs import Watch


class Clock:
    """Clock of devices that need some seconds for a call, and a host that needs none.

    Attributes:
      waits: number of times that the host has waited.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.waits, self._now, self._queued, self._seconds = 0, 0.0, 0, seconds
        monkeypatch.setattr(time, "monotonic", lambda: self._now)
        monkeypatch.setattr(jax, "block_until_ready", self._wait)

    def step(self, networks: Any, state: int) -> int:
        self._queued += 1
        return state + 1

    def _wait(self, value: Any) -> None:
        self._now += self._queued * self._seconds
        self._queued = 0
        self.waits += 1


def test_the_host_waits_about_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[int] = []
    clock = Clock(monkeypatch, seconds=0.01)
    pace = progress.Pace()
    for _ in range(40):
        about = {"stride": 2, "pace": pace}
        state = progress.take_steps(clock.step, None, 0, 100, reports.append, **about)
        assert state == 50
    # 2,000 calls take 20 seconds; the first waits find out how long one takes.
    assert sum(reports) == 4000
    assert 20 <= clock.waits <= 20 + 8
    # Each of so slow steps is told.
    reports.clear()
    clock = Clock(monkeypatch, seconds=3.0)
    progress.take_steps(clock.step, None, 0, 5, reports.append)
    assert reports == [1] * 5


@pytest.mark.parametrize(
    ("platform", "steps", "stride"),
    [("cpu", 300, 1), ("gpu", 300, 10), ("tpu", 80, 10), ("gpu", 8, 8), ("gpu", 11, 1)],
)
def test_accelerators_take_several_steps_in_a_call(
    platform: str, steps: int, stride: int
) -> None:
    device = types.SimpleNamespace(platform=platform)
    sharding: Any = types.SimpleNamespace(device_set=[device])
    assert parallel.steps_per_call(steps, sharding) == stride


class Screen(io.StringIO):
    """What a bar writes to, a terminal or not."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_bars_say_how_long_compilation_takes(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    screen = Screen(is_terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "_TICK", 0.02)
    monkeypatch.setattr(progress, "_WORTH_SHOWING", 0.1)
    monkeypatch.setattr(progress, "_WORTH_A_LINE", 0.1)
    least = 5 if is_terminal else 1
    with progress.BARS.bar(3, "step") as report:
        report(0)
        until = time.monotonic() + 60
        while screen.getvalue().count("compiling …") < least:
            assert time.monotonic() < until
            time.sleep(0.02)
        # Time in which a file could have a second line.
        time.sleep(0.1)
        report(1)
        said = screen.getvalue()
        report(2)
    words = re.findall(r"compil\w+ (?:…|in)", said)
    assert words[-1] == "compiled in"
    # A terminal is drawn anew, a file has one line of each.
    assert is_terminal or len(words) == 2
    assert words.index("compiled in") == words.count("compiling …")
    assert "3/3" in screen.getvalue()
    # A unit that comes at once leaves nothing to say.
    monkeypatch.setattr(progress, "_WORTH_SHOWING", 60)
    monkeypatch.setattr(progress, "_WORTH_A_LINE", 60)
    screen.truncate(0)
    with progress.BARS.bar(1, "step") as report:
        report(1)
    assert "compil" not in screen.getvalue()


def test_silent_listeners_say_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.SILENT.bar(2, "step") as report:
        report(2)
    assert capfd.readouterr() == ("", "")


def test_steps_may_still_be_under_way() -> None:
    step = jax.jit(lambda networks, state: state + networks)
    state = progress.take_steps(step, jnp.ones(3), jnp.zeros(3), 7, progress.ignore)
    assert state.tolist() == [7.0] * 3


def forecast(
    monkeypatch: pytest.MonkeyPatch, total: int, *reports: tuple[float, int]
) -> list[str]:
    """Lines of a bar with these (seconds, count) one after the other."""
    clock, lines = Watch(), list[str]()
    monkeypatch.setattr(progress, "time", clock)
    listener = progress.SILENT._replace(tell=lines.append)
    with listener.long_bar(total, "image", "fewer num_samples") as report:
        for seconds, count in reports:
            clock.now += seconds
            report(count)
    return lines


def test_long_work_says_how_long_it_takes_and_what_is_quicker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The first report, with compilation in it, says nothing of the rate.
    found = forecast(monkeypatch, 2003, (90, 1), (0.5, 1), (0.5, 1), (3, 3), (3, 3))
    assert found == [
        "time: about 17 min here for 1,997 images; quicker: fewer num_samples"
    ]
    # Reports of nothing are not the first one, and long ones are not waited for.
    found = forecast(monkeypatch, 2003, (5, 0), (90, 1), (30, 60))
    assert [line[:34] for line in found] == ["time: about 16 min here for 1,942 "]
    # Nor is the compilation of a second phase the rate.
    found = forecast(monkeypatch, 10_000, (60, 8), (13, 8), *2 * [(0.4, 8)])
    assert [line[:33] for line in found] == ["time: about 8 min here for 9,968 "]
    assert forecast(monkeypatch, 12, (90, 1), *3 * [(1, 2)]) == []
    assert forecast(monkeypatch, 1, (90, 1)) == []


def test_times_are_in_their_largest_unit() -> None:
    seconds = (12.4, 89, 90, 5400, 129600)
    expected = ["12 s", "89 s", "2 min", "2 h", "2 days"]
    assert [progress.describe_time(x) for x in seconds] == expected
