"""SigLIP: features, gradients and preprocessing equal transformers'; its loss."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import losses
from styleclip_jax.io import clip_files
from styleclip_jax.models import clip, clip_input, siglip
from styleclip_jax.ops import norms
from tests import golden_data, tiny

CASES = ("siglip", "siglip2_fixed")
encode_image = jax.jit(clip.encode_image)
encode_text = jax.jit(clip.encode_text)


@dataclasses.dataclass(frozen=True)
class Golden:
    """A golden folder, its network and its input of images."""

    case: golden_data.Case
    network: clip.Clip
    images: jax.Array


@pytest.fixture(scope="module", params=CASES)
def golden(request: pytest.FixtureRequest) -> Golden:
    case = golden_data.Case(f"siglip/{request.param}")
    images = jnp.asarray(golden_data.to_nhwc(case["pixel_values"]))
    return Golden(case, clip_files.load(case.folder), images)


def test_features_and_logits_are_those_of_transformers(golden: Golden) -> None:
    image = encode_image(golden.network, golden.images)
    text = encode_text(golden.network, golden.case["input_ids"])
    golden.case.check("image_features", image)
    golden.case.check("text_features", text)
    golden.case.check("image_normalised", norms.unit(image))
    golden.case.check("text_normalised", norms.unit(text))
    golden.case.check("logits_per_image", clip.logits(golden.network, image, text))


def test_patches_before_the_pooling_are_those_of_transformers(golden: Golden) -> None:
    apply = functools.partial(
        siglip.SiglipModule(golden.network.config).apply,
        method="encode_image",
        capture_intermediates=True,
    )
    _, state = jax.jit(apply)({"params": golden.network.params}, golden.images[:1])
    found = state["intermediates"]["vision_model"]["post_layernorm"]["__call__"][0]
    golden.case.check("vision_last_hidden", found)


@pytest.mark.parametrize("remat", [False, True])
def test_image_gradient_is_that_of_transformers(golden: Golden, remat: bool) -> None:
    config = dataclasses.replace(golden.network.config, remat=remat)
    network = golden.network.replace(config=config)

    def weighted(image: jax.Array) -> jax.Array:
        feature = clip.encode_image(network, image)
        return jnp.sum(feature * golden.case["grad_weight"])

    gradient = jax.jit(jax.grad(weighted))(golden.images)
    golden.case.check("image_grad", golden_data.to_nchw(gradient))


def test_preprocessing_is_that_of_transformers(golden: Golden) -> None:
    picture = jnp.asarray(golden.case["picture"])[None]
    found = clip_input.preprocess_clip_uint8(golden.network, picture)
    expected = golden_data.to_nhwc(golden.case["preprocessed_pil"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    found = clip_input.preprocess_clip(golden.network, picture / 127.5 - 1)
    golden.case.check("preprocessed_pil", golden_data.to_nchw(found))
    golden.case.check("preprocessed_tv", golden_data.to_nchw(found))


def test_loss_is_one_minus_a_hundredth_of_the_logit(golden: Golden) -> None:
    network, case, image = golden.network, golden.case, golden.images
    text = norms.unit(encode_text(network, case["input_ids"]))[:2]
    networks = losses.Networks(tiny.generator(), network)
    source = losses.Source(jnp.zeros(1), image, None)

    def distance(image: jax.Array) -> jax.Array:
        edit = losses.Edit(image, jnp.zeros(1), source, text)
        return losses.clip_distance(networks, edit, preprocess=lambda _, x: x)

    distance = jax.jit(distance)
    found, slope = jax.jvp(distance, (image,), (jnp.cos(image),))
    logits = case["logits_per_image"][[0, 1], [0, 1]]
    np.testing.assert_allclose(found, 1 - logits / 100, atol=1e-6)
    step = 1e-2
    ahead, behind = (distance(image + x * jnp.cos(image)) for x in (step, -step))
    expected = (ahead - behind) / (2 * step)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(slope, expected, rtol=0.02, atol=1e-5)


def test_scale_and_bias_are_numbers() -> None:
    network = tiny.clip_network(tiny.SIGLIP)
    assert network.params["logit_scale"].shape == (1,)
    assert clip.logit_scale(network).shape == clip.logit_bias(network).shape == ()
    np.testing.assert_allclose(clip.logit_scale(network), 100, rtol=1e-5)
    np.testing.assert_array_equal(
        clip.logit_bias(network), network.params["logit_bias"][0]
    )


def test_siglip_joins_another_clip() -> None:
    networks = [tiny.clip_network(), tiny.clip_network(tiny.SIGLIP)]
    joint = clip.join(networks, (1, 3))
    images = tuple(tiny.image(2, n.config.image_size) for n in networks)
    tokens = tuple(jnp.ones((3, n.config.context_length), int) for n in networks)

    @jax.jit
    def logits(network: clip.Clip, image: Any, text: Any) -> jax.Array:
        return clip.logits(
            network, clip.encode_image(network, image), clip.encode_text(network, text)
        )

    found = logits(joint, images, tokens)
    each = [logits(*parts) for parts in zip(networks, images, tokens, strict=True)]
    np.testing.assert_allclose(found, each[0] / 4 + each[1] * 3 / 4, atol=1e-4)


def test_border_beside_whole_patches_is_not_seen() -> None:
    network = tiny.clip_network(tiny.SIGLIP)
    image = tiny.image(1, 9)
    changed = image.at[:, 8:].set(0).at[:, :, 8:].set(0)
    found, expected = (encode_image(network, x) for x in (image, changed))
    np.testing.assert_array_equal(found, expected)
    cut = dataclasses.replace(tiny.SIGLIP, image_size=8)
    expected = encode_image(network.replace(config=cut), image[:, :8, :8])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_bfloat16_gives_nearby_float32_features() -> None:
    network = tiny.clip_network(tiny.SIGLIP)
    rough = network.replace(config=dataclasses.replace(tiny.SIGLIP, dtype="bfloat16"))
    image, tokens = tiny.image(2, 9), jnp.ones((2, 6), int)
    for encode, inputs in ((encode_image, image), (encode_text, tokens)):
        exact, found = encode(network, inputs), encode(rough, inputs)
        assert found.dtype == jnp.float32
        assert np.sum(norms.unit(exact) * norms.unit(found), -1).min() > 0.99
        assert np.abs(exact - found).max() > 1e-4


@pytest.mark.slow
def test_random_parameters_have_finite_features() -> None:
    init = jax.jit(clip.init, static_argnums=1)
    network = clip.Clip(init(jax.random.key(0), tiny.SIGLIP), tiny.SIGLIP)
    assert np.isfinite(encode_image(network, tiny.image(1, 9))).all()
    np.testing.assert_allclose(clip.logit_bias(network), -10)


def test_texts_must_be_padded() -> None:
    network = tiny.clip_network(tiny.SIGLIP)
    with pytest.raises(ValueError, match=r"expected tokens \[B, 6\], padded .* \[1, 5"):
        clip.encode_text(network, jnp.ones((1, 5), int))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 300}, "image_size 224 must be at least patch_size 300"),
        ({"vision_heads": 5}, "multiple of vision_heads"),
        ({"text_heads": 5}, "multiple of text_heads"),
        ({"text_layers": 0}, "text_layers must be"),
        ({"vision_act": "sine"}, "vision_act must be"),
        ({"dtype": "float16"}, "dtype must be"),
    ],
)
def test_config_refuses_impossible_architectures(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        clip.SiglipConfig(**change)
