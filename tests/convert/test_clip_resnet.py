"""Conversion of CLIPs with a ResNet: OpenAI's files to folders of ours."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy

from convert import __main__
from convert import clip as convert_clip
from styleclip_jax.errors import UserError
from styleclip_jax.io import clip_files, torch_files
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import bpe, clip
from tests import golden_data, golden_networks, tiny

CASES = golden_networks.RESNET_CLIPS
ARCHIVE = golden_data.ROOT / CASES["rn_deep"]
CONFIGS = {
    "rn_deep": clip.ResnetClipConfig(
        image_size=96,
        vision_width=6,
        vision_layers=(2, 3, 4, 2),
        vision_heads=3,
        vocab_size=220,
        eos_token_id=219,
        text_width=64,
        text_layers=1,
        text_heads=1,
        text_mlp_width=256,
        embed_dim=40,
    ),
    "rn_shallow": clip.ResnetClipConfig(
        image_size=64,
        vision_width=4,
        vision_layers=(1, 1, 2, 1),
        vision_heads=2,
        vocab_size=180,
        eos_token_id=179,
        text_width=128,
        text_layers=1,
        text_heads=2,
        text_mlp_width=512,
        embed_dim=56,
    ),
}


@pytest.fixture
def state() -> dict[str, np.ndarray]:
    return torch_files.tensors(torch_files.read(ARCHIVE).content)


def state_file(state: dict[str, np.ndarray]) -> TorchFile:
    return TorchFile("some/clip.pt", "zip", state)


@pytest.mark.parametrize("name", CASES)
def test_openai_s_files_convert_to_folders_with_the_same_features(
    name: str, tmp_path: pathlib.Path
) -> None:
    file = torch_files.read(golden_data.ROOT / CASES[name])
    assert convert_clip.recognize(file)
    conversion = convert_clip.convert(file)
    assert (conversion.kind, conversion.config) == ("clip", CONFIGS[name])
    convert_clip.write(conversion, tmp_path / "clip")
    network = clip_files.load(tmp_path / "clip")
    assert network.config == CONFIGS[name]
    case = golden_data.Case(f"clip_resnet/{name}")
    image = golden_data.to_nhwc(case["images"])
    case.check("image_features", jax.jit(clip.encode_image)(network, image))
    case.check("text_features", jax.jit(clip.encode_text)(network, case["tokens"]))


def test_formats_of_the_cases_differ() -> None:
    formats = {
        torch_files.read(golden_data.ROOT / path).format for path in CASES.values()
    }
    assert formats == {"torchscript", "zip"}


def test_plain_state_dict_converts_like_the_archive(
    state: dict[str, np.ndarray],
) -> None:
    expected = convert_clip.convert(torch_files.read(ARCHIVE)).tensors
    for name in ("input_resolution", "context_length", "vocab_size"):
        del state[name]
    found = convert_clip.convert(state_file(state)).tensors
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_program_prints_what_it_inferred(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "clip")
    assert __main__.main(["convert", str(ARCHIVE), "--output", out]) == 0
    printed = capsys.readouterr().out
    assert "RN-tiny.jit.pt: torchscript file, clip" in printed
    for line in (
        "image_size: 96",
        "vision_layers: (2, 3, 4, 2)",
        "vision_heads: 3",
        "text_act: quick_gelu",
    ):
        assert f"  {line}\n" in printed
    assert "read back and compared" in printed


def test_folder_says_what_it_holds(tmp_path: pathlib.Path) -> None:
    clip_files.save(tiny.clip_network(tiny.RESNET_CLIP), tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["model_type"] == "clip_resnet"
    assert document["vision_layers"] == [1, 1, 1, 1]
    assert not {"preprocessing", "dtype", "precision", "remat"} & document.keys()
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert processor["crop_size"] == {"height": 32, "width": 32}
    with safetensors.safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "flax"}
        assert "vision_model.layer1.0.norm1.var" in file.keys()  # noqa: SIM118


def test_saved_clip_loads_as_it_was(tmp_path: pathlib.Path) -> None:
    network = tiny.clip_network(tiny.RESNET_CLIP)
    clip_files.save(network, tmp_path)
    loaded = clip_files.load(tmp_path)
    assert loaded.config == network.config
    jax.tree.map(np.testing.assert_array_equal, loaded.params, network.params)


def test_openai_vocabulary_is_written_beside_a_clip_that_has_it(
    state: dict[str, np.ndarray], tmp_path: pathlib.Path
) -> None:
    num_tokens = bpe.NUM_TOKENS_BESIDE_MERGES + bpe.NUM_MERGES
    state["token_embedding.weight"] = np.zeros((num_tokens, 64), np.float16)
    conversion = convert_clip.convert(state_file(state))
    assert "tokenizer: OpenAI's" in conversion.notes[-1]
    convert_clip.write(conversion, tmp_path / "clip")
    tokenizer = clip_files.load_tokenizer(tmp_path / "clip")
    assert tokenizer.num_tokens == num_tokens


def set_tensor(name: str, *shape: int) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda state: state.update({name: np.zeros(shape, np.float32)})


def drop(name: str) -> Callable[[dict[str, np.ndarray]], Any]:
    return lambda state: state.pop(name)


DAMAGES = {
    "missing statistics": (
        drop("visual.layer2.1.bn3.running_var"),
        r"1 missing tensor \(vision_model/layer2/1/norm3/var\)",
    ),
    "missing tensor that tells the architecture": (
        drop("visual.attnpool.positional_embedding"),
        "1 missing tensor .vision_model/attnpool/position_embedding/embedding",
    ),
    "missing shortcut": (
        drop("visual.layer3.0.downsample.0.weight"),
        r"1 missing tensor \(vision_model/layer3/0/shortcut/kernel\)",
    ),
    "stage without blocks": (
        lambda state: [
            state.pop(name) for name in list(state) if name.startswith("visual.layer4.")
        ],
        r"vision_layers must be four whole numbers, found \[2, 3, 4, 0\]",
    ),
    "surplus tensor": (
        set_tensor("visual.layer1.0.se.weight", 3),
        r"1 surplus tensor \(visual.layer1.0.se.weight\)",
    ),
    "projection of a vision transformer": (
        set_tensor("visual.proj", 192, 40),
        r"1 surplus tensor \(visual.proj\)",
    ),
    "misshapen tensor": (
        set_tensor("visual.bn1.bias", 7),
        r"stem/norm1/bias expected \[3\] found \[7\]",
    ),
    "pixels that make no square": (
        set_tensor("visual.attnpool.positional_embedding", 9, 192),
        "expected a square number of pixels in the attention pool, found 8",
    ),
    "convolution that is no product": (
        set_tensor("visual.layer1.0.conv1.weight", 6, 6, 3, 3),
        r"visual.layer1.0.conv1.weight: expected a 1×1 convolution, found \[6, 6, 3",
    ),
    "width below one head": (
        set_tensor("visual.layer1.0.conv1.weight", 1, 6, 1, 1),
        "not a CLIP that can be built .vision_heads must be",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_convert_refuses(
    state: dict[str, np.ndarray],
    damage: Callable[[dict[str, np.ndarray]], Any],
    message: str,
) -> None:
    damage(state)
    with pytest.raises(UserError, match=rf"some/clip\.pt: .*{message}") as error:
        convert_clip.convert(state_file(state))
    assert "\n" not in str(error.value)


def write_config(folder: pathlib.Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_layers": [1, 1, 1]}, "vision_layers must be four whole numbers"),
        ({"vision_layers": 4}, "config.json: not a valid CLIP configuration"),
        ({"vision_act": "relu"}, "unexpected keyword argument 'vision_act'"),
        ({"image_size": 64}, r"crop_size: expected 64, .* found 32 and 32"),
        ({"embed_dim": 9}, r"out_proj/kernel: expected \[64, 9\], found \[64, 8\]"),
        (
            {"model_type": "resnet"},
            "expected model_type .*'clip_resnet'.*, found 'resnet'",
        ),
    ],
)
def test_load_refuses(
    changes: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
    clip_files.save(tiny.clip_network(tiny.RESNET_CLIP), tmp_path)
    write_config(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as error:
        clip_files.load(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
