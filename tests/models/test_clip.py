"""CLIP: features, logits and gradients equal OpenAI's; precision, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax.models import clip, clip_input
from styleclip_jax.ops import norms
from tests import tiny
from tests.golden_data import assert_near

B32 = clip.ClipConfig()
SMALL = tiny.clip_network(tiny.CLIP_32)
encode_image = jax.jit(clip.encode_image)
encode_text = jax.jit(clip.encode_text)


@pytest.fixture(scope="module")
def images(golden):
    return jnp.asarray(golden["images"].transpose(0, 2, 3, 1))


def test_features_and_logits_match_openai(golden, golden_clip, images):
    image_feature = encode_image(golden_clip, images)
    text_feature = encode_text(golden_clip, golden["tokens"])
    assert_near(image_feature, golden["image_features"])
    assert_near(text_feature, golden["text_features"])
    for found, name in (
        (image_feature, "image_features"),
        (text_feature, "text_features"),
    ):
        cosine = np.sum(norms.unit(found) * norms.unit(golden[name]), -1)
        assert cosine.min() > 0.99999
    logits = clip.logits(golden_clip, image_feature, text_feature)
    assert_near(logits, golden["logits_per_image"])


def test_image_gradient_matches_openai(golden, golden_clip, images):
    def weighted(image):
        feature = clip.encode_image(golden_clip, image)
        return jnp.sum(feature * golden["grad_weight"])

    gradient = jax.jit(jax.grad(weighted))(images[:1])
    gradient = np.asarray(gradient).transpose(0, 3, 1, 2)
    pooled = gradient.reshape(1, 3, 8, 8, 8, 8).sum((3, 5))
    assert_near(pooled, golden["grad_image_pooled8"], 5e-5)
    assert_near(gradient[:, :, :32, :32], golden["grad_image_crop"], 6e-5)


def test_vmap_of_encoders_equals_their_batch(golden, golden_clip, images):
    tokens = jnp.asarray(golden["tokens"])
    for encode, inputs in ((encode_image, images), (encode_text, tokens)):
        mapped = jax.vmap(lambda x, f=encode: f(golden_clip, x[None])[0])
        expected = np.asarray(encode(golden_clip, inputs))
        assert_near(mapped(inputs), expected, 1e-5)


def test_float32_multiplies_in_full_precision():
    # Accelerators take less by default; on a CPU only the program tells.
    def score(network, image, tokens):
        image = clip_input.preprocess_styleclip(network, image)
        image_feature = clip.encode_image(network, image)
        text_feature = clip.encode_text(network, tokens)
        return clip.logits(network, image_feature, text_feature).sum()

    program = jax.jit(jax.grad(score, argnums=(0, 1))).lower(
        SMALL, jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 16), jnp.int32)
    )
    multiplications = [
        line
        for line in program.as_text().splitlines()
        if "stablehlo.dot_general" in line or "stablehlo.convolution" in line
    ]
    assert len(multiplications) > 20
    for line in multiplications:
        assert line.count("HIGHEST") == 2, line


@pytest.mark.parametrize(
    ("settings", "asked"),
    [({"precision": "high"}, "HIGH"), ({"precision": "default"}, "DEFAULT")],
)
def test_precision_is_a_setting(settings: dict[str, str], asked: str) -> None:
    config = dataclasses.replace(SMALL.config, **settings)
    program = jax.jit(clip.encode_image).lower(
        SMALL.replace(config=config), jnp.zeros((1, 32, 32, 3))
    )
    found = [x for x in program.as_text().splitlines() if "stablehlo.dot_general" in x]
    assert len(found) > 5
    for line in found:
        exact = line.count("HIGHEST")
        assert exact == 0
        # What is default may be left out.
        assert asked == "DEFAULT" or line.count(asked) == 2, line


def test_padding_leaves_text_features_alone(golden_clip):
    tokens = np.array([[510, 7, 8, 511]], np.int32)
    padded = np.pad(tokens, ((0, 0), (0, 73)))
    found = [encode_text(golden_clip, t) for t in (tokens, padded)]
    assert_near(found[0], np.asarray(found[1]), 1e-5)


def test_bfloat16_gives_nearby_float32_features(golden_clip, images):
    config = dataclasses.replace(golden_clip.config, dtype="bfloat16")
    exact = encode_image(golden_clip, images)
    rough = encode_image(golden_clip.replace(config=config), images)
    assert rough.dtype == jnp.float32
    cosine = np.sum(norms.unit(exact) * norms.unit(rough), -1)
    assert cosine.min() > 0.99
    assert np.abs(exact - rough).max() > 1e-3


@pytest.mark.slow
def test_new_params_reuse_the_compiled_program_and_new_config_does_not(golden_clip):
    traces = []

    @jax.jit
    def encode(network, image):
        traces.append(1)
        return clip.encode_image(network, image)

    image = jnp.zeros((1, 64, 64, 3))
    encode(golden_clip, image)
    encode(jax.tree.map(lambda x: x + 1, golden_clip), image)
    assert len(traces) == 1
    config = dataclasses.replace(golden_clip.config, dtype="bfloat16")
    encode(golden_clip.replace(config=config), image)
    assert len(traces) == 2


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 3, 32, 32), (1, 64, 64, 3)])
def test_encode_image_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"\[B, 32, 32, 3\], found"):
        clip.encode_image(SMALL, jnp.zeros(shape))


@pytest.mark.parametrize("shape", [(16,), (1, 17)])
def test_encode_text_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="at most 16"):
        clip.encode_text(SMALL, jnp.zeros(shape, jnp.int32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 30}, "multiple of patch_size"),
        ({"vision_heads": 5}, "multiple of vision_heads"),
        ({"text_heads": 3}, "multiple of text_heads"),
        ({"text_layers": 0}, "text_layers must be"),
        ({"embed_dim": 0.5}, "embed_dim must be"),
        ({"text_act": "sine"}, "text_act must be"),
        ({"dtype": "float16"}, "dtype must be"),
    ],
)
def test_config_refuses_impossible_architectures(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(B32, **change)
