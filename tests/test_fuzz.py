"""Strangers' files: damaged ones are read or refused in a line, bombs in time.

`make fuzz` tries many more, and prints tables.
"""

import json
import lzma
import pathlib
import pickle
import zipfile

import jax
import numpy as np
import pytest

from convert import rules, stylegan2
from styleclip_jax import documents, errors, loading, optimizers
from styleclip_jax.batch import editor, source
from styleclip_jax.errors import UserError
from styleclip_jax.io import (
    array_files,
    checkpoints,
    direction_files,
    latent_files,
    text_files,
    torch_files,
)
from styleclip_jax.io.pickled import inert, vocabulary
from styleclip_jax.methods import mapper
from styleclip_jax.models import clip
from styleclip_jax.models.network import Network
from styleclip_jax.ops import pixels
from tests import fuzz_bombs, fuzz_kinds, fuzzing, programs, tiny

# Number of mutants of a kind; those of kinds whose networks are built are fewer.
MUTANTS, SLOW = 200, 15


@pytest.mark.parametrize("name", fuzz_kinds.KINDS)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused_in_a_line(
    tmp_path: pathlib.Path, name: str
) -> None:
    slow = name.startswith(
        ("generator", "clip", "network", "tokenizer", "vgg16", "inception")
    )
    count = SLOW if slow else MUTANTS
    found = fuzzing.run(fuzz_kinds.KINDS[name], range(count), tmp_path)
    assert not found.faults
    # Mutants that are all alike would test nothing.
    assert found.was_read < count or name == "tar"


@pytest.mark.parametrize("name", fuzz_bombs.BOMBS)
def test_bombs_are_refused_before_they_burst(tmp_path: pathlib.Path, name: str) -> None:
    taken = fuzz_bombs.measure(fuzz_bombs.BOMBS[name], tmp_path)
    assert taken.line != "read"
    assert taken.size < fuzzing.MAX_BYTES
    # Machines of tests may be slow; `make fuzz` holds the limit.
    assert taken.seconds < 4 * fuzzing.MAX_SECONDS


def npy(shape: str, dtype: str = "<f4") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n"
    size = len(header).to_bytes(2, "little")
    return b"\x93NUMPY\1\0" + size + header.encode() + bytes(16)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy("(4,"), "EOF in multi-line statement|never closed|unexpected EOF"),
        (npy("(True,)"), r"shape \[True\]"),
        (npy("(-4,)"), r"shape \[-4\]"),
        (npy("(5,)"), "more than the file holds"),
        (npy("(4611686018427387904,)"), "more than the file holds"),
        (npy("(9,)", "|V0"), "shape"),
        (npy("(4,)", "zz"), "zz"),
        (npy("(" * 3000), "."),
        (npy("(4,)").replace(b"\1\0", b"\7\0", 1), "version"),
        (b"", "."),
    ],
)
def test_headers_of_npy_claim_no_more_than_there_is(
    tmp_path: pathlib.Path, content: bytes, message: str
) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"not a readable .npy .*{message}"):
        array_files.read_npy(path)
    with pytest.raises(UserError):
        torch_files.read(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_flipped_bits_of_archives_are_found(
    tmp_path: pathlib.Path, compression: int
) -> None:
    path = tmp_path / "a.npz"
    save = np.savez if compression == zipfile.ZIP_STORED else np.savez_compressed
    # More than is read together with the header.
    save(path, w=np.random.default_rng(0).normal(size=(4, 50, 60)).astype(np.float32))
    whole = path.read_bytes()
    assert array_files.read_npz(path)["w"].shape == (4, 50, 60)
    for place in range(200, len(whole) - 150, 777):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert "not a readable .npz" in programs.refusal(array_files.read_npz, path)


@pytest.mark.parametrize("code", [0x110000, 0xFFFFFFFF, 0xD800])
@pytest.mark.parametrize("order", "<>")
def test_texts_of_archives_are_of_characters(
    tmp_path: pathlib.Path, code: int, order: str
) -> None:
    codes = np.array([[97, 0x1F469], [code, 0]], f"{order}u4")
    path = tmp_path / "a.npz"
    np.savez(path, w=np.zeros((2, 3)), names=codes.view(f"{order}U2")[:, 0])
    message = programs.refusal(array_files.read_npz, path)
    assert message.endswith("(a text of codes that are no characters)")
    codes[1] = 98, 0x10FFFF
    np.savez(path, names=codes.view(f"{order}U2")[:, 0])
    names = array_files.read_npz(path)["names"].tolist()
    assert names == ["a\N{WOMAN}", "b\U0010ffff"]


def test_nothing_is_printed_of_damaged_photos(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kind = fuzz_kinds.KINDS["photo_tif"]
    path = kind.make(tmp_path)
    whole = path.read_bytes()
    # The entries of the directory of tags, which Pillow warns of.
    start = int.from_bytes(whole[4:8], "little") + 2
    for place in range(start, start + 150):
        path.write_bytes(whole[:place] + b"\xf9" + whole[place + 1 :])
        assert not fuzzing.check(lambda: kind.read(path)).faults
    assert capfd.readouterr() == ("", "")


def test_whole_arrays_of_archives_are_mapped(tmp_path: pathlib.Path) -> None:
    array = np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    np.savez(tmp_path / "a.npz", a=array, b=array[0], empty=array[:0])
    found = array_files.read_npz(tmp_path / "a.npz")
    assert isinstance(found["a"], np.memmap)
    np.testing.assert_array_equal(found["a"], array)
    np.testing.assert_array_equal(found["b"], array[0])
    assert found["empty"].shape == (0, 3, 4)
    # More than files may be open at a time.
    np.savez(tmp_path / "many.npz", **{str(i): array for i in range(1500)})
    assert len(array_files.read_npz(tmp_path / "many.npz")) == 1500
    np.savez_compressed(tmp_path / "b.npz", a=array)
    found = array_files.read_npz(tmp_path / "b.npz")
    np.testing.assert_array_equal(found["a"], array)


def test_compressions_that_numpy_does_not_write_are_refused(
    tmp_path: pathlib.Path,
) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("w.npy", npy("(4,)"))
    message = programs.refusal(array_files.read_npz, tmp_path / "a.npz")
    assert "a compression that NumPy does not write" in message
    assert lzma.is_check_supported(lzma.CHECK_CRC32)


DOCUMENTS = {
    "nested": ("[" * 5000 + "]" * 5000, "nested too deeply"),
    "within C's limits": ("[" * 300 + "]" * 300, "nested too deeply"),
    "NaN": ('{"a": NaN}', "NaN, which is not in JSON"),
    "a long number": ("9" * 400, "a number of 400 digits"),
    "no UTF-8": (b"\xff\xfe\xfd", "expected JSON"),
    "a list": ("[]", "expected a JSON object, found list"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_that_are_none_are_refused(tmp_path: pathlib.Path, name: str) -> None:
    content, message = DOCUMENTS[name]
    path = tmp_path / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message in programs.refusal(documents.read_object, path)
    assert message in programs.refusal(loading.mapper_prompt, tmp_path)


def test_documents_are_written_without_what_json_lacks() -> None:
    value = {"a": float("nan"), "b": [1.5, float("-inf")], "c": "NaN"}
    assert documents.dump(value) == '{"a": null, "b": [1.5, null], "c": "NaN"}'
    plain = {"ä": [1, 2.0, None, True]}
    assert documents.dump(plain, indent=2) == json.dumps(plain, indent=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": {"generator": 1e-9, "prompt": 3}}, "SHA-256 1e-09"),
        ({"config": {"space": "w_plus", "w_dim": 10**9}}, "at most 1048576"),
        ({"config": {"space": "w_plus", "num_layers": 10**5}}, "at most 128"),
        ({"config": {"space": "w_plus", "w_dim": "12"}}, "not a valid configuration"),
        ({"config": 3}, "not a valid configuration"),
    ],
)
def test_configurations_of_mappers_are_checked(
    tmp_path: pathlib.Path, change: dict, message: str
) -> None:
    directory = fuzz_kinds.make_network(tmp_path)
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert loading.mapper_prompt(directory) in (None, "a smile")
    generator = tmp_path / "generator"
    generator.mkdir()
    (generator / "model.safetensors").write_bytes(b"x")
    refused = programs.refusal(
        loading.load_mapper, directory, generator, tiny.GENERATOR
    )
    assert message in refused


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(
    tmp_path: pathlib.Path, value: float
) -> None:
    config = mapper.of_generator(tiny.GENERATOR)
    flat = {
        name: np.ones(shape, np.float32)
        for name, shape in mapper.param_shapes(config).items()
    }
    name = sorted(flat)[-1]
    flat[name].flat[-1] = value
    checkpoints.save_network(
        tmp_path / "m", kind=mapper.KIND, params=flat, config=config, source={}
    )
    message = programs.refusal(
        checkpoints.load_network,
        tmp_path / "m",
        kind=mapper.KIND,
        config_type=mapper.MapperConfig,
        param_shapes=mapper.param_shapes,
    )
    assert f"tensor {name} has values that are not finite" in message
    table = [rules.Rule(r"(.*)", r"\1")]
    message = programs.refusal(rules.rename_tensors, table, flat, file="a.pt")
    assert message == f"a.pt: tensor {name} has values that are not finite"


def test_relevance_that_is_not_finite_is_not_written(tmp_path: pathlib.Path) -> None:
    layout = tiny.GENERATOR.style_layout
    delta = np.full(sum(layer.channels for layer in layout), np.nan)
    message = programs.refusal(
        direction_files.write_direction,
        tmp_path / "d.safetensors",
        delta,
        layout=layout,
        generator=direction_files.Origin("g", None),
        about={},
    )
    assert "delta has values that are not finite" in message
    assert not list(tmp_path.iterdir())


def test_texts_of_a_clip_of_zeros_are_refused(tmp_path: pathlib.Path) -> None:
    fuzz_kinds.make_clip(tmp_path)
    network, tokenizer = loading.load_clip(tmp_path / "clip")
    zeros = Network(jax.tree.map(np.zeros_like, network.params), network.config)
    message = programs.refusal(clip.encode_prompts, zeros, tokenizer, ["a"])
    assert message.startswith("clip: its features of texts are not finite")


def test_images_far_outside_count_as_failed() -> None:
    image = np.zeros((4, 2, 2, 3), np.float32)
    image[1, 0, 0, 0], image[2, 1, 1, 1], image[3, 0, 0] = np.nan, -1e3, 99
    assert pixels.is_drawn(image).tolist() == [True, False, False, True]


def test_messages_are_short_and_harmless() -> None:
    name = "x" * 5000
    text = str(UserError(f"a.pkl: \x1b[2J\x1b]0;title\x07 is no\nname {name} end"))
    assert len(text) <= fuzzing.MAX_MESSAGE
    assert text.startswith("a.pkl: \\x1b[2J\\x1b]0;title\\x07 is no name xxx")
    assert text.endswith("xxx end")
    plain = "family 👩\u200d🚀, 東京\u3000a"
    assert errors.printable(plain) == plain


def test_nothing_is_executed_and_the_canary_would_tell(tmp_path: pathlib.Path) -> None:
    path = fuzz_kinds.KINDS["pickle_evil"].make(tmp_path)
    result = fuzzing.check(lambda: latent_files.read(path, tiny.GENERATOR, None))
    assert (result.was_read, result.faults) == (False, [])
    # What Python's own reader does is seen.
    result = fuzzing.check(lambda: pickle.loads(path.read_bytes()))
    fuzz_kinds.CANARY.unlink()
    assert any(fault.startswith("executed:") for fault in result.faults)


def test_edits_out_of_reach_count_as_failed() -> None:
    latent = np.ones((3, 4, 5), np.float32)
    image = np.zeros((3, 2, 2, 3), np.float32)
    image[1], image[2] = 2.6e9, np.nan
    assert editor.finished(latent, latent, image).failed_at.tolist() == [-1, 0, 0]
    huge = latent * np.array([1, 1, 1e30], np.float32)[:, None, None]
    image[:] = 0
    assert editor.finished(latent, huge, image).failed_at.tolist() == [-1, -1, 0]


def test_losses_that_explode_are_failures() -> None:
    gradient = {"a": np.ones(2)}
    for loss, expected in ((1e7, -1), (1e9, 3), (-1e9, 3), (np.nan, 3)):
        found = optimizers.first_failure(-1, 3, gradient, loss)
        assert int(found) == expected


@pytest.mark.parametrize(
    "text", ["0-4294967295", "1,5-20000000", "4294967296", "9" * 30]
)
def test_lists_of_seeds_are_bounded_before_they_are_made(text: str) -> None:
    assert programs.refusal(source.parse_seeds, text).startswith("seeds: expected")


@pytest.mark.parametrize("text", ["\u200b", "\ufeff", "\u00ad", "\x01", " \u2063\n"])
def test_texts_that_nobody_sees_are_refused(text: str) -> None:
    assert "expected a text" in programs.refusal(text_files.require, "prompt", text)


def test_variables_of_tensorflow_that_are_none_are_a_line(
    tmp_path: pathlib.Path,
) -> None:
    for variables in (None, 3, [None], [("a", None)], "ab"):
        network = inert.Object(vocabulary.TF_NETWORK, (), {"variables": variables})
        file = torch_files.TorchFile("a.pkl", "tf_pkl", (network, network, network))
        assert programs.refusal(stylegan2.convert, file).startswith("a.pkl: ")
