"""Networks that golden data was made with, converted from the official files."""

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from convert import alexnet as convert_alexnet
from convert import clip as convert_clip
from convert import irse50 as convert_irse50
from convert import mapper as convert_mapper
from convert import settings
from convert import stylegan2 as convert_stylegan2
from convert.rules import Conversion, Rule
from styleclip_jax import loading, losses
from styleclip_jax.io import torch_files
from styleclip_jax.models import clip, param_trees
from styleclip_jax.models.network import Network
from tests import golden_data

GENERATOR = "stylegan2_rosinality/converted/stylegan2-ffhq-config-f.pt"
CLIP = "clip_vit/ViT-tiny-16.jit.pt"
# Files in two formats: a TorchScript archive and a state dict.
RESNET_CLIPS = {
    "rn_deep": "clip_resnet/rn_deep/RN-tiny.jit.pt",
    "rn_shallow": "clip_resnet/rn_shallow/RN-tiny.pt",
}
IDENTITY = "arcface_irse50/model_ir_se50.pth"
CLIP_FOLDER = golden_data.ROOT / "optimization_trajectory"


def network_of(conversion: Conversion) -> Network:
    """The network of a conversion, on the device."""
    return Network(to_params(conversion.tensors), conversion.config)


def to_params(tensors: Mapping[str, np.ndarray]) -> Any:
    """Parameters on the device, from tensors by their flat names."""
    return jax.device_put(param_trees.unflatten(tensors))


def converted(
    convert: Callable[[torch_files.TorchFile], Conversion], path: str
) -> Network:
    """The network of an official file in the folder of golden data."""
    return network_of(convert(torch_files.read(golden_data.ROOT / path)))


def check_tensors(
    case: golden_data.Case, table: Sequence[Rule], tree: Any, prefix: str = ""
) -> None:
    """Fails unless a tree like parameters has the arrays of official names in a case.

    Args:
      case: golden data.
      table: rules of the conversion of these names.
      tree: parameters, or their gradients.
      prefix: what stands before the names in the case, which may have others too.
    """
    flat, count = param_trees.flatten(tree), 0
    for name in case.arrays:
        rule = target = None
        if name.startswith(prefix):
            rule, target = target_of(table, name.removeprefix(prefix))
        if rule is not None and target is not None:
            case.check(name, flat[target], rule.transform)
            count += 1
    assert count


def target_of(table: Sequence[Rule], name: str) -> tuple[Rule | None, str | None]:
    """Rule of an official name and our name for it, None for what has no rule."""
    for rule in table:
        if match := re.fullmatch(rule.pattern, name):
            return rule, rule.target_of(match)
    return None, None


def in_order(table: Sequence[Rule], tree: Any, names: Sequence[str]) -> list[Any]:
    """Arrays of a tree like parameters, by official names."""
    flat = param_trees.flatten(tree)
    return [np.asarray(flat[str(target_of(table, name)[1])]) for name in names]


@functools.cache
def of_trajectories() -> losses.Networks:
    """The three small networks of the official optimization and mapper training."""
    config = json.loads((CLIP_FOLDER / "clip.json").read_text())
    return losses.Networks(
        converted(convert_stylegan2.convert, GENERATOR),
        Network(param_trees.unflatten(_clip_params()), clip.ClipConfig(**config)),
        converted(convert_irse50.convert, IDENTITY),
    )


@functools.cache
def of_directions() -> losses.Networks:
    """The generator of the official global directions, and the CLIP of texts."""
    folder = golden_data.ROOT / "global_direction" / "generator"
    return losses.Networks(loading.load_generator(folder), whole_clip())


@functools.cache
def whole_clip() -> clip.Clip:
    """The small CLIP with the whole vocabulary, zeros where no prompt looks."""
    params = _clip_params()
    config = json.loads((CLIP_FOLDER / "clip.json").read_text())
    folder = golden_data.ROOT / "global_direction" / "text_direction"
    with np.load(folder / "io.npz") as arrays:
        table = np.zeros((49408, config["text_width"]), np.float32)
        table[arrays["token_ids"]] = arrays["token_embedding"]
    name = "text_model/embeddings/token_embedding/embedding"
    params[name] = jax.device_put(table)
    config |= {"vocab_size": 49408, "eos_token_id": 49407}
    return Network(param_trees.unflatten(params), clip.ClipConfig(**config))


def _clip_params() -> dict[str, jax.Array]:
    flat = safetensors.numpy.load_file(CLIP_FOLDER / "clip.safetensors")
    return jax.device_put({name: np.float32(x) for name, x in flat.items()})


@functools.cache
def openai_clip() -> clip.Clip:
    """A small CLIP in OpenAI's format."""
    return converted(convert_clip.convert, CLIP)


@functools.cache
def alexnet() -> Network:
    """A small AlexNet with the weights of LPIPS."""
    folder = golden_data.ROOT / "pti"
    given = settings.AlexNetSettings(str(folder / "alex.pth"))
    file = torch_files.read(folder / "alexnet-tiny.pth")
    return network_of(convert_alexnet.convert(file, given))


@functools.cache
def resnet_clip(name: str) -> clip.Clip:
    """A small CLIP with a ResNet, one of RESNET_CLIPS."""
    return converted(convert_clip.convert, RESNET_CLIPS[name])


def mapper_checkpoint(case: golden_data.Case) -> torch_files.TorchFile:
    """The official checkpoint of a mapper, as the reader of files would give it."""
    state = {
        name.removeprefix("state/"): array
        for name, array in case.arrays.items()
        if name.startswith("state/")
    }
    content = {"state_dict": state, "opts": dict(case.meta["opts"])}
    return torch_files.TorchFile("mapper.pt", "zip", content)


@functools.cache
def mapper(kind: str) -> tuple[golden_data.Case, Network]:
    """A mapper of each kind, and what the official one computes."""
    case = golden_data.Case(f"mapper/{kind}")
    return case, network_of(convert_mapper.convert(mapper_checkpoint(case)))
