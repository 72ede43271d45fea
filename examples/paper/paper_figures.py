"""The paper's figures as sheets: rows of faces and edits with their captions."""

import numpy as np
from PIL import Image

from examples.paper.setup import (
    Setup,
    clip_score,
    direct,
    map_latent,
    optimize,
    render,
    text_relevance,
    threshold,
)
from styleclip_jax.io import images
from styleclip_jax.methods import global_directions

# Faces on the sheet that compares the methods.
_NUM_COMPARED = 2


def figure3(setup: Setup) -> Image.Image:
    """Optimization: a prompt per column, with the weights λ that it was made with."""
    results = [optimize(setup, i, prompt) for i, prompt in enumerate(setup.prompts)]
    return images.grid(
        [
            [_first(result.source.image) for result in results],
            [_first(result.image) for result in results],
        ],
        row_labels=["original", "edited"],
        column_labels=[
            f"{prompt.text}\nL2 {prompt.l2_lambda:g}, ID {prompt.id_lambda:g}"
            for prompt in setup.prompts
        ],
        title=f"Optimization, {setup.steps} steps; below each prompt its lambda of L2 "
        "and ID",
    )


def figure6(setup: Setup) -> Image.Image:
    """A direction at strengths α (columns) and thresholds β (rows), of the first."""
    text = setup.prompts[0].text
    relevance = text_relevance(setup, text)
    betas = setup.betas or [
        global_directions.beta_for(relevance, count)
        for count in sorted(setup.num_channels)
    ]
    original, rows, labels = render(setup, setup.styles(0)), [], []
    for beta in sorted(betas, reverse=True):
        global_directions.check_beta(relevance, beta)
        edits = [direct(setup, 0, text, beta, alpha) for alpha in setup.alphas]
        rows.append([_first(original), *(_first(render(setup, x)) for x in edits)])
        kept = int(global_directions.count_kept(relevance, beta))
        labels.append(f"beta {beta:.3f}\n{kept} channels")
    return images.grid(
        rows,
        row_labels=labels,
        column_labels=["original", *(f"alpha {alpha:g}" for alpha in setup.alphas)],
        title=f"{setup.neutral} to {text}: strength alpha to the right, threshold "
        "beta downwards",
    )


def figure9(setup: Setup) -> Image.Image:
    """The three methods on the same faces: a prompt per row, faces side by side."""
    rows = []
    for prompt in setup.prompts:
        row: list[np.ndarray | str] = []
        for face in range(min(_NUM_COMPARED, len(setup.w_plus))):
            result = optimize(setup, face, prompt)
            network = setup.mappers.get(prompt.text)
            edited = direct(
                setup, face, prompt.text, threshold(setup, prompt.text), setup.alpha
            )
            row += [
                _first(result.source.image),
                _first(result.image),
                "no mapper given"
                if network is None
                else _first(render(setup, map_latent(setup, face, network))),
                _first(render(setup, edited)),
            ]
        rows.append(row)
    columns = ["original", "optimization", "mapper", "direction"]
    return images.grid(
        rows,
        row_labels=[prompt.text for prompt in setup.prompts],
        column_labels=columns * (len(rows[0]) // len(columns)),
        title=f"Three methods: optimization of {setup.steps} steps, mapper, direction "
        f"of alpha {setup.alpha:g} with {setup.num_channels[0]} channels",
    )


def figure24(setup: Setup) -> Image.Image:
    """Limits: one direction inside of what the generator can draw, one far outside."""
    alphas = [alpha for alpha in setup.alphas if alpha > 0]
    rows, labels = [], []
    for name, text in (("near", setup.prompts[0].text), ("far", setup.far)):
        beta = threshold(setup, text)
        edits = [direct(setup, 0, text, beta, alpha) for alpha in alphas]
        found = [render(setup, x) for x in (setup.styles(0), *edits)]
        rows.append([_first(image) for image in found])
        first, *_, last = (float(clip_score(setup, x, text)[0]) for x in found)
        labels.append(f"{name}: {text}\nCLIP {first:.2f} to {last:.2f}")
    return images.grid(
        rows,
        row_labels=labels,
        column_labels=["original", *(f"alpha {alpha:g}" for alpha in alphas)],
        title="A target that the generator can draw, and one that it cannot",
    )


def _first(image: object) -> np.ndarray:
    """The one image of a batch."""
    return np.asarray(image)[0]
