"""Conversion of CLIP: PyTorch files of OpenAI and transformers to Flax."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from convert import clip as convert_clip
from convert import clip_architecture
from styleclip_jax.errors import UserError
from styleclip_jax.io import clip_files, torch_files
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import bpe, clip
from styleclip_jax.ops import norms
from tests import golden_data, golden_networks

CHECKPOINT = golden_data.ROOT / golden_networks.CLIP
CONFIG = clip.ClipConfig(
    image_size=64,
    patch_size=16,
    vision_width=64,
    vision_layers=2,
    vision_heads=1,
    vision_mlp_width=256,
    vocab_size=512,
    context_length=77,
    eos_token_id=511,
    text_width=128,
    text_layers=2,
    text_heads=2,
    text_mlp_width=512,
    embed_dim=32,
)
encode_image = jax.jit(clip.encode_image)
encode_text = jax.jit(clip.encode_text)


@pytest.fixture(scope="module")
def archive():
    return torch_files.read(CHECKPOINT)


@pytest.fixture
def state(archive):
    return torch_files.tensors(archive.content)


def state_file(state):
    return TorchFile("some/clip.pt", "zip", state)


def to_transformers(state):
    """Tensors of OpenAI's names under those of transformers' CLIPModel."""
    found = {}
    for name, tensor in state.items():
        tower = "vision_model" if name.startswith("visual.") else "text_model"
        name = name.removeprefix("visual.")
        for old, new in (
            ("transformer.resblocks", f"{tower}.encoder.layers"),
            ("attn.out_proj", "self_attn.out_proj"),
            ("mlp.c_fc", "mlp.fc1"),
            ("mlp.c_proj", "mlp.fc2"),
            ("ln_1", "layer_norm1"),
            ("ln_2", "layer_norm2"),
            ("ln_pre", f"{tower}.pre_layrnorm"),
            ("ln_post", f"{tower}.post_layernorm"),
            ("ln_final", f"{tower}.final_layer_norm"),
            ("conv1", f"{tower}.embeddings.patch_embedding"),
            ("class_embedding", f"{tower}.embeddings.class_embedding"),
            ("token_embedding", f"{tower}.embeddings.token_embedding"),
        ):
            name = name.replace(old, new)
        if name in ("input_resolution", "context_length", "vocab_size"):
            continue
        if name == "positional_embedding":
            found[f"{tower}.embeddings.position_embedding.weight"] = tensor
            positions = np.arange(len(tensor))[None]
            found[f"{tower}.embeddings.position_ids"] = positions
        elif name in ("proj", "text_projection"):
            kind = "visual" if name == "proj" else "text"
            found[f"{kind}_projection.weight"] = np.ascontiguousarray(tensor.T)
        elif "attn.in_proj_" in name:
            layer, suffix = name.split("attn.in_proj_")
            for part, third in zip("qkv", np.split(tensor, 3), strict=True):
                found[f"{layer}self_attn.{part}_proj.{suffix}"] = third
        else:
            found[name] = tensor
    return found


def write_transformers(state, directory, config=True):
    """A folder as CLIPModel.save_pretrained writes it."""
    directory.mkdir(parents=True)
    path = directory / "model.safetensors"
    safetensors.numpy.save_file(to_transformers(state), path, {"format": "pt"})
    if config:
        # Values that differ from the defaults only.
        document = {
            "model_type": "clip",
            "projection_dim": 32,
            "text_config": {
                "vocab_size": 512,
                "hidden_size": 128,
                "intermediate_size": 512,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "eos_token_id": 2,
            },
            "vision_config": {
                "image_size": 64,
                "patch_size": 16,
                "hidden_size": 64,
                "intermediate_size": 256,
                "num_hidden_layers": 2,
                "num_attention_heads": 1,
            },
        }
        (directory / "config.json").write_text(json.dumps(document))
    return path


def assert_golden(network, golden):
    """Features of a converted and loaded network are OpenAI's."""
    images = golden["images"].transpose(0, 2, 3, 1)
    for found, name in (
        (encode_image(network, images), "image_features"),
        (encode_text(network, golden["tokens"]), "text_features"),
    ):
        expected = golden[name]
        cosine = np.sum(norms.unit(found) * norms.unit(expected), -1)
        assert cosine.min() > 0.99999
        assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


def test_openai_archive_converts_to_the_same_features(archive, golden, tmp_path):
    assert convert_clip.recognize(archive)
    conversion = convert_clip.convert(archive)
    assert conversion.kind == "clip"
    assert conversion.config == CONFIG
    convert_clip.write(conversion, tmp_path / "clip")
    network = clip_files.load(tmp_path / "clip")
    assert network.config == CONFIG
    assert_golden(network, golden)


def test_plain_state_dict_converts_like_the_archive(archive, state):
    for name in ("input_resolution", "context_length", "vocab_size"):
        del state[name]
    found = convert_clip.convert(state_file(state)).tensors
    expected = convert_clip.convert(archive).tensors
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_half_precision_becomes_float32_exactly(state):
    assert state["visual.proj"].dtype == np.float16
    found = convert_clip.convert(state_file(state)).tensors
    assert {x.dtype for x in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(
        found["visual_projection/kernel"], state["visual.proj"].astype(np.float32)
    )


@pytest.mark.slow
def test_transformers_pytorch_files_convert_to_the_same_features(
    state, golden, tmp_path
):
    file = torch_files.read(write_transformers(state, tmp_path / "pt"))
    assert convert_clip.recognize(file)
    conversion = convert_clip.convert(file)
    assert conversion.config.eos_token_id == 2
    convert_clip.write(conversion, tmp_path / "clip")
    assert_golden(clip_files.load(tmp_path / "clip"), golden)


def test_transformers_configuration_counts_where_it_is(state, tmp_path):
    path = write_transformers(state, tmp_path / "pt")
    document = json.loads((path.parent / "config.json").read_text())
    document["text_config"] |= {"num_attention_heads": 4, "hidden_act": "gelu"}
    document["vision_config"] |= {"hidden_act": "gelu"}
    (path.parent / "config.json").write_text(json.dumps(document))
    config = convert_clip.convert(torch_files.read(path)).config
    assert (config.text_heads, config.text_act) == (4, "gelu")


def test_transformers_file_alone_needs_its_configuration(state, tmp_path):
    path = write_transformers(state, tmp_path / "pt", config=False)
    file = torch_files.read(path)
    with pytest.raises(UserError, match="no configuration stands beside it"):
        convert_clip.convert(file)
    settings = clip_architecture.Settings(architecture="openai")
    assert convert_clip.convert(file, settings).config == CONFIG


def test_other_files_are_not_recognized():
    for content in ({}, {"g_ema": {"a": np.zeros(1)}}, {"visual.proj": np.zeros(1)}):
        assert not convert_clip.recognize(state_file(content))
        with pytest.raises(UserError, match=r"some/clip.pt: expected a CLIP"):
            convert_clip.convert(state_file(content))


def rename(state, old, new):
    state[new] = state.pop(old)


DAMAGES = {
    "missing tensor": (
        lambda s: s.pop("ln_final.bias"),
        r"1 missing tensor \(text_model/final_layer_norm/bias\)",
    ),
    "missing tensor that tells the architecture": (
        lambda s: s.pop("text_projection"),
        "missing tensor .text_projection/kernel",
    ),
    "surplus tensor": (
        lambda s: s.update(extra=np.zeros(3)),
        r"1 surplus tensor \(extra\)",
    ),
    "renamed tensor": (
        lambda s: rename(s, "ln_final.bias", "ln_last.bias"),
        r"1 missing tensor .* 1 surplus tensor \(ln_last.bias\)",
    ),
    "misshapen tensor": (
        lambda s: s.update({"ln_final.bias": np.zeros(7)}),
        r"expected \[128\] found \[7\]",
    ),
    "patches that make no square": (
        lambda s: s.update({"visual.positional_embedding": np.zeros((16, 64))}),
        "expected a square number of patches, found 15",
    ),
    "attention that does not stack three": (
        lambda s: s.update(
            {"transformer.resblocks.0.attn.in_proj_bias": np.zeros(383)}
        ),
        "in_proj_bias",
    ),
    "width below one head": (
        lambda s: s.update({"visual.conv1.weight": np.zeros((32, 3, 16, 16))}),
        "vision_heads must be",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_convert_refuses(state, damage, message):
    damage(state)
    with pytest.raises(UserError, match=rf"some/clip\.pt: .*{message}") as error:
        convert_clip.convert(state_file(state))
    assert "\n" not in str(error.value)


def test_openai_vocabulary_is_written_beside_a_clip_that_has_it(state, tmp_path):
    num_tokens = bpe.NUM_TOKENS_BESIDE_MERGES + bpe.NUM_MERGES
    state["token_embedding.weight"] = np.zeros((num_tokens, 128), np.float16)
    conversion = convert_clip.convert(state_file(state))
    assert "tokenizer: OpenAI's" in conversion.notes[-1]
    convert_clip.write(conversion, tmp_path / "clip")
    tokenizer = clip_files.load_tokenizer(tmp_path / "clip")
    tokens = bpe.tokenize(tokenizer, ["a face"], context_length=5)
    np.testing.assert_array_equal(tokens, [[49406, 320, 1710, 49407, 0]])


def test_other_vocabulary_is_copied_or_missed(state, tmp_path):
    path = write_transformers(state, tmp_path / "pt")
    conversion = convert_clip.convert(torch_files.read(path))
    assert "a vocabulary of 512 tokens is not OpenAI's" in conversion.notes[-1]
    for names in (("tokenizer.json",), clip_files.TOKENIZER_FILES):
        for name in names:
            (path.parent / name).write_text(name)
        conversion = convert_clip.convert(torch_files.read(path))
        assert [path.name for path in conversion.tokenizer] == [*names]
    convert_clip.write(conversion, tmp_path / "clip")
    for name in clip_files.TOKENIZER_FILES:
        assert (tmp_path / "clip" / name).read_text() == name


def test_write_leaves_nothing_behind_when_it_fails(archive, tmp_path, monkeypatch):
    def fail(network, directory):
        (directory / "config.json").write_text("{}")
        raise OSError("disk full")

    monkeypatch.setattr(clip_files, "save", fail)
    with pytest.raises(UserError, match="disk full"):
        convert_clip.write(convert_clip.convert(archive), tmp_path / "made" / "clip")
    assert list(tmp_path.iterdir()) == []
