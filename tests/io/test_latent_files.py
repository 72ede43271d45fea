"""Files of latents: what their shapes mean, and what is refused."""

import pathlib

import numpy as np
import pytest
import safetensors.numpy

from styleclip_jax.errors import UserError
from styleclip_jax.io import latent_files
from styleclip_jax.models import stylegan2
from tests import tiny

FULL = stylegan2.GeneratorConfig()
DIMENSIONS = FULL


@pytest.mark.parametrize(
    ("shape", "space", "count"),
    [
        ((512,), "w", 1),
        ((18, 512), "w_plus", 1),
        ((5, 512), "w", 5),
        ((3, 18, 512), "w_plus", 3),
        ((9088,), "s", 1),
        ((2, 9088), "s", 2),
    ],
)
def test_shape_says_the_space(shape: tuple[int, ...], space: str, count: int) -> None:
    found = latent_files.interpret(
        np.zeros(shape, np.float32), DIMENSIONS, None, name="latents.npy"
    )
    assert (found.space, len(found.array)) == (space, count)


def test_space_overrides_the_shape() -> None:
    array = np.zeros((18, 512), np.float32)
    found = latent_files.interpret(array, DIMENSIONS, "w", name="latents.npy")
    assert (found.space, len(found.array)) == ("w", 18)


def test_misfit_names_both_shapes_and_the_likely_generator() -> None:
    array = np.zeros((5, 14, 512), np.float32)
    with pytest.raises(UserError) as error:
        latent_files.interpret(array, DIMENSIONS, None, name="latents.npy")
    message = str(error.value)
    assert "[N, 18, 512]" in message
    assert "[5, 14, 512]" in message
    assert "made for a 256² one?" in message
    assert "\n" not in message


def test_files_keep_latents(tmp_path) -> None:
    dimensions = tiny.GENERATOR
    w_plus = np.asarray(tiny.w_plus(3))
    np.save(tmp_path / "a.npy", w_plus)
    np.savez(tmp_path / "a.npz", w_plus)
    safetensors.numpy.save_file({"w_plus": w_plus}, tmp_path / "a.safetensors")
    for suffix in ("npy", "npz", "safetensors"):
        found = latent_files.read(tmp_path / f"a.{suffix}", dimensions, None)
        assert found.space == "w_plus"
        np.testing.assert_array_equal(found.array, w_plus)
    layout = tiny.GENERATOR.style_layout
    flat = np.ones((2, sum(layer.channels for layer in layout)), np.float32)
    latent_files.write(tmp_path / "s.npz", latent_files.Latents(flat, "s"), layout)
    found = latent_files.read(tmp_path / "s.npz", dimensions, None)
    assert found.space == "s"
    np.testing.assert_array_equal(found.array, flat)


def test_unreadable_files_are_named(tmp_path) -> None:
    dimensions = tiny.GENERATOR
    (tmp_path / "text.npy").write_text("not an array")
    (tmp_path / "zip.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "tensor.safetensors").write_bytes(b"\x00" * 4)
    (tmp_path / "latents.pt").write_bytes(b"")
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "int.npy", np.zeros((2, 12), np.int64))
    np.save(tmp_path / "none.npy", np.zeros((0, 4, 12), np.float32))
    np.savez(tmp_path / "two.npz", a=np.zeros(12), b=np.zeros(11))
    np.savez(tmp_path / "names.npz", w=np.zeros((2, 12)), names=["one", "two", "more"])
    names = [path.name for path in tmp_path.iterdir()]
    for name in [*names, "absent.npy"]:
        with pytest.raises(UserError, match=name):
            latent_files.read(tmp_path / name, dimensions, None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="in this folder, found none"):
        latent_files.read(tmp_path / "empty", dimensions, None)


@pytest.mark.parametrize("compressed", [False, True])
def test_archives_are_mapped_where_they_can_be(
    tmp_path: pathlib.Path, compressed: bool
) -> None:
    layout = tiny.GENERATOR.style_layout
    flat = np.random.RandomState(1).randn(5, sum(layer.channels for layer in layout))
    path = tmp_path / "styles.npz"
    if compressed:
        np.savez_compressed(path, styles=flat)
    else:
        chunks = [flat[:3], flat[3:]]
        latent_files.write_chunks(path, flat.shape, chunks, layout)
        with np.load(path) as archive:
            np.testing.assert_array_equal(archive["styles"], flat.astype(np.float32))
            assert archive["channels"].tolist() == [x.channels for x in layout]
    found = latent_files.read_array(path)
    assert isinstance(found, np.memmap) != compressed
    rows = latent_files.take(found, np.array([4, 1, 4]))
    assert type(rows) is np.ndarray
    np.testing.assert_array_equal(rows, flat[[4, 1, 4]].astype(np.float32))
