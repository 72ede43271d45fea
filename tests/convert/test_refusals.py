"""Files that are not read: a line says what they are, and what would be right."""

import pathlib
import pickle
import shutil
import zipfile
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from convert import __main__, kinds
from styleclip_jax.io import torch_files
from tests import golden_data, torch_format

FOLDER = golden_data.ROOT / "wrapped"
SHARDED = golden_data.ROOT / "hf_clip" / "sharded_eos"


def refusal(path: pathlib.Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The line on stderr of a conversion that must fail, and leave nothing."""
    out = path.parent / "out"
    assert __main__.main(["convert", str(path), f"--output={out}", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert str(path) in captured.err
    assert not out.exists()
    return captured.err


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("x.pt", b"", "an empty file"),
        ("x.onnx", b"\x08\x07\x12\x07pytorch\x1a\x032.0", "an ONNX model"),
        ("x.bin", b"\x08\x07\x12\x07pytorch\x1a\x032.0", "an ONNX model"),
        ("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file (.h5)"),
        ("model.ckpt.index", bytes(99), "a part of a TensorFlow checkpoint"),
        ("model.ckpt.data-00000-of-00001", bytes(99), "a part of a TensorFlow check"),
        ("checkpoint", b'model_checkpoint_path: "m"\n', "a part of a TensorFlow check"),
        ("saved_model.pb", b"\x08\x01\x12\x9f\xff", "a TensorFlow model"),
        ("x.pkl", pickle.dumps({"a": 1}, 0), "a pickle of protocol 0 or 1"),
        ("x.pkl", pickle.dumps([np.ones(2)], 0), "a pickle of protocol 0 or 1"),
        ("x.pkl", pickle.dumps({"a": 1}, 1), "a pickle of protocol 0 or 1"),
        ("x.pt", b"<!doctype html><title>Quota", "an HTML page"),
        ("x.pt", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("x.gguf", b"GGUF\x03\0\0\0", "a GGUF file"),
        ("x.7z", b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    ],
)
def test_files_of_other_formats_are_named(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    data: bytes,
    expected: str,
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert expected in refusal(path, capsys)


NAMES = {
    "StyleGAN-XL": [
        "G_ema.synthesis.L0_36_512.weight",
        "G_ema.synthesis.input.freqs",
        "G_ema.mapping.embed_proj.weight",
    ],
    "StyleGAN-T": [
        "G_ema.synthesis.b8.conv1.weight",
        "G_ema.synthesis.b8.conv1.affine.proj.weight",
    ],
    "the first StyleGAN": ["g_synthesis.blocks.4x4.const"],
    "a discriminator alone": ["d.convs.0.0.weight", "d.final_conv.0.weight"],
    "a LoRA": ["base_model.model.visual.attn.lora_A.weight"],
    "a LoRA, which holds changes": ["lora_unet_down_blocks_0.lora_up.weight"],
    "a diffusion model": ["model.diffusion_model.input_blocks.0.0.weight"],
    "a diffusion model; a": ["down_blocks.0.resnets.0.conv1.weight"],
    "HyperStyle": ["state_dict.hypernet.refinement_blocks.0.weight"],
    "the tower of images": ["visual.conv1.weight", "visual.proj"],
    "the tower of texts": ["text_model.embeddings.token_embedding.weight"],
    "another layout for images or faces": ["layer1.0.conv1.weight", "bn1.weight"],
    "the mapping network of a generator alone": ["mapping.fc0.weight"],
}


@pytest.mark.parametrize("expected", NAMES)
def test_networks_that_are_not_read_are_named(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], expected: str
) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {name: np.ones((2, 2), np.float32) for name in NAMES[expected]}
    safetensors.numpy.save_file(tensors, path)
    assert expected in refusal(path, capsys)


def save(path: pathlib.Path, content: Any) -> pathlib.Path:
    return torch_format.write_zip(path, torch_format.dumps(content))


def test_optimizers_and_unknown_networks_are_named(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "optim.pt", {"state": {}, "param_groups": []})
    assert "the state of an optimizer" in refusal(path, capsys)
    path = tmp_path / "x.safetensors"
    names = [f"stem.{i}.gain" for i in range(9)]
    safetensors.numpy.save_file(dict.fromkeys(names, np.ones(1)), path)
    message = refusal(path, capsys)
    assert "; its tensors are stem." in message
    assert "… and 4 more" in message


def test_archives_of_other_files_are_named(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.zip"
    for names, expected in (
        (["stylegan2-main/README.md", "stylegan2-main/model.py"], "of a repository"),
        (["a/b/weights.pt", "a/b/README.md"], "unpack it and give a/b/weights.pt"),
        (["config.json", "model.weights.h5"], "a Keras model"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"")
        assert expected in refusal(path, capsys)


def test_truncated_files_are_to_be_downloaded_again(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (FOLDER / "data_parallel" / "030000.pt").read_bytes()
    path = tmp_path / "x.pt"
    path.write_bytes(data[: len(data) // 2])
    message = refusal(path, capsys)
    assert "is truncated or damaged" in message
    assert "compare its size" in message


def encoder(path: pathlib.Path, channels: int = 3, **options: Any) -> pathlib.Path:
    """The encoder of cars, with other options and a first layer of other channels."""
    file = torch_files.read(FOLDER / "e4e_cars" / "e4e_cars_encode.pt")
    state = dict(file.content["state_dict"])
    name = "encoder.input_layer.0.weight"
    state[name] = np.repeat(state[name][:, :1], channels, axis=1)
    if "ProgressiveBackbone" in options.get("encoder_type", ""):
        state = {k: x for k, x in state.items() if "latlayer" not in k}
    content = {"state_dict": state, "opts": file.content["opts"] | options}
    return torch_format.save_object(path, content)


@pytest.mark.parametrize(
    ("channels", "options", "expected"),
    [
        (
            6,
            {"encoder_type": "ProgressiveBackboneEncoder"},
            "expected 4 convolutions in each head of the encoder "
            "ProgressiveBackboneEncoder (ReStyle), found 6 in some",
        ),
        (6, {}, "found one of 6 channels; encoders of e4e, pSp and ReStyle that"),
        (19, {"dataset_type": "celebs_seg_to_face"}, "found one of 19 channels"),
        (3, {"dataset_type": "ffhq_frontalize"}, "of another task, 'ffhq_frontalize'"),
        (3, {"encoder_type": "SingleStyleCodeEncoder"}, "(e4e of one w for all rows)"),
        (3, {"stylegan_size": 64}, "expected 10 rows of W+ by its stylegan_size of 64"),
    ],
)
def test_other_encoders_are_named(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    channels: int,
    options: dict[str, Any],
    expected: str,
) -> None:
    path = encoder(tmp_path / "x.pt", channels, **options)
    assert expected in refusal(path, capsys)


def test_one_part_of_a_file_is_refused_with_what_to_give(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in SHARDED.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    path = tmp_path / "model-00001-of-00004.safetensors"
    message = refusal(path, capsys)
    assert "found one of its parts; give the folder, or the file that ends" in message
    index = tmp_path / "model.safetensors.index.json"
    assert __main__.main(["convert", str(index), f"--output={tmp_path / 'out'}"]) == 0


def test_settings_of_another_kind_are_refused(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.pt"
    shutil.copyfile(FOLDER / "data_parallel" / "030000.pt", path)
    for flag, noun in (("dataset_type=x", "an encoder"), ("activation=gelu", "a CLIP")):
        assert f"expected with {noun}" in refusal(path, capsys, f"--{flag}")


# --inspect


def inspect(capsys: pytest.CaptureFixture[str], *paths: pathlib.Path) -> str:
    assert __main__.main(["convert", "--inspect", *map(str, paths)]) == 0
    captured = capsys.readouterr()
    assert not captured.err
    assert all(len(line) < 400 for line in captured.out.splitlines())
    return captured.out


def test_inspection_says_what_a_file_holds_and_writes_nothing(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "030000.pt"
    shutil.copyfile(FOLDER / "data_parallel" / path.name, path)
    out = inspect(capsys, path)
    assert f"{path}: zip file of {path.stat().st_size:,} bytes, 73 tensors" in out
    assert "    module.style.1.weight: float32 [32, 32]" in out
    assert "    … and 61 more" in out
    assert "tensors by their names" not in out
    assert "  recognized as: stylegan2" in out
    assert "    resolution: 32" in out
    assert "    note: taken off the names of its tensors: g_ema.module." in out
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    out = inspect(capsys, FOLDER / "pti_model" / "model_ABCDEFGH_0.pt")
    assert "  synthesis: SynthesisNetwork of 4" in out
    assert (
        "  tensors by their names:\n    synthesis.b4.const: float32 [16, 4, 4]" in out
    )


def test_inspection_says_what_every_kind_needs(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"stem.gain\x1b[31m": np.ones((2, 3))}, path)
    out = inspect(capsys, path, encoder(tmp_path / "labels.pt", 19))
    assert r"  stem.gain\x1b[31m: float64 [2, 3]" in out
    assert "\x1b" not in out
    assert "  no kind: expected one of stylegan2, stylegan3, clip" in out
    for kind in kinds.KINDS:
        assert f"  {kind} lacks: " in out
    assert "synthesis.b4.conv1.weight, NVIDIA's" in out
    assert "visual.conv1.weight and token_embedding.weight, OpenAI's or Open" in out
    assert "mapper lacks: mapper.course_mapping.mapping.4.weight, StyleCLIP's" in out
    assert "irse50 lacks: input_layer.0.weight and body.0.res_layer" in out
    assert "  not to be converted: expected an encoder of RGB photos" in out


def test_inspection_says_what_is_missing_below_the_prefix_of_the_rest(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = encoder(tmp_path / "x.pt", encoder_type="Encoder4Editing")
    content = torch_files.read(path).content
    del content["state_dict"]["encoder.styles.0.linear.weight"]
    out = inspect(capsys, torch_format.save_object(path, content))
    assert "  e4e lacks: state_dict.encoder.styles.0.linear.weight, e4e's or" in out
    assert "    encoder_type: 'Encoder4Editing'" in out
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    assert "\n  float64 [2, 3]\n" in inspect(capsys, tmp_path / "a.npy")


def test_inspection_of_what_is_not_read_is_a_refusal(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(b"<html>")
    assert __main__.main(["convert", "--inspect", str(path)]) == 2
    assert "an HTML page" in capsys.readouterr().err
