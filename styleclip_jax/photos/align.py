"""Alignment of faces as in FFHQ: landmarks → square → crop, and the crop pasted back.

Karras et al. 2019, "A Style-Based Generator Architecture for Generative Adversarial
Networks", appendix A, and the script published with the FFHQ dataset. Coordinates are
(x, y) in pixels of the photo, whole numbers at the centres of pixels; landmarks are
the 68 points of the iBUG scheme, as dlib finds them.
"""

import functools
import importlib.util
import pathlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from styleclip_jax import documents
from styleclip_jax.errors import UserError
from styleclip_jax.io import array_files, files
from styleclip_jax.photos import turning

_NUM_LANDMARKS = 68
_EYES = slice(36, 42), slice(42, 48)
_MOUTH_CORNERS = 48, 54
_JAW, _BROWS = slice(0, 17), slice(17, 27)

# Largest side of a face's square, in multiples of the photo's longer side.
_MAX_SIDE = 4
# Largest photo that is searched at twice its size, to find faces under 80 pixels.
_MAX_DOUBLED = 2048


class _Plan(NamedTuple):
    """Plan of a crop: what the recipe does to a photo before it warps.

    Attributes:
      size: width and height that the photo is shrunk to.
      quad: [4, 2] square in the shrunk photo.
      side: side of the square, in pixels of the shrunk photo.
      box: left, top, right and bottom of the part that is cut out of it.
      pad: pixels reflected beyond each of these sides; all zero, or all positive.
    """

    size: tuple[int, int]
    quad: np.ndarray
    side: float
    box: np.ndarray
    pad: np.ndarray


def quad(landmarks: np.ndarray) -> np.ndarray:
    """Square around a face, turned as the face is.

    With e the vector from eye to eye, m that from the eyes to the mouth, and R the
    quarter turn (x, y) → (-y, x):

      x = e - R m,   scaled to the length max(2 |e|, 1.8 |m|),
      y = R x,   c = eyes + 0.1 m,   corners c ± x ± y.

    Args:
      landmarks: [68, 2] landmarks of one face.

    Returns:
      [4, 2] float64 corners: those that are top left, bottom left, bottom right and
      top right of the crop.

    Raises:
      UserError: the landmarks are no face, such as 68 times the same point.
      ValueError: the shape is not [68, 2].

    Source: the script of the FFHQ dataset.
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape != (_NUM_LANDMARKS, 2):
        raise ValueError(f"landmarks: expected [68, 2], found {list(points.shape)}")
    left, right = (points[eye].mean(0) for eye in _EYES)
    eyes = (left + right) / 2
    eye_to_eye = right - left
    eye_to_mouth = points[list(_MOUTH_CORNERS)].mean(0) - eyes
    x = eye_to_eye - _quarter_turn(eye_to_mouth)
    length = max(2 * np.hypot(*eye_to_eye), 1.8 * np.hypot(*eye_to_mouth))
    if not np.hypot(*x) > 1e-6 * length:
        raise UserError("landmarks: eyes and mouth do not form an upright face")
    x *= length / np.hypot(*x)
    y, c = _quarter_turn(x), eyes + 0.1 * eye_to_mouth
    return np.stack([c - x - y, c - x + y, c + x + y, c + x - y])


def expect_inside(photo: np.ndarray, quad: np.ndarray) -> None:
    """Refuses a square that does not lie in a photo.

    Args:
      photo: [H, W, 3].
      quad: [4, 2] square.

    Raises:
      UserError: its centre is outside, or it is very small or very large.
      ValueError: the shape of the square is wrong.
    """
    if np.shape(quad) != (4, 2):
        raise ValueError(f"quad: expected [4, 2], found {list(np.shape(quad))}")
    shape = (photo.shape[1], photo.shape[0])
    x, y = quad.mean(0)
    side = _side(quad)
    inside = 0 <= x < shape[0] and 0 <= y < shape[1]
    if not (inside and 2 <= side <= _MAX_SIDE * max(shape)):
        raise UserError(
            f"landmarks: expected a face in the photo of {shape[0]}×{shape[1]} pixels, "
            f"found a square of {side:.0f} pixels around ({x:.0f}, {y:.0f}): "
            "do they belong to another photo or size?"
        )


def outline(landmarks: np.ndarray) -> np.ndarray:
    """Outline of a face: its jaw, and its brows raised to where hair begins.

    Brows are raised by 0.8 of the way from the mouth to the eyes.

    Args:
      landmarks: [68, 2] landmarks of one face.

    Returns:
      [27, 2] float64 corners in turn.
    """
    points = np.asarray(landmarks, np.float64)
    eyes = np.concatenate([points[eye] for eye in _EYES]).mean(0)
    up = eyes - points[list(_MOUTH_CORNERS)].mean(0)
    return np.concatenate([points[_JAW], points[_BROWS][::-1] + 0.8 * up])


def crop(
    photo: np.ndarray, quad: np.ndarray, size: int, *, supersampling: int = 4
) -> np.ndarray:
    """Cuts a square out of a photo and turns it upright.

    The photo is shrunk where the square is four times as large as the crop, or larger.
    Where the square reaches beyond the photo, reflection continues it, which is blurred
    and fades to the photo's median colour. The square is then warped bilinearly at
    `supersampling` times the size, and reduced by Lanczos.

    Args:
      photo: [H, W, 3] uint8.
      quad: [4, 2] from `quad`.
      size: width and height of the crop.
      supersampling: factor of the warp: 4 is FFHQ's; 1 is that of the alignment
        published with e4e.

    Returns:
      [size, size, 3] uint8.

    Raises:
      UserError: the square does not lie in this photo.
      ValueError: a shape is wrong.

    Source: the script of the FFHQ dataset, of which e4e has a copy.
    """
    _expect_image("photo", photo)
    plan = _plan(photo, quad, size)
    image = Image.fromarray(photo)
    if plan.size != image.size:
        image = image.resize(plan.size, Image.Resampling.LANCZOS)
    image = image.crop(tuple(plan.box.tolist()))
    if plan.pad.any():
        image = Image.fromarray(_continue(np.asarray(image), plan))
    corners = plan.quad - plan.box[:2] + plan.pad[:2] + 0.5
    image = image.transform(
        (size * supersampling,) * 2,
        Image.Transform.QUAD,
        corners.flatten().tolist(),
        Image.Resampling.BILINEAR,
    )
    return np.array(image.resize((size, size), Image.Resampling.LANCZOS))


def paste(
    photo: np.ndarray,
    edited: np.ndarray,
    quad: np.ndarray,
    *,
    turned: np.ndarray | None = None,
    feather: float = 0.1,
    outline: np.ndarray | None = None,
) -> np.ndarray:
    """Pastes an edited crop back where it came from.

    The crop replaces the photo inside of the square. It fades out towards the sides of
    the square, and wherever `crop` blurred the photo near its own border.

    Args:
      photo: [H, W, 3] uint8.
      edited: [S, S, 3] uint8, a crop of the photo after editing; or [H', W', 3], where
        the generator's images are not square, and the part of the photo is not either.
      quad: [4, 2] square of the crop, from `quad`.
      turned: [S, S, 3] uint8, the edit generated under `turning.transform` of the
        square, which takes the warped crop's place as far as it reaches.
      feather: width of the fading rim, as a part of the square's side, in (0, 0.5].
      outline: [N, 2] corners in turn of what is replaced, inside of the square; its
        rim fades to both sides. None for all of the square.

    Returns:
      [H, W, 3] uint8; pixels outside of the square are those of the photo.

    Raises:
      UserError: the square does not lie in this photo.
      ValueError: a shape or the feather is wrong.
    """
    _expect_image("photo", photo)
    _expect_image("edited", edited)
    if not 0 < feather <= 0.5:
        raise ValueError(f"feather: expected 0 < feather ≤ 0.5, found {feather}")
    plan = _plan(photo, quad, edited.shape[1])
    height, width, _ = photo.shape
    scale = np.divide((width, height), plan.size)
    # Pixel i covers [i, i + 1] from here on, as in Pillow's warps. The half pixel is
    # one of the shrunk photo, hence before the scale.
    corners = (plan.quad + 0.5) * scale
    low = np.floor(np.maximum(corners.min(0), 0)).astype(int)
    high = np.ceil(np.minimum(corners.max(0), (width, height))).astype(int)
    x = np.arange(low[0], high[0])[None] + 0.5
    y = np.arange(low[1], high[1])[:, None] + 0.5

    # A point of the photo is corner + u (right - corner) + v (down - corner).
    axes = np.stack([corners[3] - corners[0], corners[1] - corners[0]], 1)
    to_uv = np.linalg.inv(axes)
    u, v = (a * (x - corners[0, 0]) + b * (y - corners[0, 1]) for a, b in to_uv)
    weight = turning.rim(u, feather) * turning.rim(v, feather)
    weight *= _kept(x / scale[0], y / scale[1], plan)

    side = int(np.ceil(np.linalg.norm(axes, axis=0).max()))
    shape = (x.shape[1], y.shape[0])
    if outline is not None:
        weight = weight * _inside(outline - low, shape, feather * side / 2)
    warped = _unwarp(edited, to_uv, low - corners[0], shape, side)
    if turned is not None:
        _expect_image("turned", turned)
        turning.lay_over(warped, turned, corners - low, feather)
    result = photo.copy()
    region = result[low[1] : high[1], low[0] : high[0]]
    blend = region + weight[..., None] * (warped - region)
    region[:] = np.clip(np.rint(blend), 0, 255)
    return result


def largest(faces: Sequence[np.ndarray]) -> np.ndarray:
    """Largest face [68, 2] by its square; of equal ones the first."""
    return max(faces, key=lambda face: _side(quad(face)))


def read_landmarks(path: files.Path) -> dict[str, list[np.ndarray]]:
    """Reads the landmarks of photos.

    Args:
      path: JSON, {file name of a photo: the face's [[x, y], … 68 times], or a list of
        such faces}; or `.npz` with an array [68, 2] or [faces, 68, 2] for each name.

    Returns:
      Faces of each file name, [68, 2] float64 each; none where the list is empty.

    Raises:
      UserError: the file cannot be read or holds something else.
    """
    path = pathlib.Path(path)
    read: Callable[[files.Path], Any] = documents.read
    if path.suffix == ".npz":
        read = array_files.read_npz
    document = read(path)
    if not isinstance(document, dict):
        raise UserError(
            f"{path}: expected landmarks by file name, found {type(document).__name__}"
        )
    return {name: _faces(path, name, value) for name, value in document.items()}


def detect(photo: np.ndarray) -> list[np.ndarray]:
    """Detects upright faces with dlib, as the official alignment does.

    Several threads may detect: dlib lets the interpreter's lock go.

    Args:
      photo: [H, W, 3] uint8.

    Returns:
      Landmarks [68, 2] float64 of each face; perhaps none.

    Raises:
      UserError: the detector is not installed.
      ValueError: the shape is wrong.
    """
    _expect_image("photo", photo)
    find, mark = _detector(threading.get_ident()), _dlib()[1]
    photo = np.ascontiguousarray(photo)
    boxes = find(photo, 0)
    if not boxes and max(photo.shape) <= _MAX_DOUBLED:
        boxes = find(photo, 1)
    return [
        np.array([(p.x, p.y) for p in mark(photo, box).parts()], np.float64)
        for box in boxes
    ]


def _quarter_turn(vector: np.ndarray) -> np.ndarray:
    return np.array([-vector[1], vector[0]])


def _side(quad: np.ndarray) -> float:
    return float(np.hypot(*(quad[3] - quad[0])))


def _expect_image(name: str, image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"{name}: expected [H, W, 3] uint8, found {list(image.shape)} {image.dtype}"
        )


def _plan(photo: np.ndarray, quad: np.ndarray, size: int) -> _Plan:
    width, height = shape = (photo.shape[1], photo.shape[0])
    expect_inside(photo, quad)
    side = _side(quad)
    shrink = int(np.floor(side / size * 0.5))
    if shrink > 1:
        width, height = (max(1, int(np.rint(n / shrink))) for n in shape)
        quad, side = quad / shrink, side / shrink
    border = max(int(np.rint(side * 0.1)), 3)
    low = np.floor(quad.min(0)).astype(int)
    high = np.ceil(quad.max(0)).astype(int)
    box = np.concatenate(
        [np.maximum(low - border, 0), np.minimum(high + border, (width, height))]
    )
    beyond = np.concatenate([border - low, high - (width, height) + border])
    pad = np.maximum(beyond, 0)
    if pad.max() > border - 4:
        pad = np.maximum(pad, int(np.rint(side * 0.3)))
    else:
        pad = np.zeros_like(pad)
    return _Plan((width, height), quad, side, box, pad)


def _continue(image: np.ndarray, plan: _Plan) -> np.ndarray:
    """Reflects the image beyond its sides, more blurred and plainer further out.

    Let d be the distance inwards from a side of the original image, negative in what
    was added, and t the largest -d / pad of all sides. Blur sets in at t = -1/3 and is
    complete at t = 0. The median colour sets in at t = 0 and is complete at t = 1.
    """
    from scipy import ndimage

    left, top, right, bottom = plan.pad
    padding = ((top, bottom), (left, right), (0, 0))
    padded = np.pad(image.astype(np.float32), padding, mode="reflect")
    height, width, _ = padded.shape
    x = np.arange(width, dtype=np.float32)[None, :, None]
    y = np.arange(height, dtype=np.float32)[:, None, None]
    t = np.maximum(
        1 - np.minimum(x / left, (width - 1 - x) / right),
        1 - np.minimum(y / top, (height - 1 - y) / bottom),
    )
    sigma = plan.side * 0.02
    blurred = ndimage.gaussian_filter(padded, (sigma, sigma, 0))
    padded += (blurred - padded) * np.clip(3 * t + 1, 0, 1)
    padded += (np.median(padded, axis=(0, 1)) - padded) * np.clip(t, 0, 1)
    return np.clip(np.rint(padded), 0, 255).astype(np.uint8)


def _kept(x: np.ndarray, y: np.ndarray, plan: _Plan) -> np.ndarray:
    """Weight: 1 where `_continue` kept the photo as is, fading to 0 at its border."""
    if not plan.pad.any():
        return np.ones(())
    left, top, right, bottom = plan.box
    inwards = np.broadcast_arrays(x - left, y - top, right - x, bottom - y)
    weight = np.ones(())
    for distance, pad in zip(inwards, plan.pad, strict=True):
        weight = weight * turning.fade(3 * distance / pad)
    return weight


def _inside(outline: np.ndarray, shape: tuple[int, int], blur: float) -> np.ndarray:
    """Weight [H, W]: 1 inside of an outline, 0 outside, blurred between."""
    mask = Image.new("L", shape)
    corners = [tuple(corner) for corner in outline.tolist()]
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    return np.asarray(mask.filter(ImageFilter.GaussianBlur(blur))) / np.float32(255)


def _unwarp(
    edited: np.ndarray,
    to_uv: np.ndarray,
    start: np.ndarray,
    shape: tuple[int, int],
    side: int,
) -> np.ndarray:
    """Crop warped to where it lies in the photo.

    Args:
      edited: [H, W, 3] uint8 crop.
      to_uv: [2, 2] matrix from pixels of the photo to parts of the square's sides.
      start: [2] vector from the square's corner to that of the part of the photo.
      shape: width and height of that part.
      side: side of the square, in pixels; the longer one where there are two.

    Returns:
      [height, width, 3] float32, black outside of the square.
    """
    height, width, longest = *edited.shape[:2], max(edited.shape[:2])
    if side < longest:
        height, width = (max(1, n * side // longest) for n in (height, width))
    matrix = np.column_stack([to_uv, to_uv @ start]) * np.array([[width], [height]])

    def warp(channel: Image.Image) -> Image.Image:
        if side < longest:
            channel = channel.resize((width, height), Image.Resampling.LANCZOS)
        return channel.transform(
            shape,
            Image.Transform.AFFINE,
            matrix.flatten().tolist(),
            Image.Resampling.BICUBIC,
        )

    return turning.each_channel(edited, warp)


def _faces(path: pathlib.Path, name: str, value: Any) -> list[np.ndarray]:
    try:
        points = np.asarray(value, np.float64)
    except (OverflowError, TypeError, ValueError):
        raise UserError(
            f"{path}: {name}: expected 68 points [x, y], found something else"
        ) from None
    if points.size == 0:
        return []
    if points.ndim not in (2, 3) or points.shape[-2:] != (_NUM_LANDMARKS, 2):
        raise UserError(
            f"{path}: {name}: expected landmarks [68, 2] or [faces, 68, 2], "
            f"found {list(points.shape)}"
        )
    if not np.isfinite(points).all():
        raise UserError(f"{path}: {name}: expected finite landmarks")
    return list(points.reshape(-1, _NUM_LANDMARKS, 2))


@functools.cache
def _dlib() -> tuple[Callable[[], Any], Any]:
    """Maker of dlib's face detectors, and its predictor of landmarks."""
    # The package of the model is not imported: it needs pkg_resources, which is gone.
    package = importlib.util.find_spec("face_recognition_models")
    try:
        import dlib
    except ImportError:
        package = None
    if package is None or package.origin is None:
        raise UserError(
            "finding faces needs a detector: pip install 'styleclip-jax[align]', or "
            "give landmarks",
            also=["landmarks"],
        )
    folder = pathlib.Path(package.origin).parent / "models"
    model = folder / "shape_predictor_68_face_landmarks.dat"
    return dlib.get_frontal_face_detector, dlib.shape_predictor(str(model))


@functools.lru_cache(maxsize=64)
def _detector(thread: int) -> Any:
    """Face detector of a thread; two threads in one crash."""
    del thread
    return _dlib()[0]()
