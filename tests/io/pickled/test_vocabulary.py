"""Names in pickles: data is read, and what could act is refused with its place."""

import pathlib

import numpy as np
import pytest

from convert import __main__
from styleclip_jax.io import torch_files
from tests import golden_data, programs, torch_format

FILE = golden_data.ROOT / "wrapped" / "data_parallel" / "030000.pt"


@pytest.mark.parametrize(
    ("module", "name"), [("shlex", "quote"), ("os", "system"), ("ctypes", "CDLL")]
)
def test_names_that_are_refused_stand_in_a_line_with_their_place(
    tmp_path: pathlib.Path,
    module: str,
    name: str,
) -> None:
    pickled = torch_format.dumps({"args": torch_format.Name(module, name)})
    path = torch_format.write_zip(tmp_path / "x.pt", pickled)
    message = programs.refusal(torch_files.read, path)
    assert f"its pickle names {module}.{name} at byte " in message
    assert "nothing was run; report the name" in message


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("pathlib._local", "PosixPath"),
        ("pathlib", "PureWindowsPath"),
        ("types", "SimpleNamespace"),
        ("datetime", "timedelta"),
        ("http", "HTTPStatus"),
        ("collections", "deque"),
        ("__builtin__", "xrange"),
        ("numpy.random._pickle", "__randomstate_ctor"),
        ("torch.optim.lr_scheduler", "StepLR"),
        ("lab.options", "Mode"),
        ("omegaconf.dictconfig", "DictConfig"),
    ],
)
def test_names_without_behaviour_are_read(
    tmp_path: pathlib.Path, module: str, name: str
) -> None:
    state = torch_files.read(FILE).content
    value = torch_format.Call(torch_format.Name(module, name), ("a",))
    content = {"g_ema": state["g_ema"], "args": {"value": value}}
    path = torch_format.save_object(tmp_path / "x.pt", content)
    assert __main__.main(["convert", str(path), f"--output={tmp_path / 'out'}"]) == 0


def test_what_is_called_without_a_table_entry_is_refused(
    tmp_path: pathlib.Path,
) -> None:
    """A function of torch may be named, such as an activation; not called."""
    relu = torch_format.Name("torch.nn.functional", "relu")
    load = torch_format.Name("torch", "load")
    path = tmp_path / "x.pt"
    torch_format.write_zip(path, torch_format.dumps({"act": relu, "load": load}))
    assert torch_files.read(path).content["load"].make is None
    torch_format.write_zip(path, torch_format.dumps(torch_format.Call(load, ("x",))))
    message = programs.refusal(torch_files.read, path)
    assert "its pickle calls torch.load at byte " in message


def test_items_of_classes_of_dicts_and_lists_are_kept(tmp_path: pathlib.Path) -> None:
    name = torch_format.Name("lab", "Config")
    made = torch_format.dumps(torch_format.Call(name, ()))[:-1]
    # SETITEM, then APPEND, to what was made.
    path = torch_format.write_zip(tmp_path / "x.pt", made + b"K\x07K\x08sK\x09a.")
    assert torch_files.read(path).content.items == {7: 8, 1: 9}


def test_state_of_a_pickled_optimizer_is_kept_by_tensor(tmp_path: pathlib.Path) -> None:
    stored = torch_format.storage("Float", "0", 2)
    tensor = torch_format.tensor(stored, (2,), (1,))
    made = torch_format.dumps({})[:-1] + torch_format.dumps(tensor)[2:-1]
    # SETITEM of the tensor as a key.
    path = tmp_path / "x.pt"
    data = {"0": np.ones(2, np.float32)}
    torch_format.write_zip(path, made + b"K\x07s.", data)
    assert {str(name): x for name, x in torch_files.read(path).content.items()} == {
        "tensor": 7
    }


def test_tensors_of_newer_torch_are_read(tmp_path: pathlib.Path) -> None:
    data = np.arange(6, dtype=np.float32)
    stored = torch_format.storage("Untyped", "0", data.nbytes)
    hooks = torch_format.Call(torch_format.Name("collections", "OrderedDict"), ())
    rebuild = torch_format.Name("torch._utils", "_rebuild_tensor_v3")
    dtype = torch_format.Name("torch", "float32")
    tensor = torch_format.Call(
        rebuild, (stored, 1, (2, 2), (2, 1), False, hooks, dtype)
    )
    outer = torch_format.Name("torch._tensor", "_rebuild_from_type_v2")
    kind = torch_format.Name("lab", "Tensor")
    subclass = torch_format.Call(outer, (rebuild, kind, tensor.args, {}))
    path = tmp_path / "x.pt"
    torch_format.write_zip(path, torch_format.dumps([tensor, subclass]), {"0": data})
    for found in torch_files.read(path).content:
        np.testing.assert_array_equal(found, [[1, 2], [3, 4]])


def test_long_names_are_refused_at_once(tmp_path: pathlib.Path) -> None:
    content = {"a" * 3000: {"b": [1]}}
    path = torch_format.write_zip(tmp_path / "x.pt", torch_format.dumps(content))
    message = programs.refusal(torch_files.read, path)
    assert "longer than 2000 characters" in message
