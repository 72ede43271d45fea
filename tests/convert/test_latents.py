"""Latents of torch.save become arrays that the programs read."""

import pathlib

import numpy as np
import pytest

from convert import __main__
from styleclip_jax.io import latent_files
from tests import tiny, torch_format

GENERATOR = tiny.generator()
DIMENSIONS = GENERATOR.config
LAYOUT = GENERATOR.config.style_layout


def convert(*arguments: object) -> int:
    return __main__.main(["convert", *map(str, arguments)])


@pytest.mark.parametrize("space", ["w_plus", "w"])
def test_tensors_become_latents(tmp_path: pathlib.Path, space: str) -> None:
    array = np.array(tiny.w_plus(3))
    array = array if space == "w_plus" else array[:, 0]
    file = torch_format.save(tmp_path / "train_faces.pt", array)
    assert convert(file, "--output", tmp_path / "train") == 0
    found = latent_files.read(tmp_path / "train" / "latents.npy", DIMENSIONS, None)
    assert found.space == space
    np.testing.assert_array_equal(found.array, array)


def test_a_list_of_style_vectors_becomes_s(tmp_path: pathlib.Path) -> None:
    random = np.random.default_rng(0)
    # As the official generator returns them.
    styles = [random.normal(size=(2, 1, x.channels, 1, 1)) for x in LAYOUT]
    file = torch_format.save(tmp_path / "styles.pt", *styles)
    assert convert(file, "--output", tmp_path / "out") == 0
    found = latent_files.read(tmp_path / "out" / "latents.npz", DIMENSIONS, None)
    assert found.space == "s"
    flat = np.concatenate([x.reshape(2, -1) for x in styles], axis=1)
    np.testing.assert_array_equal(found.array, flat.astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ([np.ones((2, 2, 3, 4))], "expected latents as [N, rows, features]"),
        ([np.full((2, 4), np.nan)], "finite"),
        ([np.ones((0, 4))], "finite"),
        ([np.ones((2, 4)), np.ones((2, 5))], "found some of [4] and [5]"),
    ],
)
def test_other_tensors_are_refused(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    arrays: list[np.ndarray],
    expected: str,
) -> None:
    file = torch_format.save(tmp_path / "x.pt", *arrays)
    assert convert(file, "--output", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file}: ")
    assert expected in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("count", [3, 8])
def test_names_and_numbers_of_latents_survive(
    tmp_path: pathlib.Path, count: int
) -> None:
    w = np.array(tiny.w_plus(count))[:, 0]
    byname = {f"photo {i}.jpg": x for i, x in enumerate(w)}
    for name, content in (("named.pt", byname), ("listed.pt", list(w))):
        file = torch_format.save_object(tmp_path / name, content)
        folder = tmp_path / name.removesuffix(".pt")
        assert convert(file, "--output", folder) == 0
        found = latent_files.read(folder / "latents.npz", DIMENSIONS, None)
        assert found.space == "w"
        np.testing.assert_array_equal(found.array, w)
    found = latent_files.read(tmp_path / "named" / "latents.npz", DIMENSIONS, None)
    assert found.names == tuple(byname)
