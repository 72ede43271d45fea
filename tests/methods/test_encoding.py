"""Codes and images of ReStyle equal the official ones after each pass; passes."""

import itertools

import numpy as np
import pytest

from convert import e4e as convert_e4e
from styleclip_jax import loading
from styleclip_jax.io import torch_files
from styleclip_jax.methods import encoding
from styleclip_jax.models import e4e
from styleclip_jax.ops import pixels
from tests import golden_data, golden_networks, tiny


@pytest.mark.slow
@pytest.mark.parametrize("name", ["e4e_faces", "psp_faces", "psp_cars"])
def test_passes_of_restyle(name: str) -> None:
    case = golden_data.Case(f"restyle/{name}")
    file = torch_files.read(case.folder / case.meta["checkpoint"])
    conversion = convert_e4e.convert(file)
    encoder = golden_networks.network_of(conversion)
    generator = golden_networks.network_of(conversion.parts[loading.DECODER])
    assert encoder.config.iterations == case.meta["config"]["n_iters_per_batch"]
    shape = case["average_image"].shape[1:]
    average = encoding.look(generator, e4e.average(encoder)[None], shape)
    case.check("average_image", golden_data.to_nchw(average))
    photo = pixels.to_float(case["pictures"])
    passes = encoding.refinements(generator, encoder, photo)
    for i, w_plus in enumerate(itertools.islice(passes, 5)):
        case.check(f"codes_{i}", w_plus)
        image = encoding.look(generator, w_plus, shape)
        case.check(f"image_{i}", golden_data.to_nchw(image))


def test_each_pass_sees_the_image_of_the_one_before() -> None:
    generator, encoder = tiny.generator(), tiny.encoder(tiny.RESTYLE)
    photo = tiny.image(2, 16)
    first, second = itertools.islice(encoding.refinements(generator, encoder, photo), 2)
    image = encoding.look(generator, first, (16, 16))
    # Of 8², each pixel four times.
    rendered = tiny.render(first).repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(image, rendered, atol=1e-5)
    expected = e4e.refine(encoder, photo, image, first)
    np.testing.assert_allclose(second, expected, atol=1e-5)
    assert np.abs(second - first).max() > 1e-2
    found = encoding.encode(generator, encoder, photo)
    np.testing.assert_array_equal(found, second)
    found = encoding.encode(generator, encoder, photo, iterations=1)
    np.testing.assert_array_equal(found, first)


def test_an_encoder_that_does_not_refine_takes_one_pass() -> None:
    generator, encoder, photo = tiny.generator(), tiny.encoder(), tiny.image(2, 16)
    found = encoding.encode(generator, encoder, photo)
    np.testing.assert_allclose(found, e4e.encode(encoder, photo), atol=1e-6)
    for count in (0, 2):
        with pytest.raises(ValueError, match=f"iterations: found {count}"):
            encoding.encode(generator, encoder, photo, iterations=count)
    with pytest.raises(ValueError, match="of 6 channels, found one of 3"):
        e4e.refine(encoder, photo, photo, found)
