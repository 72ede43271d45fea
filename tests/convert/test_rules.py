"""Rules of conversion: renaming, transforms, and differences both ways."""

import numpy as np
import pytest

from convert import rules
from convert.rules import Rule
from tests.programs import refusal

# Rules

TABLE = (
    Rule(r"fc(\d)\.weight", r"fc\1/kernel", rules.transpose),
    Rule(r"fc(\d)\.bias", lambda match: f"fc{int(match[1])}/bias"),
    Rule(r"step", None),
)
SHAPES = {"fc0/kernel": (2, 3), "fc0/bias": (3,)}


def _source() -> dict[str, np.ndarray]:
    return {
        "fc0.weight": np.arange(6, dtype=np.float16).reshape(3, 2),
        "fc0.bias": np.ones(3, np.float64),
        "step": np.zeros(()),
    }


def test_rules_rename_and_transform_into_float32():
    found = rules.convert_tensors(TABLE, _source(), SHAPES, file="x.pt")
    assert list(found) == list(SHAPES)
    assert {x.dtype for x in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(found["fc0/kernel"], [[0, 2, 4], [1, 3, 5]])


def test_rules_with_one_pattern_cut_a_tensor():
    table = [Rule("qkv", part, lambda x, i=i: x[i]) for i, part in enumerate("qkv")]
    shapes = {"q": (2,), "k": (2,), "v": (2,)}
    source = {"qkv": np.arange(6).reshape(3, 2)}
    found = rules.convert_tensors(table, source, shapes, file="x.pt")
    np.testing.assert_array_equal(found["k"], [2, 3])


def test_both_differences_and_wrong_shapes_stand_in_one_message():
    source = _source()
    del source["fc0.bias"]
    source["fc7.bias"] = np.ones(3)
    source["unknown"] = np.ones(3)
    source["fc0.weight"] = np.ones((2, 2))
    message = refusal(rules.convert_tensors, TABLE, source, SHAPES, file="x.pt")
    assert message == (
        "x.pt: 1 missing tensor (fc0/bias); 2 surplus tensors (unknown, fc7.bias); "
        "1 wrongly shaped tensor (fc0/kernel expected [2, 3] found [2, 2])"
    )


def test_long_differences_are_cut_short_and_counted():
    shapes = {f"t{i}": (1,) for i in range(9)}
    message = refusal(rules.convert_tensors, (), {}, shapes, file="x.pt")
    assert message == "x.pt: 9 missing tensors (t0, t1, t2, t3, t4, … and 4 more)"


def test_a_leaf_filled_twice_is_refused():
    table = (*TABLE, Rule("again", "fc0/bias"))
    source = _source() | {"again": np.ones(3)}
    message = refusal(rules.convert_tensors, table, source, SHAPES, file="x.pt")
    assert "fc0.bias and again would both become fc0/bias" in message


def test_a_transform_that_does_not_fit_names_the_tensor():
    source = _source() | {"fc0.weight": np.ones(3)}
    message = refusal(rules.convert_tensors, TABLE, source, SHAPES, file="x.pt")
    assert message == "x.pt: tensor fc0.weight: expected 2 axes, found [3]"


def test_layout_transforms_move_the_named_axes():
    x = np.arange(120).reshape(2, 3, 4, 5)
    assert rules.oihw_to_hwio(x)[3, 4, 2, 1] == x[1, 2, 3, 4]
    assert rules.chw_to_hwc(x[0])[3, 4, 2] == x[0, 2, 3, 4]
    assert rules.flip_hw(x)[0, 1, 2, 3] == x[1, 1, 2, 3]
    assert rules.first(x[:1]).shape == (3, 4, 5)
    with pytest.raises(ValueError, match="leading axis"):
        rules.first(x)
