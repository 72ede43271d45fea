"""Stage "report": abilities of the embedded models, in numbers and a sheet.

It measures the judge, the CLIP and the generator on held-out drawings and writes the
contact sheet of random samples.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np
from absl import logging

from styleclip_jax.editing.session import Session
from styleclip_jax.loading import Models
from styleclip_jax.models.network import Network
from styleclip_jax.toy import judge

from . import clip_stage, common, judge_stage


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
    encode = jax.jit(lambda x: judge.features(network, x))
    parts = np.array_split(images, max(1, len(images) // 500))
    return np.concatenate(
        [encode(common.to_float(x) if x.dtype == np.uint8 else x) for x in parts]
    ).astype(np.float64)


def run(workdir: pathlib.Path, assets: pathlib.Path) -> None:
    """Measures the embedded models; writes samples.png and report.json."""
    session = Session(Models(str(assets / "generator"), str(assets / "clip")))
    network, config = judge.load(assets / "judge"), session.generator.config
    size = config.resolution
    held_out = common.drawn_faces(workdir, 5000, seed=1000, resolution=size)
    report: dict[str, Any] = {
        "judge": judge_stage.accuracies(network.params, *held_out, network.config)
    }
    report["zero_shot"] = clip_stage.zero_shot(
        session.clip.params,
        *held_out,
        config=session.clip.config,
        words=session.tokenizer,
    )
    drawn, _ = common.drawn_faces(workdir, 20_000, seed=1001, resolution=size)
    real = _features(network, drawn)
    report["frechet"] = {"halves": frechet_distance(real[:10_000], real[10_000:])}
    z, sheets = jax.random.normal(jax.random.key(100), (10_000, config.z_dim)), []
    for psi in (0.7, 1.0):
        faces = session.read(z, space="z", truncation_psi=psi)
        made = np.clip(faces.images, -1, 1)
        distance = frechet_distance(_features(network, made), real[:10_000])
        report["frechet"][f"psi_{psi}"] = distance
        sheets.append(made[:64])
    common.save_sheet(assets / "samples.png", np.concatenate(sheets), 16)
    for name, value in report.items():
        logging.info("report: %s %s", name, json.dumps(value))
    common.write_atomically(
        workdir / "report.json", lambda p: p.write_text(json.dumps(report, indent=1))
    )
