"""Exact products of 8-bit images are the same integers in every form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax.ops import resampling
from tests import golden_data

SIZES = [(1024, 224), (256, 224), (97, 224), (2050, 32)]


def images(size: int) -> np.ndarray:
    """Noise beside black and white, which reach the largest sums."""
    random = np.random.RandomState(0)
    noise = random.randint(0, 256, (1, size, 8, 3))
    edges = 255 * random.randint(0, 2, (1, size, 8, 3))
    return np.concatenate([noise, edges, np.full_like(noise, 255)]).astype(np.uint8)


@pytest.mark.parametrize(("size", "out"), SIZES)
@pytest.mark.parametrize(
    "filter_matrix", [resampling.bicubic_matrix, resampling.bilinear_matrix]
)
def test_products_in_pieces_are_those_of_integers(
    filter_matrix: object, size: int, out: int
) -> None:
    matrix = resampling._fixed_point(filter_matrix(size, out))
    inputs = ("yh,bhwc->bywc", matrix, jnp.asarray(images(size)))
    expected = resampling.integer_product(*inputs)
    np.testing.assert_array_equal(resampling.product_in_pieces(*inputs), expected)


def test_gpus_multiply_no_integers() -> None:
    """Beyond 258 taps, sums in float32 would not be exact."""

    def types(size: int) -> set[str]:
        matrix = resampling.bicubic_matrix(size, 8)
        resize = jax.jit(lambda x: resampling.resize_uint8(x, matrix, matrix))
        image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
        program = resize.trace(image).lower(lowering_platforms=("cuda",)).as_text()
        products = [x for x in program.splitlines() if "dot_general" in x]
        return {kind for kind in ("bf16", "i32") if any(kind in x for x in products)}

    assert types(64) == {"bf16"}
    assert types(1024) == {"i32"}


@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("up", (23, 29)),
        ("down", (13, 17)),
        ("same", (8, 8)),
        ("299_64", (299, 299)),
        ("299_320", (299, 299)),
    ],
)
@pytest.mark.parametrize(("grid", "of"), [("corners", "tf1"), ("centres", "halfpixel")])
def test_interpolation_is_that_of_tensorflow_1_and_of_torch(
    name: str, out: tuple[int, int], grid: resampling.Grid, of: str
) -> None:
    case = golden_data.Case("metrics/features")
    name = f"resize{'' if name[0].isdigit() else '_'}{name}"
    pixels = golden_data.to_nhwc(case[f"{name}_in"]).astype(np.float32)
    rows, columns = (
        resampling.interpolation_matrix(size, length, grid)
        for size, length in zip(pixels.shape[1:3], out, strict=True)
    )
    found = golden_data.to_nchw(resampling.resize(pixels, rows, columns, "highest"))
    if out == (299, 299):
        found = found[:, :, ::37, ::23]
    case.check(f"{name}_{of}", found)
