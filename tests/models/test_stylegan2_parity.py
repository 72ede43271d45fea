"""The generator equals the official PyTorch code: forward, styles and gradients."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import stylegan2 as convert_stylegan2
from styleclip_jax import spaces
from styleclip_jax.models import param_trees, stylegan2
from styleclip_jax.models.network import Network
from tests import golden_data, golden_networks
from tests.golden_data import to_nchw, to_nhwc

ROSINALITY = ["converted", "training_checkpoint"]
ADA = ["conditional", "tf_legacy"]


@functools.cache
def load(name: str) -> tuple[golden_data.Case, Network]:
    case = golden_data.Case(name)
    path = f"{name}/{case.meta['checkpoint']}"
    return case, golden_networks.converted(convert_stylegan2.convert, path)


def styles_of(case: golden_data.Case, prefix: str, count: int) -> spaces.Styles:
    names = [f"{prefix}_{i:02d}" for i in range(count)]
    return tuple(case[n].reshape(len(case[n]), -1) for n in names)


@functools.cache
def compiled(function: Any, **static: Any) -> Any:
    return jax.jit(functools.partial(function, **static))


def jitted(function: Any, network: Network, **options: Any) -> Any:
    """The function of the remaining arguments, compiled."""
    return functools.partial(compiled(function, **options), network)


def render(network: Network, w_plus: np.ndarray, noise: str = "const") -> np.ndarray:
    return to_nchw(jitted(stylegan2.synthesize, network, noise=noise)(w_plus))


def render_styles(network: Network, styles: spaces.Styles) -> np.ndarray:
    return to_nchw(jitted(stylegan2.synthesize_styles, network)(styles))


@pytest.mark.parametrize(
    "name", [ROSINALITY[0], pytest.param(ROSINALITY[1], marks=pytest.mark.slow)]
)
def test_rosinality_images_and_styles(name: str) -> None:
    case, network = load(f"stylegan2_rosinality/{name}")
    params, config = network.params, network.config
    map_latents = jitted(stylegan2.map_latents, network)
    w = map_latents(case["z"])
    case.check("w", w)
    mean = map_latents(case["z_many"]).mean(0)
    case.check("mean_latent_of_z_many", mean)
    # A training checkpoint stores no average.
    w_avg = params["mapping"]["w_avg"] if name == "converted" else mean
    w_plus = spaces.broadcast_w(w, config.num_rows)
    truncated = spaces.truncate(w_plus, w_avg, 0.7)
    case.check("latent_trunc_0.7", truncated)
    case.check("latent_trunc_0.5", spaces.truncate(w_plus, w_avg, 0.5))
    case.check("image_trunc_0.7", render(network, truncated[:1]))
    case.check("image_z", render(network, w_plus[:1]))
    case.check("image_wplus", render(network, case["wplus"][:1]))

    styles = jitted(stylegan2.to_styles, network)(case["wplus"])
    for i, style in enumerate(styles):
        case.check(f"style_wplus_{i:02d}", style)
    first = tuple(style[:1] for style in styles)
    case.check("image_from_style_wplus", render_styles(network, first))
    perturbed = tuple(
        style + case["s_noise_scale"] * case[f"s_noise_{i:02d}"][:1]
        for i, style in enumerate(first)
    )
    case.check("image_from_perturbed_style", render_styles(network, perturbed))


def test_rosinality_style_mixing_and_explicit_noise() -> None:
    case, network = load("stylegan2_rosinality/converted")
    params, config = network.params, network.config
    both = np.concatenate([case["z"][:1], case["z2"]])
    w = jitted(stylegan2.map_latents, network)(both)
    w_plus = spaces.broadcast_w(w, config.num_rows)
    mixed = jnp.concatenate([w_plus[:1, :3], w_plus[1:, 3:]], axis=1)
    case.check("image_mix", render(network, mixed))

    flat = param_trees.flatten(params)
    names = [
        f"synthesis/{layer.name}/noise_const"
        for layer in config.style_layout
        if not layer.is_torgb
    ]
    for i, name in enumerate(names):
        flat[name] = case[f"noise_{i:02d}"][0, 0]
    noisy = Network(param_trees.unflatten(flat), config)
    case.check("image_explicit_noise", render(noisy, case["wplus"][:1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "remat"),
    [(ROSINALITY[0], False), (ROSINALITY[0], True), (ROSINALITY[1], False)],
)
def test_rosinality_gradients_under_jit(name: str, remat: bool) -> None:
    case, network = load(f"stylegan2_rosinality/{name}")
    config = dataclasses.replace(network.config, remat=remat)
    network = network.replace(config=config)
    weight = to_nhwc(case["grad_weight"])

    def loss(image: jax.Array) -> jax.Array:
        return jnp.sum(image * weight)

    @jax.jit
    def gradients(
        network: Network, w_plus: jax.Array
    ) -> tuple[jax.Array, spaces.Styles]:
        """Of both in one program, which shares most of it."""

        def of_w_plus(w_plus: jax.Array) -> jax.Array:
            return loss(stylegan2.synthesize(network, w_plus))

        def of_styles(styles: spaces.Styles) -> jax.Array:
            return loss(stylegan2.synthesize_styles(network, styles))

        styles = stylegan2.to_styles(network, w_plus)
        return jax.grad(of_w_plus)(w_plus), jax.grad(of_styles)(styles)

    of_w_plus, of_styles = gradients(network, case["wplus"][:1])
    case.check("grad_wplus", of_w_plus)
    for i, gradient in enumerate(of_styles):
        case.check(f"grad_style_{i:02d}", gradient)


@pytest.mark.slow
@pytest.mark.parametrize("name", ADA)
def test_ada_images_styles_and_gradients(name: str) -> None:
    case, network = load(f"stylegan2_ada_pkl/{name}")
    params, config = network.params, network.config
    label = case["c"] if config.c_dim else None
    w = jitted(stylegan2.map_latents, network)(case["z"], label)
    ws = spaces.broadcast_w(w, config.num_rows)
    case.check("ws", ws)
    truncate = functools.partial(spaces.truncate, ws, params["mapping"]["w_avg"])
    case.check("ws_psi0.7_cutoffNone", truncate(0.7))
    case.check("ws_psi0.7_cutoff8", truncate(0.7, 8))
    case.check("ws_psi0.5_cutoff4", truncate(0.5, 4))
    case.check("image", render(network, ws[:1]))
    case.check("image_psi0.7_cutoff8", render(network, truncate(0.7, 8)[:1]))

    w_plus = case["wplus"]
    case.check("image_wplus", render(network, w_plus[:1]))
    case.check("image_wplus_nonoise", render(network, w_plus[:1], "none"))
    styles = jitted(stylegan2.to_styles, network)(w_plus)
    for i, style in enumerate(styles):
        case.check(f"gt_style_{i:02d}", style)
    flat = case["gt_style_perturbed_concat"]
    perturbed = spaces.unflatten_styles(flat, config.style_layout)
    case.check("gt_image_perturbed", render_styles(network, perturbed))

    @jax.jit
    @functools.partial(jax.grad, argnums=1)
    def gradient(network: Network, w_plus: jax.Array) -> jax.Array:
        image = stylegan2.synthesize(network, w_plus)
        return jnp.sum(image * to_nhwc(case["grad_weight"]))

    case.check("grad_wplus", gradient(network, w_plus[:1]))
