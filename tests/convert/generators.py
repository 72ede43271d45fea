"""Official generators in golden data: their files, and what is made of them."""

import functools
import pathlib

import pytest

from convert import rules
from convert import stylegan2 as convert_stylegan2
from styleclip_jax.io import torch_files
from styleclip_jax.models.stylegan2 import GeneratorConfig
from tests import golden_data

_ROSINALITY = golden_data.ROOT / "stylegan2_rosinality"
_ADA = golden_data.ROOT / "stylegan2_ada_pkl"
CONVERTED = _ROSINALITY / "converted" / "stylegan2-ffhq-config-f.pt"
TRAINING = (
    _ROSINALITY / "training_checkpoint" / "rosinality_training_checkpoint_550000.pt"
)
CONDITIONAL = _ADA / "conditional" / "network-snapshot-cond.pkl"
TENSORFLOW = _ADA / "tf_legacy" / "stylegan2-tiny-config-f.pkl"
STYLEGAN3 = golden_data.ROOT / "stylegan3" / "t" / "stylegan3-t-tiny.pkl"
CONFIGS = {
    CONVERTED: GeneratorConfig(64, 64, 64, 0, 8, (32, 32, 32, 32, 16)),
    TRAINING: GeneratorConfig(32, 32, 32, 0, 8, (24, 24, 16, 16)),
    CONDITIONAL: GeneratorConfig(32, 32, 48, 3, 8, (24, 24, 24, 16)),
    TENSORFLOW: GeneratorConfig(32, 48, 48, 0, 8, (24, 24, 24, 16)),
}
each_file = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


@functools.cache
def converted(path: pathlib.Path) -> rules.Conversion:
    """The conversion of an unchanged file; not to be changed itself."""
    return convert_stylegan2.convert(torch_files.read(path))
