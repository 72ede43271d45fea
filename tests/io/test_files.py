"""Writing of files: appending, and who may read what is new."""

import pathlib

import numpy as np
import pytest
import safetensors.numpy

from styleclip_jax.errors import UserError
from styleclip_jax.io import files


def test_append_makes_no_file_and_cuts_off_what_follows(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        files.append(tmp_path / "absent", 0, b"x")
    assert not (tmp_path / "absent").exists()
    (tmp_path / "file").write_bytes(b"0123456789")
    files.append(tmp_path / "file", 4, b"ab")
    assert (tmp_path / "file").read_bytes() == b"0123ab"


def test_new_file_is_readable_by_whom_others_are(tmp_path: pathlib.Path) -> None:
    path, ordinary = tmp_path / "x.safetensors", tmp_path / "ordinary"
    with files.new_file(path) as temporary:
        # It puts a file of its own there, which only the owner can read.
        safetensors.numpy.save_file({"x": np.zeros(1)}, temporary)
    ordinary.write_bytes(b"")
    assert path.stat().st_mode == ordinary.stat().st_mode
