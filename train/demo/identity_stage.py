"""Stage "identity": a narrow IR-SE network that tells drawn persons apart.

A person is a face, a skin, eyes and a hair style; expression, turn of the head,
glasses, facial hair, colours of hair and clothes, and the background differ from
picture to picture. Trained with ArcFace's additive angular margin (Deng et al. 2019,
equation 3) on persons of whom none is met again in the verification.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from styleclip_jax.io import checkpoints
from styleclip_jax.models import irse50
from styleclip_jax.models.network import Network
from styleclip_jax.toy import attributes, drawing

from . import common, judge_stage

RESOLUTION = 64

# Attributes and shapes that all pictures of a person share.
_ATTRIBUTES = ("skin", "hair_style", "eyes")
_SHAPES = (
    "face_width",
    "face_height",
    "eye_distance",
    "eye_height",
    "eye_size",
    "brow_thickness",
    "nose_width",
    "nose_length",
)
_TINTS = ("skin",)

_NETWORK = irse50.IrseConfig(
    num_blocks=(1, 1, 1, 1),
    widths=(16, 24, 48, 64),
    embed_dim=64,
    input_size=48,
    reduction=8,
)


@dataclasses.dataclass(frozen=True)
class IdentityTraining:
    """Settings of the identity network's training.

    Attributes:
      network: architecture.
      num_persons, num_pictures: persons to learn from, and drawings of each.
      steps: optimization steps.
      batch_size: drawings per step.
      learning_rate: peak of the schedule.
      scale: ArcFace's s, by which cosines are multiplied.
      margin: ArcFace's m in radians, added to the angle of the right person.
      seed: of everything random.
    """

    network: irse50.IrseConfig = _NETWORK
    num_persons: int = 4000
    num_pictures: int = 10
    steps: int = 2000
    batch_size: int = 96
    learning_rate: float = 2e-3
    scale: float = 24.0
    margin: float = 0.3
    seed: int = 6


def another_picture(
    person: attributes.Face, rng: np.random.Generator
) -> attributes.Face:
    """A face of the person with another expression, glasses, background and so on."""
    face = attributes.sample_face(rng)
    shapes = dict(zip(attributes.SHAPES, face.shapes, strict=True))
    shapes |= {name: person.shapes[attributes.SHAPES.index(name)] for name in _SHAPES}
    tints = list(face.tints)
    for name in _TINTS:
        first = 2 * attributes.TINTS.index(name)
        tints[first : first + 2] = person.tints[first : first + 2]
    kept = {name: getattr(person, name) for name in _ATTRIBUTES}
    return dataclasses.replace(
        face, **kept, shapes=tuple(shapes.values()), tints=tuple(tints)
    )


def persons(
    workdir: pathlib.Path, num_persons: int, num_pictures: int, *, seed: int
) -> np.ndarray:
    """Drawings of persons, [P, K, H, W, 3] uint8, kept in the workdir."""
    path = workdir / f"persons_{seed}_{num_persons}_{num_pictures}.npy"
    if not path.exists():
        logging.info("drawing %d persons", num_persons)
        rng = np.random.default_rng(seed)
        shape = (num_persons, num_pictures, RESOLUTION, RESOLUTION, 3)
        images = np.empty(shape, np.uint8)
        for row in images:
            person = attributes.sample_face(rng)
            for index in range(num_pictures):
                row[index] = drawing.draw(another_picture(person, rng), RESOLUTION)
        common.write_atomically(path, lambda p: np.save(p, images))
    return np.load(path)


def arcface(
    feature: jax.Array,
    centers: jax.Array,
    label: jax.Array,
    *,
    scale: float,
    margin: float,
) -> jax.Array:
    """Additive angular margin loss, [B].

    Args:
      feature: [B, E] of length 1.
      centers: [P, E], one direction per person.
      label: [B] integers, the right persons.
      scale, margin: s and m of the paper.
    """
    centers = centers / jnp.linalg.norm(centers, axis=1, keepdims=True)
    cosine = feature @ centers.T
    # The angle's derivative is infinite at a cosine of 1.
    angle = jnp.arccos(jnp.clip(cosine, -1 + 1e-6, 1 - 1e-6))
    right = jax.nn.one_hot(label, len(centers), dtype=bool)
    # Beyond π - m the cosine would rise again.
    widened = jnp.cos(jnp.minimum(angle + margin, jnp.pi))
    logits = scale * jnp.where(right, widened, cosine)
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def verification(
    params: Any, images: np.ndarray, config: irse50.IrseConfig
) -> dict[str, float]:
    """Accuracy at telling pairs of one person from pairs of two.

    Args:
      params: of the network.
      images: [P, K, H, W, 3] uint8 of persons that it has not seen.
      config: of the network.

    Returns:
      "accuracy" over as many pairs of the one kind as of the other, at the threshold
      that is best for the first half of the persons, on the second half; "threshold",
      and the mean cosines "same" and "different".
    """
    count, pictures = images.shape[:2]
    network = Network(params, config)
    encode = jax.jit(lambda x: irse50.features(network, common.to_float(x)))
    flat = images.reshape(-1, *images.shape[2:])
    parts = np.array_split(flat, max(1, len(flat) // 200))
    found = np.concatenate([encode(part) for part in parts])
    found = found.reshape(count, pictures, -1)
    same = np.sum(found[:, :-1] * found[:, 1:], axis=-1)
    # Neighbours within the same half of the persons.
    halves = np.array_split(found, 2)
    different = np.concatenate(
        [np.sum(half[:, :-1] * np.roll(half, 1, axis=0)[:, 1:], -1) for half in halves]
    )
    first = len(halves[0])

    def accuracy(threshold: float, rows: slice) -> float:
        right = (same[rows] > threshold).mean() + (different[rows] <= threshold).mean()
        return float(right / 2)

    thresholds = np.linspace(-1, 1, 401)
    best = max(thresholds, key=lambda t: accuracy(t, slice(first)))
    return {
        "accuracy": accuracy(best, slice(first, None)),
        "threshold": float(best),
        "same": float(same.mean()),
        "different": float(different.mean()),
    }


def train(training: IdentityTraining, workdir: pathlib.Path) -> Any:
    """Trains from the last saved state on; returns the network's parameters."""
    config = training.network
    images = persons(
        workdir, training.num_persons, training.num_pictures, seed=training.seed
    )
    flat = images.reshape(-1, *images.shape[2:])
    held_out = persons(workdir, 1000, 4, seed=1006)
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.0, b2=0.99)

    def loss(params: Any, key: jax.Array, image: Any, label: jax.Array) -> Any:
        image = judge_stage.augment(key, common.to_float(image))
        network = Network(params["network"], config)
        found = irse50.embed_in_training(network, irse50.preprocess(network, image))
        losses = arcface(
            found.features,
            params["centers"],
            label,
            scale=training.scale,
            margin=training.margin,
        )
        return jnp.mean(losses), found.params

    @jax.jit
    def update(
        params: Any, opt_state: Any, rate: jax.Array, key: jax.Array, *batch: Any
    ) -> Any:
        (value, network), gradient = jax.value_and_grad(loss, has_aux=True)(
            params, key, *batch
        )
        opt_state.hyperparams["learning_rate"] = rate
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        moved = optax.apply_updates({**params, "network": network}, updates)
        return moved, opt_state, value

    keys = jax.random.split(jax.random.key(training.seed))
    shape = (training.num_persons, config.embed_dim)
    params = {
        "network": jax.jit(irse50.init, static_argnums=1)(keys[0], config),
        "centers": jax.random.normal(keys[1], shape),
    }
    state = {"step": 0, "params": params, "optimizer": optimizer.init(params)}
    path = workdir / "identity.state"
    state = common.restore_state(path, state)
    start, total = state["step"], training.steps
    progress = common.Progress("identity", start, total, training.batch_size)
    indices = common.batches(
        len(flat), training.batch_size, seed=training.seed, start=start
    )
    params, opt_state = state["params"], state["optimizer"]
    for step in range(start, total):
        rows = next(indices)
        rate = common.warmup_cosine(step, total, peak=training.learning_rate)
        key = jax.random.fold_in(jax.random.key(training.seed), step)
        label = (rows // training.num_pictures).astype(np.int32)
        params, opt_state, value = update(
            params, opt_state, jnp.float32(rate), key, flat[rows], label
        )
        if (step + 1) % 100 == 0:
            progress.log(step + 1, loss=float(value))
        if (step + 1) % 500 == 0 or step + 1 == total:
            state = {"step": step + 1, "params": params, "optimizer": opt_state}
            common.save_state(path, state)
            scores = verification(params["network"], held_out, config)
            shares = " ".join(f"{name} {share:.3f}" for name, share in scores.items())
            logging.info("identity: at %d steps: %s", step + 1, shares)
    return jax.device_get(params["network"])


def run(workdir: pathlib.Path, assets: pathlib.Path) -> None:
    """Trains the network, measures it on held-out persons and writes its weights."""
    training = IdentityTraining()
    params = train(training, workdir)
    held_out = persons(workdir, 1000, 4, seed=1006)
    scores = verification(params, held_out, training.network)
    checkpoints.save_network(
        assets / "identity",
        kind="irse50",
        params=params,
        config=training.network,
        source={
            "made_by": "python -m train.demo --stage=identity",
            "verification": scores,
        },
        dtype="float16",
        overwrite=True,
    )
