"""The paper's figures as sheets: rows of faces and edits with their captions."""

import numpy as np
from PIL import Image

from examples.paper.setup import (
    Setup,
    clip_score,
    direct,
    optimize,
    text_relevance,
    threshold,
)
from styleclip_jax.io import images
from styleclip_jax.methods import global_directions

# Faces on the sheet that compares the methods.
_NUM_COMPARED = 2


def figure3(setup: Setup) -> Image.Image:
    """Optimization: a prompt per column, with the weights λ that it was made with."""
    content = setup.content
    prompts = content.weighted
    edits = [optimize(setup, i, prompt) for i, prompt in enumerate(prompts)]
    return images.grid(
        [
            [edit.before.images[0] for edit in edits],
            [edit.images[0] for edit in edits],
        ],
        row_labels=["original", "edited"],
        column_labels=[
            f"{prompt.text}\nL2 {prompt.l2_lambda:g}, ID {prompt.id_lambda:g}"
            for prompt in prompts
        ],
        title=f"Optimization, {content.steps} steps; below each prompt its lambda of "
        "L2 and ID",
    )


def figure6(setup: Setup) -> Image.Image:
    """A direction at strengths α (columns) and thresholds β (rows), of the first."""
    content = setup.content
    text = content.weighted[0].text
    relevance = text_relevance(setup, text)
    betas = content.betas or [
        global_directions.beta_for(relevance, count) for count in sorted(content.counts)
    ]
    rows, labels = [], []
    for beta in sorted(betas, reverse=True):
        global_directions.check_beta(relevance, beta)
        edits = [direct(setup, 0, text, beta, alpha) for alpha in content.alphas]
        rows.append([setup.face(0).images[0], *(edit.images[0] for edit in edits)])
        kept = int(global_directions.count_kept(relevance, beta))
        labels.append(f"beta {beta:.3f}\n{kept} channels")
    return images.grid(
        rows,
        row_labels=labels,
        column_labels=["original", *(f"alpha {alpha:g}" for alpha in content.alphas)],
        title=f"{content.neutral} to {text}: strength alpha to the right, threshold "
        "beta downwards",
    )


def figure9(setup: Setup) -> Image.Image:
    """The three methods on the same faces: a prompt per row, faces side by side."""
    content, rows = setup.content, []
    for prompt in content.weighted:
        row: list[np.ndarray | str] = []
        beta, mapper = threshold(setup, prompt.text), setup.mappers.get(prompt.text)
        for index in range(min(_NUM_COMPARED, len(setup.faces))):
            face = setup.face(index)
            row += [
                face.images[0],
                optimize(setup, index, prompt).images[0],
                "no mapper given"
                if mapper is None
                else setup.session.edit(face, mapper).images[0],
                direct(setup, index, prompt.text, beta, content.alpha).images[0],
            ]
        rows.append(row)
    columns = ["original", "optimization", "mapper", "direction"]
    return images.grid(
        rows,
        row_labels=[prompt.text for prompt in content.weighted],
        column_labels=columns * (len(rows[0]) // len(columns)),
        title=f"Three methods: optimization of {content.steps} steps, mapper, "
        f"direction of alpha {content.alpha:g} with {content.counts[0]} channels",
    )


def figure24(setup: Setup) -> Image.Image:
    """Limits: one direction inside of what the generator can draw, one far outside."""
    content = setup.content
    alphas = [alpha for alpha in content.alphas if alpha > 0]
    rows, labels = [], []
    for name, text in (("near", content.weighted[0].text), ("far", content.far)):
        beta = threshold(setup, text)
        edits = [direct(setup, 0, text, beta, alpha) for alpha in alphas]
        row = np.concatenate([setup.face(0).images, *(edit.images for edit in edits)])
        rows.append(row)
        first, *_, last = clip_score(setup, row, text)
        labels.append(f"{name}: {text}\nCLIP {first:.2f} to {last:.2f}")
    return images.grid(
        rows,
        row_labels=labels,
        column_labels=["original", *(f"alpha {alpha:g}" for alpha in alphas)],
        title="A target that the generator can draw, and one that it cannot",
    )
