"""Networks are found below whatever other programs put around them."""

import dataclasses
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import __main__, clip_architecture, kinds, settings, wrappers
from convert import clip as convert_clip
from convert import e4e as convert_e4e
from convert import inception as convert_inception
from convert import irse50 as convert_irse50
from convert import mapper as convert_mapper
from convert import stylegan2 as convert_stylegan2
from convert import vgg16 as convert_vgg16
from convert.rules import Conversion
from styleclip_jax.io import torch_files
from styleclip_jax.io.pickled.inert import Object
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import clip, stylegan2
from tests import golden_data, golden_networks, programs, torch_format

FOLDER = golden_data.ROOT / "wrapped"
METRICS = golden_data.ROOT / "metrics"
CLIP_FOLDER = golden_data.ROOT / "hf_clip" / "sharded_eos"

# Files of other programs


@pytest.mark.parametrize(
    ("path", "notes"),
    [
        ("data_parallel/030000.pt", ["taken off the names of its tensors: g_ema.mod"]),
        ("pti_model/model_ABCDEFGH_0.pt", ["weights are those of the module Gener"]),
        ("nvidia_state_dict/StyleGAN2-ada-Generator.pth", ["conv_clamp: none; a stat"]),
        ("python313_path/050000.pt", ["weights are those of g_ema"]),
    ],
)
def test_generators_of_other_programs_make_their_images(
    path: str, notes: list[str]
) -> None:
    conversion = convert_stylegan2.convert(torch_files.read(FOLDER / path))
    for note in notes:
        assert any(found.startswith(note) for found in conversion.notes)
    expected = np.load((FOLDER / path).with_name("expected.npz"))
    network = golden_networks.network_of(conversion)
    image = jax.jit(stylegan2.synthesize)(network, expected["w_plus"])
    np.testing.assert_allclose(image, expected["image"], atol=1e-4)
    w = stylegan2.map_latents(network, jnp.asarray(expected["z"]))
    rows = expected["w"] if "w" in expected else expected["w_plus"][:, 0]
    np.testing.assert_allclose(w, rows, atol=1e-4)


def test_a_fine_tuned_clip_computes_its_features() -> None:
    file = torch_files.read(FOLDER / "clip_finetuned" / "model_10.pt")
    conversion = convert_clip.convert(file)
    assert any("is taken for one of OpenAI's" in note for note in conversion.notes)
    network = golden_networks.network_of(conversion)
    expected = np.load(FOLDER / "clip_finetuned" / "expected.npz")
    found = clip.encode_image(network, jnp.asarray(expected["image"]))
    np.testing.assert_allclose(found, expected["image_features"], atol=1e-4)
    found = clip.encode_text(network, jnp.asarray(expected["ids"]))
    np.testing.assert_allclose(found, expected["text_features"], atol=1e-4)
    given = clip_architecture.Settings(activation="gelu")
    assert convert_clip.convert(file, given).config.vision_act == "gelu"


def test_whole_modules_keep_their_settings(tmp_path: pathlib.Path) -> None:
    file = torch_files.read(FOLDER / "pti_model" / "model_ABCDEFGH_0.pt")
    assert convert_stylegan2.convert(file).config.conv_clamp == 256
    # In DataParallel, pickled as a whole.
    inside = Object("torch.nn.DataParallel", (), {"_modules": {"module": file.content}})
    found = convert_stylegan2.convert(dataclasses.replace(file, content=inside))
    assert found.config.conv_clamp == 256
    argv = ["convert", str(FOLDER / "nvidia_state_dict/StyleGAN2-ada-Generator.pth")]
    argv += [f"--output={tmp_path / 'out'}", "--conv_clamp=256"]
    assert __main__.main(argv) == 0
    assert '"conv_clamp": 256.0' in (tmp_path / "out/config.json").read_text()


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_modules_of_unknown_classes_are_read_as_data(
    tmp_path: pathlib.Path, layout: str
) -> None:
    state = convert_stylegan2_state()
    arrays = {name: np.ascontiguousarray(x) for name, x in state.items()}
    make = torch_format.storage if layout == "zip" else torch_format.legacy_storage
    parameters = {
        name: torch_format.tensor(
            make("Float", name, x.size), x.shape, tuple(s // 4 for s in x.strides)
        )
        for name, x in arrays.items()
    }
    module = {"_parameters": parameters, "_buffers": {}, "_modules": {}}
    name: Any = torch_format.Name("model", "Generator")
    if layout == "legacy":
        # The class comes with its source code.
        name = torch_format.Persistent(("module", name, "model.py", "import os"))
    generator = torch_format.Instance(name, module)
    outer = {"_parameters": {}, "_buffers": {}, "_modules": {"module": generator}}
    name = torch_format.Name("torch.nn.parallel.data_parallel", "DataParallel")
    pickled = torch_format.dumps(torch_format.Instance(name, outer))
    path = tmp_path / "whole.pt"
    if layout == "zip":
        torch_format.write_zip(path, pickled, arrays)
    else:
        path.write_bytes(torch_format.legacy(pickled, arrays))
    found = convert_stylegan2.convert(torch_files.read(path))
    assert_same(found, convert_stylegan2.convert(TorchFile("x", "zip", state)))
    assert "taken off the names of its tensors: module." in found.notes


# Every wrapper, around every kind


def convert_stylegan2_state() -> dict[str, np.ndarray]:
    file = torch_files.read(FOLDER / "python313_path" / "050000.pt")
    return dict(file.content["g_ema"])


def nvidia_state() -> dict[str, np.ndarray]:
    path = FOLDER / "nvidia_state_dict" / "StyleGAN2-ada-Generator.pth"
    return torch_files.tensors(torch_files.read(path).content)


def openai_state() -> dict[str, np.ndarray]:
    path = FOLDER / "clip_finetuned" / "model_10.pt"
    return dict(torch_files.read(path).content["model_state_dict"])


def transformers_state() -> dict[str, np.ndarray]:
    state: dict[str, np.ndarray] = {}
    for path in CLIP_FOLDER.glob("*.safetensors"):
        state |= torch_files.read(path).content
    return state


def identity_state() -> dict[str, np.ndarray]:
    path = golden_data.ROOT / golden_networks.IDENTITY
    return torch_files.tensors(torch_files.read(path).content)


def metric_state(path: str) -> dict[str, np.ndarray]:
    return torch_files.tensors(torch_files.read(METRICS / path).content)


def encoder_file() -> Any:
    return torch_files.read(FOLDER / "e4e_cars" / "e4e_cars_encode.pt").content


def mapper_file() -> Any:
    case = golden_data.Case("mapper/levels_no_fine")
    return golden_networks.mapper_checkpoint(case).content


OPENAI = clip_architecture.Settings(architecture="openai")
FOUR_HEADS = clip_architecture.Settings(
    activation="gelu",
    vision_heads=4,
    text_heads=4,
    pixel_mean=(0.5, 0.5, 0.5),
    pixel_std=(0.5, 0.5, 0.5),
)
Convert = Callable[[TorchFile], Conversion]
# Kind, its conversion and state dict, and what stands beside that.
KINDS: dict[str, tuple[Convert, Callable[[], Any], Callable[[], Any]]] = {
    "rosinality": (convert_stylegan2.convert, convert_stylegan2_state, dict),
    "nvidia": (convert_stylegan2.convert, nvidia_state, dict),
    "openai": (lambda x: convert_clip.convert(x, OPENAI), openai_state, dict),
    "transformers": (
        lambda x: convert_clip.convert(x, FOUR_HEADS),
        transformers_state,
        dict,
    ),
    "irse50": (convert_irse50.convert, identity_state, dict),
    "vgg16": (
        convert_vgg16.convert,
        lambda: metric_state("vgg16_lpips_tiny/vgg16-tiny.pth"),
        dict,
    ),
    "inception": (
        convert_inception.convert,
        lambda: metric_state("inception_tiny/inception-tiny.pth"),
        dict,
    ),
    "e4e": (
        convert_e4e.convert,
        lambda: encoder_file()["state_dict"],
        lambda: {name: encoder_file()[name] for name in ("opts", "latent_avg")},
    ),
    "mapper": (
        convert_mapper.convert,
        lambda: mapper_file()["state_dict"],
        lambda: {"opts": mapper_file()["opts"]},
    ),
}


def below(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": x for name, x in state.items()}


def inside(state: dict[str, Any]) -> dict[str, Any]:
    """Names with a level of a wrapped module inside of them."""
    names = ((name.partition("."), x) for name, x in state.items())
    return {f"{a}._fsdp_wrapped_module.{b}" if b else a: x for ((a, _, b), x) in names}


def other(state: dict[str, Any]) -> dict[str, Any]:
    """Other weights; kernels of filters are the same in all generators."""
    fir = ("kernel", "resample_filter")
    return {name: x if name.endswith(fir) else x + 1 for name, x in state.items()}


OPTIMIZER = {"state": {0: {"exp_avg": np.ones(3)}}, "param_groups": [{"lr": 1.0}]}
WRAPPERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "DataParallel": (lambda s: below("module.", s), "module."),
    "torch.compile": (lambda s: below("_orig_mod.", s), "_orig_mod."),
    "FSDP": (inside, ""),
    "Lightning": (
        lambda s: {
            "state_dict": below("net.model.", s) | {"criterion.weight": np.ones(3)},
            "optimizer_states": [OPTIMIZER],
            "pytorch-lightning_version": "2.0",
        },
        "state_dict.net.model.",
    ),
    "recipe": (
        lambda s: {
            "epoch": 9,
            "model_state_dict": s,
            "optimizer_state_dict": OPTIMIZER,
        },
        "model_state_dict.",
    ),
    "two levels": (
        lambda s: {"checkpoint": {"model": below("module.", s)}, "training_state": {}},
        "checkpoint.model.module.",
    ),
    "average": (
        lambda s: {"net": other(s), "net_ema": s, "n_averaged": np.ones(())},
        "net_ema.",
    ),
    "average of a training": (
        lambda s: {
            "state_dict": below("generator.", other(s)) | below("ema.model.", s)
        },
        "state_dict.ema.model.",
    ),
    "module": (lambda s: Object("lab.Net", (), module_of(s)), ""),
}


def module_of(state: dict[str, Any]) -> dict[str, Any]:
    return {"_parameters": state, "_buffers": {}, "_modules": {}, "training": False}


def assert_same(found: Conversion, expected: Conversion) -> None:
    assert found.config == expected.config
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], tensor, err_msg=name)
    for name, part in expected.parts.items():
        assert_same(found.parts[name], part)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kind", KINDS)
def test_wrappers_make_no_difference(kind: str, wrapper: str) -> None:
    convert, state_of, beside_of = KINDS[kind]
    wrap, path = WRAPPERS[wrapper]
    official = {"state_dict": state_of()} if beside_of() else state_of()
    expected = convert(TorchFile("x.pt", "zip", official | beside_of()))
    content = wrap(state_of())
    if isinstance(content, Object):
        content = {"net": content} if beside_of() else content
        path = "net." if beside_of() else path
    elif beside_of() and "." in next(iter(content)):
        # Their options need a level to stand in.
        content = {"state_dict": content}
        path = f"state_dict.{path}" if path else ""
    file = TorchFile("x.pt", "zip", content | beside_of() if beside_of() else content)
    found = convert(file)
    assert_same(found, expected)
    if path:
        assert f"taken off the names of its tensors: {path}" in found.notes
    assert kinds._detect(file) == found.kind


def test_what_is_left_out_is_told() -> None:
    state = convert_stylegan2_state()
    content = {"g": other(state), "g_ema": state, "d": {"a.b": np.ones(2)}, "args": 1}
    notes = convert_stylegan2.convert(TorchFile("x.pt", "zip", content)).notes
    assert f"left out, tensors of: g ({len(state)}), d (1)" in notes


def test_names_beside_those_of_a_wrapped_module_are_left_out() -> None:
    """As DeepSpeed keeps its own, and averages their counts."""
    state = convert_stylegan2_state()
    content = {"module": state, "loss_scale": np.ones(1), "dp_world_size": 1}
    found = convert_stylegan2.convert(TorchFile("x.pt", "zip", content))
    assert_same(found, convert_stylegan2.convert(TorchFile("x.pt", "zip", state)))
    assert "left out, tensors of: loss_scale (1)" in found.notes


def test_a_level_of_two_copies_is_chosen_by_its_name() -> None:
    state = convert_stylegan2_state()
    file = TorchFile("x.pt", "zip", other(state) | below("module.", state))
    message = programs.refusal(convert_stylegan2.convert, file)
    assert "style.1.weight and module.style.1.weight would both become" in message
    found = convert_stylegan2.convert(dataclasses.replace(file, part="module"))
    assert_same(found, convert_stylegan2.convert(TorchFile("x.pt", "zip", state)))


def test_weights_that_are_no_average_are_used_and_told() -> None:
    state = convert_stylegan2_state()
    expected = convert_stylegan2.convert(TorchFile("x.pt", "zip", state))
    for content in ({"g": state}, {"g": state, "g_ema": None}):
        found = convert_stylegan2.convert(TorchFile("x.pt", "zip", content))
        assert_same(found, expected)
        assert any("has no averaged weights" in note for note in found.notes)
    assert not any("has no averaged weights" in note for note in expected.notes)


def test_networks_that_count_alike_are_asked_for() -> None:
    state = convert_stylegan2_state()
    content = {"G_A": state, "G_B": other(state)}
    file = TorchFile("x.pt", "zip", content)
    message = programs.refusal(convert_stylegan2.convert, file)
    assert "found 2 (G_A, G_B); give one as --part" in message
    chosen = dataclasses.replace(file, part="G_B")
    expected = convert_stylegan2.convert(TorchFile("x.pt", "zip", other(state)))
    assert_same(convert_stylegan2.convert(chosen), expected)
    absent = dataclasses.replace(file, part="G_C")
    assert "found none" in programs.refusal(convert_stylegan2.convert, absent)


def test_networks_of_two_kinds_side_by_side_are_asked_for() -> None:
    content = {"generator": convert_stylegan2_state(), "clip": openai_state()}
    message = programs.refusal(kinds._detect, TorchFile("x.pt", "zip", content))
    assert "found stylegan2 and clip; give one as --kind" in message


def test_names_that_become_one_are_refused() -> None:
    state = convert_stylegan2_state()
    content = state | {"input.module.input": state["input.input"]}
    message = programs.refusal(
        convert_stylegan2.convert, TorchFile("x.pt", "zip", content)
    )
    assert "input.input and input.module.input would both become" in message


def test_encoders_and_mappers_alone_are_read() -> None:
    content = encoder_file()
    state = {
        name.removeprefix("encoder."): x
        for name, x in content["state_dict"].items()
        if name.startswith("encoder.")
    }
    average = content["latent_avg"]
    file = TorchFile("x.pt", "zip", {"encoder": state, "latent_avg": average})
    settings = convert_e4e.EncoderSettings(dataset_type="cars_encode")
    found = convert_e4e.convert(file, settings)
    expected = convert_e4e.convert(TorchFile("x.pt", "zip", encoder_file()))
    assert_same(
        dataclasses.replace(found, parts={}), dataclasses.replace(expected, parts={})
    )
    # Without the flag, a line says what is assumed.
    assert convert_e4e.convert(file).config.input_height is None
    assert any(
        "--dataset_type=cars_encode" in x for x in convert_e4e.convert(file).notes
    )
    state = {
        name.removeprefix("mapper."): x
        for name, x in mapper_file()["state_dict"].items()
        if name.startswith("mapper.")
    }
    found = convert_mapper.convert(TorchFile("x.pt", "zip", state))
    assert found.config.levels == ("coarse", "medium")


# Forms met in public repositories


MMGENERATION = (
    (r"style\.(\d+)\.weight", r"style_mapping.\1.linear.weight_orig"),
    (r"style\.(\d+)\.bias", r"style_mapping.\1.bias"),
    (r"input\.input", "constant_input.input"),
    (r"(.*\.)conv\.weight", r"\1conv.weight_orig"),
    (r"(.*)\.modulation\.weight", r"\1.style_modulation.linear.weight_orig"),
    (r"(.*)\.modulation\.bias", r"\1.style_modulation.bias"),
    (r"(.*\.)noise\.weight", r"\1noise_injector.weight"),
    (r"noises\.noise_(\d+)", r"injected_noise_\1"),
)


def test_generators_of_mmgeneration_are_rosinality_s_under_other_names() -> None:
    state, renamed = convert_stylegan2_state(), {}
    for name, tensor in state.items():
        for pattern, replacement in MMGENERATION:
            name = re.sub(rf"^{pattern}$", replacement, name)
        renamed[f"generator_ema.module.{name}"] = tensor
    assert "generator_ema.module.convs.0.conv.weight_orig" in renamed
    file = TorchFile("x.pt", "zip", {"meta": {}, "state_dict": renamed})
    found = convert_stylegan2.convert(file)
    expected = convert_stylegan2.convert(TorchFile("x.pt", "zip", state))
    assert_same(found, expected)
    assert any("--color_order=bgr" in note for note in found.notes)
    turned = convert_stylegan2.convert(
        file, settings.GeneratorSettings(color_order="bgr")
    )
    for leaf in ("kernel", "bias"):
        name = f"synthesis/b8/torgb/{leaf}"
        np.testing.assert_array_equal(
            turned.tensors[name], expected.tensors[name][..., ::-1]
        )


def test_state_dicts_of_a_pickle_of_nvidia_are_told_apart() -> None:
    state = nvidia_state()
    file = TorchFile("x.pt", "zip", {"G": other(state), "D": {}, "G_ema": state})
    expected = convert_stylegan2.convert(TorchFile("x.pt", "zip", state))
    assert_same(convert_stylegan2.convert(file), expected)


def test_a_whole_clip_tells_its_activation_and_heads() -> None:
    """torch.save of OpenAI's module, as fine-tuning scripts do it."""

    def module(name: str, children: dict[str, Any], **state: Any) -> Object:
        modules = {"_modules": children, "_parameters": {}, "_buffers": {}}
        return Object(name, (), modules | state)

    def tower(heads: int) -> Object:
        attention = module("torch.nn.MultiheadAttention", {}, num_heads=heads)
        mlp = module(
            "torch.nn.Sequential", {"gelu": module("clip.model.QuickGELU", {})}
        )
        block = module(
            "clip.model.ResidualAttentionBlock", {"attn": attention, "mlp": mlp}
        )
        blocks = module("torch.nn.Sequential", {"0": block})
        return module("clip.model.Transformer", {"resblocks": blocks})

    visual = module("clip.model.VisionTransformer", {"transformer": tower(2)})
    content = module("clip.model.CLIP", {"visual": visual, "transformer": tower(4)})
    content.state["_parameters"] = openai_state()
    found = convert_clip.convert(TorchFile("x.pt", "zip", content))
    assert (found.config.vision_heads, found.config.text_heads) == (2, 4)
    assert found.config.text_act == "quick_gelu"
    told = "activation, vision_heads, text_heads: by the file's modules"
    assert told in found.notes


def test_a_clip_inside_of_a_classifier_is_read_without_it() -> None:
    """Lightning's checkpoint of a wrapper with a layer after the CLIP."""
    state = below("clipmodel.", openai_state()) | {"ff_head.weight": np.ones((2, 48))}
    file = TorchFile("x.ckpt", "zip", {"state_dict": state, "hyper_parameters": {}})
    found = convert_clip.convert(file)
    assert_same(
        found, convert_clip.convert(TorchFile("x", "zip", openai_state()), OPENAI)
    )
    assert "left out, tensors of: state_dict.ff_head (1)" in found.notes


def test_words_of_averages_are_told_from_others() -> None:
    layout = wrappers.Layout("ours", ("w",))
    for path in ("g_ema.", "netG_EMA.", "emaModel.", "ema_model.net.", "Gs.", "swa."):
        assert wrappers.Part(layout, path, {}, None, [], {}).is_averaged, path
    for path in ("g.", "schema.", "remade.", "model.", ""):
        assert not wrappers.Part(layout, path, {}, None, [], {}).is_averaged, path
