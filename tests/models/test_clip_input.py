"""CLIP's input: both preprocessings against StyleCLIP's code, PIL and torchvision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax.models import clip, clip_input
from styleclip_jax.models.network import Network
from styleclip_jax.models.preprocessing import OPENAI
from styleclip_jax.ops import pixels
from tests import golden_data, tiny
from tests.golden_data import assert_near

B32 = Network({}, clip.ClipConfig())
SMALL = Network({}, tiny.CLIP_32)


@pytest.fixture(scope="module")
def preprocessed():
    with np.load(golden_data.ROOT / "clip_preprocess" / "io.npz") as arrays:
        return dict(arrays)


def sine_image(spec, size):
    """[size, size, 3] float32 of the golden data's formula."""
    a, fx, fy, phase = np.moveaxis(spec.astype(np.float64), -1, 0)[..., None, None]
    y, x = np.mgrid[:size, :size]
    waves = a * np.sin(2 * np.pi * (fx * x + fy * y) / size + phase)
    return waves.sum(1).transpose(1, 2, 0).astype(np.float32)


def official_composition(image):
    """Nearest upsampling by 7, then average pooling by H / 32."""
    kernel = image.shape[1] // 32
    image = jnp.repeat(jnp.repeat(image, 7, axis=1), 7, axis=2)
    batch, _, _, channels = image.shape
    return image.reshape(batch, 224, kernel, 224, kernel, channels).mean((2, 4))


@pytest.mark.parametrize(
    "size",
    [
        32,
        64,
        96,
        128,
        256,
        *(pytest.param(x, marks=pytest.mark.slow) for x in (512, 1024)),
    ],
)
def test_styleclip_preprocessing_is_the_official_composition(size):
    image, cotangent = tiny.normal(0, 1, size, size, 3), tiny.normal(1, 1, 224, 224, 3)

    @jax.jit
    def both(image):
        ours, back = jax.vjp(lambda x: clip_input.preprocess_styleclip(B32, x), image)
        theirs, their_back = jax.vjp(official_composition, image)
        return (ours, *back(cotangent)), (theirs, *their_back(cotangent))

    for found, expected in zip(*both(image), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_styleclip_preprocessing_matches_golden(preprocessed):
    images = {
        64: preprocessed["image_64"][0].transpose(1, 2, 0),
        1024: sine_image(preprocessed["sine_spec_1024"], 1024),
    }
    for size, image in images.items():
        found = clip_input.preprocess_styleclip(B32, jnp.asarray(image[None]))
        expected = preprocessed[f"clip_input_{size}"].transpose(0, 2, 3, 1)
        assert_near(found[:, ::2, ::2], expected)


def test_styleclip_preprocessing_passes_images_of_the_right_size():
    image = tiny.normal(0, 2, 32, 32, 3)
    found = clip_input.preprocess_styleclip(SMALL, image)
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("shape", [(64, 32), (48, 64)])
def test_images_that_are_not_square_stand_between_black_bars(shape):
    image = tiny.normal(0, 1, *shape, 3)
    square = np.full((1, 64, 64, 3), -1, np.float32)
    top, left = ((64 - n) // 2 for n in shape)
    square[:, top : top + shape[0], left : left + shape[1]] = image
    found = clip_input.preprocess_styleclip(SMALL, image)
    expected = clip_input.preprocess_styleclip(SMALL, jnp.asarray(square))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", [16, 24, 40, 64])
def test_styleclip_preprocessing_keeps_the_mean_at_any_size(size):
    image = tiny.normal(0, 1, size, size, 3)
    found = clip_input.preprocess_styleclip(SMALL, image)
    assert found.shape == (1, 32, 32, 3)
    np.testing.assert_allclose(found.mean((1, 2)), image.mean((1, 2)), atol=1e-5)


@pytest.mark.slow
def test_8_bit_preprocessing_is_bit_for_bit_that_of_pil(preprocessed):
    spec = preprocessed["pil_sine_spec_1024x1024"]
    levels = np.clip((sine_image(spec, 1024) + 1) * np.float32(127.5), 0, 255)
    images = {
        "64x64": preprocessed["pil_64x64"],
        "300x200": preprocessed["pil_300x200"],
        "1024x1024": np.floor(levels).astype(np.uint8),
    }
    for name, image in images.items():
        found = clip_input.preprocess_clip_uint8(B32, jnp.asarray(image[None]))[0]
        found = (found * np.array(OPENAI.std) + np.array(OPENAI.mean)) * 255
        expected = preprocessed[f"pil_resized_{name}"].astype(np.float32)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_8_bit_preprocessing_matches_the_whole_transform(preprocessed):
    image = jnp.asarray(preprocessed["pil_64x64"][None])
    found = clip_input.preprocess_clip_uint8(B32, image)[:, ::2, ::2]
    expected = preprocessed["pil_preprocessed_64x64"].transpose(1, 2, 0)[None]
    assert_near(found, expected, 1e-6)


@pytest.mark.parametrize("name", ["64x64", "300x200"])
def test_differentiable_preprocessing_is_within_rounding_of_pil(preprocessed, name):
    image = preprocessed[f"pil_{name}"][None].astype(np.float32) / 127.5 - 1
    found = clip_input.preprocess_clip(B32, jnp.asarray(image))[0]
    found = (found * np.array(OPENAI.std) + np.array(OPENAI.mean)) * 255
    error = np.abs(found - preprocessed[f"pil_resized_{name}"])
    # Half a level from each of PIL's two roundings, the first amplified by overshoot.
    assert error.max() < 1.2


def test_gradient_of_differentiable_preprocessing_is_its_slope():
    # Far from the bounds the map is affine, so a finite step is exact.
    image, step = 0.2 * tiny.image(2, 56)[:, None, :40]
    cotangent = tiny.normal(2, 1, 32, 32, 3)

    @jax.jit
    def preprocess(x):
        return clip_input.preprocess_clip(SMALL, x)

    _, back = jax.vjp(preprocess, image)
    change = preprocess(image + step) - preprocess(image)
    assert np.abs(change).max() > 0.1
    slope = jnp.sum(back(cotangent)[0] * step)
    np.testing.assert_allclose(slope, jnp.sum(change * cotangent), rtol=1e-4)


def test_differentiable_preprocessing_clips_like_8_bit_images():
    image = jnp.full((1, 48, 48, 3), 1.5)
    np.testing.assert_array_equal(
        clip_input.preprocess_clip(SMALL, image),
        clip_input.preprocess_clip(SMALL, jnp.clip(image, -1, 1)),
    )


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [("torch", [0, 0, 127, 128, 255, 255]), ("tf", [0, 0, 128, 128, 255, 255])],
)
def test_uint8_rounding(rounding, expected):
    image = jnp.array([-2.0, -1.0, 0.0, 0.00393, 1.0, 2.0])
    found = pixels.to_uint8(image, rounding=rounding)
    assert found.dtype == jnp.uint8
    np.testing.assert_array_equal(found, expected)


def test_torch_rounding_is_half_a_level_darker_on_average():
    image = jnp.linspace(-0.99, 0.99, 10_001)
    torch, tf = (
        pixels.to_uint8(image, rounding=name).astype(jnp.float32).mean()
        for name in ("torch", "tf")
    )
    np.testing.assert_allclose(tf - torch, 0.5, atol=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: clip_input.preprocess_styleclip(SMALL, x[0]),
            r"\[B, H, W, 3\]",
        ),
        (
            lambda x: clip_input.preprocess_clip(SMALL, x[..., :1]),
            r"\[B, H, W, 3\]",
        ),
        (
            lambda x: clip_input.preprocess_clip_uint8(SMALL, x),
            "expected uint8",
        ),
        (lambda x: pixels.to_uint8(x, rounding="floor"), "rounding must be"),
    ],
)
def test_preprocessing_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((1, 8, 8, 3)))
