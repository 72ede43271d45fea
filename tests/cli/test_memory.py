"""A lack of memory, wherever it shows, ends a program with one line and exit code 2."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from styleclip_jax.batch import edit_sheets, stream
from styleclip_jax.cli import edit, evaluate, generate, invert
from styleclip_jax.editing import inversions
from styleclip_jax.evaluation import classification
from styleclip_jax.io import images
from tests import programs
from train import global_directions, mapper, relevance_run, trainer

JaxError = jax.errors.JaxRuntimeError
XLA = JaxError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3 bytes.\n…")
CUDNN = JaxError(
    "UNKNOWN: Failed to determine best cudnn convolution algorithm for:\n%"
)
CONSTANT = JaxError("INTERNAL: Failed to allocate 268435456 bytes for new constant")
HANDLE = JaxError("INTERNAL: CUDNN_STATUS_ALLOC_FAILED in cudnnCreate")
GRAPH = JaxError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory")
AMD = JaxError("INTERNAL: hipErrorOutOfMemory")
TPU = JaxError("Ran out of memory in memory space hbm. Used 17.2G of 15.7G hbm.")
HOST = MemoryError("Unable to allocate 3.00 GiB for an array")

GENERATE = (generate, {"seeds": "0-1", "noise": "none"})
EDIT = (edit, {"seeds": "0-1", "prompt": "cat", "images": "none"})
SLOW = pytest.mark.slow
INVERT = (invert, {"photos": "{tmp}/photo.png", "align": False, "refine_steps": 1})
EVALUATE = (evaluate, {"images": "{tmp}/photo.png", "zero_shot": "{tmp}/labels.txt"})
MAPPER = (mapper, {"prompt": "cat", "train_steps": 1, "num_validation": 4})
MEASURE = (global_directions, {"output": "{tmp}/d.safetensors", "num_samples": 4})


@pytest.mark.parametrize(
    ("program", "owner", "name", "error"),
    [
        pytest.param(GENERATE, stream.parallel, "shard", TPU, id="placing"),
        pytest.param(GENERATE, stream, "to_uint8", XLA, id="computing"),
        pytest.param(GENERATE, stream, "_keep", CUDNN, id="fetching"),
        pytest.param(GENERATE, stream, "_write_files", CONSTANT, id="writing"),
        pytest.param(GENERATE, images, "encode", HOST, id="encoding"),
        pytest.param(GENERATE, images, "grid", HANDLE, id="sheet"),
        pytest.param(EDIT, edit_sheets, "render", GRAPH, id="rendering", marks=SLOW),
        pytest.param(INVERT, inversions, "_outcome", AMD, id="inverting"),
        pytest.param(EVALUATE, classification, "_classify_batch", XLA, id="evaluating"),
        pytest.param(MAPPER, trainer.Trainer, "step", CUDNN, id="training"),
        pytest.param(MEASURE, relevance_run, "_measure_group", TPU, id="measuring"),
    ],
)
def test_a_lack_of_memory_is_one_line(
    models: dict[str, str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    program: tuple[Any, dict[str, Any]],
    owner: Any,
    name: str,
    error: Exception,
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "photo.png")
    (tmp_path / "labels.txt").write_text("a cat\na dog\n")
    monkeypatch.setattr(owner, name, fail)
    module, options = program
    argv = ["program"]
    for folder in {"outdir", "workdir"} & set(module.VALUES):
        argv.append(f"--{folder}={tmp_path / 'out'}")
    for flag in {"generator", "clip"} & set(module.VALUES):
        argv.append(f"--{flag}={models[flag]}")
    if "steps" in module.VALUES:
        argv.append("--steps=1")
    argv += [f"--{n}={str(x).format(tmp=tmp_path)}" for n, x in options.items()]
    assert programs.run(module, argv) == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if "error" in line]
    assert len(lines) == 1
    assert "Traceback" not in err
    assert "batch_size: " in lines[0]
    assert "memory" in lines[0]
