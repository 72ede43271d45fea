"""Stage "generator": a StyleGAN2 generator of drawn faces.

It is trained supervised. A face's vector v (one-hot attributes, shapes, tints) is laid
into W by a fixed matrix E with orthonormal rows,

  w = w_avg + γ (v - v̄) E,

where v̄ is the mean face and γ makes W's coordinates vary by about one. Only the
synthesis network learns: to draw the face from w. So each attribute is a direction of
W, and no information can hide elsewhere. Between two faces lies the picture between
them: half of the targets are such pictures. (A generator that never saw one jumps from
face to face, and small steps in w change nothing.)

The mapping network needs no training. A z has one coordinate per attribute, which
thresholds turn into a one-hot code with its frequencies, and one coordinate
per shape and tint. With leaky ReLU ϕ of slope 1/5 below zero, two units make a step

  ϕ(s (u - t) + ½) - ϕ(s (u - t) - ½) = 1/5 left of t, 1 right of it,

so two layers do it: thresholds, then sums of steps times E. As the last layer of the
official mapping network ends in ϕ too, w_avg is large enough for w to be positive.
Random samples then have exactly the distribution of the drawn faces, up to the narrow
ramps of the steps.
"""

import dataclasses
import functools
import math
import pathlib
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from styleclip_jax import spaces
from styleclip_jax.io import checkpoints
from styleclip_jax.models import param_trees, stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.toy import attributes, judge

from . import common, judge_stage

_MAPPING_LR_MULTIPLIER = 0.01
_STEEPNESS = 100.0


_NETWORK = stylegan2.GeneratorConfig(
    resolution=64,
    z_dim=64,
    w_dim=128,
    num_mapping_layers=2,
    channels=(96, 96, 80, 48, 32),
)


@dataclasses.dataclass(frozen=True)
class GeneratorTraining:
    """Settings of the generator's training.

    Attributes:
      network: architecture; its mapping network has the two layers derived above.
      steps: optimization steps.
      batch_size: faces per step.
      learning_rate: peak of the schedule.
      hold: share of the steps before the learning rate falls.
      num_pairs: pairs of drawn faces to learn from.
      feature_weight: weight of the features' loss.
      least_psi: attributes are pulled towards their mean by a random factor between
        this and one, and the picture stays: truncated latents give clear faces.
      attribute_noise: deviation of the noise on each row's attributes. With 0.1 a
        truncated face could not be told from one between two, and was blurred.
      number_noise: deviation of the noise on each row's shapes and tints.
      average_images: half-life of the parameters' average, in images.
      seed: of everything random.
    """

    network: stylegan2.GeneratorConfig = _NETWORK
    steps: int = 9000
    batch_size: int = 16
    learning_rate: float = 3e-3
    hold: float = 0.4
    num_pairs: int = 40_000
    feature_weight: float = 0.15
    least_psi: float = 0.6
    attribute_noise: float = 0.04
    number_noise: float = 0.05
    average_images: float = 3000.0
    seed: int = 3


def mean_vector() -> np.ndarray:
    """v̄: the frequencies of the attributes, and zeros."""
    mean = np.zeros(attributes.VECTOR_SIZE, np.float32)
    mean[: attributes.NUM_VALUES] = [
        p for t in attributes.ATTRIBUTES.values() for p in t.values()
    ]
    return mean


def embedding(w_dim: int) -> np.ndarray:
    """γE: what a face's vector adds to w, [VECTOR_SIZE, w_dim]."""
    square = np.random.default_rng(0).normal(size=(w_dim, w_dim))
    rows = np.linalg.qr(square)[0][: attributes.VECTOR_SIZE]
    share = mean_vector()[: attributes.NUM_VALUES]
    num_numbers = attributes.VECTOR_SIZE - attributes.NUM_VALUES
    variance = np.sum(share * (1 - share)) + num_numbers * attributes.SPREAD**2
    return (rows * np.sqrt(w_dim / variance)).astype(np.float32)


def mean_latent(w_dim: int) -> np.ndarray:
    """w_avg: just large enough for every latent to be positive, [w_dim]."""
    code = embedding(w_dim)
    lowest = np.zeros(w_dim)
    for part in attributes.SLICES.values():
        lowest += code[part].min(axis=0)
    lowest -= np.abs(code[attributes.NUM_VALUES :]).sum(axis=0)
    return (mean_vector() @ code - lowest).astype(np.float32)


def to_w(vectors: np.ndarray | jax.Array, w_dim: int) -> jax.Array:
    """w - w_avg of faces' vectors [..., VECTOR_SIZE]."""
    return (vectors - mean_vector()) @ embedding(w_dim)


def mapping_params(config: stylegan2.GeneratorConfig) -> dict[str, Any]:
    """The mapping network derived above."""
    square = np.random.default_rng(1).normal(size=(config.z_dim, config.z_dim))
    axes = iter(np.linalg.qr(square)[0])
    units: list[np.ndarray] = []  # rows of the first layer
    biases: list[float] = []
    readout: list[np.ndarray] = []  # what a unit adds to the face's vector
    vector = np.zeros(attributes.VECTOR_SIZE)

    def step(axis: np.ndarray, slope: float, at: float, change: np.ndarray) -> None:
        """Adds `change`, times a ramp from 0 to 1 of this slope, to the vector."""
        for sign in (1, -1):
            units.append(slope * axis)
            biases.append(sign / 2 - slope * at)
            # A unit's output has the gain √2; see the equation above for 1/5 and 4/5.
            readout.append(sign * change / (0.8 * math.sqrt(2)))
        nonlocal vector
        vector = vector - change / 4

    for name, table in attributes.ATTRIBUTES.items():
        axis, one_hot = (
            next(axes),
            np.eye(attributes.VECTOR_SIZE)[attributes.SLICES[name]],
        )
        vector = vector + one_hot[0]
        thresholds = np.cumsum(list(table.values()))[:-1]
        for index, share in enumerate(thresholds):
            at = statistics.NormalDist().inv_cdf(share)
            step(axis, _STEEPNESS, at, one_hot[index + 1] - one_hot[index])
    for index in range(attributes.NUM_VALUES, attributes.VECTOR_SIZE):
        # From -1 at u = -2 to 1 at u = 2, hence half of u, clipped.
        number = np.eye(attributes.VECTOR_SIZE)[index]
        vector = vector - number
        step(next(axes), 1 / (2 / attributes.SPREAD), 0.0, 2 * number)

    hidden, code = config.w_dim, embedding(config.w_dim)
    if len(units) > hidden:
        raise ValueError(f"the mapping needs w_dim of {len(units)}, found {hidden}")
    first = np.zeros((config.z_dim, hidden))
    first_bias = np.zeros(hidden)
    second = np.zeros((hidden, config.w_dim))
    first[:, : len(units)] = np.array(units).T
    first_bias[: len(units)] = biases
    second[: len(units)] = np.array(readout) @ code / math.sqrt(2)
    average = mean_latent(config.w_dim)
    constant = (vector - mean_vector()) @ code + average
    # The equalised layers multiply their kernels by lr_multiplier / √(inputs).
    gain = 1 / _MAPPING_LR_MULTIPLIER
    return {
        "fc0": {
            "kernel": first * math.sqrt(config.z_dim) * gain,
            "bias": first_bias * gain,
        },
        "fc1": {
            "kernel": second * math.sqrt(hidden) * gain,
            "bias": constant / math.sqrt(2) * gain,
        },
        "w_avg": average,
    }


def export_params(
    synthesis: Any, config: stylegan2.GeneratorConfig
) -> dict[str, dict[str, Any]]:
    """Parameters of the whole generator, from a synthesis network trained on w - w_avg.

    The styles' affine layers get projected onto the rows of E, so that nothing but
    attributes moves the picture, and their biases take up w_avg.
    """
    code, average = embedding(config.w_dim), mean_latent(config.w_dim)
    projection = np.linalg.pinv(code) @ code
    flat = param_trees.flatten(jax.device_get(synthesis))
    for name in [name for name in flat if name.endswith("affine/kernel")]:
        kernel = projection.T @ flat[name]
        bias = name.replace("kernel", "bias")
        flat[name] = kernel
        flat[bias] = flat[bias] - average @ kernel / math.sqrt(config.w_dim)
    return {"mapping": mapping_params(config), "synthesis": param_trees.unflatten(flat)}


def reconstruction(
    image: jax.Array, target: jax.Array, features: Any, feature_weight: float
) -> jax.Array:
    """Distance of pictures from their targets in colour, edges and features, [B]."""
    difference = image - target
    size = image.shape[1]
    y, x = np.mgrid[:size, :size] * (64 / size)
    # Eyes, nose and mouth are small: weigh the face up to four times as much.
    weight = 1 + 3 * np.exp(-((x - 32) ** 2 + (y - 35) ** 2) / (2 * 13**2))
    weight = jnp.asarray(weight / weight.mean(), jnp.float32)[None, :, :, None]
    mean = functools.partial(jnp.mean, axis=(1, 2, 3))
    columns = jnp.abs(jnp.diff(difference, axis=2)) * weight[:, :, 1:]
    rows = jnp.abs(jnp.diff(difference, axis=1)) * weight[:, 1:]
    loss = mean(jnp.abs(difference) * weight) + 2 * mean(difference**2 * weight)
    loss += 0.5 * (mean(columns) + mean(rows))
    blocks = difference.reshape(-1, size // 8, 8, size // 8, 8, 3).mean(axis=(2, 4))
    loss += 0.3 * mean(jnp.abs(blocks))
    network = Network(features, judge_stage.FEATURES.network)
    wanted = jax.lax.stop_gradient(judge.feature_maps(network, target))
    for found, expected in zip(judge.feature_maps(network, image), wanted, strict=True):
        scale = jnp.mean(expected**2)
        loss += feature_weight * mean((found - expected) ** 2) / scale
    return loss


def perturb(
    key: jax.Array, vectors: jax.Array, num_rows: int, training: GeneratorTraining
) -> jax.Array:
    """Vectors [B, VECTOR_SIZE] as rows [B, L, VECTOR_SIZE], half of them perturbed."""
    keys = jax.random.split(key, 3)
    batch = vectors.shape[0]
    mean = mean_vector()
    is_attribute = np.arange(attributes.VECTOR_SIZE) < attributes.NUM_VALUES
    psi = jax.random.uniform(keys[0], (batch, 1), minval=training.least_psi)
    contracted = jnp.where(is_attribute, mean + psi * (vectors - mean), vectors)
    noise = jax.random.normal(keys[1], (batch, num_rows, attributes.VECTOR_SIZE))
    deviation = np.where(is_attribute, training.attribute_noise, training.number_noise)
    rows = contracted[:, None] + deviation * noise
    chosen = jax.random.bernoulli(keys[2], 0.5, (batch, 1, 1))
    return jnp.where(chosen, rows, vectors[:, None])


def synthesize(
    synthesis: Any, w_plus: jax.Array, config: stylegan2.GeneratorConfig
) -> jax.Array:
    """Pictures of W+ latents."""
    generator = Network({"synthesis": synthesis}, config)
    return stylegan2.synthesize(generator, w_plus, noise="none")


def _evaluate(
    synthesis: Any,
    images: np.ndarray,
    vectors: np.ndarray,
    training: GeneratorTraining,
    sheet: pathlib.Path,
) -> float:
    """PSNR on 512 held-out faces; writes a sheet of drawn, made and truncated ones."""
    config, images, vectors = training.network, images[:512], vectors[:512]
    render = jax.jit(functools.partial(synthesize, config=config))

    def generate(vectors: np.ndarray) -> np.ndarray:
        parts = [
            render(
                synthesis, spaces.broadcast_w(to_w(v, config.w_dim), config.num_rows)
            )
            for v in np.array_split(vectors, len(vectors) // 32)
        ]
        return np.clip(np.concatenate(parts), -1, 1)

    target = np.asarray(common.to_float(images))
    found = generate(vectors)
    mean = mean_vector()
    truncated = generate(mean + 0.7 * (vectors[:64] - mean))
    rows = [
        part[start : start + 16]
        for start in range(0, 64, 16)
        for part in (target, found, truncated)
    ]
    common.save_sheet(sheet, np.concatenate(rows), 16)
    return float(10 * np.log10(4 / np.mean((found - target) ** 2)))


def _optimizer() -> optax.GradientTransformationExtraArgs:
    return optax.inject_hyperparams(optax.adam)(learning_rate=0.0, b1=0.9, b2=0.99)


def _initial_state(training: GeneratorTraining) -> dict[str, Any]:
    params = stylegan2.init(jax.random.key(training.seed), training.network)
    synthesis = params["synthesis"]
    return {
        "step": 0,
        "params": synthesis,
        "average": synthesis,
        "optimizer": _optimizer().init(synthesis),
    }


def train(
    training: GeneratorTraining, workdir: pathlib.Path, assets: pathlib.Path
) -> Any:
    """Trains the synthesis network from its last saved state on."""
    config = training.network
    images, vectors = common.drawn_pairs(
        workdir, training.num_pairs, seed=2, resolution=config.resolution
    )
    tests = common.drawn_faces(workdir, 5000, seed=1000, resolution=config.resolution)
    features = judge_stage.features(workdir)
    optimizer = _optimizer()
    decay = 0.5 ** (training.batch_size / training.average_images)

    def loss(
        synthesis: Any, key: jax.Array, image: jax.Array, vector: jax.Array
    ) -> Any:
        keys = jax.random.split(key)
        target, vector = common.between(keys[0], common.to_float(image), vector)
        rows = perturb(keys[1], vector, config.num_rows, training)
        found = synthesize(synthesis, to_w(rows, config.w_dim), config)
        return jnp.mean(
            reconstruction(found, target, features, training.feature_weight)
        )

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: Any, rate: jax.Array, key: jax.Array, *batch: jax.Array) -> Any:
        value, gradient = jax.value_and_grad(loss)(state["params"], key, *batch)
        state["optimizer"].hyperparams["learning_rate"] = rate
        updates, opt_state = optimizer.update(gradient, state["optimizer"])
        params = optax.apply_updates(state["params"], updates)
        average = jax.tree.map(
            lambda a, p: p + decay * (a - p), state["average"], params
        )
        return {"params": params, "average": average, "optimizer": opt_state}, value

    path = workdir / "generator.state"
    state = common.restore_state(path, _initial_state(training))
    start, total = state.pop("step"), training.steps
    state = jax.tree.map(jnp.array, state)
    progress = common.Progress("generator", start, total, training.batch_size)
    indices = common.batches(
        len(images), training.batch_size, seed=training.seed, start=start
    )
    for step in range(start, total):
        rows = next(indices)
        rate = common.warmup_cosine(
            step, total, peak=training.learning_rate, hold=training.hold
        )
        key = jax.random.fold_in(jax.random.key(training.seed), step)
        state, value = update(
            state, jnp.float32(rate), key, images[rows], vectors[rows]
        )
        if (step + 1) % 100 == 0:
            progress.log(step + 1, loss=float(value), rate=rate)
        if (step + 1) % 1000 == 0 or step + 1 == total:
            sheet = workdir / f"generator_{step + 1:06d}.png"
            psnr = _evaluate(state["average"], *tests, training, sheet)
            logging.info("generator: PSNR %.2f dB at %d steps", psnr, step + 1)
            common.save_state(path, {"step": step + 1, **state})
            export(state["average"], training, psnr, step + 1, assets)
    return state["average"]


def export(
    synthesis: Any,
    training: GeneratorTraining,
    psnr: float,
    steps: int,
    assets: pathlib.Path,
) -> None:
    """Writes the generator's model directory."""
    checkpoints.save_network(
        assets / "generator",
        kind="stylegan2",
        params=export_params(synthesis, training.network),
        config=training.network,
        source={
            "made_by": "python -m train.demo --stage=generator",
            "steps": steps,
            "psnr": psnr,
        },
        dtype="float16",
        overwrite=True,
    )


def run(workdir: pathlib.Path, assets: pathlib.Path) -> None:
    """Trains the generator and writes its weights."""
    train(GeneratorTraining(), workdir, assets)
