"""Attributes of drawn faces that a generator shows: how often each value appears.

The embedded judge reads them from the features that other metrics have as well.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np

from styleclip_jax.models.network import Network
from styleclip_jax.toy import attributes, judge

# Share of each value, [number of values] and of sum 1, by attribute.
Shares = Mapping[str, np.ndarray]


class Row(NamedTuple):
    """Row of the table of shares.

    Attributes:
      attribute: attribute, such as hair_color.
      value: a value of it.
      samples: share of samples that show it.
      data: share of images of the data that show it.
    """

    attribute: str
    value: str
    samples: float
    data: float


def shares(network: Network, features: np.ndarray) -> Shares:
    """Shares of the values of each attribute among images that show the attribute.

    A bald head shows no hair colour, and sunglasses hide the eyes.

    Args:
      network: the judge.
      features: [N, F], what it has seen.
    """
    scores = jax.device_get(_classify(network, features))
    index = {name: score.argmax(axis=1) for name, score in scores.items()}
    found = {}
    for name, values in attributes.ATTRIBUTES.items():
        shown = np.ones(len(features), bool)
        if name in attributes.HIDDEN_BY:
            other, value = attributes.HIDDEN_BY[name]
            shown = index[other] != attributes.index(other, value)
        counts = np.bincount(index[name][shown], minlength=len(values))
        found[name] = counts / max(shown.sum(), 1)
    return found


_classify = jax.jit(judge.classify)


def recall(samples: Shares, data: Shares) -> float:
    """Part of the data's shares that samples have too, in [0, 1].

      mean over attributes of Σ_v min(p_v, q_v) = 1 − ½ Σ_v |p_v − q_v|

    1 if each value is as frequent as in the data; a value that samples lack costs its
    share.
    """
    common = [np.minimum(samples[name], data[name]).sum() for name in data]
    return float(np.mean(common))


def to_values(metric: str, samples: Shares, data: Shares) -> dict[str, float]:
    """Recall and all shares as named values of a metric."""
    values = {metric: recall(samples, data)}
    for kind, found in (("samples", samples), ("data", data)):
        for name, table in attributes.ATTRIBUTES.items():
            for value, share in zip(table, found[name], strict=True):
                values[f"{metric}/{name}/{value}/{kind}"] = float(share)
    return values


def rows(metric: str, values: Mapping[str, float]) -> Iterator[Row]:
    """Rows of the table of a metric's named values; none without them."""
    for name, table in attributes.ATTRIBUTES.items():
        for value in table:
            key = f"{metric}/{name}/{value}"
            if f"{key}/samples" in values:
                found = values[f"{key}/samples"], values[f"{key}/data"]
                yield Row(name, value, *found)
