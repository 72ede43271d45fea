"""Programs on a generator of images that are not square, and on one that is cropped."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from styleclip_jax import loading, losses
from styleclip_jax.app import rooms, uploads
from styleclip_jax.cli import edit, evaluate, generate, invert
from styleclip_jax.errors import UserError
from styleclip_jax.settings.generator_training import RecipeSettings
from styleclip_jax.settings.photos import InversionConfig
from tests import tiny
from tests.programs import Program
from train import generator_recipes


@pytest.fixture(scope="module")
def models(
    networks: losses.Networks, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Flags that name a generator of 4×8 (width first) and the tiny CLIP."""
    folder = tmp_path_factory.mktemp("models")
    return tiny.save(folder, networks.clip, tiny.TALL)


def shape_of(path: pathlib.Path) -> tuple[int, int]:
    """Width and height of a picture."""
    with Image.open(path) as picture:
        return picture.size


@pytest.mark.slow
def test_samples_sheets_and_films(run: Program, tmp_path: pathlib.Path) -> None:
    code, out, err = run(generate, seeds="0-2", batch_size=2)
    assert code == 0, err
    assert "4×8, 4 rows of W+" in out
    assert shape_of(tmp_path / "out/images/000002.png") == (4, 8)
    # Cells are twice as high as they are wide.
    width, height = shape_of(tmp_path / "out/grid.png")
    assert width < 4 * 128
    assert height > 2 * 128
    outdir = tmp_path / "film"
    options = {"interpolate": "w", "frames": 2, "film_format": "gif", "grid": 0}
    code, _, err = run(generate, seeds="0-1", outdir=outdir, **options)
    assert code == 0, err
    (film,) = outdir.rglob("*.gif")
    assert shape_of(film) == (4, 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"steps": 2, "space": "s"},
        {"steps": 2, "clip_preprocess": "clip"},
        {"method": "direction", "neutral": "dog", "steps": None, "num_samples": 4},
        {"method": "stylemc", "steps": 2, "num_samples": 4, "resolution": 4},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_edits(run: Program, tmp_path: pathlib.Path, options: dict[str, Any]) -> None:
    if options.get("method") == "direction":
        (tmp_path / "templates.txt").write_text("a {}\n")
        options = options | {"templates": tmp_path / "templates.txt"}
    code, _, err = run(edit, seeds="0-1", grid=2, **options)
    assert code == 0, err
    assert shape_of(tmp_path / "out/images/000001.png") == (4, 8)
    assert (tmp_path / "out/grid.png").is_file()


@pytest.mark.slow
def test_photos_are_inverted_edited_pasted_and_evaluated(
    run: Program, models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    random = np.random.default_rng(0)
    photo = random.integers(0, 256, (40, 20, 3), np.uint8)
    for name, part in (("tall.png", photo), ("square.png", photo[:20])):
        Image.fromarray(part).save(tmp_path / name)
    steps = {"w_steps": 1, "refine_steps": 1, "clip": models["clip"]}
    asked = {"photos": tmp_path / "tall.png", "align": False, **steps}
    code, _, err = run(invert, outdir=tmp_path / "inverted", **asked)
    assert code == 0, err
    (face,) = json.loads((tmp_path / "inverted/aligned.json").read_text())["faces"]
    corners = np.array([(0, 0), (0, 40), (20, 40), (20, 0)]) - 0.5
    np.testing.assert_array_equal(face["quad"], corners)
    code, _, err = run(
        edit, latents=tmp_path / "inverted/w_plus.npy", paste=True, steps=1, seeds=None
    )
    assert code == 0, err
    (pasted,) = (tmp_path / "out").rglob("*pasted*/*.png")
    assert shape_of(pasted) == (20, 40)
    options = {"edits": tmp_path / "out", "outdir": tmp_path / "table"}
    code, _, err = run(evaluate, generator=None, **options)
    assert code == 0, err
    assert (tmp_path / "table/edits.json").is_file()
    # What does not fit is refused in a line, and nothing is written.
    for change, expected in (
        ({"photos": tmp_path / "square.png"}, "found none in 1 photos"),
        ({"align": True}, "--align: expected --noalign with a generator of images of"),
    ):
        code, _, err = run(invert, outdir=tmp_path / "none", **(asked | change))
        assert code == 2
        assert expected in err.splitlines()[-1]
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_pictures_of_the_app_keep_their_shape(
    models: dict[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = InversionConfig(w_steps=1, refine_steps=0)
    monkeypatch.setattr(rooms, "_INVERSION", few)
    room = rooms.open_room(loading.Models(**models))
    image = room.render(rooms.draw(room, 3).latent)
    assert image.shape == (1, 8, 4, 3)
    assert rooms.thumbnail(image[0]).size == (48, 96)
    Image.new("RGB", (60, 40)).save(tmp_path / "me.png")
    (photo,) = uploads.open_photo(room, str(tmp_path / "me.png"), find_face=True)
    face = uploads.invert(room, photo, lambda steps: None)
    assert face.latent.shape == (1, 4, 12)
    assert photo.found == "its middle is used"


def test_another_crop_of_the_same_weights_is_another_run(
    run: Program, tmp_path: pathlib.Path
) -> None:
    config = dataclasses.replace(tiny.GENERATOR, crop_height=6)
    folder = tiny.write(tmp_path / "car", "stylegan2", tiny.generator(config))
    code, _, err = run(generate, seeds="0-1", generator=folder)
    assert code == 0, err
    assert shape_of(tmp_path / "out/images/000001.png") == (8, 6)
    path = tmp_path / "car/config.json"
    path.write_text(path.read_text().replace('"crop_height": 6', '"crop_height": 4'))
    code, _, err = run(generate, seeds="0-1", generator=folder)
    assert (code, err.count("\n")) == (2, 1)
    assert "is of a run with generator_crop_height=6, found 4; use the same" in err


def test_what_needs_square_images_says_so(
    run: Program, models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    identity = tiny.write(tmp_path / "identity", "irse50", tiny.identity_network())
    outdir = tmp_path / "out"
    code, _, err = run(edit, seeds="0", identity=identity, id_lambda=0.1)
    assert (code, err.count("\n")) == (2, 1)
    expected = "expected a generator of square images with it, found one of 4×8"
    assert f"--identity: {expected}" in err
    assert not outdir.exists()
    config = dataclasses.replace(
        tiny.ENCODER, num_rows=4, input_size=32, input_height=24
    )
    encoder = tiny.write(tmp_path / "encoder", "e4e", tiny.encoder(config))
    Image.new("RGB", (20, 40)).save(tmp_path / "tall.png")
    asked = {"photos": tmp_path / "tall.png", "align": False, "encoder": encoder}
    code, _, err = run(invert, **asked, clip=models["clip"])
    assert (code, err.count("\n")) == (2, 1)
    assert "--encoder: expected one for images of 4×8, as the generator makes" in err
    assert not outdir.exists()
    sizes = {"resolution": 8, "c_dim": 0, "batch_size": 4, "per_device": 4}
    settings = RecipeSettings(resume_from=models["generator"])
    with pytest.raises(UserError, match=f"^resume_from: {expected}"):
        generator_recipes.make(settings, **sizes, seed=0)
