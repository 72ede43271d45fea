"""Thousands of latents: devices, processes, interruptions, full disks, exports."""

import errno
import hashlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from styleclip_jax import loading, parallel
from styleclip_jax.batch import journal as batch_journal
from styleclip_jax.batch import source as batch_source
from styleclip_jax.batch import stream
from styleclip_jax.cli import edit
from styleclip_jax.editing import editors
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files, images, latent_files
from styleclip_jax.methods import mapper
from styleclip_jax.models import stylegan2
from tests import programs, tiny
from tests.test_cli import Program

COUNT, SIZE = 21, 2
ROOT = pathlib.Path(__file__).parent.parent


class Killed(BaseException):
    """Ends everything, as a signal does."""


def hashes(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file, but for what names the devices."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


# The stream by itself, with a task that costs nothing.


def fake_task(variants: int = 2) -> stream.Task:
    @jax.jit
    def compute(latent: jax.Array, variant: jax.Array) -> stream.Outcome:
        mean = latent.mean(axis=(1, 2))
        image = jnp.tanh(mean)[:, None, None, None] * jnp.ones((8, 8, 3))
        failed_at = jnp.where(jnp.isfinite(mean), -1, 0)
        packed = {"original": latent, "edited": latent + variant}
        return stream.Outcome(image, packed, {"mean": mean}, failed_at)

    return stream.Task(
        variants=variants,
        prepare=lambda batch: batch,
        compute=lambda latent, rows, variant, report: compute(latent, variant),
        describe=lambda row, variant: {"row": row, "variant": variant},
        image_format="jpg",
        probe=lambda latent, rows: compute(latent, 0),
    )


def fake_source(broken: int | None = None) -> batch_source.Source:
    array = np.random.RandomState(0).randn(COUNT, 4, 12).astype(np.float32)
    if broken is not None:
        array[broken] = np.nan
    config = tiny.GENERATOR
    layout = config.style_layout
    return batch_source.Source("w_plus", range(COUNT), array, layout, config.z_dim)


def stream_into(
    outdir: pathlib.Path, devices: int = 1, source: batch_source.Source | None = None
) -> tuple[bool, stream.Failures]:
    outdir.mkdir(exist_ok=True)
    task, source = fake_task(), source or fake_source()
    count = len(source) * task.variants
    journal = batch_journal.Journal(outdir, count, "w_plus", tiny.GENERATOR)
    mesh = parallel.make_mesh(jax.devices()[:devices])
    failures = stream.run(task, source, journal, SIZE, mesh, lambda count: None)
    return stream.finish(journal), failures


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of an undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert stream_into(folder)[0]
    found = hashes(folder)
    assert len(found) == 2 * COUNT + 3
    return found


def count_calls(monkeypatch: pytest.MonkeyPatch, fail: Callable[[int], None]) -> None:
    """Calls `fail` with the number of each fsync before it happens."""
    fsync, calls = os.fsync, iter(range(10**9))

    def counted(handle: int) -> None:
        fail(next(calls))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", counted)


def kill_at(
    position: int, outdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs until so many files were made durable; then nothing works any more."""

    def kill(call: int) -> None:
        if call >= position:
            raise Killed

    with monkeypatch.context() as patch:
        count_calls(patch, kill)
        with pytest.raises(Killed):
            stream_into(outdir)


# The last four are the files that the parts become, and their folder.
@pytest.mark.parametrize("position", [2, 9, 24, 39, 54, 69, 94, -4, -2, -1])
def test_run_killed_at_any_moment_ends_as_an_undisturbed_one(
    expected: dict[str, str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    position: int,
) -> None:
    # Two images, their folder, latents and lines, for each batch and variant.
    total = 2 * COUNT + 3 * 2 * -(-COUNT // SIZE) + 4
    kill_at(position % total, tmp_path / "killed", monkeypatch)
    # A signal would leave a line that has no end, and files under temporary names.
    for name in (
        "metrics.part0.jsonl",
        ".latents.part0",
        "images/.000007-0123abcd.jpg",
    ):
        if (tmp_path / "killed" / "images").is_dir() and not (
            tmp_path / "killed/metrics.jsonl"
        ).exists():
            with (tmp_path / "killed" / name).open("ab") as file:
                file.write(b'{"index": 3, "ro')
    complete, failures = stream_into(tmp_path / "killed", devices=2)
    assert complete
    assert not failures.count
    assert hashes(tmp_path / "killed") == expected


def test_nothing_is_done_twice_but_the_batches_under_way(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at(60, tmp_path / "out", monkeypatch)
    done = batch_journal.Journal(
        tmp_path / "out", 2 * COUNT, "w_plus", tiny.GENERATOR
    ).done
    assert 8 <= done.sum() < 2 * COUNT
    written: list[str] = []
    write = images.write

    def remember(path: pathlib.Path, *arguments: Any, **options: Any) -> None:
        written.append(path.stem)
        write(path, *arguments, **options)

    monkeypatch.setattr(images, "write", remember)
    assert stream_into(tmp_path / "out")[0]
    assert sorted(map(int, written)) == np.flatnonzero(~done).tolist()


def test_full_disk_costs_what_could_not_be_written(
    expected: dict[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(call: int) -> None:
        if 30 <= call < 50:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        count_calls(patch, fail)
        complete, failures = stream_into(tmp_path / "full")
    assert not complete
    assert 1 <= failures.count <= 20
    assert "No space left on device" in failures.first[0]
    journal = batch_journal.Journal(
        tmp_path / "full", 2 * COUNT, "w_plus", tiny.GENERATOR
    )
    assert journal.done.sum() == 2 * COUNT - failures.count
    assert not (tmp_path / "full" / "edited.npy").exists()
    # Once there is space again.
    assert stream_into(tmp_path / "full")[0]
    assert hashes(tmp_path / "full") == expected


def test_vanished_folder_is_reported_for_every_result(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"

    def vanish(call: int) -> None:
        if call == 30:
            folder.rename(tmp_path / "elsewhere")

    count_calls(monkeypatch, vanish)
    complete, failures = stream_into(folder)
    assert not complete
    assert failures.count >= COUNT
    assert len(failures.first) <= 10
    assert not folder.exists()


def test_broken_latent_is_reported_and_the_rest_is_done(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stream_into(tmp_path / "out", source=fake_source(broken=5))[0]
    journal = batch_journal.Journal(
        tmp_path / "out", 2 * COUNT, "w_plus", tiny.GENERATOR
    )
    assert [x["row"] for x in journal.lines() if "failed_at" in x] == [5, 5]
    assert batch_journal.report_failures(journal, "edit", shown=True) == 1
    assert "edit 10 of row 5" in capsys.readouterr().out


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("processes", [1, 3])
def test_batches_do_not_depend_on_devices_and_processes(
    monkeypatch: pytest.MonkeyPatch, devices: int, processes: int
) -> None:
    done = np.zeros(2 * COUNT, bool)
    done[[0, 8, 9, 10, 11]] = True
    found = []
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    for index in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        for step in stream.steps(COUNT, SIZE, devices, done):
            assert step.rows.shape == (devices * SIZE,)
            for rows, wanted in zip(
                step.rows.reshape(devices, SIZE),
                step.wanted.reshape(devices, SIZE),
                strict=True,
            ):
                if wanted.any():
                    found.append((rows.tolist(), wanted.tolist()))
    # Rows 4 and 5 are done, row 0 is done in part.
    batches = [([i, i + 1], [True, True]) for i in range(0, 20, 2) if i != 4]
    assert found == [*batches, ([20, 20], [True, False])]


def test_host_memory_holds_a_few_batches(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are loaded at most a few ahead of those that are written."""
    loaded, ahead = [], []
    source, append = fake_source(), batch_journal.Journal.append
    take = latent_files.take

    def load(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
        loaded.append(len(rows))
        return take(array, rows)

    def slowly(
        self: batch_journal.Journal, indices: list[int], *arguments: Any, **options
    ):
        time.sleep(0.02)
        append(self, indices, *arguments, **options)
        ahead.append(sum(loaded) - self.done.sum() / 2)

    monkeypatch.setattr(latent_files, "take", load)
    monkeypatch.setattr(batch_journal.Journal, "append", slowly)
    stream_into(tmp_path / "out", source=source)
    assert max(ahead[:-2]) <= 5 * SIZE


def test_largest_batch_is_found_by_trying() -> None:
    tried = []

    def seconds(size: int) -> float:
        tried.append(size)
        if size > 16:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 3 GiB")
        # Fastest per item from 4 on.
        return max(size / 4, 1.0)

    assert stream.largest(seconds, 1000, by_speed=False) == 16
    assert tried == [1, 2, 4, 8, 16, 32]
    assert stream.largest(seconds, 1000, by_speed=True) == 4
    assert stream.largest(seconds, 5, by_speed=False) == 8
    with pytest.raises(UserError, match="not even one latent"):
        stream.largest(lambda size: seconds(99), 4, by_speed=True)
    task = fake_task()
    mesh = parallel.make_mesh()
    assert stream.find_batch_size(fake_source(), task, mesh) in (1, 2, 4, 8)


@pytest.mark.parametrize("compressed", [False, True])
def test_archives_are_mapped_where_they_can_be(
    tmp_path: pathlib.Path, compressed: bool
) -> None:
    layout = tiny.GENERATOR.style_layout
    flat = np.random.RandomState(1).randn(5, sum(layer.channels for layer in layout))
    path = tmp_path / "styles.npz"
    if compressed:
        np.savez_compressed(path, styles=flat)
    else:
        chunks = [flat[:3], flat[3:]]
        latent_files.write_chunks(path, "s", flat.shape, chunks, layout)
        with np.load(path) as archive:
            np.testing.assert_array_equal(archive["styles"], flat.astype(np.float32))
            assert archive["channels"].tolist() == [x.channels for x in layout]
    found = latent_files.read_array(path)
    assert isinstance(found, np.memmap) != compressed
    rows = latent_files.take(found, np.array([4, 1, 4]))
    assert type(rows) is np.ndarray
    np.testing.assert_array_equal(rows, flat[[4, 1, 4]].astype(np.float32))


def test_append_makes_no_file_and_cuts_off_what_follows(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        files.append(tmp_path / "absent", 0, b"x")
    assert not (tmp_path / "absent").exists()
    (tmp_path / "file").write_bytes(b"0123456789")
    files.append(tmp_path / "file", 4, b"ab")
    assert (tmp_path / "file").read_bytes() == b"0123ab"


def test_new_file_is_readable_by_whom_others_are(tmp_path: pathlib.Path) -> None:
    path, ordinary = tmp_path / "x.safetensors", tmp_path / "ordinary"
    with files.new_file(path) as temporary:
        # It puts a file of its own there, which only the owner can read.
        safetensors.numpy.save_file({"x": np.zeros(1)}, temporary)
    ordinary.write_bytes(b"")
    assert path.stat().st_mode == ordinary.stat().st_mode


# The programs.


@pytest.fixture
def direction(
    relevance: pathlib.Path,
    models: dict[str, str],
    tmp_path: pathlib.Path,
) -> dict[str, Any]:
    """Flags of a run of styleclip-edit on many latents."""
    w = np.random.RandomState(2).randn(27, 12).astype(np.float32)
    np.save(tmp_path / "w.npy", w)
    return models | {
        "method": "direction",
        "directions": relevance,
        "templates": tmp_path / "templates.txt",
        "prompt": "cat",
        "neutral": "dog",
        "alpha": "1,2",
        "num_channels": 9,
        "latents": tmp_path / "w.npy",
        "batch_size": 2,
        "images": "jpg",
        "grid": 2,
    }


def launch(options: dict[str, Any], cache: pathlib.Path) -> subprocess.Popen[str]:
    """styleclip-edit as a process with one device."""
    flags = os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=1")
    environment = dict(os.environ) | {"XLA_FLAGS": flags, "XDG_CACHE_HOME": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    arguments = [f"--{name}={value}" for name, value in options.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "styleclip_jax.cli.edit", *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_four_devices_two_processes_and_a_kill_end_the_same(
    run: Program,
    direction: dict[str, Any],
    tmp_path: pathlib.Path,
) -> None:
    cache = tmp_path / "cache"
    code, out, _ = run(edit, **direction, steps=None, outdir=tmp_path / "four")
    assert code == 0, out
    expected = hashes(tmp_path / "four")
    assert len(expected) == 2 * 27 + 4
    # One device, killed; programs are kept in the user's cache.
    process = launch(direction | {"outdir": tmp_path / "killed"}, cache)
    part = tmp_path / "killed" / "metrics.part0.jsonl"
    while not part.exists() or part.read_bytes().count(b"\n") < 6:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(cache.glob("styleclip_jax/*/*"))
    # Two processes go on.
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = direction | {
        "outdir": tmp_path / "killed",
        "coordinator_address": f"localhost:{port}",
        "num_processes": 2,
    }
    processes = [launch(shared | {"process_id": i}, cache) for i in range(2)]
    try:
        printed = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], printed
    assert "latents are done" in printed[0]
    assert hashes(tmp_path / "killed") == expected


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
    edit.VALUES.unparse_flags()
    flags = {**models, "prompts_file": file, "steps": 2}
    edit.VALUES(["edit", *(f"--{name}={value}" for name, value in flags.items())])
    edit.VALUES["prompt"].unparse()
    edit.VALUES["prompt"].value = None
    mesh = parallel.make_mesh()
    generator = parallel.replicate(tiny.generator(), mesh)
    editor = editors.prepare(edit.VALUES, generator, mesh)
    batch = parallel.shard(np.asarray(tiny.w_plus(4)), mesh)
    compiled: list[str] = []

    def remember(name: str, seconds: float, **options: Any) -> None:
        if "backend_compile" in name:
            compiled.append(name)

    jax.block_until_ready(editor.edit(batch, 0, lambda count: None))
    jax.monitoring.register_event_duration_secs_listener(remember)
    try:
        jax.block_until_ready(editor.edit(batch, 1, lambda count: None))
        assert not compiled
        jax.jit(lambda x: x + 12.5)(1.0)
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(remember)


def _mappers(models: dict[str, str], folder: pathlib.Path) -> list[str]:
    config = mapper.MapperConfig(levels=("coarse",), w_dim=12, num_layers=1)
    for i, name in enumerate("ab"):
        params = jax.tree.map(lambda x, i=i: (i + 1) * x, tiny.mapper_network(config))
        loading.save_mapper(
            folder / name,
            params.params,
            config,
            prompt=name,
            generator=checkpoints.fingerprint(models["generator"]),
            clip="tiny",
            training={},
        )
    return [str(folder / name) for name in "ab"]


def test_several_mappers_edit_every_latent(
    run: Program,
    models: dict[str, str],
    tmp_path: pathlib.Path,
) -> None:
    paths = _mappers(models, tmp_path)
    options = {"method": "mapper", "mapper": ",".join(paths), "strength": 0.01}
    code, out, _ = run(edit, **options, seeds="0-1", prompt=None, steps=None)
    assert code == 0, out
    step = np.load(tmp_path / "out/edited.npy") - np.load(tmp_path / "out/original.npy")
    assert len(step) == 4
    # A network of one layer: twice the weights give twice the step.
    np.testing.assert_allclose(step[1::2], 2 * step[::2], atol=1e-5)
    assert np.abs(step).max() > 1e-3
    lines = [json.loads(x) for x in (tmp_path / "out/metrics.jsonl").open()]
    assert [line["mapper"] for line in lines] == paths * 2


README = (ROOT / "README.md").read_text()


def edited_by_program(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Latents and images of a run of three edits."""
    (path,) = folder.glob("edited.np*")
    pictures = [np.load(folder / f"images/{i:06d}.npy") for i in range(3)]
    return np.array(latent_files.read_array(path)), np.stack(pictures)


def test_exported_edit_runs_by_itself(
    run: Program,
    direction: dict[str, Any],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("w_plus.npy", np.asarray(tiny.w_plus(3)))
    changed = {"latents": "w_plus.npy", "alpha": "2", "images": "npy", "steps": None}
    options = direction | changed
    assert run(edit, **options)[0] == 0
    code, out, err = run(edit, **options, export="edit.jax", outdir="none")
    assert code == 0, err
    assert "edit.jax" in out
    assert not pathlib.Path("none").exists()
    # As the README loads it.
    (loader,) = re.findall(r"```py\n(.*?)```", README, re.DOTALL)
    check = "import sys; assert not {'styleclip_jax', 'flax'} & set(sys.modules)"
    environment = {name: x for name, x in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", f"{loader}\n{check}"]
    subprocess.run(command, env=environment, check=True)
    latent, image = edited_by_program(tmp_path / "out")
    with np.load("edited.npz") as found:
        np.testing.assert_allclose(found["latent"], latent, rtol=0, atol=2e-5)
        np.testing.assert_allclose(found["image"], image, rtol=0, atol=1e-4)
    code, _, err = run(edit, **(options | {"alpha": "1,2", "export": "x.jax"}))
    assert code == 2
    assert "--export: expected one edit" in err


@pytest.mark.parametrize("method", ["optimization", "mapper"])
def test_exported_edit_takes_its_weights_from_beside(
    run: Program,
    models: dict[str, str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    w_plus = np.asarray(tiny.w_plus(3))
    np.save("w_plus.npy", w_plus)
    options: dict[str, Any] = {"latents": "w_plus.npy", "images": "npy"}
    if method == "mapper":
        paths = _mappers(models, tmp_path)
        options |= {"method": method, "mapper": paths[0], "steps": None}
    assert run(edit, **options)[0] == 0
    assert run(edit, **options, export="edit.jax", export_weights="beside")[0] == 0
    program = jax.export.deserialize(bytearray(pathlib.Path("edit.jax").read_bytes()))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    with np.load("edit.jax.npz") as archive:
        weights = dict(archive)
    assert weights
    assert not any("text_" in name for name in weights)
    result = program.call(weights, w_plus)
    latent, image = edited_by_program(tmp_path / "out")
    np.testing.assert_allclose(result["latent"], latent, rtol=0, atol=2e-5)
    np.testing.assert_allclose(result["image"], image, rtol=0, atol=1e-4)


def test_sharded_edit_needs_no_communication(
    models: dict[str, str],
    direction: dict[str, Any],
) -> None:
    programs.forget(edit.VALUES)
    edit.VALUES(["edit", *(f"--{name}={x}" for name, x in direction.items())])
    mesh = parallel.make_mesh()
    generator = parallel.replicate(tiny.generator(), mesh)
    apply, weights = editors.prepare(edit.VALUES, generator, mesh).freeze()
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
