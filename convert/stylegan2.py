"""StyleGAN2 generators from rosinality's `.pt` and NVIDIA's and TensorFlow's `.pkl`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from styleclip_jax.errors import UserError
from styleclip_jax.io import foreign
from styleclip_jax.io.pickled import vocabulary
from styleclip_jax.io.pickled.inert import Object
from styleclip_jax.io.torch_files import TorchFile
from styleclip_jax.models import param_trees, stylegan2
from styleclip_jax.models.network import Network

from . import generator_names, rules, wrappers
from .rules import Conversion, Rule
from .settings import GeneratorSettings
from .wrappers import Layout, Part

KIND = "stylegan2"

LAYOUTS = (
    Layout("rosinality's", (r"conv1\.conv\.modulation\.weight",)),
    Layout("MMGeneration's", (r"conv1\.conv\.style_modulation\.linear\.weight_orig",)),
    Layout("NVIDIA's", (r"synthesis\.b\d+\.conv1\.weight",)),
)

_SEED = 0
_NUM_AVERAGED = 4096
_FIRS = (".resample_filter", ".blur.kernel", ".upsample.kernel", ".0.kernel")
_FIR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
_LR_MULTIPLIER = 0.01


# Settings that every supported generator is built with, checked where its file has
# them: modules of NVIDIA's PyTorch pickles, attribute, value.
_NVIDIA_SETTINGS = (
    (r"synthesis\.b\d+", "architecture", "skip"),
    (r"synthesis\.b\d+\.conv[01]", "activation", "lrelu"),
    (r"mapping\.fc\d+", "activation", "lrelu"),
    (r"mapping\.fc\d+", "bias_gain", _LR_MULTIPLIER),
)
_NVIDIA_CLAMPED = r"synthesis\.b\d+\.(conv[01]|torgb)"

# The same as keyword arguments of the TensorFlow networks.
_TF_SETTINGS = {
    "architecture": "skip",
    "nonlinearity": "lrelu",
    "mapping_nonlinearity": "lrelu",
    "mapping_lrmul": _LR_MULTIPLIER,
    "normalize_latents": True,
    "resample_kernel": [1, 3, 3, 1],
}


_CLAMP = (
    "conv_clamp: none; a state dict does not tell it, NVIDIA's networks of mixed "
    "precision have 256: --conv_clamp gives it"
)
_COLORS = (
    "colours: red, green, blue; MMGeneration's own trainings may have blue first: "
    "--color_order=bgr"
)


NOTHING = GeneratorSettings()


class _Source(NamedTuple):
    """Generator as its file has it.

    Attributes:
      what: part of the file, for people.
      table: rules for its names.
      tensors: by those names.
      conv_clamp: bound on the activations.
      notes: lines for the user.
    """

    what: str
    table: tuple[Rule, ...]
    tensors: dict[str, np.ndarray]
    conv_clamp: float | None
    notes: list[str]


def recognize(file: TorchFile) -> Part | None:
    """The generator in a file of PyTorch, or in all of a file of TensorFlow."""
    if _tf_network(file.content):
        return Part(Layout("TensorFlow's", ()), "", {}, file.content, [], {})
    return wrappers.find(file, LAYOUTS)


def convert(file: TorchFile, settings: GeneratorSettings = NOTHING) -> Conversion:
    """The generator's averaged weights and the architecture that their shapes tell.

    Args:
      file: file of rosinality's code, NVIDIA's, or TensorFlow's, however wrapped.
      settings: what the user says of it; it counts before the file.

    Raises:
      UserError: no generator, another architecture, or missing or surplus tensors.
    """
    source = _open(file, settings)
    renamed = rules.rename_tensors(source.table, source.tensors, file=file.path)
    found = renamed.tensors
    notes = [f"weights are those of {source.what}", *source.notes]
    if settings.color_order == "bgr":
        for name in found:
            if re.fullmatch(r"synthesis/b\d+/torgb/(kernel|bias)", name):
                found[name] = np.ascontiguousarray(found[name][..., ::-1])
    config = _infer_config(found, source.conv_clamp, settings.crop_height, file.path)
    shapes = stylegan2.param_shapes(config)
    if not any(name.endswith("/noise_const") for name in found):
        found |= _draw_noise(shapes)
        notes.append(f"the file has no noise; it was drawn with seed {_SEED}")
    has_average = "mapping/w_avg" in found
    found.setdefault("mapping/w_avg", np.zeros(config.w_dim, np.float32))
    checked = rules.check_tensors(renamed, shapes, file=file.path)
    if not has_average:
        checked["mapping/w_avg"] = _average_w(checked, config)
        notes.append(
            f"the file has no average of w; it is the mean of {_NUM_AVERAGED} mapped "
            f"latents drawn with seed {_SEED}"
        )
    return Conversion(KIND, config, checked, notes)


def _tf_network(content: Any) -> Object | None:
    """The averaged generator in a TensorFlow pickle."""
    if isinstance(content, tuple) and len(content) == 3:
        network = content[2]
        if isinstance(network, Object) and network.type == vocabulary.TF_NETWORK:
            return network
    return None


def _open(file: TorchFile, settings: GeneratorSettings) -> _Source:
    """The generator in any of the layouts, with its settings checked."""
    if (network := _tf_network(file.content)) is not None:
        source, found = _tf_variables(network, file.path), _tf_settings(network)
        for name, expected in _TF_SETTINGS.items():
            _expect(name, found.get(name, expected), expected, file.path)
        clamp = _clamp_value(found.get("conv_clamp"), file.path)
        clamp, notes = _told_clamp(settings, clamp)
        return _Source("Gs", generator_names.TENSORFLOW, source, clamp, notes)
    part = wrappers.require(file, LAYOUTS, "a StyleGAN2 generator")
    source, notes = part.tensors, part.notes
    if part.path and not part.is_averaged and not _is_alone(part):
        notes.append(
            "the file has no averaged weights, such as g_ema; an average makes better "
            "images"
        )
    what = part.path.rstrip(".") or "the state dict"
    if part.layout.owner != "NVIDIA's":
        average = part.value(wrappers.AVERAGE)
        if isinstance(average, np.ndarray):
            source.setdefault(wrappers.AVERAGE, average)
        table: tuple[Rule, ...] = generator_names.ROSINALITY
        gain, clamp = 4, None
        if part.layout.owner == "MMGeneration's":
            table = generator_names.MMGENERATION
            notes += [] if settings.color_order else [_COLORS]
    elif descendant := foreign.descendant(source):
        raise UserError(
            f"{file.path}: expected a StyleGAN2 generator, found {descendant}"
        )
    elif "synthesis.b4.const" not in source:
        raise UserError(
            f"{file.path}: expected a StyleGAN2 generator, found the network {what} "
            "without synthesis.b4.const (StyleGAN3 does not fit)"
        )
    else:
        table, gain, clamp = generator_names.NVIDIA, 1, None
        if isinstance(part.node, Object):
            what = what if part.path else f"the module {part.node.type}"
            clamp = clamp_of_modules(
                part.node, _NVIDIA_SETTINGS, _NVIDIA_CLAMPED, file.path
            )
        elif settings.conv_clamp is None:
            notes.append(_CLAMP)
    check_fir(source, gain=gain, file=file.path)
    clamp, told = _told_clamp(settings, clamp)
    return _Source(what, table, source, clamp, notes + told)


def _is_alone(part: Part) -> bool:
    """Whether nothing but modules and state dicts is around a generator."""
    plain = {*wrappers.MODULES, "state_dict", "model_state_dict", "decoder"}
    return plain.issuperset(part.path.rstrip(".").split("."))


def _told_clamp(
    settings: GeneratorSettings, found: float | None
) -> tuple[float | None, list[str]]:
    """The bound on the activations that the user says, or else what the file does."""
    if settings.conv_clamp is None:
        return found, []
    return settings.conv_clamp or None, ["conv_clamp: as given"]


def _infer_base(found: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Height and width of the constant, or else of the smallest noise; 4×4 if neither.

    StyleGAN-Human's is 4×2.
    """
    const = found.get("synthesis/const")
    if const is not None and const.ndim == 3:
        return const.shape[0], const.shape[1]
    noise = found.get("synthesis/b4/conv1/noise_const")
    if noise is not None and noise.ndim == 2:
        return noise.shape[0], noise.shape[1]
    return 4, 4


def _infer_config(
    found: Mapping[str, np.ndarray],
    conv_clamp: float | None,
    crop_height: int | None,
    file: str,
) -> stylegan2.GeneratorConfig:
    """Reads the architecture off the shapes of renamed tensors.

    Several tensors tell each number, so that a missing one is reported as such later.
    """

    rgb = rules.length(found, 3, "synthesis/b4/torgb/kernel")
    if rgb not in (None, 3):
        raise UserError(
            f"{file}: expected a generator of RGB images, found {rgb} channels "
            "(EG3D and others that go on from there are not supported)"
        )
    blocks = {
        int(m[1]) for name in found if (m := re.match(r"synthesis/b(\d+)/", name))
    }
    resolution = max(blocks, default=0)
    channels = []
    for index in range(max(0, resolution.bit_length() - 2)):
        block = f"synthesis/b{4 << index}"
        count = rules.length(
            found,
            0,
            f"{block}/conv1/bias",
            f"{block}/conv0/bias",
            f"{block}/torgb/affine/bias",
        )
        if count is None:
            raise UserError(
                f"{file}: expected tensors of every resolution up to {resolution}², "
                f"found none of {4 << index}²"
            )
        channels.append(count)
    layers = {int(m[1]) for name in found if (m := re.match(r"mapping/fc(\d+)/", name))}
    w_dim = rules.length(found, 0, "synthesis/b4/conv1/affine/kernel", "mapping/w_avg")
    if not layers or w_dim is None:
        raise UserError(f"{file}: expected a mapping network from z to w, found none")
    c_dim = rules.length(found, 0, "mapping/embed/kernel") or 0
    # A class-conditional mapping sees z and the embedded class, w_dim long.
    mapped = rules.length(found, 0, "mapping/fc0/kernel") or w_dim
    try:
        return stylegan2.GeneratorConfig(
            resolution=resolution,
            z_dim=mapped - w_dim if c_dim else mapped,
            w_dim=w_dim,
            c_dim=c_dim,
            num_mapping_layers=max(layers) + 1,
            channels=tuple(channels),
            conv_clamp=conv_clamp,
            base=_infer_base(found),
            crop_height=crop_height,
        )
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error


def _draw_noise(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Standard normal noise for every layer that uses it."""
    rng = np.random.RandomState(_SEED)
    return {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
        if name.endswith("/noise_const")
    }


def _average_w(
    found: Mapping[str, np.ndarray], config: stylegan2.GeneratorConfig
) -> np.ndarray:
    """Mean of w over random z, and over all classes in equal shares."""
    rng = np.random.RandomState(_SEED)
    z = rng.standard_normal((_NUM_AVERAGED, config.z_dim)).astype(np.float32)
    label = None
    if config.c_dim:
        classes = np.arange(_NUM_AVERAGED) % config.c_dim
        label = jnp.eye(config.c_dim)[classes]
    params = param_trees.unflatten(found)
    w = stylegan2.map_latents(Network(params, config), jnp.asarray(z), label)
    return np.asarray(w, np.float64).mean(axis=0).astype(np.float32)


def check_fir(source: Mapping[str, np.ndarray], *, gain: float, file: str) -> None:
    """Checks that every stored FIR kernel is [1, 3, 3, 1] in both axes."""
    for name, kernel in source.items():
        if name.endswith(_FIRS) and not (
            kernel.shape == (4, 4) and np.allclose(kernel, gain * _FIR, atol=1e-5)
        ):
            raise UserError(
                f"{file}: expected the FIR kernel [1, 3, 3, 1], found another in {name}"
            )


def _expect(name: str, value: Any, expected: Any, file: str) -> None:
    """Refuses a generator that was built with another setting."""
    if not isinstance(value, str | int | float | list | None) or value != expected:
        raise UserError(
            f"{file}: expected a StyleGAN2 generator with {name} {expected!r}, "
            f"found {str(value)[:80]!r}"
        )


def _clamp_value(value: Any, file: str) -> float | None:
    """The bound on the activations, None for no bound."""
    if value is None:
        return None
    if not isinstance(value, int | float) or not value > 0:
        raise UserError(f"{file}: expected a positive conv_clamp, found {value!r}")
    return float(value)


def clamp_of_modules(
    network: Object,
    settings: Sequence[tuple[str, str, Any]],
    clamped: str,
    file: str,
) -> float | None:
    """Bound on the activations of a network of NVIDIA's, its settings checked.

    Args:
      network: the module.
      settings: modules by a regular expression, attribute, and the value it must have.
      clamped: regular expression of the modules that have the bound.
      file: path to name in errors.

    Raises:
      UserError: a setting is another one, or bounds differ.
    """
    clamps = {}
    for path, module in wrappers.modules(network):
        for pattern, name, expected in settings:
            if re.fullmatch(pattern, path):
                value = module.state.get(name, expected)
                _expect(f"{path}.{name}", value, expected, file)
        if re.fullmatch(clamped, path):
            clamps[path] = _clamp_value(module.state.get("conv_clamp"), file)
    if len(set(clamps.values())) > 1:
        raise UserError(
            f"{file}: expected one conv_clamp for all layers, found "
            f"{sorted(set(map(str, clamps.values())))}"
        )
    return next(iter(clamps.values()), None)


def _tf_networks(network: Object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """State of a TensorFlow network and of its components, with a prefix for names."""
    state = network.state if isinstance(network.state, dict) else {}
    yield "", state
    components = state.get("components")
    for name, part in components.items() if isinstance(components, dict) else ():
        if isinstance(part, Object) and isinstance(part.state, dict):
            yield f"{name}/", part.state


def _tf_variables(network: Object, file: str) -> dict[str, np.ndarray]:
    """Variables of a TensorFlow network by name."""
    found = {}
    for prefix, state in _tf_networks(network):
        for variable in _items(state.get("variables")):
            name, value = variable if len(_items(variable)) == 2 else (None, None)
            # Scalar variables are NumPy scalars.
            if not isinstance(name, str) or not isinstance(
                value, np.ndarray | np.generic
            ):
                raise UserError(
                    f"{file}: expected variables to be pairs of name and array"
                )
            found[prefix + name] = np.asarray(value)
    return found


def _items(value: Any) -> Any:
    """Items of a list or tuple; none of anything else."""
    return value if isinstance(value, list | tuple) else ()


def _tf_settings(network: Object) -> dict[str, Any]:
    """Keyword arguments that the network and its components were built with."""
    settings: dict[str, Any] = {}
    for _, state in _tf_networks(network):
        kwargs = state.get("static_kwargs")
        settings |= kwargs if isinstance(kwargs, dict) else {}
    return settings
