"""Traced programs: what is kept, what is read, and what is traced again."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import traced
from styleclip_jax.editing import own_modules
from styleclip_jax.methods.optimization import OptimizationConfig
from styleclip_jax.models import stylegan2
from tests import tiny


class Memory:
    """Store in memory."""

    def __init__(self, about: str = "") -> None:
        self.about = about
        self.kept: dict[str, bytes] = {}

    def read(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def write(self, key: str, content: bytes) -> None:
        self.kept[key] = content


class Pair(NamedTuple):
    first: Any
    rest: Any


def run(store: Memory | None, *args: Any, static: Any = (), name: str = "f") -> Any:
    """Result of a program in a new run, and how often its function was traced."""
    calls = []

    def function(tree: Any, *more: Any) -> Any:
        calls.append(1)
        first, *others = jax.tree.leaves((tree, more))
        return Pair({"b": first * 2, "a": [first + 1, None]}, tuple(others))

    program = jax.jit(traced.keep(name, function, *static))
    with traced.kept_in(store):
        return program(*args), len(calls)


def test_a_kept_program_gives_the_same_without_its_function() -> None:
    store, args = Memory(), ({"x": jnp.arange(3.0), "y": np.float32(2)}, (4.5, None))
    expected, _ = run(None, *args)
    for traces in (1, 0, 0):
        found, calls = run(store, *args)
        assert calls == traces
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            assert (x.dtype, x.shape) == (y.dtype, y.shape)
            np.testing.assert_array_equal(x, y)
    assert len(store.kept) == 1


def test_whatever_decides_a_program_makes_another() -> None:
    store, x, config = Memory(), jnp.arange(3.0), OptimizationConfig()
    cases: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((x,), {}),
        ((x,), {"name": "g"}),
        ((x,), {"static": (config,)}),
        ((x,), {"static": (config.replace(steps=2),)}),
        ((x,), {"static": ("1",)}),
        ((x,), {"static": (1,)}),
        ((x,), {"static": (True,)}),
        ((x,), {"static": ((1,), 2)}),
        ((x,), {"static": (1, (2,))}),
        ((x[:2],), {}),
        ((jnp.arange(3),), {}),
        ((1.0,), {}),
        (({"x": x},), {}),
        (({"y": x},), {}),
        (([x],), {}),
        ((x, x), {}),
    ]
    for count, (args, options) in enumerate(cases):
        assert run(store, *args, **options)[1] == 1
        assert len(store.kept) == count + 1
    with jax.default_matmul_precision("highest"):
        assert run(store, x)[1] == 1
    assert all(run(store, *args, **options)[1] == 0 for args, options in cases)
    store.about = "another version"
    assert run(store, x)[1] == 1


def test_networks_of_another_configuration_are_other_programs() -> None:
    store, network = Memory(), tiny.generator()
    assert [run(store, network)[1] for _ in range(2)] == [1, 0]
    other = dataclasses.replace(network.config, conv_clamp=7.0)
    assert run(store, dataclasses.replace(network, config=other))[1] == 1


@dataclasses.dataclass(frozen=True)
class Own:
    """Settings of a user's own, whose sources no key knows."""

    x: int = 1


@pytest.mark.parametrize("static", [lambda x: x, Own(), np.ones(2), {1, 2}])
def test_what_words_do_not_say_is_traced_in_each_run(static: Any) -> None:
    store = Memory()
    assert [run(store, jnp.ones(2), static=(static,))[1] for _ in range(2)] == [1, 1]
    assert not store.kept


def test_trees_of_own_types_are_traced_in_each_run() -> None:
    store = Memory()
    assert [run(store, Pair(jnp.ones(2), None))[1] for _ in range(2)] == [1, 1]
    assert not store.kept


def test_nothing_is_kept_beside_a_module_of_ones_own() -> None:
    store = Memory()
    with traced.kept_in(store):
        own_modules.load("tests.tiny:generator", field="method")
        assert traced._store.get() is None
    assert traced._store.get() is None


def test_random_keys_are_arguments() -> None:
    store = Memory()
    draw: Callable[..., Any] = lambda key: jax.random.normal(key, (2,))  # noqa: E731
    with traced.kept_in(store):
        found = [jax.jit(traced.keep("d", draw))(jax.random.key(3)) for _ in range(2)]
    np.testing.assert_array_equal(*found)
    np.testing.assert_array_equal(found[0], draw(jax.random.key(3)))
    assert len(store.kept) == 1


def test_shapes_of_parameters_are_recalled(monkeypatch: pytest.MonkeyPatch) -> None:
    store, config = Memory(), tiny.generator().config
    compute = stylegan2.param_shapes.__wrapped__
    with traced.kept_in(store):
        expected = compute(config)
        monkeypatch.setattr(jax, "eval_shape", None)
        assert compute(config) == expected
        assert {type(shape) for shape in expected.values()} == {tuple}


def test_a_file_names_no_function_to_call() -> None:
    with pytest.raises(ValueError, match="expected the type of a tuple, found os"):
        traced._fill({"kind": ["os", "getcwd"], "parts": []}, iter(()))
