"""Files of relevance and directions survive; those of other networks are refused."""

import pathlib
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import direction_files, tensor_files
from styleclip_jax.methods import global_directions
from tests import tiny

LAYOUT = tiny.GENERATOR.style_layout
LAYERS = (0, 2, 3)
CHANNELS = sum(layer.channels for layer in LAYOUT)
OURS = direction_files.Origin("ours", "a" * 64)
OTHER = direction_files.Origin("another", "b" * 64)


# Files


def relevance_file(path: pathlib.Path, **changes: Any) -> pathlib.Path:
    rows = np.arange(28 * 4, dtype=np.float32).reshape(28, 4)
    content = direction_files.RelevanceFile(
        rows,
        np.zeros(CHANNELS, np.float32),
        np.ones(CHANNELS, np.float32),
        LAYERS,
        {"num_samples": 3, "method": "exact", "b": 1, "a": 2},
    )
    direction_files.write_relevance(
        path,
        content._replace(**changes),
        layout=LAYOUT,
        generator=OURS,
        clip=OURS,
    )
    return path


def read_relevance(path: pathlib.Path, **changes: Any) -> direction_files.RelevanceFile:
    options = {"layout": LAYOUT, "generator": OURS, "clip": OURS, "embed_dim": 4}
    return direction_files.read_relevance(path, **(options | changes))


def test_relevance_survives_its_file(tmp_path: pathlib.Path) -> None:
    path = relevance_file(tmp_path / "a.safetensors")
    found = read_relevance(path)
    assert found.layers == LAYERS
    assert found.about["num_samples"] == 3
    np.testing.assert_array_equal(found.rows[27], [108, 109, 110, 111])
    again = relevance_file(tmp_path / "b.safetensors")
    assert path.read_bytes() == again.read_bytes()
    table = global_directions.expand(found.rows, found.std, found.layers, LAYOUT).table
    np.testing.assert_array_equal(table[20:38], found.rows[10:28])
    np.testing.assert_array_equal(table[10:20], 0)
    unknown = direction_files.Origin("converted", None)
    read_relevance(path, generator=unknown, clip=unknown)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generator": OTHER}, r"is for the generator ours \(sha256 aaa.*another"),
        ({"clip": OTHER}, "is for the CLIP ours"),
        ({"embed_dim": 5}, r"relevance of shape \[28, 5\], found \[28, 4\]"),
        (
            {"layout": spaces.style_layout((10, 8, 8))},
            "of 8 layers and 70 channels .* found 5 layers and 46",
        ),
    ],
)
def test_files_of_other_networks_are_refused(tmp_path, changes, message) -> None:
    path = relevance_file(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=f"a.safetensors: .*{message}"):
        read_relevance(path, **changes)


def test_broken_files_are_refused(tmp_path: pathlib.Path) -> None:
    path = relevance_file(tmp_path / "a.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(path.read_bytes()[:-7])
    plain = tmp_path / "plain.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(1, np.float32)}, plain)
    bad = tmp_path / "nan.safetensors"
    with pytest.raises(UserError, match="std has values that are not finite"):
        relevance_file(bad, std=np.full(CHANNELS, np.nan))
    tensors, metadata = tensor_files.read(path)
    tensors["std"][0] = np.nan
    safetensors.numpy.save_file(tensors, bad, metadata)
    direction = tmp_path / "direction.safetensors"
    direction_files.write_direction(
        direction, np.zeros(CHANNELS), layout=LAYOUT, generator=OURS, about={}
    )
    for file, message in (
        (tmp_path / "none.safetensors", "no such file"),
        (broken, "not a readable safetensors file"),
        (plain, "expected a file of channel_relevance, found None"),
        (direction, "expected a file of channel_relevance, found 'direction'"),
        (bad, "not finite"),
    ):
        with pytest.raises(UserError, match=f"{file.name}: {message}|{message}"):
            read_relevance(file)


def test_directions_survive_their_file(tmp_path: pathlib.Path) -> None:
    expected = np.random.RandomState(0).randn(CHANNELS).astype(np.float32)
    path = tmp_path / "smile.safetensors"
    direction_files.write_direction(
        path,
        expected,
        layout=LAYOUT,
        generator=OURS,
        about={"prompt": "smiling face"},
    )
    delta, about = direction_files.read_direction(path, layout=LAYOUT, generator=OURS)
    np.testing.assert_array_equal(delta, expected)
    assert about == {"prompt": "smiling face"}
    with pytest.raises(UserError, match=r"for the generator ours .* found another"):
        direction_files.read_direction(path, layout=LAYOUT, generator=OTHER)
