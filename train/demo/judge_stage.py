"""Stages "judge" and "features": attribute classifiers of drawn faces.

Both are trained in the same way, on pictures that are also blurred, shifted, noisy and
differently bright. The judge is shipped and used for evaluation alone. The features
belong to the generator's loss; they have other widths, another seed and other data.
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
from styleclip_jax.models.network import Network
from styleclip_jax.toy import attributes, judge

from . import common

_JUDGE = judge.JudgeConfig()


@dataclasses.dataclass(frozen=True)
class ClassifierTraining:
    """Settings of a classifier's training; the defaults are the judge's."""

    network: judge.JudgeConfig = _JUDGE
    steps: int = 4000
    batch_size: int = 64
    learning_rate: float = 2e-3
    num_faces: int = 60_000
    seed: int = 1


FEATURES = ClassifierTraining(
    network=judge.JudgeConfig(widths=(32, 40, 56, 72), num_features=96),
    steps=4000,
    seed=2,
)


def augment(
    key: jax.Array, image: jax.Array, max_shift: int = 2, max_blur: float = 1.0
) -> jax.Array:
    """Pictures [B, H, W, 3] in [-1, 1], shifted, blurred, tinted and with noise."""
    keys = jax.random.split(key, 6)
    batch = image.shape[0]
    shift = jax.random.randint(keys[0], (batch, 2), -max_shift, max_shift + 1)
    padded = jnp.pad(
        image, ((0, 0), *[(max_shift, max_shift)] * 2, (0, 0)), mode="edge"
    )

    def crop(picture: jax.Array, by: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(picture, (*(max_shift + by), 0), picture_shape)

    picture_shape = image.shape[1:]
    image = jax.vmap(crop)(padded, shift)
    half = jax.image.resize(
        image, (batch, *(n // 2 for n in image.shape[1:3]), 3), "linear"
    )
    blurred = jax.image.resize(half, image.shape, "linear")
    share = jax.random.uniform(keys[1], (batch, 1, 1, 1), maxval=max_blur)
    share = jnp.where(jax.random.bernoulli(keys[2], 0.5, share.shape), share, 0)
    image = image + share * (blurred - image)
    image = image + 0.04 * jax.random.normal(keys[3], (batch, 1, 1, 3))
    strength = 0.12 * jax.random.uniform(keys[4], (batch, 1, 1, 1))
    return image + strength * jax.random.normal(keys[5], image.shape)


def cross_entropy(
    logits: dict[str, jax.Array],
    labels: dict[str, jax.Array],
    seen: dict[str, jax.Array],
) -> jax.Array:
    """Cross-entropy, summed over the attributes that can be seen, [B]."""
    return sum(
        seen[name]
        * optax.softmax_cross_entropy_with_integer_labels(scores, labels[name])
        for name, scores in logits.items()
    )


def accuracies(
    params: Any, images: np.ndarray, vectors: np.ndarray, config: judge.JudgeConfig
) -> dict[str, float]:
    """Share of right answers per attribute, where the attribute can be seen."""
    network = Network(params, config)
    predict = jax.jit(lambda x: judge.logits(network, x))
    scores = [
        jax.device_get(predict(common.to_float(part)))
        for part in np.array_split(images, max(1, len(images) // 250))
    ]
    truth = attributes.labels(vectors)
    result = {}
    for name in attributes.ATTRIBUTES:
        found = np.concatenate([part[name] for part in scores]).argmax(axis=1)
        right = (found == truth[name])[attributes.visible(vectors, name)]
        result[name] = float(right.mean())
    return result


def train(
    name: str, training: ClassifierTraining, workdir: pathlib.Path
) -> dict[str, Any]:
    """Trains a classifier, from its last saved state on; returns its parameters."""
    config = training.network
    images, vectors = common.drawn_faces(
        workdir, training.num_faces, seed=training.seed, resolution=config.resolution
    )
    truth = attributes.labels(vectors)
    seen = {
        key: attributes.visible(vectors, key).astype(np.float32)
        for key in attributes.ATTRIBUTES
    }
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.0, b2=0.99)

    def loss(
        params: Any, key: jax.Array, image: jax.Array, labels: Any, seen: Any
    ) -> jax.Array:
        image = augment(key, common.to_float(image))
        scores = judge.logits(Network(params, config), image)
        return jnp.mean(cross_entropy(scores, labels, seen))

    @jax.jit
    def update(params: Any, opt_state: Any, rate: jax.Array, *batch: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(params, *batch)
        opt_state.hyperparams["learning_rate"] = rate
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    params = judge.init(jax.random.key(training.seed), config)
    state = {"step": 0, "params": params, "optimizer": optimizer.init(params)}
    path = workdir / f"{name}.state"
    state = common.restore_state(path, state)
    start, total = state["step"], training.steps
    progress = common.Progress(name, start, total, training.batch_size)
    indices = common.batches(
        len(images), training.batch_size, seed=training.seed, start=start
    )
    params, opt_state = state["params"], state["optimizer"]
    for step in range(start, total):
        rows = next(indices)
        rate = common.warmup_cosine(step, total, peak=training.learning_rate)
        key = jax.random.fold_in(jax.random.key(training.seed), step)
        labels = {k: v[rows] for k, v in truth.items()}
        shown = {k: v[rows] for k, v in seen.items()}
        params, opt_state, value = update(
            params, opt_state, jnp.float32(rate), key, images[rows], labels, shown
        )
        if (step + 1) % 200 == 0:
            progress.log(step + 1, loss=float(value))
        if (step + 1) % 1000 == 0 or step + 1 == total:
            state = {"step": step + 1, "params": params, "optimizer": opt_state}
            common.save_state(path, state)
    return jax.device_get(params)


def run_features(workdir: pathlib.Path, assets: pathlib.Path) -> None:
    """Trains the classifier of the generator's loss; it stays in the workdir."""
    del assets
    train("features", FEATURES, workdir)


def features(workdir: pathlib.Path) -> Any:
    """Parameters of the trained features."""
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.0, b2=0.99)
    params = judge.init(jax.random.key(0), FEATURES.network)
    state = {"step": 0, "params": params, "optimizer": optimizer.init(params)}
    return common.restore_state(workdir / "features.state", state)["params"]


def run(workdir: pathlib.Path, assets: pathlib.Path) -> None:
    """Trains the judge, measures it on held-out drawings and writes its weights."""
    training = ClassifierTraining()
    params = train("judge", training, workdir)
    images, vectors = common.drawn_faces(
        workdir, 5000, seed=1000, resolution=training.network.resolution
    )
    scores = accuracies(params, images, vectors, training.network)
    for name, share in scores.items():
        logging.info("judge: %s %.4f on held-out drawings", name, share)
    checkpoints.save_network(
        assets / "judge",
        kind=judge.KIND,
        params=params,
        config=training.network,
        source={"made_by": "python -m train.demo --stage=judge", "accuracy": scores},
        dtype="float16",
        overwrite=True,
    )
