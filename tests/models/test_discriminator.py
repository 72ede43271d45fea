"""The discriminator equals the official PyTorch code: logits and gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import discriminator as convert_discriminator
from styleclip_jax.models import discriminator
from styleclip_jax.models.network import Network
from tests import golden_data, golden_networks, tiny

CASES = ["rosinality", "ada_unconditional", "ada_conditional"]


@functools.cache
def load(name: str) -> tuple[golden_data.Case, Network]:
    name = f"stylegan2_discriminator/{name}"
    case = golden_data.Case(name)
    path = f"{name}/{case.meta['checkpoint']}"
    return case, golden_networks.converted(convert_discriminator.convert, path)


@golden_data.jit
def logits(network: Network, image: jax.Array, label: jax.Array | None) -> jax.Array:
    return discriminator.logits(network, image, label)


@pytest.mark.parametrize("name", CASES)
def test_logits_of_several_batch_sizes_and_gradient_of_images(name: str) -> None:
    case, network = load(name)
    image = golden_data.to_nhwc(case["real"])
    label = case.arrays.get("c")
    sizes = [int(x.removeprefix("logits_batch")) for x in case.arrays if "batch" in x]
    assert len(sizes) == 3
    for size in sizes:
        part = None if label is None else label[:size]
        case.check(f"logits_batch{size}", logits(network, image[:size], part))
    case.check("logits_fake", logits(network, golden_data.to_nhwc(case["fake"]), label))

    def total(image: jax.Array) -> jax.Array:
        return jnp.sum(discriminator.logits(network, image, label))

    gradient = jax.jit(jax.grad(total))(image)
    case.check("image_grad", golden_data.to_nchw(gradient))


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_parameters(name: str) -> None:
    case, network = load(name)
    real, fake = (golden_data.to_nhwc(case[x]) for x in ("real", "fake"))
    label = case.arrays.get("c")

    def loss(params: Any) -> jax.Array:
        on_real, on_fake = (
            discriminator.logits(network.replace(params=params), x, label)
            for x in (real, fake)
        )
        return jnp.mean(jax.nn.softplus(-on_real) + jax.nn.softplus(on_fake))

    value, gradient = jax.jit(jax.value_and_grad(loss))(network.params)
    case.check("loss_d", value)
    rosinality = convert_discriminator.rosinality(network.config.resolution)
    table = rosinality if name == "rosinality" else convert_discriminator.NVIDIA
    golden_networks.check_tensors(case, table, gradient, "grad.")
    names = case.meta["parameter_order"]
    ordered = golden_networks.in_order(table, gradient, names)
    assert len(ordered) == len(jax.tree.leaves(gradient))
    case.check("grad_sums", [x.sum() for x in ordered])
    case.check("grad_norms", [np.linalg.norm(x) for x in ordered])


def test_members_of_a_group_lie_apart_and_share_a_deviation() -> None:
    x = tiny.normal(0, 6, 2, 2, 4)
    found = discriminator.group_deviation(x, 2, 2)
    assert found.shape == (6, 2, 2, 2)
    # Images 1 and 4 are a group; channels 2 and 3 are the second of its deviations.
    expected = np.sqrt(np.var(x[jnp.array([1, 4])], axis=0) + 1e-8)[..., 2:].mean()
    np.testing.assert_allclose(found[np.array([1, 4]), :, :, 1], expected, rtol=1e-5)
    whole = discriminator.group_deviation(x, None, 1)
    np.testing.assert_allclose(whole, discriminator.group_deviation(x, 6, 1))
    # A group as large as the batch, at most.
    np.testing.assert_allclose(whole, discriminator.group_deviation(x, 8, 1))


def test_what_does_not_fit_is_refused() -> None:
    _, network = load("ada_conditional")
    image, label = jnp.zeros((3, 16, 16, 3)), jnp.zeros((3, 3))
    for inputs, message in (
        ((image, label), "groups of 2, found 3 images"),
        ((image, None), r"label: expected shape \(3, 3\), found None"),
        ((image[:, :8], label), r"found \[3, 8, 16, 3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(discriminator.logits, network, *inputs)


def test_initial_weights_are_normal_and_give_logits_of_order_one() -> None:
    config = discriminator.DiscriminatorConfig(8, (64, 32), c_dim=2, cmap_dim=8)
    network = Network(discriminator.init(jax.random.key(0), config), config)
    assert network.params["b8"]["conv1"]["kernel"].std() == pytest.approx(1, abs=0.05)
    # The rate of the mapping is a hundredth, and its weights a hundred times as large.
    spread = network.params["mapping"]["fc0"]["kernel"].std()
    assert spread == pytest.approx(100, abs=20)
    assert not network.params["b8"]["conv0"]["bias"].any()
    label = jax.nn.one_hot(jnp.arange(64) % 2, 2)
    found = logits(network, tiny.normal(1, 64, 8, 8, 3), label)
    assert 0.05 < found.std() < 5


def test_memory_saved_and_bfloat16_change_little() -> None:
    case, network = load("ada_unconditional")
    image = golden_data.to_nhwc(case["real"])

    def found(**changes: Any) -> tuple[jax.Array, Any]:
        config = network.config.replace(**changes)

        @jax.jit
        def run(params: Any) -> tuple[jax.Array, Any]:
            def total(params: Any) -> jax.Array:
                logit = discriminator.logits(Network(params, config), image)
                return jnp.sum(jax.nn.softplus(logit))

            return jax.value_and_grad(total)(params)

        return run(network.params)

    plain, remat = found(), found(remat=True)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(remat), strict=True):
        golden_data.assert_near(b, a, 1e-4)
    rounded = found(dtype="bfloat16", low_precision_from=16)
    assert 0 < abs(rounded[0] - plain[0]) < 0.3
