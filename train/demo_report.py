"""Stages "report" and "edits": what the embedded models can do, in numbers and sheets.

"report" measures the judge, the CLIP and the generator on held-out drawings and writes
the contact sheet of random samples. "edits" edits random latents by latent
optimization towards eight prompts, and lets the judge and the checks without a network
say what changed, beside random directions of the same length.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from styleclip_jax import assets as embedded
from styleclip_jax import losses, spaces
from styleclip_jax.assets import judge, world
from styleclip_jax.methods import optimization
from styleclip_jax.models import clip, stylegan2
from styleclip_jax.models.network import Network
from train import demo_clip, demo_judge, demo_run

# Each prompt with the attribute and value that it asks for.
PROMPTS: dict[str, tuple[str, str]] = {
    "a face with blonde hair": ("hair_color", "blonde"),
    "a person wearing sunglasses": ("glasses", "sunglasses"),
    "a bearded man": ("facial_hair", "beard"),
    "a smiling face": ("mouth", "smile"),
    "a face with blue hair": ("hair_color", "blue"),
    "a bald person": ("hair_style", "bald"),
    "a person with grey hair": ("hair_color", "grey"),
    "a surprised face": ("mouth", "surprised"),
}


@dataclasses.dataclass(frozen=True)
class EditSettings:
    """How the edits are made and scored.

    Attributes:
      count: latents that are edited.
      batch_size: latents edited at a time.
      truncation_psi: truncation of the random latents.
      seed: of the latents that are scored; settings were chosen on others.
      steps, learning_rate, l2_lambda: of the optimization.
    """

    count: int = 64
    batch_size: int = 16
    truncation_psi: float = 0.7
    seed: int = 7
    steps: int = 80
    learning_rate: float = 0.05
    l2_lambda: float = 0.002


def sample_latents(
    generator: Network, count: int, *, seed: int, truncation_psi: float
) -> jax.Array:
    """Random W+ latents, [count, L, D]."""
    params, config = generator.params, generator.config
    z = jax.random.normal(jax.random.key(seed), (count, config.z_dim))
    w = stylegan2.map_latents(params, z, config=config)
    w_plus = spaces.broadcast_w(w, config.num_rows)
    return spaces.truncate(w_plus, params["mapping"]["w_avg"], truncation_psi)


def pictures(generator: Network, w_plus: jax.Array | np.ndarray) -> np.ndarray:
    """Pictures of W+ latents, [N, H, W, 3] in [-1, 1]."""
    render = jax.jit(functools.partial(stylegan2.synthesize, config=generator.config))
    parts = np.array_split(np.asarray(w_plus), -(-len(w_plus) // 50))
    made = [np.asarray(render(generator.params, part)) for part in parts]
    return np.clip(np.concatenate(made), -1, 1)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of the Gaussians fitted to two sets of features [N, D].

    |μa - μb|² + tr(A + B - 2 (A½ B A½)½), the last root by eigenvalues.
    """
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ cov_b @ root)
    mean = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    trace = np.trace(cov_a) + np.trace(cov_b)
    return float(mean + trace - 2 * np.sum(np.sqrt(np.maximum(cross, 0))))


def _features(network: Network, images: np.ndarray) -> np.ndarray:
    encode = jax.jit(lambda x: judge.features(network.params, x, config=network.config))
    parts = np.array_split(images, max(1, len(images) // 500))
    return np.concatenate(
        [encode(demo_run.to_float(x) if x.dtype == np.uint8 else x) for x in parts]
    ).astype(np.float64)


def run(workdir: pathlib.Path, assets: pathlib.Path) -> None:
    """Measures the embedded models; writes samples.png and report.json."""
    generator = embedded.load_generator(assets / "generator")
    network = Network(*judge.load(assets / "judge"))
    size = generator.config.resolution
    held_out = demo_run.drawn_faces(workdir, 5000, seed=1000, resolution=size)
    report: dict[str, Any] = {
        "judge": demo_judge.accuracies(network.params, *held_out, network.config)
    }
    model, words = embedded.load_clip(assets / "clip")
    report["zero_shot"] = demo_clip.zero_shot(
        model.params, *held_out, config=model.config, words=words
    )
    drawn, _ = demo_run.drawn_faces(workdir, 20_000, seed=1001, resolution=size)
    real = _features(network, drawn)
    report["frechet"] = {"halves": frechet_distance(real[:10_000], real[10_000:])}
    sheets = []
    for psi in (0.7, 1.0):
        w_plus = sample_latents(generator, 10_000, seed=100, truncation_psi=psi)
        made = pictures(generator, w_plus)
        distance = frechet_distance(_features(network, made), real[:10_000])
        report["frechet"][f"psi_{psi}"] = distance
        sheets.append(made[:64])
    demo_run.save_sheet(assets / "samples.png", np.concatenate(sheets), 16)
    for name, value in report.items():
        logging.info("report: %s %s", name, json.dumps(value))
    demo_run.write_atomically(
        workdir / "report.json", lambda p: p.write_text(json.dumps(report, indent=1))
    )


def _predict(network: Network, images: np.ndarray) -> dict[str, np.ndarray]:
    scores = judge.logits(network.params, jnp.asarray(images), config=network.config)
    return {name: np.argmax(score, axis=1) for name, score in scores.items()}


def kept(
    before: dict[str, np.ndarray], after: dict[str, np.ndarray], target: str
) -> np.ndarray:
    """Share of the attributes beside the target that stayed, per picture.

    The hair colour of a head that is or becomes bald does not count, nor do eyes behind
    sunglasses.
    """
    hidden_by = {
        "hair_color": ("hair_style", "bald"),
        "eyes": ("glasses", "sunglasses"),
    }
    same = counted = np.zeros(len(before[target]))
    for name in world.ATTRIBUTES:
        if name == target:
            continue
        seen = np.ones(len(before[name]), bool)
        if name in hidden_by:
            other, value = hidden_by[name]
            index = list(world.ATTRIBUTES[other]).index(value)
            seen = (before[other] != index) & (after[other] != index)
        same = same + ((before[name] == after[name]) & seen)
        counted = counted + seen
    return same / counted


def _editor(settings: EditSettings) -> Callable[..., np.ndarray]:
    """A function that edits a batch of latents towards one text."""
    problem = optimization.official(
        optimization.OptimizationConfig(
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            l2_lambda=settings.l2_lambda,
        )
    )
    compiled = optimization.compiled(problem, sharding=None)

    def run(
        networks: losses.Networks, latents: jax.Array, text: jax.Array
    ) -> np.ndarray:
        state = compiled.start(networks, latents, text)
        # On CPUs XLA runs what is inside its own loops five times more slowly.
        for _ in range(settings.steps):
            state = compiled.step(networks, state)
        return np.asarray(state.latent)

    return run


def edit(
    networks: losses.Networks,
    latents: jax.Array,
    text: jax.Array,
    settings: EditSettings,
    editor: Callable[..., np.ndarray],
) -> np.ndarray:
    """Edited latents, [N, L, D]."""
    size = settings.batch_size
    parts = [
        editor(networks, latents[start : start + size], text)
        for start in range(0, len(latents), size)
    ]
    return np.concatenate(parts)


def run_edits(
    workdir: pathlib.Path,
    assets: pathlib.Path,
    settings: EditSettings | None = None,
) -> None:
    """Edits towards every prompt and scores; writes edits.jsonl and edits.png."""
    settings = settings or EditSettings()
    generator = embedded.load_generator(assets / "generator")
    model, words = embedded.load_clip(assets / "clip")
    network = Network(*judge.load(assets / "judge"))
    networks = losses.Networks(generator, model)
    latents = sample_latents(
        generator,
        settings.count,
        seed=settings.seed,
        truncation_psi=settings.truncation_psi,
    )
    source = pictures(generator, latents)
    before = _predict(network, source)
    editor = _editor(settings)
    rows, sheet = [], [source[:16]]
    rng = np.random.default_rng(settings.seed)

    def score(images: np.ndarray, attribute: str, value: str) -> dict[str, float]:
        after = _predict(network, images)
        index = list(world.ATTRIBUTES[attribute]).index(value)
        check = judge.CHECKS[attribute, value]
        return {
            "judge": float(np.mean(after[attribute] == index)),
            "check": float(np.mean([check(image) for image in images])),
            "kept": float(np.mean(kept(before, after, attribute))),
        }

    for prompt, (attribute, value) in PROMPTS.items():
        text = clip.encode_prompts(model, words, [prompt])[0]
        edited = edit(networks, latents, text, settings, editor)
        images = pictures(generator, edited)
        sheet.append(images[:16])
        # The control moves each latent just as far, anywhere.
        change = edited - np.asarray(latents)
        random = rng.normal(size=change.shape)
        norm = functools.partial(np.linalg.norm, axis=(1, 2), keepdims=True)
        control = np.asarray(latents) + random * norm(change) / norm(random)
        scores = {
            "before": score(source, attribute, value),
            "after": score(images, attribute, value),
            "random": score(pictures(generator, control), attribute, value),
        }
        row: dict[str, Any] = {"prompt": prompt, "distance": float(norm(change).mean())}
        for when, values in scores.items():
            row |= {f"{name}_{when}": share for name, share in values.items()}
        logging.info("edits: %s", json.dumps(row))
        rows.append(row)
    demo_run.save_sheet(workdir / "edits.png", np.concatenate(sheet), 16)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    demo_run.write_atomically(workdir / "edits.jsonl", lambda p: p.write_text(lines))
