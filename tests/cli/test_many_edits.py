"""styleclip-edit on many latents: devices, processes, prompts, mappers, refusals."""

import functools
import json
import os
import pathlib
import re
import types
from typing import Any

import jax
import numpy as np
import pytest

from styleclip_jax import loading, parallel
from styleclip_jax.batch import edits as batches
from styleclip_jax.cli import edit, processes
from styleclip_jax.editing.session import Session
from styleclip_jax.models import stylegan2
from tests import programs, tiny
from tests.programs import Program


@pytest.mark.slow
@pytest.mark.parametrize(("images", "num_files"), [("jpg", 2 * 27), ("tar", 1)])
def test_four_devices_two_processes_and_a_kill_end_the_same(
    run: Program,
    direction: dict[str, Any],
    tmp_path: pathlib.Path,
    images: str,
    num_files: int,
) -> None:
    direction |= {"images": images}
    cache = tmp_path / "cache"
    code, out, _ = run(edit, **direction, steps=None, outdir=tmp_path / "four")
    assert code == 0, out
    expected = programs.hashes(tmp_path / "four")
    assert len(expected) == num_files + 4
    # One device, killed; programs are kept in the user's cache.
    part = tmp_path / "killed" / "metrics.part0.jsonl"
    killed = functools.partial(programs.ended, part=part, lines=6)
    same = direction | {"outdir": tmp_path / "killed"}
    programs.expect_kill(programs.launch("edit", same, cache, wrap=killed))
    assert list(cache.glob("styleclip_jax/*/*"))
    # Two processes go on.
    printed = programs.run_in_two(
        lambda shared: programs.launch("edit", same | shared, cache)
    )
    assert "latents are done" in printed[0]
    (line,) = [x for x in printed[0].splitlines() if x.startswith("processes: 2, ")]
    own, total = map(int, re.findall(r"(\d+) of (\d+) edits", line)[0])
    assert 0 < own < total < 54
    assert f"edited: {total} in " in printed[0]
    assert "edited: " not in printed[1]
    assert programs.hashes(tmp_path / "killed") == expected


@pytest.mark.slow
def test_several_prompts_equal_single_ones_and_compile_nothing_new(
    run: Program,
    models: dict[str, str],
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "prompts.txt").write_text("cat\n\n dog \n")
    shared = {"seeds": "0-2", "batch_size": 1}
    file = tmp_path / "prompts.txt"
    code, out, _ = run(edit, **shared, prompt=None, prompts_file=file)
    assert code == 0, out
    together = np.load(tmp_path / "out/edited.npy")
    lines = [json.loads(x) for x in (tmp_path / "out/metrics.jsonl").open()]
    assert [line["prompt"] for line in lines] == ["cat", "dog"] * 3
    assert [line["seed"] for line in lines] == [0, 0, 1, 1, 2, 2]
    run(edit, **shared, prompt="dog", outdir=tmp_path / "dog")
    # Their texts went through CLIP in one batch, so it is not the same to the last bit.
    alone = np.load(tmp_path / "dog/edited.npy")
    np.testing.assert_allclose(together[1::2], alone, rtol=0, atol=1e-5)
    assert np.abs(together[::2] - together[1::2]).max() > 1e-4
    # The second prompt runs through the programs of the first.
    session = Session(loading.Models(**models))
    editor = session.optimization(["cat", "dog"], steps=2)
    batch = parallel.shard(np.asarray(tiny.w_plus(4)), session.mesh)
    jax.block_until_ready(editor.edit(batch, 0, lambda count: None))
    with programs.compilations() as compiled:
        jax.block_until_ready(editor.edit(batch, 1, lambda count: None))
        assert not compiled
        jax.jit(lambda x: x + 12.5)(1.0)
        assert compiled


@pytest.mark.slow
def test_programs_that_tell_their_memory_are_those_of_the_run(
    models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """Each is compiled once, for all batches and the last, padded one."""
    session = Session(loading.Models(**models), devices=jax.devices()[:2])
    editor = session.optimization("cat", steps=3, keep_best=True, film_frames=2)
    batch = parallel.shard(np.asarray(tiny.w_plus(4)), session.mesh)
    with programs.compilations() as compiled:
        needed = editor.memory(batch)
    assert {"jit(start_all)", "jit(steps)", "jit(finish)"} <= set(compiled)
    assert needed > 2 * batch.nbytes
    np.save(tmp_path / "w_plus.npy", tiny.w_plus(7))
    options: dict[str, Any] = {"batch_size": 2, "images": "none", "grid": 0}
    with programs.compilations() as compiled:
        batches.run(
            session, editor, tmp_path / "w_plus.npy", outdir=tmp_path / "out", **options
        )
    assert not {"jit(start_all)", "jit(steps)", "jit(finish)"} & set(compiled)


def test_several_mappers_edit_every_latent(
    run: Program, mappers: list[str], tmp_path: pathlib.Path
) -> None:
    options = {"method": "mapper", "mapper": ",".join(mappers), "strength": 0.01}
    code, out, _ = run(edit, **options, seeds="0-1", prompt=None, steps=None)
    assert code == 0, out
    step = np.load(tmp_path / "out/edited.npy") - np.load(tmp_path / "out/original.npy")
    assert len(step) == 4
    # A network of one layer: twice the weights give twice the step.
    np.testing.assert_allclose(step[1::2], 2 * step[::2], atol=1e-5)
    assert np.abs(step).max() > 1e-3
    lines = [json.loads(x) for x in (tmp_path / "out/metrics.jsonl").open()]
    assert [line["mapper"] for line in lines] == mappers * 2


def test_sharded_edit_needs_no_communication(
    models: dict[str, str],
    direction: dict[str, Any],
) -> None:
    names = {name: direction[name] for name in ("generator", "clip", "templates")}
    session = Session(loading.Models.of(**names))
    mesh, generator = session.mesh, session.generator
    moved = session.direction(
        direction["prompt"],
        neutral=direction["neutral"],
        directions=direction["directions"],
    )
    apply, weights = session.moving(moved).freeze()
    styles = stylegan2.to_styles(generator, tiny.w_plus(8))
    inputs = (
        generator,
        parallel.replicate(weights, mesh),
        parallel.shard(styles, mesh),
    )
    program = jax.jit(apply).lower(*inputs).compile().as_text()
    for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert name not in program


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"batch_size": "many"}, "--batch_size"),
        ({"process_id": 0}, "--coordinator_address: expected"),
        ({"distributed": True}, "--distributed: expected a TPU pod"),
        ({"prompts_file": "absent.txt", "prompt": None}, "absent.txt"),
        ({"prompts_file": "empty.txt", "prompt": None}, "found none"),
        ({"prompts_file": "twice.txt", "prompt": None}, "twice"),
        ({"prompts_file": "twice.txt"}, "--prompt and --prompts_file"),
        ({"prompts_file": "twice.txt", "method": "mapper", "mapper": "a"}, "for one"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_input_gets_one_line_and_leaves_nothing(
    run: Program,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    expected: str,
) -> None:
    def find_no_cluster(*arguments: Any) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", find_no_cluster)
    monkeypatch.chdir(tmp_path)
    pathlib.Path("empty.txt").write_text("\n")
    pathlib.Path("twice.txt").write_text("a\na\n")
    steps = {"steps": None} if "method" in options else {}
    code, _, err = run(edit, **(options | steps))
    assert code == 2
    assert err.count("\n") == 1, err
    assert expected in err
    assert not (tmp_path / "out").exists()


def test_a_process_that_has_failed_waits_half_a_minute_for_the_others(
    run: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers: list[Any] = []

    def timer(*arguments: Any) -> Any:
        timers.append(arguments)
        return types.SimpleNamespace(start=lambda: None)

    monkeypatch.setattr(processes.threading, "Timer", timer)
    for connected in (False, True):
        monkeypatch.setattr(jax.distributed, "is_initialized", lambda x=connected: x)
        assert run(edit, batch_size="many")[0] == 2
        assert timers == [(30, os._exit, [2])] * connected
