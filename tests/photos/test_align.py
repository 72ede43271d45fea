"""Alignment follows the published recipe, and its inverse puts edits back in place."""

import json
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from styleclip_jax.errors import UserError
from styleclip_jax.photos import align, photo_files
from tests import golden_data
from tests.squares import square, turned

PHOTO = golden_data.ROOT / "photo" / "face.jpg"


def landmarks(
    eyes: tuple[tuple[float, float], ...], mouth: tuple[tuple[float, float], ...]
) -> np.ndarray:
    """[68, 2]: eyes as six points around their centres, corners of the mouth, noise."""
    points = np.random.default_rng(0).uniform(0, 100, (68, 2))
    angles = np.arange(6) * np.pi / 3
    ring = np.stack([2 * np.cos(angles), np.sin(angles)], 1)
    points[36:42], points[42:48] = ring + eyes[0], ring + eyes[1]
    points[48], points[54] = mouth
    return points


def smooth_photo(height: int, width: int) -> np.ndarray:
    """[H, W, 3] uint8: slow waves, different ones in each channel."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 17 + k) * np.cos(y / 23 - 2 * k) for k in range(3)]
    return np.rint(127.5 + 100 * np.stack(waves, -1)).astype(np.uint8)


def noisy_photo(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 12, (height, width, 3))
    return np.clip(smooth_photo(height, width) + noise, 0, 255).astype(np.uint8)


# The square.


def test_a_wide_face_gives_the_square_computed_by_hand() -> None:
    # e = (20, 0), m = (0, 20), x = e + (20, 0) scaled to max(40, 36), c = (50, 52).
    points = landmarks(((40, 50), (60, 50)), ((43, 70), (57, 70)))
    expected = [(10, 12), (10, 92), (90, 92), (90, 12)]
    np.testing.assert_allclose(align.quad(points), expected, atol=1e-12)


def test_a_long_face_gives_the_square_computed_by_hand() -> None:
    # e = (20, 0), m = (0, 30), x of length max(40, 54), c = (50, 53).
    points = landmarks(((40, 50), (60, 50)), ((43, 80), (57, 80)))
    expected = [(-4, -1), (-4, 107), (104, 107), (104, -1)]
    np.testing.assert_allclose(align.quad(points), expected, atol=1e-12)


def test_a_mouth_beside_the_nose_turns_the_square_halfway() -> None:
    # e = (20, 0), m = (10, 20): x = (20, 0) + (20, -10) = (40, -10), whose length
    # becomes max(40, 1.8 √500) = 40.2492…; c = (51, 52).
    points = landmarks(((40, 50), (60, 50)), ((53, 70), (67, 70)))
    x = np.array([4, -1]) / np.sqrt(17) * 1.8 * np.sqrt(500)
    y, c = np.array([-x[1], x[0]]), np.array([51, 52])
    expected = [c - x - y, c - x + y, c + x + y, c + x - y]
    np.testing.assert_allclose(align.quad(points), expected, atol=1e-12)


@pytest.mark.parametrize("degrees", [0, 37, 180, 291])
def test_the_square_moves_turns_and_grows_with_the_face(degrees: float) -> None:
    points = landmarks(((40, 50), (61, 47)), ((44, 72), (59, 69)))
    moved = turned(points, degrees) * 3.7 + (100, -20)
    expected = turned(align.quad(points), degrees) * 3.7 + (100, -20)
    np.testing.assert_allclose(align.quad(moved), expected, atol=1e-9)


def test_landmarks_that_are_no_face_are_refused() -> None:
    with pytest.raises(UserError, match="eyes and mouth"):
        align.quad(np.ones((68, 2)))
    with pytest.raises(UserError, match="eyes and mouth"):
        align.quad(np.full((68, 2), np.nan))
    with pytest.raises(ValueError, match=r"\[68, 2\]"):
        align.quad(np.ones((5, 2)))


def test_the_largest_face_is_chosen() -> None:
    small = landmarks(((40, 50), (60, 50)), ((43, 70), (57, 70)))
    assert align.largest([small, 2 * small, small + 9]) is not small
    np.testing.assert_array_equal(align.largest([small, 2 * small, small]), 2 * small)


# The crop, against the recipe's steps written naively.


def mirrored(index: int, size: int) -> int:
    """Index of a row that is reflected, without repeating the first and last."""
    while not 0 <= index < size:
        index = -index if index < 0 else 2 * (size - 1) - index
    return index


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian cut at four sigma; rows repeat their first and last when reflected."""
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        size = image.shape[axis]
        matrix = np.zeros((size, size))
        for i in range(size):
            for offset, weight in zip(offsets, kernel, strict=True):
                j = (i + offset) % (2 * size)
                matrix[i, min(j, 2 * size - 1 - j)] += weight
        image = np.moveaxis(np.tensordot(matrix, image, (1, axis)), 0, axis)
    return image


def warped(image: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    """Bilinear samples of the quadrilateral, cut down to whole numbers as Pillow's."""
    top_left, bottom_left, bottom_right, top_right = corners
    result = np.zeros((size, size, 3))
    for i in range(size):
        for j in range(size):
            u, v = (j + 0.5) / size, (i + 0.5) / size
            top = top_left + u * (top_right - top_left)
            bottom = bottom_left + u * (bottom_right - bottom_left)
            x, y = top + v * (bottom - top) - 0.5
            x0, y0 = int(np.floor(x)), int(np.floor(y))
            for a, b, weight in (
                (x0, y0, (x0 + 1 - x) * (y0 + 1 - y)),
                (x0 + 1, y0, (x - x0) * (y0 + 1 - y)),
                (x0, y0 + 1, (x0 + 1 - x) * (y - y0)),
                (x0 + 1, y0 + 1, (x - x0) * (y - y0)),
            ):
                result[i, j] += weight * image[b, a]
    return np.floor(result + 1e-6).astype(np.uint8)


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    picture = Image.fromarray(image)
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))


def recipe(photo: np.ndarray, quad: np.ndarray, size: int, factor: int) -> np.ndarray:
    side = np.linalg.norm(quad[0] - quad[1])
    shrink = int(side / size / 2)
    if shrink > 1:
        height, width, _ = photo.shape
        photo = resized(photo, round(width / shrink), round(height / shrink))
        quad, side = quad / shrink, side / shrink
    border = max(round(side * 0.1), 3)
    height, width, _ = photo.shape
    x0 = max(int(np.floor(quad[:, 0].min())) - border, 0)
    y0 = max(int(np.floor(quad[:, 1].min())) - border, 0)
    x1 = min(int(np.ceil(quad[:, 0].max())) + border, width)
    y1 = min(int(np.ceil(quad[:, 1].max())) + border, height)
    photo, quad = photo[y0:y1, x0:x1], quad - (x0, y0)

    height, width, _ = photo.shape
    left = max(border - int(np.floor(quad[:, 0].min())), 0)
    top = max(border - int(np.floor(quad[:, 1].min())), 0)
    right = max(int(np.ceil(quad[:, 0].max())) - width + border, 0)
    bottom = max(int(np.ceil(quad[:, 1].max())) - height + border, 0)
    if max(left, top, right, bottom) > border - 4:
        least = round(side * 0.3)
        left, top, right, bottom = (max(n, least) for n in (left, top, right, bottom))
        rows = [mirrored(i, height) for i in range(-top, height + bottom)]
        columns = [mirrored(j, width) for j in range(-left, width + right)]
        image = photo[rows][:, columns].astype(np.float64)
        height, width, _ = image.shape
        mask = np.zeros((height, width, 1))
        for i in range(height):
            for j in range(width):
                across = min(j / left, (width - 1 - j) / right)
                down = min(i / top, (height - 1 - i) / bottom)
                mask[i, j] = max(1 - across, 1 - down)
        soft = blurred(image, side * 0.02)
        image = image + (soft - image) * np.clip(mask * 3 + 1, 0, 1)
        median = [np.median(image[..., k]) for k in range(3)]
        image = image + (median - image) * np.clip(mask, 0, 1)
        photo = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        quad = quad + np.array([left, top])
    return resized(warped(photo, quad + 0.5, size * factor), size, size)


CASES = {
    "inside": square(75, 60, 50),
    "turned": square(75, 60, 45, 30),
    "beyond the left": square(20, 60, 60.3, -12),
    "near the right": square(124, 60, 50),
    "beyond a corner": square(140, 110, 70),
    "larger than the photo": square(70, 66, 180.5, 3),
}


@pytest.mark.parametrize("size", [16, 40])
@pytest.mark.parametrize("name", CASES)
def test_crop_is_the_published_recipe(name: str, size: int) -> None:
    photo, quad = noisy_photo(120, 150), CASES[name]
    found = align.crop(photo, quad, size).astype(int)
    assert np.abs(found - recipe(photo, quad, size, 4)).max() <= 1


def test_crop_without_supersampling_is_the_recipe_of_e4e() -> None:
    photo, quad = noisy_photo(120, 150), CASES["turned"]
    found = align.crop(photo, quad, 40, supersampling=1).astype(int)
    assert np.abs(found - recipe(photo, quad, 40, 1)).max() <= 1


def test_a_square_of_whole_pixels_is_cut_out_unchanged() -> None:
    photo = noisy_photo(90, 100)
    # Corners of pixels lie half a pixel before their centres.
    found = align.crop(photo, square(49.5, 39.5, 40), 40, supersampling=1)
    np.testing.assert_array_equal(found, photo[20:60, 30:70])


@pytest.mark.parametrize("scale", [1, 4])
def test_points_land_where_they_should(scale: int) -> None:
    # Four discs at thirds of a turned square, in a photo large enough to be shrunk.
    quad = square(75, 60, 90, 25) * scale
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    photo = np.full((120 * scale, 150 * scale, 3), 128, np.uint8)
    y, x = np.mgrid[: len(photo), : photo.shape[1]]
    thirds = quad.mean(0) + (quad - quad.mean(0)) / 3
    for (a, b), color in zip(thirds, colors, strict=True):
        photo[np.hypot(x - a, y - b) < 8 * scale] = color
    crop = align.crop(photo, quad, 60)
    found = [crop[i, j] for i, j in ((20, 20), (40, 20), (40, 40), (20, 40))]
    np.testing.assert_allclose(found, colors, atol=3)


@pytest.mark.parametrize("size", [(60, 30), (120, 60)])
def test_images_that_are_not_square_are_pasted_where_they_lie(
    size: tuple[int, int],
) -> None:
    photo = smooth_photo(120, 100)
    quad = np.array([(20, 30), (20, 90), (50, 90), (50, 30)]) - 0.5
    edited = np.zeros((*size, 3), np.uint8)
    edited[: size[0] // 2] = 255
    found = align.paste(photo, edited, quad, feather=0.1)
    np.testing.assert_array_equal(found[37:55, 24:46], 255)
    np.testing.assert_array_equal(found[65:83, 24:46], 0)
    outside = np.ones(photo.shape[:2], bool)
    outside[30:90, 20:50] = False
    np.testing.assert_array_equal(found[outside], photo[outside])


def test_a_square_off_the_photo_is_refused() -> None:
    photo = smooth_photo(40, 50)
    for quad in (square(90, 20, 30), square(20, 20, 0.5), square(20, 20, 999)):
        with pytest.raises(UserError, match="photo of 50×40"):
            align.crop(photo, quad, 16)
        with pytest.raises(UserError, match="photo of 50×40"):
            align.paste(photo, smooth_photo(16, 16), quad)


def test_wrong_shapes_are_refused() -> None:
    photo = smooth_photo(40, 50)
    with pytest.raises(ValueError, match="uint8"):
        align.crop(photo.astype(np.float32), square(20, 20, 20), 16)
    with pytest.raises(ValueError, match="feather"):
        align.paste(photo, photo[:16, :16], square(20, 20, 20), feather=0)


# Pasting back.


def inside(photo: np.ndarray, quad: np.ndarray, margin: float = 0) -> np.ndarray:
    """[H, W]: pixels deeper in the square than a margin, a part of its side."""
    y, x = np.mgrid[: len(photo), : photo.shape[1]]
    right, down = quad[3] - quad[0], quad[1] - quad[0]
    u = ((x - quad[0, 0]) * right[0] + (y - quad[0, 1]) * right[1]) / (right @ right)
    v = ((x - quad[0, 0]) * down[0] + (y - quad[0, 1]) * down[1]) / (down @ down)
    return np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v)) > margin


@pytest.mark.parametrize("name", CASES)
def test_pixels_outside_stay_and_the_middle_is_replaced(name: str) -> None:
    photo, quad = noisy_photo(120, 150), CASES[name]
    before = photo.copy()
    edited = np.full((32, 32, 3), (10, 200, 90), np.uint8)
    result = align.paste(photo, edited, quad)
    np.testing.assert_array_equal(photo, before)
    assert result.dtype == np.uint8
    outside = ~inside(photo, quad, -1 / np.linalg.norm(quad[3] - quad[0]))
    np.testing.assert_array_equal(result[outside], photo[outside])
    middle = inside(photo, quad, 0.25)
    if not name.startswith(("beyond", "larger")):
        np.testing.assert_array_equal(result[middle] - edited[0, 0], 0)
    x, y = quad.mean(0).astype(int)
    assert np.abs(result[y, x] - edited[0, 0].astype(int)).max() <= 8


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_the_unedited_crop_changes_little(name: str, scale: int) -> None:
    large = Image.fromarray(smooth_photo(120, 150))
    large = large.resize((150 * scale, 120 * scale), Image.Resampling.BICUBIC)
    photo, quad = np.asarray(large), CASES[name] * scale
    size = 128 if name.startswith("larger") else 64
    result = align.paste(photo, align.crop(photo, quad, size), quad)
    assert np.abs(result.astype(int) - photo).max() <= 4


def test_a_shrunk_crop_comes_back_without_a_shift() -> None:
    # One level per pixel: a shift by one pixel is an error of one level.
    ramp = np.broadcast_to(np.arange(250)[None, :, None], (240, 250, 3))
    photo = np.ascontiguousarray(ramp).astype(np.uint8)
    quad = square(125, 120, 192)
    result = align.paste(photo, align.crop(photo, quad, 16), quad)
    middle = inside(photo, quad, 0.2)
    assert abs((result.astype(float) - photo)[middle].mean()) < 0.6


def test_an_edit_fades_without_a_seam() -> None:
    photo = np.full((120, 150, 3), 100, np.uint8)
    edited = np.full((64, 64, 3), 200, np.uint8)
    for quad in CASES.values():
        result = align.paste(photo, edited, quad).astype(int)
        steps = [np.abs(np.diff(result, axis=axis)).max() for axis in (0, 1)]
        # The steepest step of 100 levels' fade over a tenth of the side.
        assert max(steps) <= 1.6 * 100 * 1.5 / (0.1 * np.linalg.norm(quad[3] - quad[0]))
        assert result.max() == 200


def test_an_outline_of_a_face_bounds_what_is_replaced() -> None:
    photo = photo_files.read(PHOTO)
    (face,) = align.read_landmarks(PHOTO.parent / "landmarks.json")[PHOTO.name]
    quad, outline = align.quad(face), align.outline(face)
    edited = np.zeros((64, 64, 3), np.uint8)
    whole = align.paste(photo, edited, quad)
    masked = align.paste(photo, edited, quad, outline=outline)
    # Eyes, nose and mouth are replaced, and what is beside the face stays.
    for x, y in face[27:].round().astype(int):
        assert masked[y, x].max() <= 25
    beside = face[[0, 16, 8]] + np.array([(-25, 0), (25, 0), (0, 25)])
    for x, y in beside:
        np.testing.assert_array_equal(masked[int(y), int(x)], photo[int(y), int(x)])
        assert whole[int(y), int(x)].max() < 10
    # The forehead belongs to it, and the rim is soft.
    x, y = face[17:27].mean(0) + 0.5 * (face[36:48].mean(0) - face[[48, 54]].mean(0))
    assert masked[int(y), int(x)].max() <= 25
    white = np.full_like(photo, 255)
    result = align.paste(white, edited, quad, outline=outline).astype(int)
    assert max(np.abs(np.diff(result, axis=axis)).max() for axis in (0, 1)) <= 30


# Landmarks from files and from the detector.


def test_landmarks_are_read_from_json_and_npz(tmp_path: pathlib.Path) -> None:
    face = np.arange(136.0).reshape(68, 2)
    document = {"a.jpg": face.tolist(), "b.png": [face.tolist()] * 2, "c.jpg": []}
    (tmp_path / "faces.json").write_text(json.dumps(document))
    np.savez(tmp_path / "faces.npz", **{k: np.array(v) for k, v in document.items()})
    for name in ("faces.json", "faces.npz"):
        found = align.read_landmarks(tmp_path / name)
        assert [len(found[n]) for n in document] == [1, 2, 0]
        for faces in found.values():
            for one in faces:
                np.testing.assert_array_equal(one, face)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "by file name, found list"),
        ('{"a.jpg": [[1, 2], [3, 4]]}', r"a\.jpg: expected .* found \[2, 2\]"),
        ('{"a.jpg": [[1, 2], [3]]}', r"a\.jpg: expected 68 points"),
        ('{"a.jpg": {"x": 1}}', r"a\.jpg: expected 68 points"),
        ('{"a.jpg": %s}' % ([["1e999", 1]] * 68), r"a\.jpg: expected finite"),
        ('{"a.jpg": [NaN]}', "expected JSON .NaN"),
        ("{", "expected JSON"),
    ],
)
def test_other_landmarks_are_refused(
    tmp_path: pathlib.Path, content: str, message: str
) -> None:
    path = tmp_path / "faces.json"
    path.write_text(content.replace("'", ""))
    with pytest.raises(UserError, match=message):
        align.read_landmarks(path)


def test_landmark_files_that_cannot_be_read_are_named(tmp_path: pathlib.Path) -> None:
    for name in ("faces.json", "faces.npz"):
        with pytest.raises(UserError, match=f"{name}: no such file"):
            align.read_landmarks(tmp_path / name)
    (tmp_path / "faces.npz").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="not a readable"):
        align.read_landmarks(tmp_path / "faces.npz")


def test_a_missing_detector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    align._dlib.cache_clear()
    with pytest.raises(UserError, match=r"styleclip-jax\[align\].*landmarks"):
        align.detect(smooth_photo(64, 64))


def test_a_photographed_face_is_found() -> None:
    pytest.importorskip("dlib", reason="needs the extra align")
    align._dlib.cache_clear()
    (expected,) = align.read_landmarks(PHOTO.parent / "landmarks.json")[PHOTO.name]
    # By eye: the middles of the eyes and of the mouth.
    centers = [expected[36:42], expected[42:48], expected[[48, 54]]]
    by_eye = [(93, 101), (137, 103), (113, 140)]
    assert np.abs([c.mean(0) for c in centers] - np.array(by_eye)).max() < 4
    (found,) = align.detect(photo_files.read(PHOTO))
    assert np.abs(found - expected).max() <= 2
    assert align.detect(smooth_photo(240, 240)) == []


def test_a_photographed_face_survives_crop_and_paste() -> None:
    photo = photo_files.read(PHOTO)
    (face,) = align.read_landmarks(PHOTO.parent / "landmarks.json")[PHOTO.name]
    quad = align.quad(face)
    result = align.paste(photo, align.crop(photo, quad, 256), quad)
    error = np.abs(result.astype(int) - photo)
    # Interpolation flattens single bright pixels, such as the glint of an eye.
    assert np.percentile(error, 99) <= 12
    assert np.abs(ndimage.uniform_filter(error, (5, 5, 0))).max() <= 32
