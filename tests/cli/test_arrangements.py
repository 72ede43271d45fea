"""styleclip-generate: mixed styles, truncations and films of derived latents."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from styleclip_jax.cli import generate
from styleclip_jax.io import latent_files
from tests import programs, tiny
from tests.programs import Program


def latents_of(run: Program, folder: pathlib.Path, **options) -> np.ndarray:
    """Latents of a successful run without images."""
    asked = {"images": "none", "grid": 0, "outdir": folder} | options
    code, _, error = run(generate, **asked)
    assert code == 0, error
    (path,) = [*folder.glob("w_plus.npy"), *folder.glob("styles.npz")]
    return np.array(latent_files.read_array(path))


def names_of(folder: pathlib.Path) -> list[str]:
    return [json.loads(line)["name"] for line in (folder / "metrics.jsonl").open()]


def test_mixed_latents_have_the_columns_styles(run: Program, tmp_path) -> None:
    plain = latents_of(run, tmp_path / "plain", seeds="85,100,55,821,9")
    code, *_ = run(generate, rows="85,100", cols="55,821,9", styles="1-2")
    assert code == 0
    folder = tmp_path / "out"
    found = np.load(folder / "w_plus.npy")
    np.testing.assert_allclose(found[:5], plain, atol=1e-6)
    for i in range(2):
        for j in range(3):
            mixed = found[5 + 3 * i + j]
            np.testing.assert_array_equal(mixed[[1, 2]], found[2 + j][[1, 2]])
            np.testing.assert_array_equal(mixed[[0, 3]], found[i][[0, 3]])
    assert names_of(folder)[:6] == [
        *(f"seed {seed}" for seed in (85, 100, 55, 821, 9)),
        "seed 85 + seed 55",
    ]
    assert len(list((folder / "images").iterdir())) == 11
    # Three rows and four columns of cells.
    width, height = Image.open(folder / "grid.png").size
    assert width > 4 * 128
    assert 3 * 128 < height < 4 * 128


def test_rows_and_columns_are_numbers_of_a_files_latents(
    run: Program, tmp_path
) -> None:
    np.save(tmp_path / "many.npy", tiny.w_plus(4))
    file = np.load(tmp_path / "many.npy")
    asked = {"latents": tmp_path / "many.npy", "rows": "3", "cols": "0-1"}
    found = latents_of(run, tmp_path / "a", **asked, styles="0")
    np.testing.assert_array_equal(found[:3], file[[3, 0, 1]])
    np.testing.assert_array_equal(found[4], [file[1, 0], *file[3, 1:]])


@pytest.mark.parametrize("cutoff", [None, 2])
def test_sweep_has_the_latents_of_each_truncation(
    run: Program, tmp_path, cutoff
) -> None:
    asked = {"seeds": "3-5", "truncation_cutoff": cutoff}
    found = latents_of(run, tmp_path / "s", **asked, truncation_sweep="-1,0.7")
    assert names_of(tmp_path / "s")[1] == "seed 3, psi 0.7"
    for i, psi in enumerate((-1, 0.7)):
        plain = latents_of(run, tmp_path / str(psi), **asked, truncation_psi=psi)
        np.testing.assert_allclose(found[i::2], plain, atol=1e-6)
    # What is at no truncation is truncated in W+ to the same.
    whole = latents_of(run, tmp_path / "whole", **asked, truncation_psi=1)
    np.save(tmp_path / "whole.npy", whole)
    again = latents_of(
        run,
        tmp_path / "again",
        latents=tmp_path / "whole.npy",
        truncation_cutoff=cutoff,
        truncation_sweep="-1,0.7",
    )
    np.testing.assert_allclose(again, found, atol=1e-5)


@pytest.mark.parametrize(("space", "curve"), [("z", "spherical"), ("w", "spline")])
def test_film_passes_its_latents(run: Program, tmp_path, space, curve) -> None:
    plain = latents_of(run, tmp_path / "plain", seeds="0-3")
    asked = {"seeds": "0-3", "interpolate": space, "curve": curve, "frames": 3}
    found = latents_of(run, tmp_path / "film", **asked)
    assert len(found) == 12
    np.testing.assert_allclose(found[::3], plain, atol=1e-6)
    assert names_of(tmp_path / "film")[10:] == [
        "seed 3 to seed 0, 0.33",
        "seed 3 to seed 0, 0.67",
    ]
    film = Image.open(tmp_path / "film" / "film.gif")
    assert (film.n_frames, film.size, film.info["duration"]) == (12, (8, 8), 40)
    opened = latents_of(run, tmp_path / "open", **asked, loop=False)
    assert len(opened) == 10
    np.testing.assert_allclose(opened[::3], plain, atol=1e-6)


def test_straight_film_in_s_is_straight(run: Program, tmp_path) -> None:
    np.save(tmp_path / "many.npy", tiny.w_plus(2))
    asked = {"latents": tmp_path / "many.npy", "interpolate": "s", "curve": "linear"}
    found = latents_of(run, tmp_path / "film", **asked, frames=2)
    assert found.shape == (4, 46)
    np.testing.assert_allclose(found[1], (found[0] + found[2]) / 2, atol=1e-6)


def test_films_side_by_side_share_the_latents_out(run: Program, tmp_path) -> None:
    plain = latents_of(run, tmp_path / "plain", seeds="0-5")
    folder = tmp_path / "film"
    asked = {"seeds": "0-5", "interpolate": "w", "frames": 2, "num_films": 3}
    found = latents_of(run, folder, **asked, film_format="mp4", fps=10)
    # Frame after frame: the films of 0 and 1, of 2 and 3, and of 4 and 5.
    np.testing.assert_allclose(found[:3], plain[::2], atol=1e-6)
    np.testing.assert_allclose(found[6:9], plain[1::2], atol=1e-6)
    av = pytest.importorskip("av")
    with av.open(str(folder / "film.mp4")) as film:
        frames = [x.to_ndarray(format="rgb24") for x in film.decode(video=0)]
        assert film.streams.video[0].average_rate == 10
    # Two rows of two, the last empty.
    assert [frame.shape for frame in frames] == [(16, 16, 3)] * 4
    assert frames[0][12, 12].min() > 240


def test_film_of_a_sweep_goes_through_each_latents_truncations(
    run: Program, tmp_path
) -> None:
    asked = {"seeds": "0-1", "truncation_sweep": "0,1"}
    swept = latents_of(run, tmp_path / "sweep", **asked)
    film = {"interpolate": "w", "frames": 1}
    found = latents_of(run, tmp_path / "film", **asked, **film)
    np.testing.assert_allclose(found, swept[[0, 2, 1, 3]], atol=1e-6)


def test_film_does_not_depend_on_what_else_is_written(run: Program, tmp_path) -> None:
    asked = {"seeds": "0-2", "interpolate": "w", "frames": 4, "batch_size": 4}
    for kind in ("png", "none"):
        assert run(generate, **asked, images=kind, outdir=tmp_path / kind)[0] == 0
    for name in ("film.gif", "grid.png", "w_plus.npy"):
        files = [(tmp_path / kind / name).read_bytes() for kind in ("png", "none")]
        assert files[0] == files[1], name


def test_film_is_made_again_by_the_same_command(run: Program, tmp_path) -> None:
    asked = {"seeds": "0-2", "interpolate": "z", "frames": 4}
    assert run(generate, **asked)[0] == 0
    before = programs.hashes(tmp_path / "out")
    for name in ("film.gif", "grid.png", "images/000003.png"):
        (tmp_path / "out" / name).unlink()
    assert run(generate, **asked)[0] == 0
    assert programs.hashes(tmp_path / "out") == before
    code, _, error = run(generate, **asked | {"frames": 5})
    assert code == 2
    assert "frames=4, found 5" in error


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"rows": "1"}, "--cols beside it, found rows alone"),
        ({"rows": "a", "cols": "2"}, "error: --rows: expected numbers"),
        ({"styles": "1"}, "--rows beside it, found styles alone"),
        ({"rows": "1", "cols": "2", "styles": "2,4"}, "expected 0 to 3, the rows"),
        ({"rows": "1", "cols": "2", "seeds": "3"}, "error: --seeds: expected none"),
        ({"rows": "1", "cols": "2", "interpolate": "w"}, "found both"),
        ({"rows": "1", "cols": "2", "truncation_sweep": "1"}, "found both"),
        ({"frames": 3}, "--interpolate beside it, found frames alone"),
        ({"loop": "false"}, "--interpolate beside it, found loop alone"),
        ({"interpolate": "w", "curve": "spherical"}, "spherical, which is for z"),
        ({"interpolate": "w", "seeds": 3}, "expected 2 latents or more"),
        ({"interpolate": "w", "num_films": 3}, "as many for each of 3, found 8"),
        ({"interpolate": "w", "frames": 0}, "--frames must be at least 1"),
        ({"interpolate": "w", "frames": 2**21}, "--film_format: expected mp4 for"),
        ({"interpolate": "w", "fps": 60}, "--fps: expected at most 50 of a gif"),
        ({"truncation_sweep": "0,5"}, "expected numbers from -4 to 4, found 0,5"),
        (
            {"interpolate": "w", "truncation_sweep": "0,1", "num_films": 2},
            "expected none beside --truncation_sweep",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(
    run: Program, tmp_path, asked, expected
) -> None:
    code, _, error = run(generate, **asked)
    assert code == 2
    assert error.count("\n") == 1
    assert expected in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "asked", "expected"),
    [
        (tiny.w_plus, {"interpolate": "z"}, "expected latents in z for a film in z"),
        (tiny.w_plus, {"rows": "0", "cols": "2"}, "expected 0 to 1 of this file"),
        (None, {"interpolate": "w"}, "for a film in w, found s"),
        (None, {"rows": "0", "cols": "1"}, "z, w or w_plus, found s"),
        (None, {"truncation_sweep": "1"}, "z, w or w_plus, found s"),
    ],
)
def test_latents_that_do_not_fit_are_refused(
    run: Program, tmp_path, content, asked, expected
) -> None:
    array = np.zeros((2, 46)) if content is None else np.asarray(content(2))
    np.save(tmp_path / "latents.npy", array)
    code, _, error = run(generate, latents=tmp_path / "latents.npy", **asked)
    assert code == 2
    assert error.count("\n") == 1
    assert expected in error
    assert not (tmp_path / "out").exists()
