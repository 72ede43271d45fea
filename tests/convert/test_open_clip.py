"""Conversion of OpenCLIP: its numbers, what its files leave open, what is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from convert import __main__, clip_architecture, folders, open_clip
from convert import clip as convert_clip
from convert.clip_architecture import Settings
from styleclip_jax.errors import UserError
from styleclip_jax.io import clip_files, torch_files
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import clip
from styleclip_jax.models.network import Network
from styleclip_jax.models.preprocessing import Preprocessing
from tests import clip_parity, golden_data, golden_networks

GELU = golden_data.ROOT / "open_clip" / "vit_gelu"
METACLIP = golden_data.ROOT / "open_clip" / "vit_metaclip_like"
GIVEN = Settings(
    activation="gelu",
    vision_heads=4,
    text_heads=4,
    pixel_mean=(0.5, 0.5, 0.5),
    pixel_std=(0.5, 0.5, 0.5),
)


@pytest.fixture
def checkpoint():
    return torch_files.read(GELU / "epoch_32.pt")


@pytest.fixture
def state(checkpoint):
    """A bare state dict."""
    names = checkpoint.content["state_dict"]
    return {name.removeprefix("module."): x for name, x in names.items()}


@pytest.fixture
def folder(tmp_path):
    """A folder as on the hub, with weights of PyTorch."""
    directory = tmp_path / "hub"
    directory.mkdir()
    shutil.copyfile(GELU / "epoch_32.pt", directory / "open_clip_pytorch_model.bin")
    shutil.copyfile(GELU / "hf" / open_clip.CONFIG, directory / open_clip.CONFIG)
    return directory


def bare(state, path="some/bare.pt"):
    return TorchFile(path, "zip", state)


def check(case_name, network):
    case = golden_data.Case(f"open_clip/{case_name}")
    clip_parity.check(case, network, "images", "tokens", "preprocessed")


def one_line(call, *args):
    """The line of a refusal."""
    with pytest.raises(UserError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.slow
def test_checkpoint_with_settings_computes_openclip_s_numbers(checkpoint):
    conversion = convert_clip.convert(checkpoint, GIVEN)
    assert conversion.config.preprocessing.mean == (0.5, 0.5, 0.5)
    check("vit_gelu", golden_networks.network_of(conversion))


def test_names_and_wrappers_of_training_make_no_difference(checkpoint, state):
    expected = convert_clip.convert(checkpoint, GIVEN)
    parallel = {f"module.{name}": x for name, x in state.items()}
    for content in (state, parallel, {"state_dict": state, "epoch": 1}):
        found = convert_clip.convert(bare(content), GIVEN)
        assert found.config == expected.config
        for name, tensor in expected.tensors.items():
            np.testing.assert_array_equal(found.tensors[name], tensor)


def test_configuration_beside_the_file_counts(folder):
    conversion = convert_clip.convert(folders.read(folder))
    assert conversion.config == convert_clip.convert(folders.read(folder), GIVEN).config
    assert "by open_clip_config.json beside the file" in conversion.notes[0]


def test_folder_of_the_hub_computes_openclip_s_numbers(tmp_path, capsys):
    argv = ["convert", str(METACLIP / "hf"), "--output", str(tmp_path / "clip")]
    assert __main__.main(argv) == 0
    out = capsys.readouterr().out
    assert "note: activation, heads, mean and deviation: by open_clip_config" in out
    assert "note: sizes: by the shapes of the tensors" in out
    network = clip_files.load(tmp_path / "clip")
    assert network.config.preprocessing.resize_mode == "squash"
    check("vit_metaclip_like", network)


def test_tower_of_custom_text_is_read_where_it_is_plain(state, folder):
    expected = convert_clip.convert(folders.read(folder))
    custom = {
        name
        if name.startswith("visual.") or name == "logit_scale"
        else f"text.{name}": x
        for name, x in state.items()
    }
    path = folder / "open_clip_pytorch_model.bin"
    change(folder, "model_cfg", custom_text=True)
    found = convert_clip.convert(bare(custom, str(path)))
    assert found.config == expected.config
    np.testing.assert_array_equal(
        found.tensors["text_projection/kernel"], state["text_projection"]
    )


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("filter_name", ["bicubic", "bilinear"])
def test_preprocessing_is_openclip_s(mode, filter_name):
    case = golden_data.Case("open_clip/preprocess")
    preprocessing = Preprocessing(
        tuple(case.meta["mean"]),
        tuple(case.meta["std"]),
        filter_name,
        mode,
        fill=128 if mode == "longest" else 0,
    )
    config = clip.ClipConfig(image_size=32, preprocessing=preprocessing)
    for index in range(2):
        clip_parity.check_preprocessing(
            case,
            Network({}, config),
            f"picture{index}",
            f"{mode}_{filter_name}_{index}",
        )


# What a file leaves open


def test_bare_file_is_not_taken_for_openai_s(state, checkpoint):
    parallel = {f"module.{name}": x for name, x in state.items()}
    for file in (bare(state), bare(parallel), checkpoint):
        message = one_line(convert_clip.convert, file)
        assert "activation, heads, mean and deviation are left open" in message
        for name in ("activation", "vision_heads", "text_heads", "pixel_mean"):
            assert f"--{name}" in message


def test_refusal_asks_only_for_what_is_missing(state):
    partly = dataclasses.replace(GIVEN, text_heads=None)
    message = one_line(convert_clip.convert, bare(state), partly)
    assert "give --text_heads, or --architecture=openai" in message


def small(name, **changes):
    """A small stand-in of an architecture, and its tensors under our names."""
    config = clip.ClipConfig(
        image_size=8,
        patch_size=4,
        vision_width=128,
        vision_layers=1,
        vision_heads=2,
        vision_mlp_width=16,
        vocab_size=20,
        context_length=4,
        text_width=128,
        text_layers=1,
        text_heads=2,
        text_mlp_width=16,
        embed_dim=8,
        vision_act="gelu",
        text_act="gelu",
        eos_token_id=open_clip.ARGMAX,
    )
    config = dataclasses.replace(config, **changes)
    params = {n: np.zeros(s) for n, s in clip.param_shapes(config).items()}
    return {name: config}, params


def test_architecture_of_a_size_of_its_own_is_told_by_it(monkeypatch):
    table, params = small("ViT-g-14", vision_heads=4)
    monkeypatch.setattr(open_clip, "ARCHITECTURES", table)
    config, notes = clip_architecture.describe(params, "x.pt", Settings())
    assert config == table["ViT-g-14"]
    assert "OpenCLIP's ViT-g-14, the only one with these sizes" in notes[0]


def test_architectures_of_one_size_are_asked_for(monkeypatch):
    table, params = small("ViT-B-32")
    quick, _ = small("ViT-B-32-quickgelu", vision_act="quick_gelu")
    monkeypatch.setattr(open_clip, "ARCHITECTURES", table | quick)
    describe = clip_architecture.describe
    message = one_line(describe, params, "x.pt", Settings())
    assert "--architecture=ViT-B-32 or --architecture=ViT-B-32-quickgelu" in message
    config, _ = describe(params, "x.pt", Settings(architecture="ViT-B-32"))
    assert config.vision_act == "gelu"
    config, _ = describe(params, "x.pt", Settings(architecture="openai"))
    assert config.vision_act == "quick_gelu"


def test_architecture_of_another_size_is_refused(state):
    settings = Settings(architecture="ViT-H-14")
    message = one_line(convert_clip.convert, bare(state), settings)
    assert "image_size: expected 224 by architecture ViT-H-14" in message


def test_settings_count_before_the_configuration(folder):
    settings = Settings(activation="quick_gelu", pixel_std=(0.1, 0.2, 0.3))
    conversion = convert_clip.convert(folders.read(folder), settings)
    assert conversion.config.text_act == "quick_gelu"
    assert conversion.config.preprocessing.mean == (0.5, 0.5, 0.5)
    assert conversion.config.preprocessing.std == (0.1, 0.2, 0.3)
    assert "activation, pixel_std: as given" in conversion.notes


def test_named_architectures_have_openclip_s_numbers():
    table = open_clip.ARCHITECTURES
    heads = {
        name: (config.vision_heads, config.text_heads, config.vision_mlp_width)
        for name, config in table.items()
        if isinstance(config, clip.ClipConfig)
    }
    assert heads["ViT-H-14"] == (16, 16, 5120)
    assert heads["ViT-g-14"] == (16, 16, 6144)
    assert heads["ViT-bigG-14"] == (16, 20, 8192)
    assert heads["ViT-B-16-plus-240"] == (14, 10, 3584)
    assert table["ViT-L-14-336-quickgelu"].vision_act == "quick_gelu"
    assert table["ViT-L-14"].text_act == "gelu"
    assert table["ViT-H-14-378"].image_size == 378
    # OpenAI's RN50, but for the activation and the way that the end is found.
    assert (
        dataclasses.replace(table["RN50-quickgelu"], eos_token_id=49407)
        == clip.ResnetClipConfig()
    )


def test_resnet_of_openclip_is_not_taken_for_openai_s(tmp_path):
    file = torch_files.read(golden_data.ROOT / golden_networks.RESNET_CLIPS["rn_deep"])
    state = torch_files.tensors(file.content)
    del state["input_resolution"]
    state = {name: x.astype(np.float32) for name, x in state.items()}
    path = str(tmp_path / "rn.pt")
    assert "left open" in one_line(convert_clip.convert, bare(state, path))
    document = {
        "model_cfg": {
            "embed_dim": 40,
            "vision_cfg": {
                "image_size": 96,
                "layers": [2, 3, 4, 2],
                "width": 6,
                "patch_size": None,
            },
            "text_cfg": {"vocab_size": 220, "width": 64, "heads": 4, "layers": 1},
        }
    }
    (tmp_path / open_clip.CONFIG).write_text(json.dumps(document))
    config = convert_clip.convert(bare(state, path)).config
    assert (config.vision_heads, config.text_heads, config.text_act) == (3, 4, "gelu")
    config = convert_clip.convert(
        bare(state, path), Settings(architecture="openai")
    ).config
    assert (config.vision_heads, config.text_heads) == (3, 1)
    assert config.text_act == "quick_gelu"


# Refusals


def change(directory, part, tower="", **values):
    path = directory / open_clip.CONFIG
    document = json.loads(path.read_text())
    found = document[part][tower] if tower else document[part]
    found.update(values)
    path.write_text(json.dumps(document))


REFUSED = {
    "pool_type": ("vision_cfg", {"pool_type": "avg"}),
    "no_ln_pre": ("vision_cfg", {"no_ln_pre": True}),
    "attentional_pool": ("vision_cfg", {"attentional_pool": True}),
    "timm_model_name": ("vision_cfg", {"timm_model_name": "vit_base"}),
    "image_size": ("vision_cfg", {"image_size": [32, 64]}),
    "vision_layers": ("vision_cfg", {"layers": [3, 4, 6]}),
    "vision_width": ("vision_cfg", {"head_width": 10}),
    "hf_model_name": ("text_cfg", {"hf_model_name": "roberta-base"}),
    "hf_tokenizer_name": ("text_cfg", {"hf_tokenizer_name": "xlm"}),
    "embed_cls": ("text_cfg", {"embed_cls": True}),
    "no_causal_mask": ("text_cfg", {"no_causal_mask": True}),
    "proj_bias": ("text_cfg", {"proj_bias": True}),
    "ls_init_value": ("text_cfg", {"ls_init_value": 1e-4}),
    "act_kwargs": ("text_cfg", {"act_kwargs": {"negative_slope": 0.2}}),
    "norm_kwargs": ("text_cfg", {"norm_kwargs": {"elementwise_affine": False}}),
    "text_cfg.pool_type": ("text_cfg", {"pool_type": "last"}),
    "a_new_field": ("text_cfg", {"a_new_field": 1}),
    "init_logit_bias": ("", {"init_logit_bias": -10}),
    "multimodal_cfg": ("", {"multimodal_cfg": {}}),
}


@pytest.mark.parametrize("field", REFUSED)
def test_variant_is_refused_by_its_field(folder, field):
    tower, values = REFUSED[field]
    change(folder, "model_cfg", tower, **values)
    message = one_line(convert_clip.convert, folders.read(folder))
    assert open_clip.CONFIG in message
    assert field in message


def test_preprocessing_that_is_unknown_is_refused(folder):
    change(folder, "preprocess_cfg", interpolation="lanczos")
    message = one_line(convert_clip.convert, folders.read(folder))
    assert "interpolation must be one of bicubic, bilinear" in message


def test_official_variant_is_refused():
    path = golden_data.ROOT / "open_clip" / "custom_text" / open_clip.CONFIG
    assert "model_cfg.init_logit_bias" in one_line(open_clip.read_config, path)


def test_fields_that_are_supported_are_read(folder):
    change(folder, "model_cfg", "text_cfg", norm_kwargs={"eps": 1e-6})
    change(folder, "model_cfg", "vision_cfg", act_kwargs={"approximate": "tanh"})
    change(folder, "preprocess_cfg", resize_mode="longest", fill_color=7, mean=0.25)
    config, notes = open_clip.read_config(folder / open_clip.CONFIG)
    assert (config.text_eps, config.vision_eps) == (1e-6, 1e-5)
    assert (config.vision_act, config.text_act) == ("gelu_pytorch_tanh", "gelu")
    assert config.preprocessing.mean == (0.25, 0.25, 0.25)
    assert (config.preprocessing.resize_mode, config.preprocessing.fill) == (
        "longest",
        7,
    )
    assert notes == []
    change(folder, "preprocess_cfg", mean=None, interpolation="random")
    config, notes = open_clip.read_config(folder / open_clip.CONFIG)
    assert config.preprocessing.mean == Preprocessing().mean
    assert config.preprocessing.interpolation == "bicubic"
    assert notes == ["mean: OpenAI's, as open_clip_config.json names none"]


def test_folder_that_is_not_converted_is_refused_with_the_command(folder):
    message = one_line(clip_files.load, folder)
    assert "convert it by `styleclip-convert FOLDER --output OUT`" in message


def test_program_refuses_settings_that_are_wrong(tmp_path, capsys):
    file, out = GELU / "epoch_32.pt", f"--output={tmp_path / 'clip'}"
    other = golden_data.ROOT / golden_networks.GENERATOR
    for argv, expected in (
        ([file, "--architecture=ViT-Z"], "--architecture must be one of openai, ViT"),
        ([file, "--pixel_mean=a,b,c"], "--pixel_mean: expected numbers, found 'a'"),
        ([other, "--activation=gelu"], "--activation: expected with a CLIP, "),
    ):
        assert __main__.main(["convert", *map(str, argv), out]) == 2
        error = capsys.readouterr().err
        assert expected in error
        assert error.count("\n") == 1


def test_index_names_no_file_outside_of_its_folder(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    for names in ({"a": "../x.safetensors"}, {"a": 1}, {}, []):
        index.write_text(json.dumps({"weight_map": names}))
        assert "expected weight_map" in one_line(folders.read, tmp_path)


def test_bfloat16_is_read(state, folder):
    import ml_dtypes

    tensors = {n: x.astype(ml_dtypes.bfloat16) for n, x in state.items()}
    path = folder / "open_clip_model.safetensors"
    safetensors.numpy.save_file(tensors, path)
    found = convert_clip.convert(folders.read(folder)).tensors
    expected = tensors["visual.proj"].astype(np.float32)
    np.testing.assert_array_equal(found["visual_projection/kernel"], expected)
