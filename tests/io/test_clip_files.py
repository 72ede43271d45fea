"""Folders of CLIP: what is saved loads again and in transformers; what is refused."""

import json
import shutil
import subprocess
import sys

import flax.serialization
import huggingface_hub
import huggingface_hub.errors
import jax
import numpy as np
import pytest
import safetensors.numpy
import transformers

from styleclip_jax.errors import UserError
from styleclip_jax.io import clip_files, files
from styleclip_jax.models import bpe
from tests import golden_data, programs, tiny
from tests.golden_data import assert_near


@pytest.fixture(scope="module")
def small_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("small")
    clip_files.save(tiny.clip_network(tiny.CLIP_32), directory)
    bpe.write(bpe.OPENAI_MERGES, directory, tiny.NUM_MERGES)
    return directory


@pytest.fixture
def directory(small_directory, tmp_path):
    return shutil.copytree(small_directory, tmp_path / "clip")


@pytest.mark.slow
def test_transformers_reads_what_save_writes(
    golden, golden_clip, flax_clip_model, tmp_path
):
    clip_files.save(golden_clip, tmp_path)
    model, params = flax_clip_model.from_pretrained(tmp_path, _do_init=False)
    found = jax.jit(model.get_image_features)(golden["images"], params=params)
    assert_near(found, golden["image_features"])
    found = jax.jit(model.get_text_features)(golden["tokens"], params=params)
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
    def download(name, filename, local_files_only):
        assert name == "someone/small-clip"
        if not (small_directory / filename).exists():
            raise entry_not_found(filename)
        return str(small_directory / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert clip_files.load("someone/small-clip").config == tiny.CLIP_32
    expected = bpe.NUM_TOKENS_BESIDE_MERGES + tiny.NUM_MERGES
    assert clip_files.load_tokenizer("someone/small-clip").num_tokens == expected


def test_hub_name_with_weights_of_pytorch_works_offline(tmp_path, monkeypatch):
    # What hf_hub_download leaves: files of a revision, and names that it has not.
    root = tmp_path / "models--someone--small-clip"
    snapshot = shutil.copytree(
        golden_data.ROOT / "hf_clip" / "sharded_eos", root / "snapshots" / "abc"
    )
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc")
    (snapshot / "preprocessor_config.json").unlink()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def download(name, filename, local_files_only):
        assert local_files_only
        return download_cached(name, filename, cache_dir=tmp_path)

    download_cached = huggingface_hub.hf_hub_download
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UserError, match=r"reached for preprocessor_config"):
        clip_files.load("someone/small-clip")
    absent = root / ".no_exist" / "abc"
    absent.mkdir(parents=True)
    (absent / "preprocessor_config.json").touch()
    loaded = clip_files.load("someone/small-clip")
    expected = clip_files.load(golden_data.ROOT / "hf_clip" / "sharded_eos")
    jax.tree.map(np.testing.assert_array_equal, loaded.params, expected.params)


def test_fingerprint_depends_on_all_weights(directory, tmp_path):
    whole = clip_files.fingerprint(directory)
    assert whole == files.hash_file(directory / "model.safetensors")
    parts = shutil.copytree(
        golden_data.ROOT / "hf_clip" / "sharded_eos", tmp_path / "parts"
    )
    before = clip_files.fingerprint(parts)
    last = parts / "model-00004-of-00004.safetensors"
    last.write_bytes(last.read_bytes()[:-1] + b"x")
    assert clip_files.fingerprint(parts) != before
    weights = (directory / "model.safetensors").rename(directory / "flax_model.msgpack")
    assert clip_files.fingerprint(directory) == files.hash_file(weights)
    assert clip_files.fingerprint("someone/small-clip") is None


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
    def download(name, filename, local_files_only):
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
        "expected model_type .*'clip_resnet'.*, found 'bert'",
    ),
    "impossible configuration": (
        lambda d: set_text_config(d, num_attention_heads=3),
        "config.json: not a valid CLIP configuration .text_width 16",
    ),
    "missing weights": (
        lambda d: (d / "model.safetensors").unlink(),
        "found neither; others, such as pytorch_model.bin, are converted by",
    ),
    "truncated safetensors": (
        lambda d: (d / "model.safetensors").write_bytes(
            (d / "model.safetensors").read_bytes()[:-100]
        ),
        "model.safetensors: not a readable safetensors file",
    ),
    "truncated msgpack": (
        lambda d: (
            (d / "model.safetensors")
            .rename(d / "flax_model.msgpack")
            .write_bytes(b"\x81\xa1a")
        ),
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
    def download(name, filename, local_files_only):
        raise AssertionError("a path was taken for a name on the hub")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.chdir(directory.parent)
    for name in ("clip/mistyped", "mistyped", "a/b/mistyped", "/mistyped"):
        with pytest.raises(UserError, match=f"{name}: no such CLIP directory"):
            clip_files.load(name)
    with pytest.raises(UserError, match=r"found a file; .*styleclip-convert"):
        clip_files.load(directory / "config.json")


@pytest.mark.slow
def test_import_leaves_transformers_out_and_load_says_nothing(small_directory):
    program = (
        "import sys; from styleclip_jax.io import clip_files; "
        "assert 'transformers' not in sys.modules; "
        f"network = clip_files.load({str(small_directory)!r}); "
        f"clip_files.save(network, {str(small_directory / 'again')!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=programs.REPOSITORY,
    )
    assert done.stdout + done.stderr == ""


def test_shortened_vocabulary_matches_transformers(small_directory):
    tokenizer = clip_files.load_tokenizer(small_directory)
    assert tokenizer.num_tokens == tiny.CLIP_32.vocab_size
    reference = transformers.CLIPTokenizer.from_pretrained(small_directory)
    for text in ("A woman with  purple hair", "it's 1960, isn't it?", "naïve café"):
        expected = reference(text)["input_ids"]
        found = bpe.tokenize(tokenizer, [text], context_length=len(expected))
        np.testing.assert_array_equal(found, [expected])


def join_tokenizer(directory, **changes):
    """Replaces the two files of a tokenizer by transformers' tokenizer.json."""
    transformers.CLIPTokenizerFast.from_pretrained(directory).save_pretrained(directory)
    for name in clip_files.TOKENIZER_FILES:
        (directory / name).unlink()
    path = directory / "tokenizer.json"
    document = json.loads(path.read_text())
    document["model"] |= changes
    path.write_text(json.dumps(document))
    return document["model"]


def test_tokenizer_json_alone_is_read_alike(directory):
    two = clip_files.load_tokenizer(directory)
    model = join_tokenizer(directory)
    text = ["A woman with purple hair, isn't it?"]
    expected = bpe.tokenize(two, text, context_length=40)
    for merges in (model["merges"], [" ".join(pair) for pair in model["merges"]]):
        path = directory / "tokenizer.json"
        path.write_text(json.dumps({"model": model | {"merges": merges}}))
        one = clip_files.load_tokenizer(directory)
        found = bpe.tokenize(one, text, context_length=40)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "WordPiece"}, "expected a model of type 'BPE'"),
        ({"end_of_word_suffix": ""}, "end_of_word_suffix: expected '</w>', found ''"),
        ({"merges": [["a"]]}, "merges: expected pairs"),
        ({"merges": [1]}, "merges: expected pairs"),
        *(({"merges": x}, "merges: expected pairs") for x in (3, 0.5, None, [], "ab")),
        ({"vocab": []}, "expected an object with ids"),
    ],
)
def test_other_tokenizer_json_is_refused(directory, changes, message):
    join_tokenizer(directory, **changes)
    with pytest.raises(UserError, match=rf"tokenizer.json: .*{message}") as error:
        clip_files.load_tokenizer(directory)
    assert "\n" not in str(error.value)


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
    "merges of a part that is no token": (
        lambda d: (d / "merges.txt").write_text("#version: 0.2\na </w>\n"),
        "merges.txt: not readable as merges",
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
