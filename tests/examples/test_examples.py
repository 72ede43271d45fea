"""Variants of the methods: short, of public names, and doing what they say."""

import ast
import importlib
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

import styleclip_jax as sc
from examples import image_target, masked_edit
from styleclip_jax import losses
from tests import programs, tiny

EXAMPLES = sorted(
    path
    for path in (programs.REPOSITORY / "examples").glob("*.py")
    if path.stem != "__init__"
)
SETTINGS = {"steps": 20, "learning_rate": 0.1, "l2_lambda": 0.0}


@pytest.fixture(scope="module")
def session(models: dict[str, str]) -> sc.Session:
    return sc.load(**models, quiet=True)


@pytest.fixture(scope="module")
def faces(session: sc.Session) -> sc.Faces:
    return session.read(np.asarray(tiny.w_plus(2)))


def test_three_variants_are_described() -> None:
    text = (programs.REPOSITORY / "docs" / "variants.md").read_text()
    assert len(EXAMPLES) == 3
    for path in EXAMPLES:
        assert f"python -m examples.{path.stem}" in text
        assert f"../examples/{path.name}" in text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short_and_use_public_names(path: pathlib.Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) < 60
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr != "_replace":
            assert not node.attr.startswith("_"), node.attr
    assert callable(importlib.import_module(f"examples.{path.stem}").main)


@pytest.mark.shown
@pytest.mark.slow
def test_image_target_is_approached(session: sc.Session, faces: sc.Faces) -> None:
    target = tiny.image(1, 8)
    made = image_target.edit(session, faces, target, **SETTINGS)
    assert (made.terms["clip"] < made.history["clip"][:, 0] - 0.01).all()

    # The target is as near to itself as can be.
    @jax.jit
    def distance_to_itself(networks: losses.Networks) -> jax.Array:
        feature = image_target.encode(networks.clip, target)
        edit: Any = losses.Edit(target, None, None, feature)
        return losses.clip_distance(networks, edit)

    found = distance_to_itself(session.networks())
    np.testing.assert_allclose(found, 0, atol=1e-4)


@pytest.mark.shown
@pytest.mark.slow
def test_masked_edit_leaves_the_rest_alone(
    session: sc.Session, faces: sc.Faces
) -> None:
    mask = np.zeros((8, 8, 1), np.float32)
    mask[:3] = 1
    made, pasted = masked_edit.edit(
        session, faces, "a cat", mask, weight=20.0, **SETTINGS
    )
    before = made.before.images
    change = np.square(made.images - before).mean(axis=(0, 2, 3))
    assert change[:3].mean() > 2 * change[3:].mean()
    np.testing.assert_allclose(
        made.terms["outside"].mean(), change[3:].sum() / 8, rtol=1e-4
    )
    np.testing.assert_array_equal(pasted[:, 3:], before[:, 3:])
    np.testing.assert_array_equal(pasted[:, :3], made.images[:, :3])
    assert np.abs(pasted - before).max() > 0.01
