"""Latents as tools of inversion save them: the same arrays, names and notes."""

import pathlib
from typing import Any

import numpy as np
import pytest

from styleclip_jax.errors import UserError
from styleclip_jax.io import latent_files
from tests import tiny, torch_format

CONFIG = tiny.GENERATOR
LENGTHS = [layer.channels for layer in CONFIG.style_layout]
W_PLUS = np.array(tiny.w_plus(6), np.float32)
W = W_PLUS[:, 0]
S = np.random.default_rng(0).normal(size=(6, sum(LENGTHS))).astype(np.float32)
NAMES = ("photos/one.jpg", "two")
IMAGE = np.ones((3, 8, 8), np.float32)


def layers(flat: np.ndarray, axes: str = "") -> list[np.ndarray]:
    """S by layers, as toolkits have them: [N, C], or with axes of one."""
    parts = np.split(flat, np.cumsum(LENGTHS)[:-1], axis=1)
    shape = (-1, 1) if axes == "before" else (-1,)
    last = (1, 1) if axes else ()
    return [x.reshape(*shape, x.shape[1], *last) for x in parts]


# Content, the latents that it holds, their space, names and parts of the notes.
FORMS: dict[str, tuple[Any, np.ndarray, str, tuple[str, ...], tuple[str, ...]]] = {
    "rosinality's projector": (
        {
            name: {"img": IMAGE, "latent": x, "noise": [np.ones((1, 1, 4, 4))]}
            for name, x in zip(NAMES, W_PLUS, strict=False)
        },
        W_PLUS[:2],
        "w_plus",
        NAMES,
        (),
    ),
    "ReStyle: iterations": (
        dict(zip(NAMES, (W_PLUS[:3], W_PLUS[3:]), strict=True)),
        W_PLUS[[2, 5]],
        "w_plus",
        NAMES,
        ("each name has 3 latents; the last one counts",),
    ),
    "ReStyle: lists": (
        dict(zip(NAMES, (list(W_PLUS[:3]), list(W_PLUS[3:])), strict=True)),
        W_PLUS[[2, 5]],
        "w_plus",
        NAMES,
        ("each name has 3 latents; the last one counts",),
    ),
    "HyperStyle": (
        dict(zip(NAMES, W_PLUS, strict=False)),
        W_PLUS[:2],
        "w_plus",
        NAMES,
        (),
    ),
    "W by name": (dict(zip(NAMES, W, strict=False)), W[:2], "w", NAMES, ()),
    "list of W+": ([x[None] for x in W_PLUS], W_PLUS, "w_plus", (), ()),
    "list of batches": ([W_PLUS[:2], W_PLUS[2:]], W_PLUS, "w_plus", (), ()),
    "list of as many W as W+ has rows": (list(W[:4]), W[:4], "w", (), ()),
    "list of as many W as S has layers": (
        [x[None] for x in W[:5]],
        W[:5],
        "w",
        (),
        ("a list of 5 vectors of one length is taken for W codes",),
    ),
    "axis in W": (W[:, None], W, "w", (), ("[6, 1, 12] is read as [6, 12]",)),
    "axis before W+": (
        W_PLUS[None],
        W_PLUS,
        "w_plus",
        (),
        ("[1, 6, 4, 12] is read as [6, 4, 12]",),
    ),
    "latents among settings": (
        {"W_Plus": W_PLUS, "img": IMAGE, "psi": 0.7},
        W_PLUS,
        "w_plus",
        (),
        ("latents are its W_Plus; left out: img, psi",),
    ),
    "names below a level": (
        {"latents": dict(zip(NAMES, W_PLUS, strict=False))},
        W_PLUS[:2],
        "w_plus",
        NAMES,
        (),
    ),
    "z by its name": ({"z": np.ones((3, 8))}, np.ones((3, 8)), "z", (), ()),
    "S of rosinality": (layers(S, "before"), S, "s", (), ()),
    "S of NVIDIA": (layers(S), S, "s", (), ()),
    "S by names of layers": (
        {
            layer.name: x
            for layer, x in zip(CONFIG.style_layout, layers(S), strict=True)
        },
        S,
        "s",
        (),
        (),
    ),
    "S by name": (
        {name: layers(S[i : i + 1]) for i, name in enumerate(NAMES)},
        S[:2],
        "s",
        NAMES,
        (),
    ),
}


@pytest.mark.parametrize("suffix", ["pt", "npy"])
@pytest.mark.parametrize("form", FORMS)
def test_containers_are_read_as_they_are(
    tmp_path: pathlib.Path, form: str, suffix: str
) -> None:
    content, array, space, names, notes = FORMS[form]
    path = tmp_path / f"latents.{suffix}"
    if suffix == "pt":
        torch_format.save_object(path, content)
    else:
        whole = content
        if not isinstance(content, np.ndarray):
            whole = np.empty((), object)
            whole[()] = content
        np.save(path, whole, allow_pickle=True)
    found = latent_files.read(path, CONFIG, None)
    np.testing.assert_array_equal(found.array, array)
    assert (found.space, found.names) == (space, names)
    assert len(found.notes) == len(notes)
    for note, expected in zip(found.notes, notes, strict=True):
        assert note.startswith(f"{path}: {expected}")


def test_the_user_says_that_vectors_of_one_length_are_s(
    tmp_path: pathlib.Path,
) -> None:
    config = tiny.GENERATOR.__class__(
        resolution=8, z_dim=8, w_dim=12, num_mapping_layers=2, channels=(12, 12)
    )
    path = torch_format.save(tmp_path / "five.pt", *W[:5, None])
    assert latent_files.read(path, config, None).space == "w"
    found = latent_files.read(path, config, "s")
    np.testing.assert_array_equal(found.array, W[:5].reshape(1, -1))


def test_a_folder_of_files_has_their_names(tmp_path: pathlib.Path) -> None:
    # PTI's embeddings, and files beside each other.
    for name, array in (("b/0.pt", W_PLUS[:1]), ("a/PTI/0.pt", W_PLUS[1:2])):
        (tmp_path / name).parent.mkdir(parents=True)
        torch_format.save(tmp_path / name, array)
    np.save(tmp_path / "c.npy", W_PLUS[2])
    np.savez(tmp_path / "projected_w.npz", w=W_PLUS[3:4])
    (tmp_path / "readme.txt").write_text("")
    found = latent_files.read(tmp_path, CONFIG, None)
    assert found.names == ("a/PTI", "b", "c", "projected_w")
    np.testing.assert_array_equal(found.array, W_PLUS[[1, 0, 2, 3]])
    before = latent_files.hash_source(tmp_path)
    np.save(tmp_path / "c.npy", W_PLUS[3])
    assert latent_files.hash_source(tmp_path) != before


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"one": W_PLUS[0], "two": W[0]}, "found some of [4, 12] and [12]"),
        ({"conv.weight": W_PLUS[0]}, "found a dict with conv.weight"),
        ({"state_dict": {"a": W}, "latent_avg": W[0]}, "with state_dict, latent_avg"),
        ([W[0], "text"], "found a list of 2"),
        ([], "found a list of 0"),
        ({}, "found a dict with nothing"),
        (layers(S)[:2], "found [12, 10]"),
    ],
)
def test_what_is_no_container_is_refused(
    tmp_path: pathlib.Path, content: Any, expected: str
) -> None:
    path = torch_format.save_object(tmp_path / "latents.pt", content)
    with pytest.raises(UserError) as error:
        latent_files.read(path, CONFIG, None)
    assert str(error.value).startswith(f"{path}: expected")
    assert expected in str(error.value)


def test_s_of_another_generator_is_refused(tmp_path: pathlib.Path) -> None:
    lengths = (11, 11, 11, 7, 7)
    path = torch_format.save(tmp_path / "s.pt", *[np.ones((1, x)) for x in lengths])
    with pytest.raises(UserError, match=r"of 5 layers .*\(10, .*found 5 \(11, 11"):
        latent_files.read(path, CONFIG, None)


def test_nothing_in_an_array_of_objects_is_run(tmp_path: pathlib.Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return pathlib.Path.touch, (tmp_path / "exploded",)

    class Import:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, ("import os",)

    for content in (Bomb(), {"a.jpg": Import()}, [np.array([{}, 1], object)]):
        whole = np.empty((), object)
        whole[()] = content
        np.save(tmp_path / "latents.npy", whole, allow_pickle=True)
        with pytest.raises(UserError, match=r"latents\.npy: "):
            latent_files.read(tmp_path / "latents.npy", CONFIG, None)
    assert not (tmp_path / "exploded").exists()
