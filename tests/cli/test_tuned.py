"""Latents of styleclip-invert are drawn and edited through their tuned generators."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from styleclip_jax import latents, loading, spaces
from styleclip_jax.cli import edit, generate, invert
from styleclip_jax.editing import tuning
from styleclip_jax.editing.session import Session
from styleclip_jax.errors import UserError
from styleclip_jax.evaluation import edit_sets
from styleclip_jax.io import direction_files, latent_files, tuned_files
from styleclip_jax.methods.global_directions import Direction
from styleclip_jax.models import param_trees
from styleclip_jax.models.network import Network
from styleclip_jax.ops import pixels
from styleclip_jax.settings.tuning import TuningConfig
from tests import tiny
from tests.programs import Program

COUNT = 3
CHANNEL = {"method": "direction", "channel": "1:2", "alpha": "3,5", "prompt": None}
CHANNEL |= {"clip": None, "steps": None, "images": "npy", "film_frames": 2}


def changes(row: int) -> dict[str, np.ndarray]:
    """Changes of a generator, in numbers that bfloat16 has."""
    flat = param_trees.flatten(tiny.generator().params)
    names = ("synthesis/const", "synthesis/b8/conv1/affine/bias")
    values = ((row + 1) / 4, -(row + 1) / 8)
    return {n: np.full(flat[n].shape, x) for n, x in zip(names, values, strict=True)}


def generator_of(row: int) -> Network:
    params = param_trees.changed(tiny.generator().params, changes(row))
    return Network(params, tiny.GENERATOR)


@pytest.fixture
def inverted(models: dict[str, str], tmp_path: pathlib.Path) -> pathlib.Path:
    """Latents with tuned generators beside them, as styleclip-invert leaves them."""
    folder = tmp_path / "invert"
    folder.mkdir()
    np.save(folder / "w_plus.npy", tiny.w_plus(COUNT))
    origin = loading.Models(generator=models["generator"]).generator_origin()
    for row in range(COUNT):
        path = folder / "tuned" / tuned_files.name(row)
        tuned_files.write(path, changes(row), generator=origin, about={})
    return folder


def images(folder: pathlib.Path, count: int) -> np.ndarray:
    paths = [folder / "images" / f"{i:06d}.npy" for i in range(count)]
    return np.stack([np.load(path) for path in paths])


def expected(latent: Any, row: int) -> np.ndarray:
    batch = jax.tree.map(lambda x: x[row : row + 1], latent)
    return np.asarray(latents.render(generator_of(row), batch)[0])


def test_pictures_are_those_of_the_tuned_generators(
    run: Program, inverted: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    options = {"latents": inverted / "w_plus.npy", "images": "npy", "batch_size": 2}
    code, out, _ = run(generate, **options)
    assert code == 0
    assert f"tuned: {COUNT} generators of {inverted / 'tuned'}" in out
    w_plus, found = tiny.w_plus(COUNT), images(tmp_path / "out", COUNT)
    for row in range(COUNT):
        np.testing.assert_allclose(found[row], expected(w_plus, row), atol=1e-5)
    plain = tmp_path / "plain"
    code, out, _ = run(generate, **options, tuned="none", outdir=plain)
    assert "tuned" not in out
    np.testing.assert_allclose(images(plain, COUNT), tiny.render(w_plus), atol=1e-5)
    # The record says which, so that the other run is not gone on with.
    code, _, err = run(generate, **options, outdir=plain)
    assert (code, "tuned" in err) == (2, True)


def test_edits_go_through_the_tuned_generators(
    run: Program, inverted: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    code, _, err = run(edit, latents=inverted / "w_plus.npy", **CHANNEL, grid=2)
    assert code == 0, err
    out = tmp_path / "out"
    found = images(out, 2 * COUNT)
    flat = latent_files.read(out / "edited.npz", tiny.GENERATOR, "s").array
    edited = spaces.unflatten_styles(flat, tiny.GENERATOR.style_layout)
    for index in range(2 * COUNT):
        one = jax.tree.map(lambda x, i=index: x[i : i + 1], edited)
        drawn = latents.render(generator_of(index // 2), one)[0]
        np.testing.assert_allclose(found[index], drawn, atol=1e-5)
        assert (out / "films" / f"{index:06d}.gif").is_file()
    assert (out / "grid.png").is_file()
    assert json.loads((out / "run.json").read_text())["inputs"]["tuned"]
    with pytest.raises(UserError, match="those through tuned ones, which are not mea"):
        edit_sets.read(out)


def test_a_session_edits_through_the_tuned_generators(
    inverted: pathlib.Path, models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    names = loading.Models(generator=models["generator"])
    session = Session(names, devices=jax.devices()[:2])
    faces = session.read(inverted / "w_plus.npy")
    for row in range(COUNT):
        found = faces.images[row]
        np.testing.assert_allclose(found, expected(faces.latent, row), atol=1e-5)
    assert not session.read(inverted / "w_plus.npy", tuned="none").tuned
    layout = tiny.GENERATOR.style_layout
    delta = np.random.default_rng(0).normal(size=sum(x.channels for x in layout))
    made = session.move(faces[1:], Direction(delta.astype(np.float32), layout))
    for row in (1, 2):
        assert made.after.tuned[row - 1] is faces.tuned[row]
        found = made.images[row - 1]
        drawn = latents.render(
            generator_of(row),
            jax.tree.map(lambda x, i=row: x[i - 1 : i], made.after.latent),
        )
        np.testing.assert_allclose(found, drawn[0], atol=1e-5)
    made.save(tmp_path / "saved", images="npy")
    np.testing.assert_array_equal(images(tmp_path / "saved", 2), made.images)
    with pytest.raises(UserError, match="those through tuned ones, which are not mea"):
        edit_sets.read(tmp_path / "saved")
    alone = session.moving(Direction(delta, layout))._replace(through=None)
    with pytest.raises(UserError, match="the method direction cannot edit through the"):
        session.edit(faces, alone)


def test_optimization_goes_through_the_tuned_generators(
    run: Program, inverted: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    options = {"latents": inverted / "w_plus.npy", "images": "npy"}
    code, _, err = run(edit, **options)
    assert code == 0, err
    w_plus = np.load(tmp_path / "out" / "edited.npy")
    assert np.abs(w_plus - tiny.w_plus(COUNT)).max() > 0
    found = images(tmp_path / "out", COUNT)
    for row in range(COUNT):
        np.testing.assert_allclose(found[row], expected(w_plus, row), atol=1e-5)


def test_generators_that_do_not_fit_are_refused(
    run: Program, models: dict[str, str], inverted: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    options = {"latents": inverted / "w_plus.npy"}
    wrong = inverted / "tuned" / tuned_files.name(1)
    content = wrong.read_bytes()
    wrong.unlink()
    code, _, err = run(generate, **options)
    assert (code, err.count("\n")) == (2, 1)
    assert "for each of 3 --latents, 000000.safetensors and on, found 2" in err
    own = loading.Models(generator=models["generator"]).generator_origin()
    other = direction_files.Origin("cars", "ab" * 32)
    tuned_files.write(wrong, changes(1), generator=other, about={})
    code, _, err = run(generate, **options)
    assert (code, "is for the generator cars (sha256 abab" in err) == (2, True)
    wrong.write_bytes(content[:-1])
    code, _, err = run(generate, **options)
    assert (code, "not a readable safetensors file" in err) == (2, True)
    broken = {n: np.full_like(x, np.nan) for n, x in changes(1).items()}
    wrong.write_bytes(tuned_files.dump(broken, generator=own, about={}))
    code, _, err = run(generate, **options)
    assert (code, "has values that are not finite" in err) == (2, True)
    wrong.write_bytes(content)
    code, _, err = run(generate, **options, interpolate="w", tuned=inverted / "tuned")
    assert (code, "mixed and interpolated latents have no tuned" in err) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def photos(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two photos that are crops already."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        values = np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8)
        image = Image.fromarray(values).resize((20, 20), Image.Resampling.BICUBIC)
        image.save(folder / f"{i}.png")
    return folder


def test_projected_noise_belongs_to_each_photo(
    run: Program, models: dict[str, str], photos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    options = {"photos": photos, "align": False, "clip": models["clip"]}
    options |= {"w_steps": 2, "refine_steps": 2, "images": "npy", "grid": 2}
    code, _, err = run(invert, **options, noise_lambda=1)
    assert (code, "--noise_lambda: expected --objective=projector" in err) == (2, True)
    identity = tiny.write(tmp_path / "identity", "irse50", tiny.identity_network())
    options |= {"objective": "projector", "identity": identity}
    projected = tmp_path / "projected"
    code, _, err = run(invert, **options, outdir=projected)
    assert code == 0, err
    lines = [json.loads(x) for x in (projected / "metrics.jsonl").open()]
    assert all(
        {"perceptual", "noise", "total", "levels"} <= line.keys() for line in lines
    )
    assert run(generate, latents=projected / "w_plus.npy", images="npy")[0] == 0
    found, again = images(projected, 2), images(tmp_path / "out", 2)
    np.testing.assert_allclose(again, found, atol=1e-5)
    own = tiny.render(np.load(projected / "w_plus.npy"))
    assert np.abs(own - found).max() > 1e-3


def test_generators_are_tuned_to_photos_and_used_from_then_on(
    run: Program, models: dict[str, str], photos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    options = {"photos": photos, "align": False, "clip": models["clip"]}
    options |= {
        "w_steps": 2,
        "refine_steps": 3,
        "images": "npy",
        "grid": 2,
        "batch_size": 2,
    }
    asked = {"tune_steps": 40, "tune_rate": 3e-3, "tune_lpips_lambda": 0}
    asked["tune_ramp_down"] = 0
    inverted, plain = tmp_path / "inverted", tmp_path / "plain"
    code, _, err = run(invert, **options, **asked, outdir=inverted)
    assert code == 0, err
    assert run(invert, **options, outdir=plain)[0] == 0
    w_plus = np.load(inverted / "w_plus.npy")
    np.testing.assert_array_equal(w_plus, np.load(plain / "w_plus.npy"))
    metrics = [json.loads(x) for x in (inverted / "metrics.jsonl").open()]
    untuned = [json.loads(x) for x in (plain / "metrics.jsonl").open()]
    for line, before in zip(metrics, untuned, strict=True):
        assert line["tune_steps"] == 40
        np.testing.assert_allclose(line["levels_untuned"], before["levels"], rtol=1e-5)
        assert line["levels"] < 0.7 * line["levels_untuned"]
    # What is drawn later is what the inversion showed.
    assert run(generate, latents=inverted / "w_plus.npy", images="npy")[0] == 0
    found = images(inverted, 2)
    np.testing.assert_allclose(images(tmp_path / "out", 2), found, atol=1e-5)
    # The photo gets the edit of the tuned generator; without strength, its own image.
    asked = {"latents": inverted / "w_plus.npy", "alpha": "0", "film_frames": None}
    assert run(edit, **CHANNEL | asked, paste=True, outdir=tmp_path / "pasted")[0] == 0
    for row in range(2):
        shown = Image.fromarray(pixels.to_uint8(found[row])).resize((20, 20))
        pasted = Image.open(tmp_path / "pasted" / "pasted" / f"{row:06d}.png")
        beside = np.abs(np.asarray(pasted, float) - np.asarray(shown, float))
        assert beside[4:-4, 4:-4].mean() < 6
    size = (inverted / "tuned" / tuned_files.name(0)).stat().st_size
    numbers = sum(x.size for x in jax.tree.leaves(tiny.generator().params["synthesis"]))
    assert size < 2 * numbers + 4096
    # A perceptual distance needs a network, which is told before any work.
    code, _, err = run(invert, **options, tune_steps=1, outdir=tmp_path / "none")
    assert (code, "--tune_lpips_lambda: needs a network that sees" in err) == (2, True)
    assert not (tmp_path / "none").exists()


def test_what_a_tuning_leaves_open_comes_from_the_networks(
    models: dict[str, str],
) -> None:
    def completed(**given: str) -> TuningConfig:
        return tuning._completed(TuningConfig(), loading.Models.of(**given))

    found = completed()
    assert (found.tune_rate, found.tune_l1_lambda) == (5e-4, 0.5)
    assert found.tune_noise_rate == 5e-3
    assert found.tune_threshold is None
    # The official weights and end, of which the rate is the method's own.
    found = completed(generator=models["generator"], lpips="models/alexnet")
    assert (found.tune_rate, found.tune_l1_lambda) == (None, None)
    assert found.tune_noise_rate is None
    assert found.tune_threshold == 0.06


def test_maps_of_noise_are_asked_of_generators_with_noise() -> None:
    generator = Network({}, tiny.STYLEGAN3)
    asked: Any = (loading.Models(), generator, TuningConfig(tune_noise_rate=0.1), None)
    with pytest.raises(UserError, match="tune_noise_rate: expected 0 for a generator"):
        tuning.tuner(*asked)


def test_ramps_are_shares_of_the_steps(run: Program, tmp_path: pathlib.Path) -> None:
    code, _, err = run(invert, photos=tmp_path, tune_ramp_up=2)
    assert (code, "--tune_ramp_up: expected 0 to 1, found 2" in err) == (2, True)
