"""Folders of SigLIP: hub folders load as they are, saved ones again; refusals."""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable

import jax
import numpy as np
import pytest
import safetensors.numpy
import transformers

from convert import __main__ as program
from styleclip_jax.io import clip_configs, clip_files
from styleclip_jax.models import clip
from styleclip_jax.models.preprocessing import Preprocessing
from tests import golden_data, programs, tiny

CASES = ("siglip", "siglip2_fixed")
ROOT = golden_data.ROOT / "siglip"
Change = Callable[[pathlib.Path], object]


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(ROOT / request.param, tmp_path / "model")


@pytest.fixture
def siglip(tmp_path: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(ROOT / "siglip2_fixed", tmp_path / "model")


def test_saved_siglip_loads_as_it_was(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    network = clip_files.load(folder)
    clip_files.save(network, tmp_path / "saved")
    loaded = clip_files.load(tmp_path / "saved")
    assert loaded.config == network.config
    jax.tree.map(np.testing.assert_array_equal, loaded.params, network.params)


def test_configuration_is_what_transformers_reads(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    clip_configs.write(clip_files.load(folder).config, tmp_path)
    found, expected = (
        transformers.SiglipConfig.from_pretrained(path).to_dict()
        for path in (tmp_path, folder)
    )
    assert differences(found, expected) <= UNUSED
    found, expected = (
        json.loads((path / clip_configs.PREPROCESSOR).read_text())
        for path in (tmp_path, folder)
    )
    assert differences(found, expected) <= UNUSED


# Names of what nothing is computed from.
UNUSED = {
    "architectures",
    "do_convert_rgb",
    "dtype",
    "pad_token_id",
    "transformers_version",
}


def differences(found: dict, expected: dict) -> set[str]:
    """Names under which what transformers has read differs, those of parts too."""
    names = set()
    for name, other in expected.items():
        mine = found.get(name)
        if isinstance(mine, dict) and isinstance(other, dict):
            names |= differences(mine, other)
        elif mine != other:
            names.add(name)
    return names


def test_defaults_are_those_of_transformers(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    assert clip_configs.read(tmp_path / "config.json", None) == clip.SiglipConfig()
    clip_configs.write(clip.SiglipConfig(), tmp_path)
    found = transformers.SiglipConfig.from_pretrained(tmp_path)
    default = transformers.SiglipConfig()
    assert differences(found.to_dict(), default.to_dict()) <= UNUSED


def test_preprocessing_is_that_of_siglip_where_no_file_tells(
    tmp_path: pathlib.Path,
) -> None:
    folder = shutil.copytree(ROOT / "siglip", tmp_path / "model")
    expected = clip_files.load(folder).config
    (folder / clip_configs.PREPROCESSOR).unlink()
    assert clip_files.load(folder).config == expected


def test_weights_in_several_files_load(siglip: pathlib.Path) -> None:
    expected = clip_files.load(siglip)
    tensors = safetensors.numpy.load_file(siglip / "model.safetensors")
    (siglip / "model.safetensors").unlink()
    index = {}
    for number in range(2):
        name = f"model-{number + 1:05}-of-00002.safetensors"
        part = dict(list(tensors.items())[number::2])
        safetensors.numpy.save_file(part, siglip / name)
        index |= dict.fromkeys(part, name)
    path = siglip / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}))
    found = clip_files.load(siglip)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


def set_config(part: str, **changes: object) -> Change:
    """Change of a part of config.json; of the whole for an empty name."""

    def change(folder: pathlib.Path) -> None:
        path = folder / "config.json"
        document = json.loads(path.read_text())
        (document[part] if part else document).update(changes)
        path.write_text(json.dumps(document))

    return change


DAMAGES: dict[str, tuple[Change, str]] = {
    "NaFlex": (
        set_config("", model_type="siglip2"),
        "config.json: model_type 'siglip2' is NaFlex, which takes images of any shape: "
        "expected a SigLIP 2 of a fixed size",
    ),
    "no pooling head": (
        set_config("vision_config", vision_use_head=False),
        "(vision_use_head: expected true, found false)",
    ),
    "features of two lengths": (
        set_config("text_config", projection_size=36),
        "(projection_size: expected the 60 features of an image, found 36)",
    ),
    "projection left out": (
        set_config("text_config", projection_size=None, hidden_size=30),
        "(projection_size: expected the 60 features of an image, found 30)",
    ),
    "unknown activation": (
        set_config("vision_config", hidden_act="sine"),
        "vision_act must be one of",
    ),
    "other images": (
        lambda folder: (folder / "preprocessor_config.json").write_text(
            '{"size": {"height": 20, "width": 20}}'
        ),
        "preprocessor_config.json: not a preprocessing of a CLIP (size: expected 42",
    ),
    "misshapen tensor": (
        set_config("vision_config", patch_size=7),
        "patch_embedding/kernel: expected [7, 7, 3, 60], found [14, 14, 3, 60]",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_load_refuses(siglip: pathlib.Path, damage: Change, message: str) -> None:
    damage(siglip)
    assert message in programs.refusal(clip_files.load, siglip)


def set_tokens(**changes: object) -> Change:
    """Change of tokenizer_config.json."""

    def change(folder: pathlib.Path) -> None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


TOKENIZER_DAMAGES: dict[str, tuple[Change, str]] = {
    "no files": (
        lambda folder: (folder / "tokenizer.json").unlink(),
        "expected spiece.model or tokenizer.json, found neither",
    ),
    "settings that are no object": (
        lambda folder: (folder / "tokenizer_config.json").write_text("[]"),
        "tokenizer_config.json: expected a JSON object",
    ),
    "end that is no text": (
        set_tokens(eos_token=[1]),
        "tokenizer_config.json: expected text as eos_token, found [1]",
    ),
    "padding that is no token": (
        set_tokens(pad_token="<none>"),
        "tokenizer.json: expected '<none>' in its vocabulary, found none",
    ),
    "vocabulary of a larger model": (
        set_config("text_config", vocab_size=400),
        "has 420 tokens, but vocab_size in config.json is 400",
    ),
}


@pytest.mark.parametrize(
    ("damage", "message"), TOKENIZER_DAMAGES.values(), ids=TOKENIZER_DAMAGES
)
def test_load_tokenizer_refuses(
    siglip: pathlib.Path, damage: Change, message: str
) -> None:
    damage(siglip)
    assert message in programs.refusal(clip_files.load_tokenizer, siglip)


def test_tokenizer_settings_count_where_they_are(siglip: pathlib.Path) -> None:
    set_tokens(pad_token={"content": "<mask>", "special": True})(siglip)
    assert clip_files.load_tokenizer(siglip).padding == 4
    (siglip / "tokenizer_config.json").unlink()
    tokenizer = clip_files.load_tokenizer(siglip)
    assert (tokenizer.end, tokenizer.padding) == (1, 0)


def test_converted_siglip_is_the_same(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    output = tmp_path / "converted"
    argv = ["convert", str(folder / "model.safetensors"), f"--output={output}"]
    assert program.main(argv) == 0
    expected, found = (clip_files.load(path) for path in (folder, output))
    assert found.config == expected.config
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    texts = ["a photo of a face"]
    rows = [
        clip.tokenize(found, clip_files.load_tokenizer(path), texts)
        for path in (folder, output)
    ]
    np.testing.assert_array_equal(*rows)


def test_conversion_needs_the_configuration(
    siglip: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "convert",
        str(siglip / "model.safetensors"),
        f"--output={tmp_path / 'out'}",
    ]
    (siglip / "tokenizer.json").unlink()
    assert program.main(argv) == 0
    expected = (
        "note: no tokenizer: put spiece.model or tokenizer.json beside the result"
    )
    assert expected in capsys.readouterr().out
    shutil.rmtree(tmp_path / "out")
    (siglip / "config.json").unlink()
    assert program.main(argv) == 2
    expected = "expected config.json beside this SigLIP, found none\n"
    assert capsys.readouterr().err.endswith(expected)
    assert not (tmp_path / "out").exists()


def test_preprocessing_survives_a_folder(tmp_path: pathlib.Path) -> None:
    preprocessing = Preprocessing(interpolation="bilinear", resize_mode="squash")
    config = dataclasses.replace(tiny.SIGLIP, preprocessing=preprocessing)
    clip_configs.write(config, tmp_path)
    paths = (tmp_path / clip_configs.CONFIG, tmp_path / clip_configs.PREPROCESSOR)
    assert clip_configs.read(*paths) == config


def test_pieces_that_are_no_text_are_refused(tmp_path: pathlib.Path) -> None:
    folder = shutil.copytree(ROOT / "siglip", tmp_path / "model")
    path = folder / "spiece.model"
    content = path.read_bytes()
    path.write_bytes(content.replace("▁".encode(), b"\xff\xff\xff", 1))
    message = programs.refusal(clip_files.load_tokenizer, folder)
    assert message.startswith(f"{path}: not a sentencepiece model ('utf-8' codec")


def test_long_added_tokens_are_refused_at_once(siglip: pathlib.Path) -> None:
    path = siglip / "tokenizer.json"
    document = json.loads(path.read_text())
    # Reading it would take minutes.
    document["added_tokens"][0]["content"] = "a" * 10**5
    path.write_text(json.dumps(document))
    message = programs.refusal(clip_files.load_tokenizer, siglip)
    assert "added_tokens: expected at most 1,000 characters, found 100,000" in message
