"""Folders of transformers' PyTorch CLIP: its numbers, and its two configurations."""

import json
import shutil

import pytest
import transformers

from convert import clip as convert_clip
from convert import folders
from styleclip_jax.errors import UserError
from styleclip_jax.io import clip_configs, clip_files
from styleclip_jax.models.clip import ClipConfig
from styleclip_jax.models.preprocessing import Preprocessing
from tests import clip_parity, golden_data, golden_networks

ROOT = golden_data.ROOT / "hf_clip"
SHARDED = ROOT / "sharded_eos"


@pytest.fixture
def directory(tmp_path):
    return shutil.copytree(ROOT / "fp16_eos2", tmp_path / "clip")


def check(name, network):
    case = golden_data.Case(f"hf_clip/{name}")
    clip_parity.check(case, network, "pixel_values", "input_ids", "preprocessed_pil")


@pytest.mark.parametrize("name", ["sharded_eos", "fp16_eos2"])
def test_folder_computes_transformers_numbers(name):
    check(name, clip_files.load(ROOT / name))


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "bin_mixed_act",
        "bin_mixed_act/pytorch_model.bin",
        "sharded_eos/model.safetensors.index.json",
    ],
)
def test_converted_folder_or_file_computes_them_too(path):
    conversion = convert_clip.convert(folders.read(ROOT / path))
    check(path.split("/")[0], golden_networks.network_of(conversion))


def test_weights_that_only_torch_reads_are_refused_with_the_command():
    with pytest.raises(UserError, match="styleclip-convert FOLDER --output") as error:
        clip_files.load(ROOT / "bin_mixed_act")
    assert "\n" not in str(error.value)


def read(directory, **changes):
    """Preprocessing by a preprocessor_config.json with changes; None leaves out."""
    path = directory / clip_configs.PREPROCESSOR
    document = json.loads(path.read_text()) | changes
    document = {name: value for name, value in document.items() if value is not None}
    path.write_text(json.dumps(document))
    return clip_configs.read(directory / clip_configs.CONFIG, path).preprocessing


SAME = {
    "numbers": {"size": 42, "crop_size": 42},
    "shortest edge": {"size": {"shortest_edge": 42}, "crop_size": 42},
    "no crop size": {"crop_size": None},
    "nothing": dict.fromkeys(
        ("size", "crop_size", "resample", "image_mean", "image_std", "rescale_factor")
    ),
}


@pytest.mark.parametrize("changes", SAME.values(), ids=SAME)
def test_forms_of_one_preprocessing_are_read_alike(directory, changes):
    assert read(directory, **changes) == Preprocessing()


def test_other_preprocessings_are_read(directory):
    assert read(directory, resample=2).interpolation == "bilinear"
    assert read(directory, size={"shortest_edge": 48}).resized == 48
    square = {"height": 42, "width": 42}
    found = read(directory, size=square, do_center_crop=False, crop_size=None)
    assert found.resize_mode == "squash"
    assert read(directory, image_mean=[0.5, 0.5, 0.5]).mean == (0.5, 0.5, 0.5)


def test_absent_preprocessing_is_the_family_s(directory):
    (directory / clip_configs.PREPROCESSOR).unlink()
    assert clip_files.load(directory).config.preprocessing == Preprocessing()


REFUSED = {
    "do_resize": {"do_resize": False},
    "do_rescale": {"do_rescale": False},
    "do_normalize": {"do_normalize": False},
    "do_center_crop": {"do_center_crop": False},
    "resample": {"resample": 1},
    "rescale_factor": {"rescale_factor": 1 / 127.5},
    "crop_size": {"crop_size": {"height": 42, "width": 40}},
    "size": {"size": {"height": 40, "width": 42}},
    "mean": {"image_mean": [0.5]},
}


@pytest.mark.parametrize("field", REFUSED)
def test_preprocessing_is_refused_by_its_field(directory, field):
    with pytest.raises(UserError, match=rf"preprocessor_config.json: .*{field}") as e:
        read(directory, **REFUSED[field])
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
def test_written_preprocessing_is_read_again(tmp_path, resize_mode):
    found = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", resize_mode)
    config = ClipConfig(image_size=64, preprocessing=found)
    clip_configs.write(config, tmp_path)
    paths = clip_configs.CONFIG, clip_configs.PREPROCESSOR
    assert clip_configs.read(*(tmp_path / name for name in paths)) == config


def test_doubled_configuration_counts_as_in_transformers(tmp_path):
    document = {
        "model_type": "clip",
        "projection_dim": 32,
        "text_config": {"hidden_size": 64, "vocab_size": 99},
        "text_config_dict": {"hidden_size": 128, "num_attention_heads": 4},
        "vision_config": {"hidden_size": 128, "num_attention_heads": 4},
        "vision_config_dict": None,
    }
    path = tmp_path / clip_configs.CONFIG
    path.write_text(json.dumps(document))
    config = clip_configs.read(path, None)
    expected = transformers.CLIPConfig.from_pretrained(tmp_path)
    assert config.text_width == expected.text_config.hidden_size == 128
    assert config.vocab_size == expected.text_config.vocab_size == 49408
    assert config.vision_width == expected.vision_config.hidden_size == 128
