"""Golden results: what the official code has computed, and the networks for it.

They are in the repository's tests/, which an installed package does not have.
"""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax.models import clip, irse50, stylegan2
from styleclip_jax.models.network import Network

REPOSITORY = pathlib.Path(__file__).parent.parent.parent
ROOT = REPOSITORY / "tests" / "golden"


class Golden(NamedTuple):
    """A result of the official code.

    Attributes:
      what: its name.
      network: network that computes it.
      function: (network, input) → result.
      input: input of the function.
      expected: result of the official code.
      relative: largest relative L2 error that float32 explains.
    """

    what: str
    network: Network
    function: Callable[[Network, Any], jax.Array]
    input: Any
    expected: np.ndarray
    relative: float


def results() -> Iterator[Golden]:
    """Results of the generator, CLIP and the identity network, with gradients."""
    yield from _of_generator()
    yield from _of_clip()
    yield from _of_identity()


def _of_generator() -> Iterator[Golden]:
    from convert import stylegan2 as convert_stylegan2
    from tests import golden_data, golden_networks

    name = "stylegan2_rosinality/converted"
    case = golden_data.Case(name)
    path = f"{name}/{case.meta['checkpoint']}"
    network = golden_networks.converted(convert_stylegan2.convert, path)
    w_plus, weight = case["wplus"][:1], case["grad_weight"]

    def image(network: Network, w_plus: jax.Array) -> jax.Array:
        return jnp.moveaxis(stylegan2.synthesize(network, w_plus), -1, 1)

    def gradient(network: Network, w_plus: jax.Array) -> jax.Array:
        return jax.grad(lambda w: jnp.sum(image(network, w) * weight))(w_plus)

    for what, function, array in (
        ("generator", image, "image_wplus"),
        ("generator's gradient", gradient, "grad_wplus"),
    ):
        relative = _relative(case.meta, case[array], array)
        yield Golden(what, network, function, w_plus, case[array], relative)


def _of_clip() -> Iterator[Golden]:
    from tests import golden_data, golden_networks

    with np.load(ROOT / "clip_vit" / "io.npz") as file:
        arrays = dict(file)
    network = golden_networks.openai_clip()
    image = golden_data.to_nhwc(arrays["images"])

    def gradient(network: Network, image: jax.Array) -> jax.Array:
        def total(image: jax.Array) -> jax.Array:
            return jnp.sum(clip.encode_image(network, image) * arrays["grad_weight"])

        return jax.grad(total)(image)[:, :32, :32]

    crop = golden_data.to_nhwc(arrays["grad_image_crop"])
    # The largest error of the README there, and of the test of the gradient.
    expected = arrays["image_features"]
    yield Golden("CLIP", network, clip.encode_image, image, expected, 2e-5)
    yield Golden("CLIP's gradient", network, gradient, image[:1], crop, 6e-5)


def _of_identity() -> Iterator[Golden]:
    from convert import irse50 as convert_irse50
    from tests import golden_data, golden_networks

    case = golden_data.Case("arcface_irse50")
    path = golden_networks.IDENTITY
    network = golden_networks.converted(convert_irse50.convert, path)
    pair = tuple(golden_data.to_nhwc(case[name]) for name in ("y_64", "y_hat_64"))

    def gradient(network: Network, pair: Any) -> jax.Array:
        source, edited = pair

        def distance(edited: jax.Array) -> jax.Array:
            a, b = irse50.features(network, source), irse50.features(network, edited)
            return jnp.mean(1 - jnp.sum(a * b, -1))

        return jnp.moveaxis(jax.grad(distance)(edited), -1, 1)

    faces = golden_data.to_nhwc(case["faces_112"])
    for what, function, inputs, array in (
        ("identity", irse50.embed, faces, "features_112"),
        ("identity's gradient", gradient, pair, "id_loss_grad_64"),
    ):
        relative = _relative(case.meta, case[array], array)
        yield Golden(what, network, function, inputs, case[array], relative)


def _relative(meta: Any, expected: np.ndarray, array: str) -> float:
    """Relative L2 error that golden data allows, be it said so or in absolute terms."""
    about = meta["arrays"][array]
    absolute = about["suggested_atol"] * np.sqrt(expected.size)
    absolute /= np.linalg.norm(expected)
    return float(max(absolute, about.get("suggested_rel_l2", 0)))
