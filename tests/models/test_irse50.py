"""Identity features equal the official ones; the network and its training."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import irse50 as convert_irse50
from styleclip_jax.models import irse50, param_trees
from styleclip_jax.models.network import Network
from tests import golden_data, golden_networks, tiny
from tests.golden_data import to_nchw, to_nhwc

SIZES = (64, 256, 1024)
CASE = golden_data.Case("arcface_irse50")


@functools.cache
def official_network() -> Network:
    return golden_networks.converted(convert_irse50.convert, golden_networks.IDENTITY)


def photo(name: str, size: int) -> np.ndarray:
    """[1, size, size, 3]; the largest is stored as a sum of sine waves."""
    if size != 1024:
        return to_nhwc(CASE[f"{name}_{size}"])
    amplitude, fx, fy, phase = np.moveaxis(CASE[f"{name}_sine_spec_{size}"], -1, 0)[
        :, :, :, None, None
    ].astype(np.float64)
    y, x = np.mgrid[:size, :size] / size
    waves = amplitude * np.sin(2 * np.pi * (fx * x + fy * y) + phase)
    return to_nhwc(waves.sum(1)[None].astype(np.float32))


@functools.cache
def official() -> dict[str, Any]:
    """Everything that golden data tells, by its names there.

    One program, since compiling the network takes longer than all that it computes.
    """
    original, edited = (
        {str(size): photo(name, size) for size in SIZES} for name in ("y", "y_hat")
    )
    original["batch"], edited["batch"] = (
        to_nhwc(CASE[f"{name}_64"]) for name in ("batch_y", "batch_y_hat")
    )

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(edited: Any, original: Any, faces: Any, network: Network) -> Any:
        crops = [
            {size: irse50.preprocess(network, x) for size, x in images.items()}
            for images in (original, edited)
        ]
        batch, sizes = [faces, *crops[0].values(), *crops[1].values()], [*original]
        ends = list(itertools.accumulate(map(len, batch)))[:-1]
        image = jnp.concatenate(batch)
        first, *others = jnp.split(irse50.embed(network, image), ends)
        source, result = others[: len(sizes)], others[len(sizes) :]
        maps = irse50.feature_maps(network, image)
        found = {f"feat_body_{i}": x[:1] for i, x in enumerate(maps)}
        found["features_112"], total = first, 0.0
        for size, a, b in zip(sizes, source, result, strict=True):
            loss = jnp.mean(1 - jnp.sum(jax.lax.stop_gradient(a) * b, -1))
            found |= {f"y_feats_{size}": a, f"id_loss_{size}": loss}
            found[f"crop_112_{size}"] = crops[0][size]
            total += loss
        return total, found

    faces, network = to_nhwc(CASE["faces_112"]), official_network()
    gradients, found = run(edited, original, faces, network)
    return found | {f"id_loss_grad_{size}": x for size, x in gradients.items()}


embed = jax.jit(irse50.embed)


@pytest.mark.slow
def test_features_and_identity_loss() -> None:
    for name in ("features_112", "id_loss_batch"):
        CASE.check(name, official()[name])
    for size in SIZES:
        CASE.check(f"y_feats_{size}", official()[f"y_feats_{size}"])
        CASE.check(f"id_loss_{size}", official()[f"id_loss_{size}"])


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_crop(size: int) -> None:
    name = f"crop_112_{size}"
    CASE.check(name, to_nchw(official()[name])[:, :, ::2, ::2])


@pytest.mark.slow
def test_feature_maps_of_the_body() -> None:
    names = [name for name in CASE.arrays if name.startswith("feat_body_")]
    assert len(names) == 9
    for name in names:
        x = to_nchw(official()[name])
        # Large maps are stored at every fourth pixel.
        step = 1 if x.shape[-1] <= 14 else 4
        CASE.check(name, x[:, :, ::step, ::step])


@pytest.mark.slow
@pytest.mark.parametrize(("size", "step"), [(64, 1), (256, 2)])
def test_gradient_of_the_identity_loss(size: int, step: int) -> None:
    name = f"id_loss_grad_{size}"
    CASE.check(name, to_nchw(official()[name])[:, :, ::step, ::step])


@pytest.mark.parametrize(("size", "out"), [(40, 32), (300, 56)])
def test_other_sizes_see_the_same_part_of_the_photo(size: int, out: int) -> None:
    def pool(x: np.ndarray, out: int) -> np.ndarray:
        """Adaptive average pooling by its definition, along the first axis."""
        n = len(x)
        ends = [(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]
        return np.stack([x[start:end].mean(0) for start, end in ends])

    def both(x: np.ndarray, out: int) -> np.ndarray:
        return pool(pool(x, out).swapaxes(0, 1), out).swapaxes(0, 1)

    image = np.random.default_rng(0).uniform(-1, 1, (1, size, size, 3))
    config = irse50.IrseConfig(input_size=out)
    expected = both(both(image[0], 256)[35:223, 32:220], out)
    found = irse50.preprocess(Network({}, config), jnp.asarray(image))
    np.testing.assert_allclose(found[0], expected, atol=2e-6)


def test_batch_equals_its_examples_under_vmap() -> None:
    photos = tiny.image(8, 20)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def one(network: Network, photo: jax.Array) -> jax.Array:
        return irse50.features(network, photo[None])[0]

    network = tiny.identity_network()
    faces = irse50.preprocess(network, photos)
    found, expected = one(network, photos), embed(network, faces)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)
    assert np.abs(np.asarray(found[0] - found[1])).max() > 1e-2


def test_bfloat16_stays_near_float32() -> None:
    network, image = tiny.identity_network(), tiny.image(8, 12)
    config = dataclasses.replace(network.config, dtype="bfloat16")
    found = embed(network.replace(config=config), image)
    assert found.dtype == jnp.float32
    assert 1e-5 < jnp.abs(found - embed(network, image)).max() < 3e-2


def test_training_normalises_by_the_batch_and_moves_the_averages() -> None:
    network, image = tiny.identity_network(), tiny.image(8, 12)
    step = jax.jit(irse50.embed_in_training)
    params = network.params
    found = step(network, image)
    kernel = params["body"]["input"]["conv"]["kernel"]
    x = jax.lax.conv_general_dilated(
        image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    old, new = (tree["body"]["input"]["norm"] for tree in (params, found.params))
    for name, of_batch in (("mean", x.mean((0, 1, 2))), ("var", x.var((0, 1, 2)))):
        expected = 0.9 * old[name] + 0.1 * of_batch
        np.testing.assert_allclose(new[name], expected, atol=1e-5)
    before, after = map(param_trees.flatten, (params, found.params))
    assert before.keys() == after.keys()
    for name in before:
        is_average = name.endswith(("/mean", "/var"))
        same = np.array_equal(before[name], after[name])
        assert same != is_average, name

    # Averages that have settled give what the batch's own statistics give.
    for _ in range(150):
        network = network.replace(params=step(network, image).params)
    np.testing.assert_allclose(embed(network, image), found.features, atol=1e-4)


def test_running_statistics_carry_no_gradient() -> None:
    image = tiny.image(2, 12)

    @jax.jit
    @jax.grad
    def gradient(network: Network) -> jax.Array:
        found = irse50.embed(network, image)
        updated = irse50.embed_in_training(network, image).params
        averages = {
            name: jnp.sum(leaf)
            for name, leaf in param_trees.flatten(updated).items()
            if name.endswith(("/mean", "/var"))
        }
        return jnp.sum(found[0] * jnp.arange(5.0)) + sum(averages.values())

    found = param_trees.flatten(gradient(tiny.identity_network()).params)
    averages = [name for name in found if name.endswith(("/mean", "/var"))]
    assert len(averages) == 2 * 8
    for name in averages:
        assert not found[name].any(), name
        assert found[name.rsplit("/", 1)[0] + "/scale"].any(), name


def test_official_sizes() -> None:
    shapes = irse50.param_shapes(irse50.IrseConfig())
    assert shapes["head/dense/kernel"] == (25088, 512)
    assert shapes["body/block23/squeeze/kernel"] == (512, 32)
    learned = sum(
        int(np.prod(shape))
        for name, shape in shapes.items()
        if not name.endswith(("/mean", "/var"))
    )
    assert learned == 43_797_696


def test_wrong_shapes_are_refused_with_both() -> None:
    network = tiny.identity_network()
    with pytest.raises(ValueError, match=r"\[B, 12, 12, 3\], found \[1, 16, 16, 3\]"):
        irse50.embed(network, jnp.zeros((1, 16, 16, 3)))
    for shape in ((1, 16, 12, 3), (16, 16, 3), (1, 16, 16, 4)):
        with pytest.raises(ValueError, match="image: expected"):
            irse50.features(network, jnp.zeros(shape))


@pytest.mark.parametrize(
    "change",
    [
        {"widths": (6,)},
        {"num_blocks": (1, 0)},
        {"num_blocks": (), "widths": ()},
        {"reduction": 7},
        {"dtype": "float16"},
    ],
)
def test_configurations_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="found"):
        dataclasses.replace(tiny.IDENTITY, **change)
