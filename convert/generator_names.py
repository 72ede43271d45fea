"""Names of tensors of StyleGAN2 generators, by whose code they are: tables.

The PyTorch layouts hold the same weights under different names. TensorFlow stores
convolutions as HWIO and those that upsample turned by 180 degrees, and adds the 1 to
the bias of the style at run time.
"""

import re
from collections.abc import Callable

from . import rules
from .rules import Rule


def _mapping(leaf: str) -> Callable[[re.Match[str]], str]:
    """Target in rosinality's layer `style.N`, of which the first normalises z."""
    return lambda match: f"mapping/fc{int(match[1]) - 1}/{leaf}"


def _noise(match: re.Match[str]) -> str:
    """Target of the noise buffer whose number is the first group."""
    index = int(match[1])
    if index == 0:
        return "synthesis/b4/conv1/noise_const"
    return f"synthesis/b{8 << (index - 1) // 2}/conv{(index - 1) % 2}/noise_const"


def _at(leaf: str) -> Callable[[re.Match[str]], str]:
    """Target in the layer that rosinality's name, the first group, stands for."""

    def target(match: re.Match[str]) -> str:
        layer, _, digits = match[1].partition(".")
        index = int(digits or 0)
        owner = {
            "conv1": "b4/conv1",
            "to_rgb1": "b4/torgb",
            # Two convolutions and one toRGB per resolution from 8² up.
            "convs": f"b{8 << index // 2}/conv{index % 2}",
            "to_rgbs": f"b{8 << index}/torgb",
        }[layer]
        return f"synthesis/{owner}/{leaf}"

    return target


_LAYER = r"(conv1|to_rgb1|convs\.\d{1,2}|to_rgbs\.\d{1,2})\."

ROSINALITY = (
    Rule(r"style\.(\d{1,2})\.weight", _mapping("kernel"), rules.transpose),
    Rule(r"style\.(\d{1,2})\.bias", _mapping("bias")),
    Rule(r"latent_avg", "mapping/w_avg", rules.squeeze),
    Rule(
        r"input\.input", "synthesis/const", rules.chain(rules.first, rules.chw_to_hwc)
    ),
    Rule(
        _LAYER + r"conv\.weight",
        _at("kernel"),
        rules.chain(rules.first, rules.oihw_to_hwio),
    ),
    Rule(_LAYER + r"conv\.modulation\.weight", _at("affine/kernel"), rules.transpose),
    Rule(_LAYER + r"conv\.modulation\.bias", _at("affine/bias")),
    Rule(_LAYER + r"noise\.weight", _at("noise_strength"), rules.squeeze),
    Rule(_LAYER + r"(activate\.)?bias", _at("bias"), rules.squeeze),
    Rule(r"noises\.noise_(\d{1,2})", _noise, rules.squeeze),
    # Checked by check_fir.
    Rule(r"(convs\.\d+\.conv\.blur|to_rgbs\.\d+\.upsample)\.kernel", None),
)

# The same layers as rosinality's. Equalized weights are what their hook keeps.
_MM_LAYER = _LAYER + r"conv\."
MMGENERATION = (
    Rule(
        r"style_mapping\.(\d{1,2})\.linear\.weight_orig",
        _mapping("kernel"),
        rules.transpose,
    ),
    Rule(r"style_mapping\.(\d{1,2})\.bias", _mapping("bias")),
    Rule(
        r"constant_input\.input",
        "synthesis/const",
        rules.chain(rules.first, rules.chw_to_hwc),
    ),
    Rule(
        _MM_LAYER + "weight_orig",
        _at("kernel"),
        rules.chain(rules.first, rules.oihw_to_hwio),
    ),
    Rule(
        _MM_LAYER + r"style_modulation\.linear\.weight_orig",
        _at("affine/kernel"),
        rules.transpose,
    ),
    Rule(_MM_LAYER + r"style_modulation\.bias", _at("affine/bias")),
    Rule(_LAYER + r"noise_injector\.weight", _at("noise_strength"), rules.squeeze),
    Rule(_LAYER + r"(activate\.)?bias", _at("bias"), rules.squeeze),
    Rule(r"injected_noise_(\d{1,2})", _noise, rules.squeeze),
    # Checked as in rosinality's.
    Rule(r"(convs\.\d+\.conv\.blur|to_rgbs\.\d+\.upsample)\.kernel", None),
)

NVIDIA = (
    Rule(r"mapping\.(embed|fc\d+)\.weight", r"mapping/\1/kernel", rules.transpose),
    Rule(r"mapping\.(embed|fc\d+)\.bias", r"mapping/\1/bias"),
    Rule(r"mapping\.w_avg", "mapping/w_avg"),
    Rule(r"synthesis\.b4\.const", "synthesis/const", rules.chw_to_hwc),
    Rule(
        r"synthesis\.(b\d+)\.(conv[01]|torgb)\.weight",
        r"synthesis/\1/\2/kernel",
        rules.oihw_to_hwio,
    ),
    Rule(
        r"synthesis\.(b\d+)\.(conv[01]|torgb)\.affine\.weight",
        r"synthesis/\1/\2/affine/kernel",
        rules.transpose,
    ),
    Rule(
        r"synthesis\.(b\d+)\.(conv[01]|torgb)\.affine\.bias",
        r"synthesis/\1/\2/affine/bias",
    ),
    Rule(
        r"synthesis\.(b\d+)\.(conv[01]|torgb)\.(bias|noise_const|noise_strength)",
        r"synthesis/\1/\2/\3",
    ),
    # Checked by check_fir.
    Rule(r"synthesis\.b\d+\.(conv[01]\.)?resample_filter", None),
)

_TF_LAYERS = (
    (r"synthesis/(4)x4/Conv/", "conv1", rules.identity),
    (r"synthesis/(\d+)x\d+/Conv0_up/", "conv0", rules.flip_hw),
    (r"synthesis/(\d+)x\d+/Conv1/", "conv1", rules.identity),
    (r"synthesis/(\d+)x\d+/ToRGB/", "torgb", rules.identity),
)

TENSORFLOW = (
    *(
        Rule(layer + suffix, rf"synthesis/b\1/{name}/{leaf}", transform)
        for layer, name, orient in _TF_LAYERS
        for suffix, leaf, transform in (
            (r"weight", "kernel", orient),
            (r"mod_weight", "affine/kernel", rules.identity),
            (r"mod_bias", "affine/bias", rules.add_one),
            (r"bias", "bias", rules.identity),
            (r"noise_strength", "noise_strength", rules.identity),
        )
    ),
    Rule(r"mapping/Dense(\d+)/weight", r"mapping/fc\1/kernel"),
    Rule(r"mapping/Dense(\d+)/bias", r"mapping/fc\1/bias"),
    Rule(r"mapping/LabelEmbed/weight", "mapping/embed/kernel"),
    Rule(r"mapping/LabelEmbed/bias", "mapping/embed/bias"),
    Rule(r"dlatent_avg", "mapping/w_avg"),
    Rule(
        r"synthesis/4x4/Const/const",
        "synthesis/const",
        rules.chain(rules.first, rules.chw_to_hwc),
    ),
    Rule(r"synthesis/noise(\d{1,2})", _noise, rules.squeeze),
    # The level of detail of progressive growing, which StyleGAN2 does not use.
    Rule(r"(synthesis/)?lod", None),
)
