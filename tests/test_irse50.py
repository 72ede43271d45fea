"""Identity features equal the official ones; the network, its training, its files."""

import dataclasses
import functools
import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import __main__, torch_files
from convert import irse50 as convert_irse50
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints
from styleclip_jax.models import irse50
from styleclip_jax.models.network import Network
from tests import golden_data, tiny
from tests.golden_data import to_nchw, to_nhwc

SIZES = (64, 256, 1024)
TINY = irse50.IrseConfig(
    num_blocks=(1, 1), widths=(6, 8), embed_dim=5, input_size=12, reduction=3
)


@functools.cache
def load() -> tuple[golden_data.Case, Network]:
    case = golden_data.Case("arcface_irse50")
    conversion = convert_irse50.convert(read(case))
    params = checkpoints.unflatten(conversion.tensors)
    return case, Network(jax.tree.map(jnp.asarray, params), conversion.config)


def read(case: golden_data.Case) -> torch_files.TorchFile:
    return torch_files.read(case.folder / case.meta["checkpoint"])


def photo(case: golden_data.Case, name: str, size: int) -> np.ndarray:
    """[1, size, size, 3]; the largest is stored as a sum of sine waves."""
    if size != 1024:
        return to_nhwc(case[f"{name}_{size}"])
    amplitude, fx, fy, phase = np.moveaxis(case[f"{name}_sine_spec_{size}"], -1, 0)[
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
    case, network = load()
    preprocess, embed, feature_maps = (
        functools.partial(function, config=network.config)
        for function in (irse50.preprocess, irse50.embed, irse50.feature_maps)
    )
    original, edited = (
        {str(size): photo(case, name, size) for size in SIZES}
        for name in ("y", "y_hat")
    )
    original["batch"], edited["batch"] = (
        to_nhwc(case[f"{name}_64"]) for name in ("batch_y", "batch_y_hat")
    )

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(edited: Any, original: Any, faces: Any, params: Any) -> Any:
        crops = [{k: preprocess(x) for k, x in y.items()} for y in (original, edited)]
        batch, sizes = [faces, *crops[0].values(), *crops[1].values()], [*original]
        ends = list(itertools.accumulate(map(len, batch)))[:-1]
        image = jnp.concatenate(batch)
        first, *others = jnp.split(embed(params, image), ends)
        source, result = others[: len(sizes)], others[len(sizes) :]
        found = {
            f"feat_body_{i}": x[:1] for i, x in enumerate(feature_maps(params, image))
        }
        found["features_112"], total = first, 0.0
        for size, a, b in zip(sizes, source, result, strict=True):
            loss = jnp.mean(1 - jnp.sum(jax.lax.stop_gradient(a) * b, -1))
            found |= {f"y_feats_{size}": a, f"id_loss_{size}": loss}
            found[f"crop_112_{size}"] = crops[0][size]
            total += loss
        return total, found

    faces = to_nhwc(case["faces_112"])
    gradients, found = run(edited, original, faces, network.params)
    return found | {f"id_loss_grad_{size}": x for size, x in gradients.items()}


@functools.cache
def tiny_params() -> Any:
    """Random parameters; drawn by NumPy, since `init` takes long to compile."""
    rng = np.random.default_rng(0)
    flat = {
        name: rng.uniform(-0.5 if name.endswith("kernel") else 0.1, 0.5, shape)
        for name, shape in irse50.param_shapes(TINY).items()
    }
    return jax.tree.map(jnp.float32, checkpoints.unflatten(flat))


embed_tiny = jax.jit(functools.partial(irse50.embed, config=TINY))


def test_features_and_identity_loss() -> None:
    case, _ = load()
    for name in ("features_112", "id_loss_batch"):
        case.check(name, official()[name])
    for size in SIZES:
        case.check(f"y_feats_{size}", official()[f"y_feats_{size}"])
        case.check(f"id_loss_{size}", official()[f"id_loss_{size}"])


@pytest.mark.parametrize("size", SIZES)
def test_crop(size: int) -> None:
    name = f"crop_112_{size}"
    load()[0].check(name, to_nchw(official()[name])[:, :, ::2, ::2])


def test_feature_maps_of_the_body() -> None:
    case, _ = load()
    names = [name for name in case.arrays if name.startswith("feat_body_")]
    assert len(names) == 9
    for name in names:
        x = to_nchw(official()[name])
        # Large maps are stored at every fourth pixel.
        step = 1 if x.shape[-1] <= 14 else 4
        case.check(name, x[:, :, ::step, ::step])


@pytest.mark.parametrize(("size", "step"), [(64, 1), (256, 2)])
def test_gradient_of_the_identity_loss(size: int, step: int) -> None:
    name = f"id_loss_grad_{size}"
    load()[0].check(name, to_nchw(official()[name])[:, :, ::step, ::step])


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
    def one(params: Any, photo: jax.Array) -> jax.Array:
        return irse50.features(Network(params, TINY), photo[None])[0]

    faces = irse50.preprocess(Network({}, TINY), photos)
    found, expected = one(tiny_params(), photos), embed_tiny(tiny_params(), faces)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)
    assert np.abs(np.asarray(found[0] - found[1])).max() > 1e-2


def test_bfloat16_stays_near_float32() -> None:
    config = dataclasses.replace(TINY, dtype="bfloat16")
    image = tiny.image(8, 12)
    found = jax.jit(functools.partial(irse50.embed, config=config))(
        tiny_params(), image
    )
    assert found.dtype == jnp.float32
    assert 1e-5 < jnp.abs(found - embed_tiny(tiny_params(), image)).max() < 3e-2


def test_training_normalises_by_the_batch_and_moves_the_averages() -> None:
    image = tiny.image(8, 12)
    step = jax.jit(functools.partial(irse50.embed_in_training, config=TINY))
    params = tiny_params()
    found = step(params, image)
    kernel = params["body"]["input"]["conv"]["kernel"]
    x = jax.lax.conv_general_dilated(
        image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    old, new = (tree["body"]["input"]["norm"] for tree in (params, found.params))
    for name, of_batch in (("mean", x.mean((0, 1, 2))), ("var", x.var((0, 1, 2)))):
        expected = 0.9 * old[name] + 0.1 * of_batch
        np.testing.assert_allclose(new[name], expected, atol=1e-5)
    before, after = map(checkpoints.flatten, (params, found.params))
    assert before.keys() == after.keys()
    for name in before:
        is_average = name.endswith(("/mean", "/var"))
        assert bool((before[name] != after[name]).any()) == is_average, name

    # Averages that have settled give what the batch's own statistics give.
    for _ in range(150):
        params = step(params, image).params
    np.testing.assert_allclose(embed_tiny(params, image), found.features, atol=1e-4)


def test_running_statistics_carry_no_gradient() -> None:
    image = tiny.image(2, 12)

    @jax.jit
    @jax.grad
    def gradient(params: Any) -> jax.Array:
        found = irse50.embed(Network(params, TINY), image)
        updated = irse50.embed_in_training(Network(params, TINY), image).params
        averages = {
            name: jnp.sum(leaf)
            for name, leaf in checkpoints.flatten(updated).items()
            if name.endswith(("/mean", "/var"))
        }
        return jnp.sum(found[0] * jnp.arange(5.0)) + sum(averages.values())

    found = checkpoints.flatten(gradient(tiny_params()))
    averages = [name for name in found if name.endswith(("/mean", "/var"))]
    assert len(averages) == 2 * 8
    for name in averages:
        assert not found[name].any(), name
        assert found[name.rsplit("/", 1)[0] + "/scale"].any(), name


def test_architecture_is_read_off_the_shapes() -> None:
    case, network = load()
    assert convert_irse50.recognize(read(case))
    assert network.config == irse50.IrseConfig(widths=(16, 24, 32, 40), embed_dim=40)


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


def test_converted_file_is_read_back(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, network = load()
    path, out = case.folder / case.meta["checkpoint"], tmp_path / "identity"
    assert __main__.main(["convert", str(path), f"--output={out}"]) == 0
    assert "legacy file, irse50" in capsys.readouterr().out
    params, config = checkpoints.load_network(
        out,
        kind="irse50",
        config_type=irse50.IrseConfig,
        param_shapes=irse50.param_shapes,
    )
    assert config == network.config
    jax.tree.map(np.testing.assert_array_equal, params, network.params)


def test_all_differences_of_a_file_stand_in_one_message() -> None:
    file = read(load()[0])
    del file.content["body.3.res_layer.4.running_var"]
    del file.content["body.3.shortcut_layer.0.weight"]
    file.content["body.3.extra.weight"] = np.ones(2)
    file.content["input_layer.2.weight"] = np.ones(3)
    with pytest.raises(UserError) as caught:
        convert_irse50.convert(file)
    assert str(caught.value) == (
        f"{file.path}: 2 missing tensors (body/block3/norm2/var, "
        "body/block3/shortcut/kernel); 1 surplus tensor (body.3.extra.weight); "
        "1 wrongly shaped tensor (body/input/slope expected [16] found [3])"
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("body.5.res_layer.5.fc1.weight", np.ones((5, 24, 1, 1)), "one reduction"),
        ("body.30.res_layer.2.weight", np.ones(40), "found no width of block 24"),
        ("output_layer.3.weight", np.ones((40, 41)), "found one of 41 inputs"),
    ],
)
def test_other_architectures_are_refused(name: str, value: Any, expected: str) -> None:
    file = read(load()[0])
    file.content[name] = value
    with pytest.raises(UserError, match=expected):
        convert_irse50.convert(file)


def test_wrong_shapes_are_refused_with_both() -> None:
    with pytest.raises(ValueError, match=r"\[B, 12, 12, 3\], found \[1, 16, 16, 3\]"):
        irse50.embed(Network(tiny_params(), TINY), jnp.zeros((1, 16, 16, 3)))
    for shape in ((1, 16, 12, 3), (16, 16, 3), (1, 16, 16, 4)):
        with pytest.raises(ValueError, match="image: expected"):
            irse50.features(Network(tiny_params(), TINY), jnp.zeros(shape))


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
        dataclasses.replace(TINY, **change)
