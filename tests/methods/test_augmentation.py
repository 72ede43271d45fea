"""ADA: transforms beside the official ones, their probability, derivatives, devices."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import erfinv

from styleclip_jax.errors import UserError
from styleclip_jax.methods import augmentation
from styleclip_jax.methods.augmentation import Draw
from styleclip_jax.settings.augmentation import (
    PIPELINES,
    AdaptationConfig,
    AugmentationConfig,
)
from tests import golden_data
from tests.golden_data import to_nchw, to_nhwc
from tests.golden_gans import ORDER

BGC = PIPELINES["bgc"]
# Random numbers in the order in which the official code draws them.
NORMAL = {"scale", "aniso", "xfrac", "brightness", "contrast", "saturation"}
CASE = golden_data.Case("ada_augment")
PERCENTILES = [name for name in CASE.arrays if ".p" in name and name[-2:].isdigit()]


@functools.cache
def compiled(config: AugmentationConfig):
    return jax.jit(functools.partial(augmentation.augment, config=config))


def at_percentile(d: float, config: AugmentationConfig, batch: int) -> dict[str, Draw]:
    """The draws that `debug_percentile` stands for; what is on always applies."""
    draws = {}
    for name in ORDER:
        drawn = d if name not in NORMAL else float(erfinv(2 * d - 1))
        # There the second rotation is none.
        drawn = 0.5 if name == "rotate_after" else drawn
        shape = (batch, 2) if name in ("xint", "xfrac") else (batch,)
        is_on = getattr(config, name.split("_")[0]) > 0
        draws[name] = Draw(jnp.full(shape, drawn), jnp.full(batch, 1.0 - is_on))
    return draws


def official_draws() -> dict[str, Draw]:
    arrays = [CASE[f"random.draw_{i:02}"] for i in range(2 * len(ORDER))]
    return {
        name: Draw(
            jnp.asarray(
                value.reshape(4, -1) if value.shape == (4, 2) else value.ravel()
            ),
            jnp.asarray(chance.ravel()),
        )
        for name, value, chance in zip(ORDER, arrays[::2], arrays[1::2], strict=True)
    }


def images(batch: int = 4, height: int = 16, width: int = 16) -> jax.Array:
    return jax.random.uniform(jax.random.key(0), (batch, height, width, 3)) * 2 - 1


@pytest.mark.parametrize("name", PERCENTILES)
def test_each_transform_and_pipeline_is_the_official_one(name: str) -> None:
    kind, percentile = name.removeprefix("gray_").split(".p")
    config = PIPELINES.get(kind) or AugmentationConfig(**{kind: 1.0})
    source = CASE["gray"] if name.startswith("gray_") else CASE["images"][:2]
    draws = at_percentile(int(percentile) / 100, config, len(source))
    # One program for all, in which the rest does not apply.
    found = compiled(BGC)(to_nhwc(source), 1.0, draws)
    CASE.check(name, to_nchw(found))


def test_pipeline_and_its_gradient_are_the_official_ones_with_the_same_draws() -> None:
    @jax.jit
    def weighted(image: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = augmentation.augment(
            image, CASE["random.p"], official_draws(), config=BGC
        )
        return (found * to_nhwc(CASE["random.weight"])).sum(), found

    gradient, found = jax.grad(weighted, has_aux=True)(to_nhwc(CASE["images"]))
    CASE.check("random.out", to_nchw(found))
    CASE.check("random.grad", to_nchw(gradient))


def test_images_come_back_to_the_last_bit_at_probability_0() -> None:
    draws = augmentation.draw(jax.random.key(1), 4)
    found = compiled(BGC)(images(), 0.0, draws)
    np.testing.assert_array_equal(found, images())


def test_two_devices_augment_as_one() -> None:
    draws = augmentation.draw(jax.random.key(3), 4)
    split = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), (images(), draws))
    run = functools.partial(augmentation.augment, config=BGC)
    found = jax.pmap(run, in_axes=(0, None, 0))(split[0], 0.8, split[1])
    expected = compiled(BGC)(images(), 0.8, draws)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=2e-5)


def test_one_program_serves_all_probabilities() -> None:
    run = jax.jit(functools.partial(augmentation.augment, config=BGC))
    for p in (0.0, 0.3, 1.2):
        run(images(), jnp.float32(p), augmentation.draw(jax.random.key(1), 4))
    assert run._cache_size() == 1


def test_r1_through_the_augmentation_has_the_derivative_of_differences() -> None:
    """R1 by a parameter of a discriminator, as a discriminator's step takes it."""
    draws = augmentation.draw(jax.random.key(5), 2)
    image, weight = images(2), images(2)[..., ::-1]

    @jax.jit
    def r1(scale: jax.Array) -> jax.Array:
        def logits(image: jax.Array) -> jax.Array:
            seen = augmentation.augment(image, 0.9, draws, config=BGC)
            return jnp.tanh(scale * seen * weight).sum()

        return jnp.square(jax.grad(logits)(image)).mean()

    slope = jax.grad(r1)(1.5)
    numerical = (r1(1.5 + 1e-2) - r1(1.5 - 1e-2)) / 2e-2
    np.testing.assert_allclose(slope, numerical, rtol=2e-3)


def test_an_image_twice_as_wide_turns_and_shifts_in_pixels() -> None:
    """Half a turn and 2 pixels to the right, exact but for the filter's asymmetry."""
    y, x = np.mgrid[:16, :32].astype(np.float32)
    smooth = np.stack([np.sin(y / 5), np.cos(x / 7), np.sin((x + y) / 9)], -1)[None]
    config = AugmentationConfig(rotate90=1.0, xint=1.0)
    draws = at_percentile(0.5, config, 1)
    draws["xint"] = Draw(jnp.array([[0.75, 0.5]]), jnp.zeros(1))
    found = compiled(config)(smooth, 1.0, draws)[0, 2:-2, 4:-2]
    expected = smooth[0, ::-1, ::-1][2:-2, 2:-4]
    np.testing.assert_allclose(found, expected, atol=0.04)


def test_each_transform_applies_as_often_as_the_probability_says() -> None:
    count = 4000
    draws = augmentation.draw(jax.random.key(6), count)
    assert set(draws) == set(ORDER)
    for name, (value, chance) in draws.items():
        assert abs((chance < 0.3).mean() - 0.3) < 0.03, name
        mean, deviation = (0, 1) if name in NORMAL else (0.5, math.sqrt(1 / 12))
        assert np.abs(value.mean(0) - mean).max() < 4.5 * deviation / count**0.5, name
        assert np.abs(value.std(0) - deviation).max() < 0.05 * deviation, name
    numbers = jnp.concatenate(
        [x.reshape(count, -1) for x in jax.tree.leaves(draws)], axis=1
    )
    correlation = np.corrcoef(numbers.T) - np.eye(numbers.shape[1])
    assert np.abs(correlation).max() < 0.08


@pytest.mark.parametrize(
    ("name", "share"), [("xflip", 1 / 2), ("rotate90", 3 / 4), ("lumaflip", 1 / 2)]
)
def test_discrete_transforms_change_their_share_of_images(
    name: str, share: float
) -> None:
    """At strength 0.8 and p = 1; one outcome of each leaves the image as it is."""
    small = jnp.tile(images(1, 8, 8), (500, 1, 1, 1))
    draws = augmentation.draw(jax.random.key(7), 500)
    found = compiled(AugmentationConfig(**{name: 0.8}))(small, 1.0, draws)
    changed = jnp.abs(found - small).max((1, 2, 3)) > 1e-2
    assert abs(changed.mean() - 0.8 * share) < 0.07


def test_rotations_together_apply_with_the_probability_of_one() -> None:
    small = jnp.tile(images(1, 8, 8), (500, 1, 1, 1))
    draws = augmentation.draw(jax.random.key(8), 500)
    found = compiled(AugmentationConfig(rotate=1.0))(small, 0.4, draws)
    changed = jnp.abs(found - small).max((1, 2, 3)) > 1e-2
    assert abs(changed.mean() - 0.4) < 0.07


@pytest.mark.parametrize(
    ("shape", "config"),
    [((1, 16, 16, 4), PIPELINES["color"]), ((1, 6, 16, 3), PIPELINES["blit"])],
)
def test_images_of_other_shapes_are_refused(shape: tuple, config) -> None:
    draws = augmentation.draw(jax.random.key(0), 1)
    with pytest.raises(ValueError, match="image: expected"):
        augmentation.augment(jnp.zeros(shape), 0.5, draws, config=config)


def test_pipelines_hold_the_transforms_of_their_names() -> None:
    """b: whole pixels, g: geometry, c: colours; all at strength 1."""
    on = {
        name: {field for field, value in vars(config).items() if value == 1.0}
        - {"rotate_max", "hue_max", "saturation_std"}
        for name, config in PIPELINES.items()
    }
    assert on["blit"] == {"xflip", "rotate90", "xint"}
    assert on["geom"] == {"scale", "rotate", "aniso", "xfrac"}
    assert on["color"] == {"brightness", "contrast", "lumaflip", "hue", "saturation"}
    assert on["bg"] == on["blit"] | on["geom"]
    assert on["bgc"] == on["bg"] | on["color"]


def test_strengths_and_rules_are_checked() -> None:
    with pytest.raises(UserError, match="xflip must be at least 0"):
        AugmentationConfig(xflip=-1)
    with pytest.raises(UserError, match="rule must be one of nvidia, rosinality"):
        AdaptationConfig(rule="other")


def test_probability_moves_as_in_the_official_loop() -> None:
    table = {
        name.removeprefix("table.nvidia."): array
        for name, array in CASE.arrays.items()
        if name.startswith("table.nvidia.")
    }
    found = [
        augmentation.adjust(
            table["p"][i],
            jnp.array([table["sign_mean"][i], 1.0]),
            table["batch"][i] * table["interval"][i],
            config=AdaptationConfig(
                float(table["target"][i]), round(1000 * float(table["ada_kimg"][i]))
            ),
        )
        for i in range(len(table["p"]))
    ]
    CASE.check("table.nvidia.p_new", found)


def test_probability_moves_as_in_rosinalitys_loop() -> None:
    config = AdaptationConfig(target=0.5, length=400, rule="rosinality")
    p, signs, found = 0.0, jnp.zeros(2), []
    for step, logits in enumerate(CASE["table.rosinality.logits"]):
        signs += augmentation.signs(logits)
        if step % 4 == 3:
            p = augmentation.adjust(p, signs, 0, config=config)
            signs = jnp.zeros(2)
        found.append(p)
    np.testing.assert_array_equal(found, CASE["table.rosinality.p"])


@pytest.mark.parametrize(
    ("rule", "signs", "expected"),
    [
        ("nvidia", (3, 5), 0.3),  # 3/5 is the target
        ("nvidia", (0, 0), 0.3),
        ("nvidia", (4, 5), 0.3 + 64 / 1000),
        ("rosinality", (3, 5), 0.3 - 5 / 1000),
        ("rosinality", (900, 900), 1.0),
    ],
)
def test_probability_at_the_target_and_at_its_bounds(rule, signs, expected) -> None:
    config = AdaptationConfig(length=1000, rule=rule)
    found = augmentation.adjust(0.3, jnp.array(signs, jnp.float32), 64, config=config)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_signs_count_a_logit_of_zero_as_neither() -> None:
    np.testing.assert_array_equal(
        augmentation.signs(jnp.array([2.0, 0, -3, 5])), [1, 4]
    )
