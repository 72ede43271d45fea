"""What lets official code run unchanged: without a GPU, and without all it imports.

The official programs expect a GPU, so whatever moves tensors to one leaves them where
they are, and their loops are given our turns in place of a progress bar or a data
loader.
"""

import importlib
import pathlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks import worker

# More steps than anyone takes.
NEVER = 10**9


class Peer:
    """A side that runs official code.

    Attributes:
      spec: what it does.
      folder: where it leaves its weights for the other sides.
    """

    def __init__(self, spec: worker.Spec) -> None:
        self.spec = spec
        self.folder = pathlib.Path(spec.folder)
        torch.manual_seed(0)


def stay_on_cpu() -> None:
    """Has whatever would move to a GPU stay where it is."""
    for owner in (torch.Tensor, torch.nn.Module):
        owner.cuda = lambda self, *args, **options: self


def do_without(module: str, name: str, stand_in: Any = None) -> None:
    """Lets something be imported that is not installed, and mostly not used here."""
    sys.modules[module] = types.ModuleType(module)
    setattr(sys.modules[module], name, stand_in)


def stir(network: torch.nn.Module) -> Any:
    """The network, with numbers for what begins as a constant.

    Biases, strengths of noise and statistics of norms are then compared as well.
    """
    for x in network.state_dict().values():
        if x.is_floating_point() and torch.all(x == x.flatten()[0]):
            x += 0.1 * torch.rand_like(x)
    return network


def of_nvidia(module: str) -> Any:
    """A module of NVIDIA's; it compares versions by what is gone from setuptools."""
    do_without("pkg_resources", "parse_version", torch.torch_version.TorchVersion)
    return importlib.import_module(f"training.{module}")


class Bar:
    """Stands in for the progress bar of the official loop."""

    def __init__(self, turns: worker.Turns) -> None:
        self.turns = turns

    def __iter__(self) -> Iterator[int]:
        return iter(self.turns)

    def set_description(self, text: str) -> None:
        pass
