"""Crops of photos become inputs of networks."""

import numpy as np
from PIL import Image

from styleclip_jax.ops import pixels
from styleclip_jax.photos import crops
from tests import golden_data
from tests.golden_data import to_nchw

CASE = golden_data.Case("e4e_encoder")


def test_photos_are_resized_as_officially() -> None:
    photo = crops.resize(CASE["pil_image"], 256, Image.Resampling.BILINEAR)
    image = to_nchw(pixels.to_float(photo)[None])
    np.testing.assert_allclose(
        image[0, :, ::8, ::8], CASE["pil_preprocessed"], atol=1e-6
    )
