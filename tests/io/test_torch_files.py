"""The reader of PyTorch files: all formats, honest views, and nothing is ever run."""

import builtins
import os
import pathlib
import pickle
import shlex
import time
import zipfile
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from styleclip_jax.errors import UserError
from styleclip_jax.io import torch_files
from tests.convert import generators
from tests.torch_format import (
    Call,
    Name,
    dumps,
    legacy,
    legacy_storage,
    storage,
    tensor,
    write_zip,
)

FILES = {
    "legacy": generators.CONVERTED,
    "zip": generators.TRAINING,
    "nvidia_pkl": generators.CONDITIONAL,
    "tf_pkl": generators.TENSORFLOW,
}


def write(path: pathlib.Path, data: bytes) -> pathlib.Path:
    path.write_bytes(data)
    return path


def refusal(path: pathlib.Path) -> str:
    """The one-line message with which a file is refused."""
    with pytest.raises(UserError) as caught:
        torch_files.read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


# Formats


@pytest.mark.parametrize("name", FILES)
def test_official_formats_are_told_apart(name):
    assert torch_files.read(FILES[name]).format == name


def test_state_dict_has_its_dotted_names_and_other_values_survive():
    content = torch_files.read(FILES["zip"]).content
    found = torch_files.tensors(content["g_ema"])
    assert found["convs.0.conv.modulation.weight"].shape == (24, 32)
    assert found["noises.noise_6"].shape == (1, 1, 32, 32)
    assert content["args"].type == "argparse.Namespace"
    assert content["args"].state["n_mlp"] == 8


def test_module_tensors_have_the_names_of_a_state_dict():
    content = torch_files.read(FILES["nvidia_pkl"]).content
    found = torch_files.tensors(content["G_ema"])
    assert found["synthesis.b8.conv0.affine.weight"].shape == (24, 48)
    assert not any("_parameters" in name or "kwargs" in name for name in found)


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_views_of_one_storage_honour_offset_and_strides(tmp_path, layout):
    data = np.arange(24, dtype=np.float32)
    make = storage if layout == "zip" else legacy_storage
    shared = make("Float", "0", 24)
    pickled = dumps(
        {
            # Channels-last: [O, I, H, W] = [1, 3, 2, 4] stored as [O, H, W, I].
            "channels_last": tensor(shared, (1, 3, 2, 4), (24, 1, 12, 3)),
            "tail": tensor(shared, (4,), (2,), offset=16),
            "expanded": tensor(shared, (3, 2), (0, 1), offset=5),
            "scalar": tensor(shared, (), (), offset=7),
            "empty": tensor(make("Float", "1", 0), (0, 3), (3, 1)),
        }
    )
    storages = {"0": data, "1": np.zeros(0, np.float32)}
    path = tmp_path / "views.pt"
    if layout == "zip":
        write_zip(path, pickled, storages)
    else:
        write(path, legacy(pickled, storages))
    found = torch_files.read(path).content
    expected = data.reshape(1, 2, 4, 3).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(found["channels_last"], expected)
    np.testing.assert_array_equal(found["tail"], data[16::2])
    np.testing.assert_array_equal(found["expanded"], [[5, 6]] * 3)
    np.testing.assert_array_equal(found["scalar"], np.float32(7))
    assert found["scalar"].shape == ()
    assert found["empty"].shape == (0, 3)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("Half", np.float16),
        ("BFloat16", ml_dtypes.bfloat16),
        ("Double", np.float64),
        ("Long", np.int64),
        ("Byte", np.uint8),
        ("Bool", np.bool_),
    ],
)
def test_element_types_survive(tmp_path, kind, dtype):
    data = np.array([0, 1, 3]).astype(dtype)
    pickled = dumps(tensor(storage(kind, "a", 3), (3,), (1,)))
    found = torch_files.read(write_zip(tmp_path / "t.pt", pickled, {"a": data})).content
    assert found.dtype == data.dtype
    np.testing.assert_array_equal(found, data)


def test_torchscript_attributes_become_tensors(tmp_path):
    module = Call(Name("__torch__.model.___torch_mangle_0", "Visual"), ())
    pickled = dumps(module)[:-1] + dumps(
        {"proj": tensor(storage("Float", "0", 2), (2,), (1,)), "training": False}
    )
    # The state follows the object: BUILD, then STOP.
    pickled = pickled.replace(b"\x80\x02", b"")[:-1] + pickle.BUILD + pickle.STOP
    path = write_zip(
        tmp_path / "m.pt",
        b"\x80\x02" + pickled,
        {"0": np.array([1, 2], np.float32)},
        **{"constants.pkl": dumps(())},
    )
    file = torch_files.read(path)
    assert file.format == "torchscript"
    assert list(torch_files.tensors(file.content)) == ["proj"]
    np.testing.assert_array_equal(file.content.state["proj"], [1, 2])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_pickles_of_arrays_are_read(tmp_path, protocol):
    value = [
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.float32(2.5),
        {"set": {1, 2}, "bytes": b"\xff", "nested": (1, [True, None])},
    ]
    path = write(tmp_path / "S.pkl", pickle.dumps(value, protocol))
    file = torch_files.read(path)
    assert file.format == "pickle"
    np.testing.assert_array_equal(file.content[0], value[0])
    np.testing.assert_array_equal(file.content[1], value[1])
    assert file.content[2:] == value[2:]


def test_safetensors_npy_and_npz_are_read(tmp_path):
    data = {"a": np.ones((2, 3), np.float16), "b": np.zeros(4, ml_dtypes.bfloat16)}
    safetensors.numpy.save_file(data, tmp_path / "x.safetensors")
    file = torch_files.read(tmp_path / "x.safetensors")
    assert file.format == "safetensors"
    assert {k: (v.shape, v.dtype) for k, v in file.content.items()} == {
        k: (v.shape, v.dtype) for k, v in data.items()
    }
    np.save(tmp_path / "x.npy", data["a"])
    assert torch_files.read(tmp_path / "x.npy").format == "npy"
    np.savez(tmp_path / "x.npz", a=data["a"])
    file = torch_files.read(tmp_path / "x.npz")
    assert file.format == "npz"
    np.testing.assert_array_equal(file.content["a"], data["a"])


# Nothing is run


class _Evil:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def payloads(marker: pathlib.Path) -> dict[str, tuple[Any, str]]:
    """Objects whose unpickling makes `marker`, and the global that they need."""
    system = _Evil(os.system, f"touch {shlex.quote(str(marker))}")
    evaluated = _Evil(builtins.eval, f"open({str(marker)!r}, 'w').close()")
    opened = _Evil(builtins.open, str(marker), "w")
    in_array = np.empty(1, object)
    in_array[0] = system
    return {
        "system": (system, f"{os.system.__module__}.system"),
        "eval": (evaluated, "builtins.eval"),
        "open": (opened, "open"),
        "object array": (in_array, ""),
        "dict value": ({"g_ema": {"a": [system]}}, f"{os.system.__module__}.system"),
    }


WRAPPERS = {
    "pickle": lambda path, code: write(path, code),
    "legacy": lambda path, code: write(path, legacy(code)),
    "zip": lambda path, code: write_zip(path, code),
    "torchscript": lambda path, code: write_zip(path, code, **{"constants.pkl": b"."}),
    "storage": lambda path, code: write(
        path, dumps([Call(Name("torch.storage", "_load_from_bytes"), (legacy(code),))])
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", payloads(pathlib.Path("x")))
def test_code_in_a_file_never_runs(tmp_path, wrapper, name):
    marker = tmp_path / "marker"
    payload, needed = payloads(marker)[name]
    for protocol in (2, 3, 4):
        code = pickle.dumps(payload, protocol)
        message = refusal(WRAPPERS[wrapper](tmp_path / "evil.pt", code))
        # Protocol 2 writes the names of Python 2.
        assert needed.removeprefix("builtins") in message
        assert not marker.exists()
    # The payload is live: only the reader keeps it from running.
    opened = pickle.loads(code)
    assert marker.exists()
    del opened


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nS'true'\no.", "os.system"),
        (b"\x82\x01.", "EXT1"),
        (b"cnumpy\nndarray\n(I1\ntR.", "numpy.ndarray"),
        (b"cbuiltins\nobject\n)\x81.", "builtins.object"),
        (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
        (b"ccollections\nOrderedDict\n}X\x01\x00\x00\x00a\x4b\x01sb.", "a state for a"),
        (b"]}b.", "a state for a list"),
        (b"](K\x01K\x02tR.", "a call of a value of type list"),
        (b"(K\x01K\x02o.", "a call of a value of type int"),
        (b"X\x02\x00\x00\x00osX\x0b\x00\x00\x00path.exists\x93.", "os.path.exists"),
        (b"X\x01\x00\x00\x00a]\x93.", "a name that is not text"),
        (b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8\x89\x88tR.", "'O8'"),
        (b"Q.", "reference to outside"),
    ],
)
def test_every_way_to_call_or_change_something_is_refused(tmp_path, code, expected):
    code = code.replace(b"Q.", b"(U\x06modulecnumpy\nndarray\nU\x01aNK\x01tQ.")
    assert expected in refusal(write(tmp_path / "x.pkl", b"\x80\x02" + code))


# No file makes the reader hang or touch memory that is not the file's


def _doubled(levels: int) -> bytes:
    """A list of two references to a list of two references to …"""
    return b"\x80\x02]" + b"".join(
        b"q" + bytes([i]) + b"0]h" + bytes([i]) + b"ah" + bytes([i]) + b"a"
        for i in range(levels)
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (_doubled(200) + b".", "nested too deeply"),
        (b"\x80\x02]q\x00h\x00a.", "in a circle"),
        (b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".", "nested too deeply"),
        (
            b"\x80\x02}K\x01\x85" + b"2\x86" * 60 + b"K\x01s.",
            "a key of type tuple",
        ),
        (b"\x80\x02\x8b" + (1 << 30).to_bytes(4, "little") + b"\x01.", "damaged"),
        (b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".", "absurd"),
        (
            dumps(Call(Name("builtins", "bytes"), (1 << 40,))),
            "bytes of a int",
        ),
    ],
)
def test_bombs_are_refused_at_once(tmp_path, code, expected):
    start = time.monotonic()
    assert expected in refusal(write(tmp_path / "bomb.pkl", code))
    assert time.monotonic() - start < 20


def test_repeated_copies_are_bounded_by_the_file(tmp_path):
    block = b"B" + (1 << 16).to_bytes(4, "little") + bytes(1 << 16)
    load = b"h\x00X\x06\x00\x00\x00latin1\x86R"
    text = b"X" + block[1:]
    code = b"\x80\x03" + text + b"q\x000(" + (b"c_codecs\nencode\n" + load) * 50 + b"l."
    assert "more data than it holds" in refusal(write(tmp_path / "copies.pkl", code))


@pytest.mark.parametrize(
    ("shape", "stride", "offset"),
    [
        ((5,), (1,), 0),
        ((2,), (1,), 3),
        ((2, 2), (3, 1), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 1),
        ((2,), (1,), -1),
        ((2,), (1, 1), 0),
        ((1.0,), (1,), 0),
    ],
)
def test_tensors_outside_their_storage_are_refused(tmp_path, shape, stride, offset):
    pickled = dumps(tensor(storage("Float", "0", 4), shape, stride, offset))
    path = write_zip(tmp_path / "x.pt", pickled, {"0": np.zeros(4, np.float32)})
    assert "damaged" in refusal(path)


def test_a_view_is_not_accepted_as_a_storage(tmp_path):
    shared = storage("Float", "0", 4)
    expanded = tensor(shared, (1000,), (0,))
    pickled = dumps(tensor(expanded, (1000,), (1,)))
    path = write_zip(tmp_path / "x.pt", pickled, {"0": np.zeros(4, np.float32)})
    assert "a tensor without storage" in refusal(path)


def test_storages_claiming_more_than_the_file_are_refused(tmp_path):
    huge = 1 << 40
    pickled = dumps(tensor(storage("Float", "0", huge), (4,), (1,)))
    path = write_zip(tmp_path / "x.pt", pickled, {"0": np.zeros(4, np.float32)})
    assert "holds less than" in refusal(path)
    pickled = dumps(tensor(legacy_storage("Float", "0", huge), (4,), (1,)))
    path = write(tmp_path / "y.pt", legacy(pickled, {"0": np.zeros(4, np.float32)}))
    assert "more data than it holds" in refusal(path)


def test_legacy_storages_that_never_arrive_are_refused(tmp_path):
    pickled = dumps(tensor(legacy_storage("Float", "0", 4), (4,), (1,)))
    path = write(tmp_path / "x.pt", legacy(pickled))
    assert "the storages are not those" in refusal(path)


def test_legacy_storages_of_another_length_are_refused(tmp_path):
    pickled = dumps(tensor(legacy_storage("Float", "0", 4), (4,), (1,)))
    data = legacy(pickled, {"0": np.zeros(4, np.float32)})
    changed = data[:-24] + (3).to_bytes(8, "little") + data[-16:]
    assert "bytes of storage 0" in refusal(write(tmp_path / "x.pt", changed))


def test_storages_within_storages_are_refused(tmp_path):
    load = Name("torch.storage", "_load_from_bytes")
    inner = Call(load, (legacy(dumps(1)),))
    path = write(tmp_path / "x.pkl", dumps([Call(load, (legacy(dumps(inner)),))]))
    assert "storages within storages" in refusal(path)


def test_calls_with_very_many_arguments_are_refused(tmp_path):
    path = write(tmp_path / "x.pkl", dumps(Call(Name("torch", "device"), (1,) * 65)))
    assert "65 arguments" in refusal(path)


def test_compressed_archives_are_refused(tmp_path):
    path = write_zip(tmp_path / "x.pt", dumps(1), compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in refusal(path)


def test_big_endian_files_are_refused(tmp_path):
    path = write_zip(tmp_path / "x.pt", dumps(1), byteorder=b"big")
    assert "big-endian" in refusal(path)


# What is not a checkpoint


@pytest.mark.parametrize("name", FILES)
def test_truncated_files_are_refused_wherever_they_end(tmp_path, name):
    data = FILES[name].read_bytes()
    size = len(data)
    lengths = {0, 1, 2, 9, 100, 1000, size - 1000, size - 9, size - 2, size - 1}
    lengths |= {size * i // 16 for i in range(1, 16)}
    for length in sorted(lengths):
        refusal(write(tmp_path / "cut.pt", data[:length]))


@pytest.mark.parametrize("name", ["x.safetensors", "x.npy", "x.npz"])
def test_truncated_numpy_and_safetensors_files_are_refused(tmp_path, name):
    path = tmp_path / name
    array = np.arange(300, dtype=np.float32)
    if name.endswith("safetensors"):
        safetensors.numpy.save_file({"a": array}, path)
    elif name.endswith("npy"):
        np.save(path, array)
    else:
        np.savez(path, a=array)
    data = path.read_bytes()
    for length in (0, 4, 9, 60, 200, len(data) // 2, len(data) - 1):
        refusal(write(path, data[:length]))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG image"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "a JPEG image"),
        (b"\n<!DOCTYPE html><html>quota exceeded</html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs"),
        (b"some notes\n", "a text file"),
        (b"\x1f\x8b\x08" + bytes(50), "gzip"),
        (bytes(257) + b"ustar" + bytes(250), "a tar archive"),
        (bytes(range(256)), "data of an unknown format"),
    ],
)
def test_other_files_are_named(tmp_path, data, expected):
    message = refusal(write(tmp_path / "x.pt", data))
    assert "expected a checkpoint" in message
    assert expected in message


def test_missing_files_folders_and_other_archives_are_named(tmp_path):
    assert refusal(tmp_path / "absent.pt") == "no such file"
    assert "found a folder" in refusal(tmp_path)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("photo.png", b"")
    assert "without one data.pkl" in refusal(tmp_path / "x.zip")


def test_summary_names_the_top_of_the_content():
    content = torch_files.read(FILES["zip"]).content
    summary = torch_files.summarize(content)
    assert summary.startswith("a dict with g, d, g_ema, g_optim")
    assert torch_files.summarize(np.zeros((2, 3))) == "an array of shape [2, 3]"
    assert torch_files.summarize([1, 2]) == "a list of 2"
