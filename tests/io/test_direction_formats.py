"""Directions of other tools are read; what they leave open is asked for."""

import pathlib
import pickle
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from styleclip_jax.io import direction_formats
from tests import programs, tiny, torch_format

CONFIG = tiny.GENERATOR
ROWS, LENGTH = CONFIG.num_rows, CONFIG.w_dim
CHANNELS = sum(layer.channels for layer in CONFIG.style_layout)
RANDOM = np.random.default_rng(0)
W = RANDOM.normal(size=LENGTH).astype(np.float32)
W_PLUS = RANDOM.normal(size=(ROWS, LENGTH)).astype(np.float32)
S = RANDOM.normal(size=CHANNELS).astype(np.float32)
COMPONENTS = RANDOM.normal(size=(5, 1, LENGTH)).astype(np.float32)
STD = np.arange(2, 7, dtype=np.float32)
SQUARE = np.linalg.qr(RANDOM.normal(size=(LENGTH, LENGTH)))[0].astype(np.float32)
# As GANSpace dumps them, with --use_w.
DUMP = {
    "act_comp": COMPONENTS,
    "act_mean": W[None],
    "act_stdev": STD,
    "lat_comp": COMPONENTS,
    "lat_mean": W[None],
    "lat_stdev": STD,
    "var_ratio": STD,
    "random_stdevs": STD,
}
SLIDER = {
    "name": "age",
    "lat_comp": COMPONENTS[2],
    "lat_stdev": 4.0,
    "latent_space": "W",
    "edit_type": "latent",
    "edit_start": 1,
    "edit_end": 3,
}


def write(folder: pathlib.Path, name: str, content: Any) -> pathlib.Path:
    """A file in the format of its suffix."""
    path = folder / name
    match path.suffix:
        case ".npy":
            np.save(path, content)
        case ".npz":
            np.savez_compressed(path, **content)
        case ".pkl":
            path.write_bytes(pickle.dumps(content))
        case ".safetensors":
            safetensors.numpy.save_file(content, path)
        case ".pt":
            torch_format.save_object(path, content)
    return path


SOME_ROWS = np.zeros_like(W_PLUS)
SOME_ROWS[1:3] = 4 * COMPONENTS[2, 0]


def all_rows(step: np.ndarray) -> np.ndarray:
    return np.broadcast_to(step, W_PLUS.shape)


@pytest.mark.parametrize(
    ("name", "content", "choices", "expected"),
    [
        ("age_w_boundary.npy", W[None], [], all_rows(W)),
        ("age.pt", W[None], [], all_rows(W)),
        ("age.pt", W_PLUS, [], W_PLUS),
        ("age.npy", W_PLUS[None], [], W_PLUS),
        ("age.npy", W_PLUS.astype(np.float64), [], W_PLUS),
        ("styles.npy", S[None], [], S),
        ("dump.npz", DUMP, ["3"], all_rows(5 * COMPONENTS[3, 0])),
        ("dump.npz", DUMP, ["lat_comp", "3"], all_rows(COMPONENTS[3, 0])),
        ("slider.pkl", SLIDER, [], SOME_ROWS),
        (
            "ffhq_pca.pt",
            {"comp": COMPONENTS, "mean": W[None], "std": STD},
            ["0"],
            all_rows(2 * COMPONENTS[0, 0]),
        ),
        (
            "factor.pt",
            {"ckpt": "g.pt", "eigvec": SQUARE},
            ["2"],
            all_rows(SQUARE[:, 2]),
        ),
        ("sefa.npy", SQUARE, ["2,:"], all_rows(SQUARE[2])),
        ("sefa.npy", SQUARE, [": , 2"], all_rows(SQUARE[:, 2])),
        ("sefa.npy", SQUARE[:5], ["2"], all_rows(SQUARE[2])),
        (
            "sefa.npz",
            {"boundaries": SQUARE[:5]},
            ["boundaries", "2"],
            all_rows(SQUARE[2]),
        ),
        ("one.npz", {"direction": W}, [], all_rows(W)),
        ("edits.safetensors", {"age": W, "smile": -W}, ["smile"], all_rows(-W)),
        ("many.npy", np.stack([W_PLUS, 2 * W_PLUS]), ["1"], 2 * W_PLUS),
    ],
)
def test_a_direction_of_another_tool_is_read(
    tmp_path: pathlib.Path,
    name: str,
    content: Any,
    choices: list[str],
    expected: np.ndarray,
) -> None:
    path = write(tmp_path, name, content)
    found = direction_formats.read(path, CONFIG, choices)
    np.testing.assert_allclose(found.delta, expected, rtol=1e-6)
    assert found.delta.dtype == np.float32


NAN = np.where(np.arange(LENGTH) == 3, np.nan, W)


@pytest.mark.parametrize(
    ("name", "content", "choices", "expected"),
    [
        ("dump.npz", DUMP, [], "from 0 to 4, as in dump.npz[0], found no choice"),
        ("dump.npz", DUMP, ["5"], "a number from 0 to 4 in brackets, found [5]"),
        ("dump.npz", DUMP, ["x"], "a number from 0 to 4 in brackets, found [x]"),
        ("z.npz", DUMP | {"lat_stdev": np.ones(5)}, ["3"], "components are in z"),
        ("z.pkl", SLIDER | {"latent_space": "Z"}, [], "in W, found one of latent in Z"),
        ("far.pkl", SLIDER | {"edit_end": 18}, [], "rows of 4, found 1 to 18"),
        ("sefa.npy", SQUARE, ["2"], "expected [2,:] or [:,2], found [2]"),
        ("sefa.npy", SQUARE, [], "holds 12 directions, expected the number of one"),
        ("sefa.npy", SQUARE, ["12,:"], "a number from 0 to 11"),
        (
            "edits.npz",
            {"age": W, "smile": W},
            [],
            "expected one of age, smile, as in edits.npz[age], found no choice",
        ),
        ("edits.npz", {"age": W}, ["pose"], "expected one of age, found 'pose'"),
        ("age.npy", RANDOM.normal(size=(1, 512)), [], "found [512]"),
        ("age.npy", RANDOM.normal(size=(18, 512)), [], "[4, 12] in W+ or [46] in S"),
        ("age.npy", NAN, [], "values that are not finite"),
        ("age.npy", np.arange(LENGTH), [], "floating-point numbers, found an array"),
        ("age.npy", W, ["0"], "nothing to choose by [0]"),
        ("age.pt", {"a": "text"}, [], "floating-point numbers, found a value of type"),
    ],
)
def test_what_a_file_leaves_open_is_asked_for(
    tmp_path: pathlib.Path, name: str, content: Any, choices: list[str], expected: str
) -> None:
    path = write(tmp_path, name, content)
    message = programs.refusal(direction_formats.read, path, CONFIG, choices)
    assert expected in message
    assert message.startswith(str(path))


def test_an_absent_file_and_another_one_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "age.npy"
    message = programs.refusal(direction_formats.read, path, CONFIG)
    assert message == f"{path}: no such file"
    path.write_text("directions")
    assert "expected a checkpoint" in programs.refusal(
        direction_formats.read, path, CONFIG
    )
