"""Uploads of the app: photos, their faces, and generators that are tuned to them."""

import dataclasses
import pathlib

import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from styleclip_jax import latents
from styleclip_jax.app import optimizing, rooms, steps, uploads, views
from styleclip_jax.app.rooms import Face, Room
from styleclip_jax.app.tunings import GONE, Tunings
from styleclip_jax.batch.tuned import TunedInMemory
from styleclip_jax.errors import UserError
from styleclip_jax.io import direction_files, latent_files
from styleclip_jax.models import param_trees
from styleclip_jax.models.network import Network
from styleclip_jax.ops import pixels
from styleclip_jax.photos import align
from tests import tiny

OTHER = direction_files.Origin("faces", None)


def changes(by: float) -> dict[str, np.ndarray]:
    """Changes of a generator, in numbers that bfloat16 has."""
    name = "synthesis/const"
    shape = param_trees.flatten(tiny.generator().params)[name].shape
    return {name: np.full(shape, by, ml_dtypes.bfloat16)}


def drawn(latent: object, by: float) -> np.ndarray:
    """Image of latents by the generator with these changes, of 8 bits."""
    params = param_trees.changed(tiny.generator().params, changes(by))
    image = latents.render(Network(params, tiny.GENERATOR), latent)
    return np.asarray(pixels.to_uint8(np.asarray(image)))


def test_where_an_upload_is_kept_is_not_told(
    room: Room, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "me.png").write_text("no picture")
    with pytest.raises(UserError, match=r"me\.png: not a readable photo") as error:
        uploads.open_photo(room, str(tmp_path / "me.png"), find_face=True)
    assert str(tmp_path) not in str(error.value)


def test_photos_have_a_largest_number_of_pixels(
    room: Room, tmp_path: pathlib.Path
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "me.png")
    small = dataclasses.replace(room, max_pixels=1199)
    with pytest.raises(UserError, match="at most 1,199 pixels, found 40×30"):
        uploads.open_photo(small, str(tmp_path / "me.png"), find_face=False)


def test_all_faces_of_a_photo_are_taken_if_asked_for(
    room: Room, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "two.png"
    Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    ).save(path)
    shape = np.random.default_rng(0).random((68, 2))
    faces = [shape * 8 + 6, shape * 12 + 24]
    monkeypatch.setattr(align, "detect", lambda photo: faces)
    (largest,) = uploads.open_photo(room, str(path), find_face=True)
    assert largest.name == "two.png"
    found = uploads.open_photo(room, str(path), find_face=True, all_faces=True)
    assert [x.name for x in found] == ["two.png, face 1 of 2", "two.png, face 2 of 2"]
    np.testing.assert_array_equal(found[1].crop.target, largest.crop.target)
    assert np.abs(found[0].crop.target - found[1].crop.target).max() > 0
    faces[0] += 500
    with pytest.raises(UserError, match=r"^two\.png: .*expected a face in the photo"):
        uploads.open_photo(room, str(path), find_face=True, all_faces=True)


@pytest.mark.slow
def test_edits_of_a_photo_go_through_its_own_generator(
    room: Room, tmp_path: pathlib.Path
) -> None:
    own = rooms.draw(room, 3, 0.7)
    ours, theirs = (
        own._replace(tuned=room.tunings.add(TunedInMemory(changes(by), room.origin, 3)))
        for by in (0.5, -0.5)
    )
    relevance = steps.measure(room, "dog", "cat", lambda count: None)
    for face, by in ((ours, 0.5), (theirs, -0.5), (own, 0.0)):

        def shows(latent: object, face: Face = face, by: float = by) -> None:
            found = room.render(latent, face.tuned).astype(int)
            assert np.abs(found - drawn(latent, by)).max() <= 1

        shows(face.latent)
        about = (("dog", "cat"), relevance, 0.1, face.tuned)
        step = steps.direct(room, face.latent, *about)
        shows(steps.moved(step, 2.0))
        picture = np.asarray(views.see(room, face, step, 2.0).picture)
        few = optimizing.Settings(steps=2)
        *_, (_, step) = optimizing.optimize(room, face.latent, "cat", few, face.tuned)
        assert step.tuned == face.tuned
        shows(steps.moved(step, 1.0))
        if face is ours:
            first = picture, step.delta
    # The same latent goes another way through another generator.
    assert np.abs(first[0].astype(int) - picture).max() > 1
    assert np.abs(first[1] - step.delta).max() > 1e-5
    # The file of its generator is in the zip, for the other programs.
    views.save(room, views.see(room, ours), tmp_path)
    names = {x.name for x in (tmp_path / "parts").iterdir()}
    assert {"start.npy", "tuned"} <= names
    latent = latent_files.read(tmp_path / "parts" / "start.npy", tiny.GENERATOR, None)
    faces = room.session.read(latent.array)
    again = room.session.read(
        str(tmp_path / "parts" / "start.npy"), tuned=str(tmp_path / "parts" / "tuned")
    )
    assert np.abs(again.images - faces.images).max() > 1e-2


def test_tunings_have_a_limit_and_numbers_of_their_own() -> None:
    tunings = Tunings(max_bytes=5)
    two = {"a": np.zeros(1, ml_dtypes.bfloat16)}
    numbers = [tunings.add(TunedInMemory(two, OTHER, i)) for i in range(2)]
    assert tunings.find(numbers[0]).num_steps == 0
    # The one that was used longest ago goes.
    numbers.append(tunings.add(TunedInMemory(two, OTHER, 2)))
    assert len(set(numbers)) == 3
    with pytest.raises(UserError, match=GONE):
        tunings.find(numbers[1])
    assert [tunings.find(numbers[i]).num_steps for i in (0, 2)] == [0, 2]
    # One that is larger than all is kept alone.
    large = {"a": np.zeros(9, ml_dtypes.bfloat16)}
    assert tunings.find(tunings.add(TunedInMemory(large, OTHER, 4))).num_steps == 4
    with pytest.raises(UserError, match=GONE):
        tunings.find(numbers[2])
