"""CLIP: features, tokens and both preprocessings against OpenAI's code."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import flax.serialization
import huggingface_hub
import huggingface_hub.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import transformers

from convert import clip as convert_clip
from convert import torch_files
from styleclip_jax.errors import UserError
from styleclip_jax.io import clip_files
from styleclip_jax.models import bpe, clip, clip_input
from styleclip_jax.models.network import Network
from tests import tiny

GOLDEN = pathlib.Path(__file__).parent / "golden"
CHECKPOINT = GOLDEN / "clip_vit" / "ViT-tiny-16.jit.pt"
NUM_MERGES = 500
SMALL = clip.ClipConfig(
    image_size=32,
    patch_size=16,
    vision_width=16,
    vision_layers=1,
    vision_heads=2,
    vision_mlp_width=32,
    vocab_size=bpe.NUM_TOKENS_BESIDE_MERGES + NUM_MERGES,
    context_length=16,
    eos_token_id=bpe.NUM_TOKENS_BESIDE_MERGES + NUM_MERGES - 1,
    text_width=16,
    text_layers=1,
    text_heads=2,
    text_mlp_width=32,
    embed_dim=8,
)
B32 = clip.ClipConfig()

encode_image = jax.jit(clip.encode_image, static_argnames="config")
encode_text = jax.jit(clip.encode_text, static_argnames="config")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "clip_vit" / "io.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def golden_clip(tmp_path_factory):
    directory = tmp_path_factory.mktemp("golden") / "clip"
    file = torch_files.read(CHECKPOINT)
    convert_clip.write(convert_clip.convert(file), directory)
    return clip_files.load(directory)


@pytest.fixture(scope="module")
def images(golden):
    return jnp.asarray(golden["images"].transpose(0, 2, 3, 1))


@pytest.fixture(scope="module")
def preprocessed():
    with np.load(GOLDEN / "clip_preprocess" / "io.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def small_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("small")
    clip_files.save(tiny.clip_network(SMALL), directory)
    bpe.write(bpe.OPENAI_MERGES, directory, NUM_MERGES)
    return directory


@pytest.fixture
def directory(small_directory, tmp_path):
    return shutil.copytree(small_directory, tmp_path / "clip")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    bpe.write(bpe.OPENAI_MERGES, directory)
    return bpe.read(*(directory / name for name in clip_files.TOKENIZER_FILES))


def assert_near(found, expected, relative=2e-5):
    """Greatest error at most a part of the greatest absolute value."""
    found = np.asarray(found)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= relative * np.abs(expected).max()


def sine_image(spec, size):
    """[size, size, 3] float32 of the golden data's formula."""
    a, fx, fy, phase = np.moveaxis(spec.astype(np.float64), -1, 0)[..., None, None]
    y, x = np.mgrid[:size, :size]
    waves = a * np.sin(2 * np.pi * (fx * x + fy * y) / size + phase)
    return waves.sum(1).transpose(1, 2, 0).astype(np.float32)


def test_features_and_logits_match_openai(golden, golden_clip, images):
    params, config = golden_clip.params, golden_clip.config
    image_feature = encode_image(params, images, config=config)
    text_feature = encode_text(params, golden["tokens"], config=config)
    assert_near(image_feature, golden["image_features"])
    assert_near(text_feature, golden["text_features"])
    for found, name in (
        (image_feature, "image_features"),
        (text_feature, "text_features"),
    ):
        cosine = np.sum(clip.normalize(found) * clip.normalize(golden[name]), -1)
        assert cosine.min() > 0.99999
    logits = clip.logits(params, image_feature, text_feature)
    assert_near(logits, golden["logits_per_image"])


def test_image_gradient_matches_openai(golden, golden_clip, images):
    def weighted(image):
        feature = clip.encode_image(golden_clip, image)
        return jnp.sum(feature * golden["grad_weight"])

    gradient = jax.jit(jax.grad(weighted))(images[:1])
    gradient = np.asarray(gradient).transpose(0, 3, 1, 2)
    pooled = gradient.reshape(1, 3, 8, 8, 8, 8).sum((3, 5))
    assert_near(pooled, golden["grad_image_pooled8"], 5e-5)
    assert_near(gradient[:, :, :32, :32], golden["grad_image_crop"], 6e-5)


def test_vmap_of_encoders_equals_their_batch(golden, golden_clip, images):
    params, config = golden_clip.params, golden_clip.config
    tokens = jnp.asarray(golden["tokens"])
    for encode, inputs in ((encode_image, images), (encode_text, tokens)):
        mapped = jax.vmap(lambda x, f=encode: f(params, x[None], config=config)[0])
        expected = np.asarray(encode(params, inputs, config=config))
        assert_near(mapped(inputs), expected, 1e-5)


def test_float32_multiplies_in_full_precision(small_directory):
    # Accelerators take less by default; on a CPU only the program tells.
    params, config = (n := clip_files.load(small_directory)).params, n.config

    def score(params, image, tokens):
        image = clip_input.preprocess_styleclip(Network({}, config), image)
        image_feature = clip.encode_image(Network(params, config), image)
        text_feature = clip.encode_text(Network(params, config), tokens)
        return clip.logits(params, image_feature, text_feature).sum()

    program = jax.jit(jax.grad(score, argnums=(0, 1))).lower(
        params, jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 16), jnp.int32)
    )
    multiplications = [
        line
        for line in program.as_text().splitlines()
        if "stablehlo.dot_general" in line or "stablehlo.convolution" in line
    ]
    assert len(multiplications) > 20
    for line in multiplications:
        assert line.count("HIGHEST") == 2, line


def test_padding_leaves_text_features_alone(golden_clip):
    tokens = np.array([[510, 7, 8, 511]], np.int32)
    padded = np.pad(tokens, ((0, 0), (0, 73)))
    found = [
        encode_text(golden_clip.params, t, config=golden_clip.config)
        for t in (tokens, padded)
    ]
    assert_near(found[0], np.asarray(found[1]), 1e-5)


def test_bfloat16_gives_nearby_float32_features(golden_clip, images):
    config = dataclasses.replace(golden_clip.config, dtype="bfloat16")
    exact = encode_image(golden_clip.params, images, config=golden_clip.config)
    rough = encode_image(golden_clip.params, images, config=config)
    assert rough.dtype == jnp.float32
    cosine = np.sum(clip.normalize(exact) * clip.normalize(rough), -1)
    assert cosine.min() > 0.99
    assert np.abs(exact - rough).max() > 1e-3


def test_new_params_reuse_the_compiled_program_and_new_config_does_not(golden_clip):
    traces = []

    @jax.jit
    def encode(network, image):
        traces.append(1)
        return clip.encode_image(network, image)

    image = jnp.zeros((1, 64, 64, 3))
    encode(golden_clip, image)
    encode(jax.tree.map(lambda x: x + 1, golden_clip), image)
    assert len(traces) == 1
    config = dataclasses.replace(golden_clip.config, dtype="bfloat16")
    encode(clip.Clip(golden_clip.params, config), image)
    assert len(traces) == 2


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 3, 32, 32), (1, 64, 64, 3)])
def test_encode_image_refuses_other_shapes(small_directory, shape):
    params, config = (n := clip_files.load(small_directory)).params, n.config
    with pytest.raises(ValueError, match=r"\[B, 32, 32, 3\], found"):
        clip.encode_image(Network(params, config), jnp.zeros(shape))


@pytest.mark.parametrize("shape", [(16,), (1, 17)])
def test_encode_text_refuses_other_shapes(small_directory, shape):
    params, config = (n := clip_files.load(small_directory)).params, n.config
    with pytest.raises(ValueError, match="at most 16"):
        clip.encode_text(Network(params, config), jnp.zeros(shape, jnp.int32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 30}, "multiple of patch_size"),
        ({"vision_heads": 5}, "multiple of vision_heads"),
        ({"text_heads": 3}, "multiple of text_heads"),
        ({"text_layers": 0}, "text_layers must be"),
        ({"embed_dim": 0.5}, "embed_dim must be"),
        ({"hidden_act": "sine"}, "hidden_act must be"),
        ({"dtype": "float16"}, "dtype must be"),
    ],
)
def test_config_refuses_impossible_architectures(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(B32, **change)


def test_transformers_reads_what_save_writes(golden, golden_clip, tmp_path):
    clip_files.save(golden_clip, tmp_path)
    model, params = transformers.FlaxCLIPModel.from_pretrained(tmp_path, _do_init=False)
    found = model.get_image_features(golden["images"], params=params)
    assert_near(found, golden["image_features"])
    found = model.get_text_features(golden["tokens"], params=params)
    assert_near(found, golden["text_features"])
    size = transformers.CLIPImageProcessor.from_pretrained(tmp_path).crop_size
    assert size == {"height": 64, "width": 64}


def test_saved_clip_loads_as_it_was(golden_clip, tmp_path):
    clip_files.save(golden_clip, tmp_path)
    loaded = clip_files.load(str(tmp_path))
    assert loaded.config == golden_clip.config
    jax.tree.map(np.testing.assert_array_equal, loaded.params, golden_clip.params)


def test_float16_storage_becomes_float32(golden_clip, tmp_path):
    clip_files.save(golden_clip, tmp_path, dtype="float16")
    stored = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert {x.dtype for x in stored.values()} == {np.dtype("float16")}
    loaded = clip_files.load(tmp_path)
    assert {x.dtype for x in jax.tree.leaves(loaded.params)} == {np.dtype("float32")}
    kernel = loaded.params["text_projection"]["kernel"]
    expected = golden_clip.params["text_projection"]["kernel"]
    np.testing.assert_array_equal(kernel, expected.astype(np.float16))


def test_msgpack_weights_load(directory):
    expected = clip_files.load(directory)
    (directory / "model.safetensors").unlink()
    (directory / "flax_model.msgpack").write_bytes(
        flax.serialization.msgpack_serialize(jax.device_get(expected.params))
    )
    loaded = clip_files.load(directory)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, expected.params)


def test_names_on_the_hub_are_downloaded(small_directory, monkeypatch):
    def download(name, filename):
        assert name == "someone/small-clip"
        if not (small_directory / filename).exists():
            raise entry_not_found(filename)
        return str(small_directory / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert clip_files.load("someone/small-clip").config == SMALL
    expected = bpe.NUM_TOKENS_BESIDE_MERGES + NUM_MERGES
    assert clip_files.load_tokenizer("someone/small-clip").num_tokens == expected


def entry_not_found(filename):
    # Its constructor wants an answer of the hub.
    error = huggingface_hub.errors.EntryNotFoundError
    return error.__new__(error, f"no {filename}")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (huggingface_hub.errors.LocalEntryNotFoundError("no"), "cannot be reached"),
        (OSError("disk\nfull"), r"config.json \(disk full\)"),
    ],
)
def test_trouble_with_the_hub_is_one_line(monkeypatch, error, message):
    def download(name, filename):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UserError, match=f"someone/small-clip: .*{message}"):
        clip_files.load("someone/small-clip")


def set_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def set_text_config(directory, **changes):
    text = json.loads((directory / "config.json").read_text())["text_config"]
    set_config(directory, text_config=text | changes)


def rewrite_weights(directory, change, metadata):
    path = directory / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path, metadata=metadata)


FLAX = {"format": "flax"}
DAMAGES = {
    "missing configuration": (
        lambda d: (d / "config.json").unlink(),
        "has no config.json",
    ),
    "configuration that is not JSON": (
        lambda d: (d / "config.json").write_text("{"),
        "config.json: expected JSON",
    ),
    "configuration that is no object": (
        lambda d: (d / "config.json").write_text("[]"),
        "expected a JSON object",
    ),
    "another model": (
        lambda d: set_config(d, model_type="bert"),
        "expected model_type 'clip', found 'bert'",
    ),
    "impossible configuration": (
        lambda d: set_text_config(d, num_attention_heads=3),
        "config.json: not a valid CLIP configuration .text_width 16",
    ),
    "two activations": (
        lambda d: set_text_config(d, hidden_act="gelu"),
        "hidden_act differs",
    ),
    "missing weights": (
        lambda d: (d / "model.safetensors").unlink(),
        "found neither; PyTorch weights are converted by",
    ),
    "PyTorch weights": (
        lambda d: rewrite_weights(d, lambda _: None, {"format": "pt"}),
        r"found 'pt'; .*python -m convert .*model.safetensors --output OUT",
    ),
    "truncated safetensors": (
        lambda d: (d / "model.safetensors").write_bytes(
            (d / "model.safetensors").read_bytes()[:-100]
        ),
        "model.safetensors: not a readable safetensors file",
    ),
    "truncated msgpack": (
        lambda d: (d / "flax_model.msgpack").write_bytes(b"\x81\xa1a"),
        "flax_model.msgpack: not a readable msgpack file",
    ),
    "missing tensor": (
        lambda d: rewrite_weights(d, lambda t: t.pop("logit_scale"), FLAX),
        "missing logit_scale",
    ),
    "surplus tensor": (
        lambda d: rewrite_weights(
            d, lambda t: t.update(extra=np.zeros(1, np.float32)), FLAX
        ),
        "surplus extra",
    ),
    "misshapen tensor": (
        lambda d: set_text_config(d, vocab_size=2000),
        r"token_embedding/embedding: expected \[2000, 16\], found \[1014, 16\]",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_load_refuses(directory, damage, message):
    damage(directory)
    with pytest.raises(UserError, match=message) as error:
        clip_files.load(directory)
    assert str(directory) in str(error.value)
    assert "\n" not in str(error.value)


def test_load_refuses_what_is_no_directory(directory, monkeypatch):
    def download(name, filename):
        raise AssertionError("a path was taken for a name on the hub")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.chdir(directory.parent)
    for name in ("clip/mistyped", "mistyped", "a/b/mistyped", "/mistyped"):
        with pytest.raises(UserError, match=f"{name}: no such CLIP directory"):
            clip_files.load(name)
    with pytest.raises(UserError, match=r"found a file; .*python -m convert"):
        clip_files.load(directory / "config.json")


def test_import_leaves_transformers_out_and_load_says_nothing(small_directory):
    program = (
        "import sys; from styleclip_jax.models import clip; "
        "assert 'transformers' not in sys.modules; "
        f"network = clip.load({str(small_directory)!r}); "
        f"clip.save(network, {str(small_directory / 'again')!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=GOLDEN.parent.parent,
    )
    assert done.stdout + done.stderr == ""


def test_tokens_match_openai(tokenizer):
    document = json.loads((GOLDEN / "clip_tokenizer" / "tokens.json").read_text())
    prompts = document["prompts"]
    found = clip.tokenize(
        tokenizer, [p["text"] for p in prompts], context_length=77, truncate=True
    )
    expected = np.zeros((len(prompts), 77), np.int32)
    for row, prompt in zip(expected, prompts, strict=True):
        row[: len(prompt["ids"])] = prompt["ids"]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


def test_entities_are_unescaped_twice(tokenizer):
    # ftfy leaves entities alone where a text contains "<".
    found, expected = clip.tokenize(tokenizer, ["< &amp;amp;", "< &"], context_length=5)
    np.testing.assert_array_equal(found, expected)


def test_empty_text_is_start_and_end(tokenizer):
    found = clip.tokenize(tokenizer, [" "], context_length=4)
    np.testing.assert_array_equal(found, [[49406, 49407, 0, 0]])


def test_text_of_full_length_fits_and_longer_text_is_refused(tokenizer):
    found = clip.tokenize(tokenizer, ["a a a"], context_length=5)
    np.testing.assert_array_equal(found, [[49406, 320, 320, 320, 49407]])
    with pytest.raises(UserError, match=r"'a a a a': expected at most 5 .* found 6"):
        clip.tokenize(tokenizer, ["a", "a a a a"], context_length=5)
    cut = clip.tokenize(tokenizer, ["a a a a"], context_length=5, truncate=True)
    np.testing.assert_array_equal(cut, found)


def test_shortened_vocabulary_matches_transformers(small_directory):
    tokenizer = clip_files.load_tokenizer(small_directory)
    assert tokenizer.num_tokens == SMALL.vocab_size
    reference = transformers.CLIPTokenizer.from_pretrained(small_directory)
    for text in (
        "A woman with  purple hair",
        "it's 1960, isn't it?",
        "naïve café",
        "that'ſ",
    ):
        expected = reference(text)["input_ids"]
        found = clip.tokenize(tokenizer, [text], context_length=len(expected))
        np.testing.assert_array_equal(found, [expected])


TOKENIZER_DAMAGES = {
    "missing vocabulary": (
        lambda d: (d / "vocab.json").unlink(),
        "has no vocab.json",
    ),
    "vocabulary that is not JSON": (
        lambda d: (d / "vocab.json").write_text("{"),
        "vocab.json: expected JSON",
    ),
    "ids that are no numbers": (
        lambda d: (d / "vocab.json").write_text('{"a": "b"}'),
        "vocab.json: expected an object with ids",
    ),
    "vocabulary without bytes": (
        lambda d: (d / "vocab.json").write_text('{"a": 0}'),
        "'!' is missing",
    ),
    "merges that are not pairs": (
        lambda d: (d / "merges.txt").write_text("#version: 0.2\na b c\n"),
        "merges.txt: expected two symbols a line",
    ),
    "merges without a token": (
        lambda d: (d / "merges.txt").write_text("#version: 0.2\nz z\n"),
        "'zz' is missing",
    ),
    "merges that are no text": (
        lambda d: (d / "merges.txt").write_bytes(b"\xff"),
        "merges.txt: expected text",
    ),
    "vocabulary of a larger model": (
        lambda d: set_text_config(d, vocab_size=1000),
        "has 1014 tokens, but vocab_size in config.json is 1000",
    ),
}


@pytest.mark.parametrize(
    ("damage", "message"), TOKENIZER_DAMAGES.values(), ids=TOKENIZER_DAMAGES
)
def test_load_tokenizer_refuses(directory, damage, message):
    damage(directory)
    with pytest.raises(UserError, match=message) as error:
        clip_files.load_tokenizer(directory)
    assert "\n" not in str(error.value)


def test_write_refuses_a_broken_or_short_list_of_merges(tmp_path):
    with pytest.raises(UserError, match=r"none\.gz: not a gzip file.*No such file"):
        bpe.write(tmp_path / "none.gz", tmp_path)
    (tmp_path / "text.gz").write_text("a b")
    with pytest.raises(UserError, match=r"text\.gz: not a gzip file"):
        bpe.write(tmp_path / "text.gz", tmp_path)
    with pytest.raises(UserError, match="expected 1000000 lines"):
        bpe.write(bpe.OPENAI_MERGES, tmp_path, 1_000_000)


def official_composition(image):
    """Nearest upsampling by 7, then average pooling by H / 32."""
    kernel = image.shape[1] // 32
    image = jnp.repeat(jnp.repeat(image, 7, axis=1), 7, axis=2)
    batch, _, _, channels = image.shape
    return image.reshape(batch, 224, kernel, 224, kernel, channels).mean((2, 4))


@pytest.mark.parametrize("size", [32, 64, 96, 128, 256, 512, 1024])
def test_styleclip_preprocessing_is_the_official_composition(size):
    image, cotangent = tiny.normal(0, 1, size, size, 3), tiny.normal(1, 1, 224, 224, 3)

    @jax.jit
    def both(image):
        ours, back = jax.vjp(
            lambda x: clip_input.preprocess_styleclip(Network({}, B32), x), image
        )
        theirs, their_back = jax.vjp(official_composition, image)
        return (ours, *back(cotangent)), (theirs, *their_back(cotangent))

    for found, expected in zip(*both(image), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_styleclip_preprocessing_matches_golden(preprocessed):
    images = {
        64: preprocessed["image_64"][0].transpose(1, 2, 0),
        1024: sine_image(preprocessed["sine_spec_1024"], 1024),
    }
    for size, image in images.items():
        found = clip_input.preprocess_styleclip(
            Network({}, B32), jnp.asarray(image[None])
        )
        expected = preprocessed[f"clip_input_{size}"].transpose(0, 2, 3, 1)
        assert_near(found[:, ::2, ::2], expected)


def test_styleclip_preprocessing_passes_images_of_the_right_size():
    image = tiny.normal(0, 2, 32, 32, 3)
    found = clip_input.preprocess_styleclip(Network({}, SMALL), image)
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("size", [16, 24, 40, 64])
def test_styleclip_preprocessing_keeps_the_mean_at_any_size(size):
    image = tiny.normal(0, 1, size, size, 3)
    found = clip_input.preprocess_styleclip(Network({}, SMALL), image)
    assert found.shape == (1, 32, 32, 3)
    np.testing.assert_allclose(found.mean((1, 2)), image.mean((1, 2)), atol=1e-5)


def test_8_bit_preprocessing_is_bit_for_bit_that_of_pil(preprocessed):
    spec = preprocessed["pil_sine_spec_1024x1024"]
    levels = np.clip((sine_image(spec, 1024) + 1) * np.float32(127.5), 0, 255)
    images = {
        "64x64": preprocessed["pil_64x64"],
        "300x200": preprocessed["pil_300x200"],
        "1024x1024": np.floor(levels).astype(np.uint8),
    }
    for name, image in images.items():
        found = clip_input.preprocess_clip_uint8(
            Network({}, B32), jnp.asarray(image[None])
        )[0]
        found = (
            found * np.array(clip_input.PIXEL_STD) + np.array(clip_input.PIXEL_MEAN)
        ) * 255
        expected = preprocessed[f"pil_resized_{name}"].astype(np.float32)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_8_bit_preprocessing_matches_the_whole_transform(preprocessed):
    image = jnp.asarray(preprocessed["pil_64x64"][None])
    found = clip_input.preprocess_clip_uint8(Network({}, B32), image)[:, ::2, ::2]
    expected = preprocessed["pil_preprocessed_64x64"].transpose(1, 2, 0)[None]
    assert_near(found, expected, 1e-6)


@pytest.mark.parametrize("name", ["64x64", "300x200"])
def test_differentiable_preprocessing_is_within_rounding_of_pil(preprocessed, name):
    image = preprocessed[f"pil_{name}"][None].astype(np.float32) / 127.5 - 1
    found = clip_input.preprocess_clip(Network({}, B32), jnp.asarray(image))[0]
    found = (
        found * np.array(clip_input.PIXEL_STD) + np.array(clip_input.PIXEL_MEAN)
    ) * 255
    error = np.abs(found - preprocessed[f"pil_resized_{name}"])
    # Half a level from each of PIL's two roundings, the first amplified by overshoot.
    assert error.max() < 1.2


def test_gradient_of_differentiable_preprocessing_is_its_slope():
    # Far from the bounds the map is affine, so a finite step is exact.
    image, step = 0.2 * tiny.image(2, 56)[:, None, :40]
    cotangent = tiny.normal(2, 1, 32, 32, 3)

    @jax.jit
    def preprocess(x):
        return clip_input.preprocess_clip(Network({}, SMALL), x)

    _, back = jax.vjp(preprocess, image)
    change = preprocess(image + step) - preprocess(image)
    assert np.abs(change).max() > 0.1
    slope = jnp.sum(back(cotangent)[0] * step)
    np.testing.assert_allclose(slope, jnp.sum(change * cotangent), rtol=1e-4)


def test_differentiable_preprocessing_clips_like_8_bit_images():
    image = jnp.full((1, 48, 48, 3), 1.5)
    np.testing.assert_array_equal(
        clip_input.preprocess_clip(Network({}, SMALL), image),
        clip_input.preprocess_clip(Network({}, SMALL), jnp.clip(image, -1, 1)),
    )


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [("torch", [0, 0, 127, 128, 255, 255]), ("tf", [0, 0, 128, 128, 255, 255])],
)
def test_uint8_rounding(rounding, expected):
    image = jnp.array([-2.0, -1.0, 0.0, 0.00393, 1.0, 2.0])
    found = clip_input.to_uint8(image, rounding=rounding)
    assert found.dtype == jnp.uint8
    np.testing.assert_array_equal(found, expected)


def test_torch_rounding_is_half_a_level_darker_on_average():
    image = jnp.linspace(-0.99, 0.99, 10_001)
    torch, tf = (
        clip_input.to_uint8(image, rounding=name).astype(jnp.float32).mean()
        for name in ("torch", "tf")
    )
    np.testing.assert_allclose(tf - torch, 0.5, atol=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: clip_input.preprocess_styleclip(Network({}, SMALL), x[0]),
            r"\[B, H, W, 3\]",
        ),
        (
            lambda x: clip_input.preprocess_styleclip(Network({}, SMALL), x[:, :4]),
            "square",
        ),
        (
            lambda x: clip_input.preprocess_clip(Network({}, SMALL), x[..., :1]),
            r"\[B, H, W, 3\]",
        ),
        (
            lambda x: clip_input.preprocess_clip_uint8(Network({}, SMALL), x),
            "expected uint8",
        ),
        (lambda x: clip_input.to_uint8(x, rounding="nearest"), "rounding must be"),
    ],
)
def test_preprocessing_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((1, 8, 8, 3)))
