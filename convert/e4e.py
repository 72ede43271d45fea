"""e4e, pSp and ReStyle: encoder, average latent and decoder of one checkpoint.

The decoder is a generator in rosinality's layout, and becomes a model directory of its
own.
"""

import functools
import itertools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from styleclip_jax import loading, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import foreign, torch_files
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import e4e

from . import irse50, rules, stylegan2, wrappers
from .rules import Conversion, Rule
from .settings import ENCODER_TYPES, EncoderSettings, GeneratorSettings
from .wrappers import Layout, Part

KIND = "e4e"

# Before all names but in the state dict of an encoder alone.
_PREFIX = r"(?:encoder\.)?"
LAYOUTS = (
    Layout(
        "e4e's or pSp's",
        (_PREFIX + r"styles\.0\.linear\.weight", _PREFIX + r"latlayer1\.weight"),
    ),
    Layout(
        "ReStyle's",
        (_PREFIX + r"styles\.0\.linear\.weight", _PREFIX + r"input_layer\.0\.weight"),
    ),
    Layout(
        "ReStyle's on a ResNet",
        (_PREFIX + r"styles\.0\.linear\.weight", _PREFIX + r"body\.0\.conv1\.weight"),
    ),
)
# Official number of passes of a ReStyle.
_PASSES = 5
# Official data whose photos are resized to 3:4, and tasks that are no inversion.
_WIDE = "cars_encode"
_OTHER_TASK = re.compile(r".*(frontal|super_res|sketch|seg_to|_to_).*")

_HEAD = _PREFIX + r"styles\.(\d+)\."


NOTHING = EncoderSettings()
_SUPPORTED = "encoders of e4e, pSp and ReStyle that invert photos are supported"
_kernel = functools.partial(Rule, transform=rules.oihw_to_hwio)


def _conv_of(leaf: str) -> Any:
    """Target in a head: an activation follows each of its convolutions."""
    return lambda m: f"head{m[1]}/conv{int(m[2]) // 2}/{leaf}"


def _resnet_rules(source: str, target: str) -> list[Rule]:
    """Rules of a body of basic blocks; arguments as of `irse50.body_rules`."""
    block, block_target = rf"{source}body\.(\d+)\.", rf"{target}/block\1/"
    norms = {"bn1": "norm1", "bn2": "norm2", r"downsample\.1": "shortcut_norm"}
    return [
        _kernel(rf"{source}conv1\.weight", f"{target}/input/conv/kernel"),
        *irse50.norm_rules(rf"{source}bn1", f"{target}/input/norm"),
        Rule(rf"{source}relu\.weight", f"{target}/input/slope"),
        _kernel(rf"{block}(conv[12])\.weight", rf"{block_target}\2/kernel"),
        _kernel(rf"{block}downsample\.0\.weight", f"{block_target}shortcut/kernel"),
        *itertools.chain.from_iterable(
            irse50.norm_rules(block + name, block_target + ours)
            for name, ours in norms.items()
        ),
    ]


_TABLE = (
    *irse50.body_rules(_PREFIX, "body"),
    *_resnet_rules(_PREFIX, "body"),
    _kernel(_PREFIX + r"latlayer1\.weight", "lateral_middle/kernel"),
    Rule(_PREFIX + r"latlayer1\.bias", "lateral_middle/bias"),
    _kernel(_PREFIX + r"latlayer2\.weight", "lateral_fine/kernel"),
    Rule(_PREFIX + r"latlayer2\.bias", "lateral_fine/bias"),
    _kernel(_HEAD + r"convs\.(\d+)\.weight", _conv_of("kernel")),
    Rule(_HEAD + r"convs\.(\d+)\.bias", _conv_of("bias")),
    Rule(_HEAD + r"linear\.weight", r"head\1/dense/kernel", rules.transpose),
    Rule(_HEAD + r"linear\.bias", r"head\1/dense/bias"),
)


def recognize(file: TorchFile) -> Part | None:
    """The encoder of e4e's, pSp's or ReStyle's architecture in a file."""
    return wrappers.find(file, LAYOUTS)


def convert(file: TorchFile, settings: EncoderSettings = NOTHING) -> Conversion:
    """The encoder with its average latent, and the decoder as a part if there is one.

    Args:
      file: official checkpoint, however wrapped, or an encoder's own state dict.
      settings: what the user says of it; it counts before the file.

    Raises:
      UserError: no such encoder, another architecture, or missing or surplus tensors.
    """
    part = wrappers.require(file, LAYOUTS, "an e4e, pSp or ReStyle encoder")
    state, options, notes = part.tensors, part.options, part.notes
    decoder = torch_files.pop_part(state, "decoder.")
    stored = state.pop(wrappers.AVERAGE, part.value(wrappers.AVERAGE))
    renamed = rules.rename_tensors(_TABLE, state, file=file.path)
    config = _infer_config(renamed.tensors, options, settings, file, notes)
    average = _stored_average(stored, config, file)
    parts = {}
    if decoder:
        if average is not None and (average == average[0]).all():
            decoder[wrappers.AVERAGE] = average[0]
        shown = None
        if config.input_height is not None:
            # The official code crops what a decoder makes in the same proportion.
            height = 1 << (config.num_rows + 2) // 2
            shown = height * config.input_height // config.input_size
        parts[loading.DECODER] = stylegan2.convert(
            TorchFile(file.path, file.format, decoder),
            GeneratorSettings(crop_height=shown),
        )
    if not options.get("start_from_latent_avg", True):
        notes.append("the encoder was trained without an average latent")
        average = np.zeros((config.num_rows, config.w_dim), np.float32)
    elif average is None and parts:
        notes.append("the file has no average latent; it is the decoder's average of w")
        w_avg = parts[loading.DECODER].tensors["mapping/w_avg"]
        average = np.tile(w_avg, (config.num_rows, 1))
    elif average is None:
        raise UserError(
            f"{file.path}: expected latent_avg, which the encoder was trained to start "
            "from, or a decoder to compute it, found neither"
        )
    renamed.tensors["w_avg"] = average
    checked = rules.check_tensors(renamed, e4e.param_shapes(config), file=file.path)
    return Conversion(KIND, config, checked, notes, parts=parts)


def _infer_config(
    found: Mapping[str, np.ndarray],
    options: Mapping[str, Any],
    settings: EncoderSettings,
    file: TorchFile,
    notes: list[str],
) -> e4e.E4eConfig:
    """Reads the architecture off the shapes of renamed tensors, and off options."""
    body = irse50.infer_body(found, "body", file=file.path)
    heads = [int(m[1]) for name in found if (m := re.match(r"head(\d+)/", name))]
    halvings = _halvings(found, 0)
    # The first head brings the coarsest level down to one pixel.
    size = 1 << halvings << len(body.widths)
    forms = _forms(found)
    kind = _option("encoder_type", options, settings, notes)
    if kind is None:
        kind = next(iter(forms))
        notes.append(
            f"the file does not say what encoder it has; taken for {kind}: "
            "--encoder_type gives another"
        )
    if kind not in ENCODER_TYPES:
        raise UserError(
            f"{file.path}: expected the encoder {' or '.join(forms)}, "
            f"found {str(kind)[:80]!r}{foreign.encoder(kind)}; {_SUPPORTED}"
        )
    form = ENCODER_TYPES[kind]
    channels = rules.length(found, 2, "body/input/conv/kernel") or 3
    if channels not in ((3,) if form.get("pyramid", True) else (3, 6)):
        raise UserError(
            f"{file.path}: expected an encoder of RGB photos, found one of {channels} "
            f"channels; {_SUPPORTED}"
        )
    others = {_halvings(found, row) for row in heads} - {halvings}
    if others and not form.get("pyramid", True):
        raise UserError(
            f"{file.path}: expected {halvings} convolutions in each head of the "
            f"encoder {kind} (ReStyle), found {max(others)} in some; {_SUPPORTED}"
        )
    data = _option("dataset_type", options, settings, notes)
    if data is None:
        notes.append(
            f"photos of {size}×{size}: the file does not say its data; "
            f"--dataset_type={_WIDE} gives {size * 3 // 4}×{size}"
        )
    elif _OTHER_TASK.fullmatch(str(data)):
        raise UserError(
            f"{file.path}: expected an encoder that inverts photos, found one of "
            f"another task, {str(data)[:80]!r}; {_SUPPORTED}"
        )
    try:
        config = e4e.E4eConfig(
            **body._asdict(),
            w_dim=found["head0/dense/kernel"].shape[1],
            num_rows=max(heads) + 1,
            input_size=size,
            input_height=size * 3 // 4 if data == _WIDE else None,
            in_channels=channels,
            iterations=_passes(options, notes) if channels == 6 else 1,
            **form,
        )
    except ValueError as error:
        raise UserError(f"{file.path}: {error}") from error
    resolution = options.get("stylegan_size", options.get("output_size"))
    if isinstance(resolution, int) and resolution > 0:
        notes.append(f"for a generator of {resolution}², by opts.stylegan_size")
        rows = spaces.num_rows(resolution)
        if rows != config.num_rows:
            raise UserError(
                f"{file.path}: expected {rows} rows of W+ by its stylegan_size of "
                f"{resolution}, found {config.num_rows}"
            )
    return config


def _halvings(found: Mapping[str, np.ndarray], row: int) -> int:
    """Number of convolutions of the head of a row, each of which halves the image."""
    name = rf"head{row}/conv\d+/kernel"
    return sum(bool(re.fullmatch(name, x)) for x in found)


def _forms(found: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Official encoders that have the parts of some renamed tensors."""
    gated = any(name.endswith("/squeeze/kernel") for name in found)
    body = "irse" if gated else "resnet"
    pyramid = any(name.startswith("lateral_") for name in found)
    return {
        name: form
        for name, form in ENCODER_TYPES.items()
        if (form.get("body", "irse"), form.get("pyramid", True)) == (body, pyramid)
    }


def _passes(options: Mapping[str, Any], notes: list[str]) -> int:
    """Number of passes of a ReStyle."""
    found = options.get("n_iters_per_batch", _PASSES)
    count = found if type(found) is int and found > 0 else _PASSES
    notes.append(f"passes over a photo: {count}, which --encoder_iterations changes")
    return count


def _option(
    name: str, options: Mapping[str, Any], settings: EncoderSettings, notes: list[str]
) -> Any:
    """A setting as given, or else as the training's flags have it; None if nowhere."""
    if (given := getattr(settings, name)) is not None:
        notes.append(f"{name}: as given")
        return given
    if (found := options.get(name)) is not None:
        notes.append(f"{name}: {str(found)[:80]}, by opts in the file")
    return found


def _stored_average(
    average: Any, config: e4e.E4eConfig, file: TorchFile
) -> np.ndarray | None:
    """The average latent [L, D] of the file, if it has one."""
    if not isinstance(average, np.ndarray):
        return None
    shape = (config.num_rows, config.w_dim)
    if average.shape not in (shape, (1, config.w_dim), (config.w_dim,)):
        raise UserError(
            f"{file.path}: expected latent_avg to be {list(shape)} or "
            f"[{config.w_dim}], found {list(average.shape)}"
        )
    return np.broadcast_to(average, shape).astype(np.float32)
