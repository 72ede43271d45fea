"""StyleGAN3 generators from NVIDIA's `.pkl`, and from the state dicts made of them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from styleclip_jax.errors import UserError
from styleclip_jax.io import foreign
from styleclip_jax.io.pickled.inert import Object
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import cutoffs, stylegan3

from . import rules, stylegan2, wrappers
from .rules import Conversion, Rule
from .wrappers import Layout, Part

KIND = "stylegan3"

_LAYER = r"synthesis\.(L\d+_\d+_\d+)\."
LAYOUTS = (
    Layout(
        "NVIDIA's",
        (r"synthesis\.L0_\d+_\d+\.weight", r"synthesis\.input\.freqs"),
    ),
)
# Settings that every generator is built with, as of `stylegan2.clamp_of_modules`.
_SETTINGS = (
    (r"mapping\.fc\d+", "activation", "lrelu"),
    (r"mapping\.fc\d+", "bias_gain", 0.01),
)
# Fields of the configuration by the official names of what the synthesis is built with.
_KEYWORDS = {
    "num_critical": "num_critical",
    "first_cutoff": "first_cutoff",
    "first_stopband": "first_stopband",
    "last_stopband_rel": "last_stopband_rel",
    "margin_size": "margin",
    "filter_size": "filter_size",
    "lrelu_upsampling": "upsampling",
    "output_scale": "output_scale",
}
_STATE_DICT = (
    "conv_clamp 256, output_scale 0.25: NVIDIA's, which a state dict does not tell"
)
# Largest difference of a filter's tap from the one of the schedule.
_TAP_ERROR = 1e-5


def _table(names: Mapping[str, str]) -> tuple[Rule, ...]:
    """Rules for a generator's tensors, by our names of its layers."""

    def to(leaf: str) -> Any:
        return lambda match: f"synthesis/{names[match[1]]}/{leaf}"

    first = f"synthesis/{names['input']}"
    affine = r"synthesis\.(input|L\d+_\d+_\d+)\.affine\."
    return (
        Rule(r"mapping\.(embed|fc\d+)\.weight", r"mapping/\1/kernel", rules.transpose),
        Rule(r"mapping\.(embed|fc\d+)\.bias", r"mapping/\1/bias"),
        Rule(r"mapping\.w_avg", "mapping/w_avg"),
        Rule(r"synthesis\.input\.weight", f"{first}/kernel", rules.transpose),
        Rule(r"synthesis\.input\.(freqs|phases|transform)", rf"{first}/\1"),
        Rule(_LAYER + r"weight", to("kernel"), rules.oihw_to_hwio),
        Rule(_LAYER + r"bias", to("bias")),
        Rule(_LAYER + r"magnitude_ema", to("magnitude_ema")),
        Rule(affine + "weight", to("affine/kernel"), rules.transpose),
        Rule(affine + "bias", to("affine/bias")),
        # Checked by _check_filters.
        Rule(_LAYER + r"(up|down)_filter", None),
    )


def recognize(file: TorchFile) -> Part | None:
    """The generator in a file, unless it is one that goes on from StyleGAN3."""
    part = wrappers.find(file, LAYOUTS)
    return part if part and not foreign.descendant(part.tensors) else None


def convert(file: TorchFile) -> Conversion:
    """The generator's averaged weights and its architecture.

    Args:
      file: NVIDIA's pickle, or a state dict with its names, however wrapped.

    Raises:
      UserError: no generator, another architecture, or missing or surplus tensors.
    """
    part = wrappers.require(file, LAYOUTS, "a StyleGAN3 generator")
    if what := foreign.descendant(part.tensors):
        raise UserError(f"{file.path}: expected a StyleGAN3 generator, found {what}")
    config, notes = _infer_config(part, file.path)
    layers = [m[1] for name in part.tensors if (m := re.match(_LAYER + "weight", name))]
    layers.sort(key=_index)
    ours = [layer.name for layer in config.style_layout]
    _check_schedule(config, layers, file.path)
    _check_filters(config, part.tensors, layers, file)
    table = _table(dict(zip(["input", *layers], ours, strict=True)))
    renamed = rules.rename_tensors(table, part.tensors, file=file.path)
    shapes = stylegan3.param_shapes(config)
    tensors = rules.check_tensors(renamed, shapes, file=file.path)
    what = part.path.rstrip(".") or "the state dict"
    return Conversion(
        KIND, config, tensors, [f"weights are those of {what}", *part.notes, *notes]
    )


def _index(layer: str) -> int:
    return int(layer[1:].split("_")[0])


def _infer_config(part: Part, file: str) -> tuple[stylegan3.GeneratorConfig, list[str]]:
    """Architecture by shapes of tensors and settings of modules, and notes."""
    found, notes = part.tensors, []
    layers = {
        _index(m[1]): (m[1], tensor)
        for name, tensor in found.items()
        if (m := re.fullmatch(_LAYER + "weight", name)) and tensor.ndim == 4
    }
    last = max(layers, default=0)
    if sorted(layers) != list(range(last + 1)) or last < 1:
        raise UserError(
            f"{file}: expected a tensor weight of each layer of a StyleGAN3, found "
            f"{rules.list_names([f'L{i}' for i in sorted(layers)])}"
        )
    if (colours := layers[last][1].shape[0]) != 3:
        raise UserError(
            f"{file}: expected a generator of RGB images, found {colours} channels"
        )
    fields: dict[str, Any] = {}
    if isinstance(part.node, Object):
        modules = dict(wrappers.modules(part.node))
        fields = _settings(modules.get("synthesis"), file)
        fields["conv_clamp"] = stylegan2.clamp_of_modules(
            part.node, _SETTINGS, _LAYER.removesuffix(r"\."), file
        )
    else:
        notes.append(_STATE_DICT)
    down = found.get(f"synthesis.{layers[0][0]}.down_filter")
    w_dim = rules.length(found, 1, "synthesis.input.affine.weight") or 0
    c_dim = rules.length(found, 1, "mapping.embed.weight") or 0
    # A class-conditional mapping sees z and the embedded class, w_dim long.
    mapped = rules.length(found, 1, "mapping.fc0.weight") or w_dim
    dense = {m[1] for name in found if (m := re.match(r"mapping\.fc(\d+)\.", name))}
    try:
        return stylegan3.GeneratorConfig(
            resolution=int(layers[last][0].split("_")[1]),
            z_dim=mapped - w_dim if c_dim else mapped,
            w_dim=w_dim,
            c_dim=c_dim,
            num_mapping_layers=len(dense),
            channels=tuple(layers[i][1].shape[0] for i in range(last)),
            kernel_size=layers[0][1].shape[2],
            radial=down is not None and down.ndim == 2,
            **fields,
        ), notes
    except (ArithmeticError, TypeError, ValueError) as error:
        raise UserError(f"{file}: {error}") from error


def _settings(synthesis: Object | None, file: str) -> dict[str, Any]:
    """Fields of the configuration that the synthesis was built with."""
    state = synthesis.state if synthesis is not None else {}
    given = state.get("_init_kwargs")
    named = {**state, **(given if isinstance(given, dict) else {})}
    fields = {}
    for official, field in _KEYWORDS.items():
        value = named.get(official)
        if value is None:
            continue
        kind = type(getattr(stylegan3.GeneratorConfig, field))
        if not isinstance(value, int | float | np.number) or kind(value) != value:
            raise UserError(
                f"{file}: expected a number as {official}, found {str(value)[:80]!r}"
            )
        fields[field] = kind(value)
    return fields


def _check_schedule(
    config: stylegan3.GeneratorConfig, layers: Iterable[str], file: str
) -> None:
    """Refuses layers whose sizes are not those of the schedule of cutoffs."""
    for expected, layer in zip(cutoffs.layers(config), layers, strict=True):
        size, channels = expected.size, expected.outputs
        if layer.split("_")[1:] != [str(size), str(channels)]:
            raise UserError(
                f"{file}: expected L{_index(layer)}_{size}_{channels} by StyleGAN3's "
                f"schedule of cutoffs, found {layer}"
            )


def _check_filters(
    config: stylegan3.GeneratorConfig,
    found: Mapping[str, np.ndarray],
    layers: Iterable[str],
    file: TorchFile,
) -> None:
    """Refuses filters of a file that are not those of the schedule of cutoffs."""
    for layer, name in zip(cutoffs.layers(config), layers, strict=True):
        for way in ("up", "down") if layer.filters else ():
            expected = getattr(layer.filters, f"{way}_taps")
            stored = found.get(f"synthesis.{name}.{way}_filter")
            if stored is None:
                continue
            if stored.shape != expected.shape or not (
                np.abs(stored - expected).max() <= _TAP_ERROR
            ):
                raise UserError(
                    f"{file.path}: expected the filters of StyleGAN3's schedule of "
                    f"cutoffs, found another {way}_filter in {name}"
                )
