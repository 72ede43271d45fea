"""Files of tuned generators: what comes back, and what is refused."""

import pathlib
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from styleclip_jax.errors import UserError
from styleclip_jax.io import tensor_files, tuned_files
from styleclip_jax.io.direction_files import Origin

OURS = Origin("faces", "ab" * 32)
SHAPES = {"synthesis/const": (2, 3), "synthesis/bias": (), "mapping/w_avg": (4,)}
CHANGES = {
    "synthesis/const": np.linspace(-1e-3, 1e-3, 6).reshape(2, 3),
    "synthesis/bias": np.float32(0.25),
    "mapping/w_avg": np.zeros(4, np.float32),
}


def write(path: pathlib.Path) -> pathlib.Path:
    tuned_files.write(path, CHANGES, generator=OURS, about={"steps": 3})
    return path


def test_what_changed_comes_back_in_two_bytes_a_number(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / tuned_files.name(7))
    assert path.name == "000007.safetensors"
    found = tuned_files.read(path, shapes=SHAPES, generator=OURS)
    assert set(found) == {"synthesis/const", "synthesis/bias"}
    for name, x in found.items():
        assert x.dtype == ml_dtypes.bfloat16
        np.testing.assert_allclose(x.astype(np.float64), CHANGES[name], rtol=2**-8)
    numbers = sum(x.size for x in found.values())
    (header,) = struct.unpack("<Q", path.read_bytes()[:8])
    assert path.stat().st_size == 8 + header + 2 * numbers
    again = write(tmp_path / "again.safetensors")
    assert again.read_bytes() == path.read_bytes()


def test_a_check_reads_the_head_alone(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.safetensors")
    content = path.read_bytes()
    wrong = np.full(6, np.inf, ml_dtypes.bfloat16).tobytes()
    path.write_bytes(content[: -len(wrong)] + wrong)
    tuned_files.check(path, shapes=SHAPES, generator=OURS)
    for read in (
        tuned_files.hash_file,
        lambda x: tuned_files.read(x, shapes=SHAPES, generator=OURS),
    ):
        with pytest.raises(UserError, match="has values that are not finite"):
            read(path)
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match="not a readable safetensors file"):
        tuned_files.check(path, shapes=SHAPES, generator=OURS)


def test_another_generator_is_refused(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.safetensors")
    other = Origin("cars", "cd" * 32)
    expected = r"is for the generator faces \(sha256 abababababab\), found cars .*tune"
    with pytest.raises(UserError, match=expected):
        tuned_files.read(path, shapes=SHAPES, generator=other)


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"x": np.zeros(2, ml_dtypes.bfloat16)}, "x: expected none, found \\[2\\]"),
        (
            {"mapping/w_avg": np.zeros(5, ml_dtypes.bfloat16)},
            "mapping/w_avg: expected \\[4\\] in bfloat16, found \\[5\\]",
        ),
        ({"mapping/w_avg": np.zeros(4, np.float32)}, "found \\[4\\] in float32"),
        (
            {"mapping/w_avg": np.full(4, np.nan, ml_dtypes.bfloat16)},
            "mapping/w_avg has values that are not finite",
        ),
        ({"x": np.zeros(2 << 20, np.uint8)}, "expected at most 1,048,598 bytes"),
    ],
)
def test_other_tensors_are_refused(
    tmp_path: pathlib.Path, tensors: dict[str, np.ndarray], expected: str
) -> None:
    path = write(tmp_path / "a.safetensors")
    metadata = tensor_files.read(path).metadata
    path.write_bytes(safetensors.numpy.save(tensors, metadata))
    with pytest.raises(UserError, match=expected):
        tuned_files.read(path, shapes=SHAPES, generator=OURS)


def test_other_files_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(UserError, match="no such file"):
        tuned_files.read(path, shapes=SHAPES, generator=OURS)
    path.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        tuned_files.read(path, shapes=SHAPES, generator=OURS)
    path.write_bytes(safetensors.numpy.save({"x": np.zeros(3)}))
    with pytest.raises(UserError, match="expected a file of tuned_generator, found No"):
        tuned_files.read(path, shapes=SHAPES, generator=OURS)
    wrong = {"x": np.full(3, np.inf)}
    with pytest.raises(UserError, match="x has values that are not finite"):
        tuned_files.write(path, wrong, generator=OURS, about={})
