"""Photos of every kind come in as upright 8-bit RGB, or are refused in one line."""

import contextlib
import importlib.util
import pathlib
import re
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from styleclip_jax.errors import UserError
from styleclip_jax.io import images
from styleclip_jax.photos import photo_files

HEIGHT, WIDTH = 20, 30


def picture() -> np.ndarray:
    """[20, 30, 3] uint8: a different value at every pixel, none of them grey."""
    values = np.arange(HEIGHT * WIDTH * 3) * 7 % 256
    return values.astype(np.uint8).reshape(HEIGHT, WIDTH, 3)


def save(path: pathlib.Path, image: Image.Image, **options: Any) -> pathlib.Path:
    image.save(path, **options)
    return path


def refusal(path: pathlib.Path, max_pixels: int = images.MAX_PIXELS) -> str:
    with pytest.raises(UserError, match=re.escape(str(path))) as caught:
        photo_files.read(path, max_pixels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "ppm"])
def test_formats_without_loss_are_read_exactly(
    tmp_path: pathlib.Path, suffix: str
) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(picture()), **options)
    np.testing.assert_array_equal(photo_files.read(path), picture())


def test_jpeg_is_read(tmp_path: pathlib.Path) -> None:
    plain = np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8)
    path = save(tmp_path / "a.jpg", Image.fromarray(plain), quality=95)
    assert np.abs(photo_files.read(path).astype(int) - plain).max() <= 2


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_is_repeated(tmp_path: pathlib.Path, mode: str) -> None:
    gray = Image.fromarray(picture()).convert(mode)
    found = photo_files.read(save(tmp_path / "a.png", gray))
    expected = np.asarray(gray.convert("L"))
    np.testing.assert_array_equal(found, np.repeat(expected[..., None], 3, -1))


@pytest.mark.parametrize("suffix", ["png", "tif", "ppm"])
def test_16_bits_are_scaled_not_clipped(tmp_path: pathlib.Path, suffix: str) -> None:
    gray = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    gray = gray.astype(np.uint16)
    path = tmp_path / f"a.{suffix}"
    if suffix == "ppm":
        path.write_bytes(b"P5 30 20 65535\n" + gray.astype(">u2").tobytes())
    else:
        save(path, Image.fromarray(gray))
    found = photo_files.read(path)
    np.testing.assert_array_equal(found[..., 0], np.rint(gray / 257).astype(np.uint8))
    assert found.min() == 0
    assert found.max() == 255


def test_16_bits_of_colour_are_scaled(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.ppm"
    wide = picture().astype(">u2") * 257
    path.write_bytes(b"P6 30 20 65535\n" + wide.tobytes())
    np.testing.assert_array_equal(photo_files.read(path), picture())


def test_floats_are_refused(tmp_path: pathlib.Path) -> None:
    image = Image.fromarray(np.ones((HEIGHT, WIDTH), np.float32))
    assert "8 or 16 bits" in refusal(save(tmp_path / "a.tif", image))


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_gives_its_colour(tmp_path: pathlib.Path, suffix: str) -> None:
    # Much cyan, no magenta, some yellow, some black.
    ink = Image.new("CMYK", (WIDTH, HEIGHT), (204, 0, 51, 64))
    path = save(tmp_path / f"a.{suffix}", ink)
    expected = [(255 - c) * (255 - 64) / 255 for c in (204, 0, 51)]
    assert np.abs(photo_files.read(path) - np.array(expected)).max() <= 3


def test_palette_gives_its_colours(tmp_path: pathlib.Path) -> None:
    image = Image.new("P", (WIDTH, HEIGHT), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    for name in ("a.png", "a.gif"):
        found = photo_files.read(save(tmp_path / name, image))
        np.testing.assert_array_equal(
            found, np.broadcast_to((10, 200, 30), found.shape)
        )


def test_transparency_lies_over_white(tmp_path: pathlib.Path) -> None:
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[..., :3], rgba[:, :10, 3], rgba[:, 10:20, 3] = (200, 0, 100), 255, 51
    found = photo_files.read(save(tmp_path / "a.png", Image.fromarray(rgba)))
    np.testing.assert_array_equal(found[0, 0], (200, 0, 100))
    np.testing.assert_array_equal(found[0, 15], (244, 204, 224))
    np.testing.assert_array_equal(found[0, 25], (255, 255, 255))


def test_transparent_palette_lies_over_white(tmp_path: pathlib.Path) -> None:
    image = Image.new("P", (WIDTH, HEIGHT), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.putpixel((3, 2), 0)
    found = photo_files.read(save(tmp_path / "a.png", image, transparency=0))
    np.testing.assert_array_equal(found[2, 3], (255, 255, 255))
    np.testing.assert_array_equal(found[0, 0], (10, 200, 30))


# What a camera stores of an upright photo, by EXIF orientation.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_orientation_is_honoured(
    tmp_path: pathlib.Path, orientation: int, suffix: str
) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](picture())))
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"a.{suffix}"
    save(path, stored, exif=oriented(orientation), **options)
    np.testing.assert_array_equal(photo_files.read(path), picture())


def test_a_turned_jpeg_is_upright(tmp_path: pathlib.Path) -> None:
    upright = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    upright[: HEIGHT // 2] = 255
    stored = Image.fromarray(np.ascontiguousarray(STORED[6](upright)))
    found = photo_files.read(save(tmp_path / "a.jpg", stored, exif=oriented(6)))
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 5


def test_the_first_frame_of_an_animation_counts(tmp_path: pathlib.Path) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), c) for c in ("red", "blue")]
    path = tmp_path / "a.gif"
    save(path, frames[0], save_all=True, append_images=frames[1:])
    assert tuple(photo_files.read(path)[0, 0]) == (255, 0, 0)


def test_the_first_picture_of_several_is_told(tmp_path: pathlib.Path) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), c) for c in ("red", "blue")]
    more: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
    for suffix, count in (("gif", 1), ("webp", 1), ("tif", 1), ("mpo", 0)):
        notes: list[str] = []
        path = save(tmp_path / f"a.{suffix}", frames[0], **more)
        found = photo_files.read(path, tell=notes.append)
        assert np.abs(found[0, 0] - np.array([255.0, 0, 0])).max() < 9
        expected = f"{path}: the first of its pictures is taken"
        assert notes == [expected] * count, suffix


NAME = b"desc" + bytes(4) + (4).to_bytes(4) + b"\xab\xe9\xff\0"


def profile(gamma: float = 1.0, space: bytes = b"RGB ") -> bytes:
    """Colour profile of sRGB's primaries with another curve."""
    whole = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = bytearray(whole)
    curve = b"curv" + bytes(4) + (1).to_bytes(4) + round(gamma * 256).to_bytes(2)
    for i in range(int.from_bytes(content[128:132])):
        entry = 132 + 12 * i
        start = int.from_bytes(content[entry + 4 : entry + 8])
        if content[entry : entry + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            content[start : start + len(curve)] = curve
        if content[entry : entry + 4] == b"desc":
            # A name that is no text, which some cameras write.
            content[start : start + 40] = NAME + bytes(40 - len(NAME))
    content[16:20] = space
    return bytes(content)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_colours_of_a_profile_become_those_of_srgb(
    tmp_path: pathlib.Path, suffix: str
) -> None:
    linear = Image.new("RGB", (WIDTH, HEIGHT), (55, 128, 200))
    path = save(tmp_path / f"a.{suffix}", linear, icc_profile=profile())
    x = np.array([55, 128, 200]) / 255
    expected = 255 * (1.055 * x ** (1 / 2.4) - 0.055)
    assert np.abs(photo_files.read(path)[5, 5] - expected).max() <= 3


def test_srgb_stays_as_it_is_to_the_bit(tmp_path: pathlib.Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = save(tmp_path / "a.png", Image.fromarray(picture()), icc_profile=srgb)
    np.testing.assert_array_equal(photo_files.read(path), picture())


@pytest.mark.parametrize(
    "content", [b"no profile", profile()[:200], profile(space=b"CMYK"), bytes(5 << 20)]
)
def test_a_damaged_profile_is_told_and_ignored(
    tmp_path: pathlib.Path, content: bytes
) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(picture()), icc_profile=content)
    notes: list[str] = []
    found = photo_files.read(path, tell=notes.append)
    np.testing.assert_array_equal(found, picture())
    (note,) = notes
    assert note.startswith(f"{path}: its colour profile is ignored (")
    assert "\n" not in note


def test_a_missing_photo_is_refused(tmp_path: pathlib.Path) -> None:
    assert "no such file" in refusal(tmp_path / "a.png")


def test_a_folder_is_no_photo(tmp_path: pathlib.Path) -> None:
    assert "a folder" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0"])
def test_an_unreadable_photo_is_refused(tmp_path: pathlib.Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert "expected JPEG, PNG" in refusal(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif"])
def test_a_truncated_photo_is_refused(tmp_path: pathlib.Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "not a readable photo" in refusal(path)


def test_a_tiny_photo_is_refused(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (300, 15)))
    message = refusal(path)
    assert "16×16" in message
    assert "300×15" in message


def test_a_decompression_bomb_is_refused(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "a.png", Image.new("1", (16, 16)))
    content = path.read_bytes()
    header = b"IHDR" + (30000).to_bytes(4) * 2 + content[24:29]
    checksum = zlib.crc32(header).to_bytes(4)
    path.write_bytes(content[:12] + header + checksum + content[33:])
    assert "scale it down" in refusal(path)


# Where each form of a WebP has its size, and what it is for 16,000 × 15,000 pixels.
WEBPS = {
    b"VP8 ": (26, b"\x80\x3e\x98\x3a"),
    b"VP8L": (21, (15999 | 14999 << 14).to_bytes(4, "little")),
    b"VP8X": (24, b"\x7f\x3e\0\x97\x3a\0"),
}


@pytest.mark.parametrize("form", WEBPS, ids=str)
def test_a_large_webp_is_refused_before_there_is_room_for_it(
    tmp_path: pathlib.Path, form: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"lossless": True} if form == b"VP8L" else {}
    options |= {"exif": oriented(6)} if form == b"VP8X" else {}
    path = save(tmp_path / "a.webp", Image.fromarray(picture()), **options)
    content, (start, size) = path.read_bytes(), WEBPS[form]
    assert content[12:16] == form
    assert photo_files.read(path, WIDTH * HEIGHT).shape[2] == 3
    assert f"found {WIDTH}×{HEIGHT}" in refusal(path, WIDTH * HEIGHT - 1)
    path.write_bytes(content[:start] + size + content[start + len(size) :])

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("its reader would make room")

    monkeypatch.setattr(Image, "open", fail)
    assert "expected at most 50,000,000 pixels, found 16000×15000" in refusal(path)


@pytest.mark.filterwarnings("ignore:.*Tag data.*", "ignore:.*EXIF.*")
def test_broken_files_never_end_in_another_error(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    exif = oriented(6)
    read = 0
    for suffix in ("jpg", "png", "tif", "webp", "gif", "bmp"):
        path = tmp_path / f"a.{suffix}"
        save(path, Image.fromarray(picture()), exif=exif)
        content = path.read_bytes()
        for _ in range(100):
            broken = bytearray(content)
            for position in rng.integers(0, len(broken), 3):
                broken[position] = rng.integers(256)
            path.write_bytes(broken)
            with contextlib.suppress(UserError):
                assert photo_files.read(path).shape[2] == 3
                read += 1
    assert 0 < read < 600


# First bytes of pictures that tests cannot write.
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
UNREAD = {
    "a.jxl": (b"\xff\x0a" + bytes(60), "a JPEG XL picture"),
    "b.psd": (b"8BPS\0\1", "a Photoshop document"),
    "c.NEF": (b"MM\0*" + bytes(60), "a raw photo of a camera"),
    "d": (b"\0\0\0\x18ftypcrx ", "a raw photo of a camera"),
    "e.svg": (b'<svg xmlns="x"/>', "a drawing"),
}


def test_find_takes_files_and_sorted_folders(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    # Damaged pictures count by their suffix, and all others by their content.
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "Thumbs.db"):
        (folder / name).touch()
    (folder / "inner").mkdir()
    single = tmp_path / "photo.dat"
    single.touch()
    found = photo_files.find([str(single), str(folder), str(folder / "a.png")])
    assert found.photos == [single, folder / "a.png", folder / "b.JPG"]
    assert found.left_out == [
        f"{folder / 'inner'}: a folder in a folder; name it by itself",
        f"{folder / 'notes.txt'}: no picture",
    ]


def test_find_tells_pictures_by_their_content(tmp_path: pathlib.Path) -> None:
    image = Image.fromarray(picture())
    kinds = ["jpeg", "png", "webp", "tiff", "bmp", "gif", "ppm", "mpo"]
    kinds += ["avif"] * features.check("avif")
    names = [f"{kind} from a browser.{kind}.download" for kind in kinds]
    for kind, name in zip(kinds, names, strict=True):
        image.save(tmp_path / name, kind)
    for name, (content, _) in UNREAD.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "IMG_1").write_bytes(HEIC)
    found = photo_files.find([tmp_path])
    expected = sorted([*names, *UNREAD, "IMG_1"])
    assert [path.name for path in found.photos] == expected
    assert not found.left_out
    for name in names:
        assert photo_files.read(tmp_path / name).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", UNREAD)
def test_pictures_that_are_not_read_are_named(
    tmp_path: pathlib.Path, name: str
) -> None:
    content, expected = UNREAD[name]
    (tmp_path / name).write_bytes(content)
    assert f"found {expected}" in refusal(tmp_path / name)


@pytest.mark.skipif(
    importlib.util.find_spec("pillow_heif") is not None, reason="needs its absence"
)
def test_heic_without_its_package_says_what_to_install(tmp_path: pathlib.Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(HEIC)
    message = refusal(tmp_path / "IMG_1.HEIC")
    assert "found HEIC, which needs pillow-heif: pip install" in message


def test_heic_is_read(tmp_path: pathlib.Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:32] = 255
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright, 1)))
    heif.from_pillow(stored).save(tmp_path / "a.heic", exif=oriented(6).tobytes())
    found = photo_files.read(tmp_path / "a.heic")
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 5


@pytest.mark.parametrize("name", ["Smith, John.png", "a,b.png"])
def test_paths_with_commas_are_found_in_a_list_with_commas(
    tmp_path: pathlib.Path, name: str
) -> None:
    for one in (name, "other.png"):
        (tmp_path / one).touch()
    # As absl splits a list.
    text = f"{tmp_path / 'other.png'},{tmp_path / name}"
    found = photo_files.find([part.strip() for part in text.split(",")])
    assert found.photos == [tmp_path / "other.png", tmp_path / name]


def test_a_text_file_names_photos_and_folders(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pathlib.Path("folder").mkdir()
    for name in ("folder/b.png", "folder/a.png", "folder/notes.txt", "a  b, c.png"):
        pathlib.Path(name).touch()
    lines = ["a  b, c.png", "", "gone.png", "folder", "a  b, c.png"]
    pathlib.Path("list.txt").write_bytes("\r\n".join(lines).encode())
    found = photo_files.find(["list.txt"])
    expected = ["a  b, c.png", "gone.png", "folder/a.png", "folder/b.png"]
    assert list(map(str, found.photos)) == expected
    assert found.left_out == ["folder/notes.txt: no picture"]
    pathlib.Path("list.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"list\.txt: expected photos, one a line"):
        photo_files.find(["list.txt"])


def test_find_says_what_is_missing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"x\.png: no such photo"):
        photo_files.find([str(tmp_path / "x.png")])
    with pytest.raises(UserError, match="no photos in this folder"):
        photo_files.find([str(tmp_path)])
    with pytest.raises(UserError, match="a comma needs double quotes"):
        photo_files.find([str(tmp_path / "Smith"), "John.png"])
    with pytest.raises(UserError, match="expected photos"):
        photo_files.find([])


def test_a_photo_that_is_too_small_is_said_to_be_so(tmp_path: pathlib.Path) -> None:
    Image.new("RGB", (8, 20)).save(tmp_path / "small.png")
    line = r"small\.png: expected a photo of at least 16×16 pixels, found 8×20$"
    with pytest.raises(UserError, match=line) as caught:
        photo_files.read(tmp_path / "small.png")
    assert "not a readable photo" not in str(caught.value)


def tall() -> np.ndarray:
    """A picture of more rows than are computed at a time."""
    return np.random.default_rng(0).integers(0, 256, (600, 20, 4), np.uint8)


def test_photos_are_computed_in_bands_of_rows(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(tall()))
    white = Image.new("RGBA", (20, 600), "white")
    whole = Image.alpha_composite(white, Image.fromarray(tall())).convert("RGB")
    np.testing.assert_array_equal(photo_files.read(path), np.asarray(whole))
    gray = tall()[..., 0].astype(np.uint16) * 256 + tall()[..., 1]
    path = save(tmp_path / "b.png", Image.fromarray(gray))
    expected = np.rint(gray / 257).astype(np.uint8)
    np.testing.assert_array_equal(photo_files.read(path)[..., 0], expected)


def test_large_photos_are_shrunk_or_refused(tmp_path: pathlib.Path) -> None:
    image = Image.fromarray(picture()).resize((96, 64))
    pixels = 96 * 64
    path = save(tmp_path / "a.jpg", image)
    whole = photo_files.read(path)
    np.testing.assert_array_equal(photo_files.read(path, pixels), whole)
    assert photo_files.reduction(path, pixels) == 1
    for factor in (2, 4, 8):
        limit = pixels // factor**2
        assert photo_files.reduction(path, limit) == factor
        found = photo_files.read(path, limit)
        assert found.shape == (64 // factor, 96 // factor, 3)
    shrunk = np.asarray(image.reduce(2), int)
    assert np.abs(photo_files.read(path, pixels // 4) - shrunk).mean() < 10
    for path in (
        save(tmp_path / "b.jpg", image, progressive=True),
        save(tmp_path / "c.png", image),
    ):
        with pytest.raises(UserError, match="at most 6,143 pixels, found 96×64"):
            photo_files.read(path, pixels - 1)
