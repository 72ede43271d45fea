"""Edits by the embedded models do what the prompt says."""

import jax
import numpy as np
import pytest

from styleclip_jax import loading, losses
from styleclip_jax.methods import optimization
from styleclip_jax.models import clip
from styleclip_jax.toy import attributes, judge
from train.demo import (
    common,
    report_stage,
)


@pytest.mark.slow
def test_optimization_does_what_the_prompt_says_and_little_else():
    network = judge.load()
    generator = loading.load_generator()
    model, words = loading.load_clip()
    w_plus = report_stage.sample_latents(generator, 8, seed=5, truncation_psi=0.7)
    text = clip.encode_prompts(model, words, ["a person wearing sunglasses"])[0]
    problem = optimization.official(
        optimization.OptimizationConfig(steps=80, l2_lambda=0.0045)
    )
    compiled = optimization.compiled(problem, sharding=None)
    networks = losses.Networks(generator, model)
    state = compiled.start(networks, w_plus, text)
    for _ in range(problem.steps):
        state = compiled.step(networks, state)
    images = [common.render(generator, latents) for latents in (w_plus, state.latent)]
    before, after = (jax.device_get(judge.predict(network, image)) for image in images)
    sunglasses = attributes.index("glasses", "sunglasses")
    assert np.mean(before["glasses"] == sunglasses) < 0.5
    assert np.mean(after["glasses"] == sunglasses) >= 0.9
    assert judge.kept(before, after, "glasses").mean() >= 0.85
