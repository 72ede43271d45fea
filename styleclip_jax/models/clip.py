"""CLIP: transformers' FlaxCLIPModel as pure functions, its tokenizer, its input.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
Supervision". transformers takes seconds to import, so it is imported by the functions
that need it.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import flax.serialization
import flax.traverse_util
import huggingface_hub
import huggingface_hub.errors
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from styleclip_jax.errors import UserError
from styleclip_jax.models import bpe, resampling
from styleclip_jax.models.network import Network

ACTIVATIONS = ("quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

TOKENIZER_FILES = ("vocab.json", "merges.txt")

_FLAX_WEIGHTS, _SAFE_WEIGHTS = "flax_model.msgpack", "model.safetensors"
_CONVERT = "PyTorch weights are converted by `python -m convert {} --output OUT`"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Static architecture of a CLIP; the defaults are ViT-B/32.

    Attributes:
      image_size: width and height of the input image.
      patch_size: width and height of a patch.
      vision_width: features per patch.
      vision_layers: transformer blocks over patches.
      vision_heads: attention heads over patches.
      vision_mlp_width: hidden features of the blocks' dense part.
      vocab_size: number of tokens.
      context_length: most tokens of a text.
      eos_token_id: end token, at whose first place the text feature is taken. 2 means
        at the largest id, as OpenAI's code does and older files of transformers say.
      text_width: features per token.
      text_layers: transformer blocks over tokens.
      text_heads: attention heads over tokens.
      text_mlp_width: hidden features of the blocks' dense part.
      embed_dim: length of an image or text feature.
      hidden_act: activation, one of ACTIVATIONS.
      layer_norm_eps: epsilon of every layer norm.
      dtype: "float32", or "bfloat16" for activations; features are float32 always.
    """

    image_size: int = 224
    patch_size: int = 32
    vision_width: int = 768
    vision_layers: int = 12
    vision_heads: int = 12
    vision_mlp_width: int = 3072
    vocab_size: int = 49408
    context_length: int = 77
    eos_token_id: int = 49407
    text_width: int = 512
    text_layers: int = 12
    text_heads: int = 8
    text_mlp_width: int = 2048
    embed_dim: int = 512
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{field.name} must be a whole number, found {value}")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of patch_size "
                f"{self.patch_size}"
            )
        for tower in ("vision", "text"):
            width = getattr(self, f"{tower}_width")
            heads = getattr(self, f"{tower}_heads")
            if width % heads:
                raise ValueError(
                    f"{tower}_width {width} must be a multiple of {tower}_heads {heads}"
                )
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(
                f"hidden_act must be one of {', '.join(ACTIVATIONS)}, "
                f"found {self.hidden_act!r}"
            )
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be float32 or bfloat16, found {self.dtype!r}")


Clip = Network[ClipConfig]


def init(key: jax.Array, config: ClipConfig) -> Any:
    """Random parameters with transformers' initialisation, as a nested dict."""
    return _module(config).init(
        key,
        jnp.zeros((1, 1), jnp.int32),
        jnp.zeros((1, config.image_size, config.image_size, 3)),
        jnp.ones((1, 1), jnp.int32),
        jnp.zeros((1, 1), jnp.int32),
    )["params"]


@functools.cache
def param_shapes(config: ClipConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its name, such as "text_projection/kernel"."""
    tree = jax.eval_shape(functools.partial(init, config=config), jax.random.key(0))
    flat = flax.traverse_util.flatten_dict(tree, sep="/")
    return {name: leaf.shape for name, leaf in flat.items()}


def encode_image(params: Any, image: jax.Array, *, config: ClipConfig) -> jax.Array:
    """Image features, not normalised.

    Args:
      params: parameters of the CLIP.
      image: [B, S, S, 3] with S = config.image_size, preprocessed by one of the
        functions below.
      config: static architecture.

    Returns:
      [B, embed_dim] float32.

    Raises:
      ValueError: the image has another shape.
    """
    return encode_image_and_patches(params, image, config=config)[0]


def encode_image_and_patches(
    params: Any, image: jax.Array, *, config: ClipConfig
) -> tuple[jax.Array, jax.Array]:
    """Image features as `encode_image` gives them, and what each patch holds.

    Returns:
      Features [B, embed_dim], and the last layer's patches [B, P, vision_width] from
      left to right and top to bottom, not normalised; both float32.

    Raises:
      ValueError: the image has another shape.
    """
    size = config.image_size
    if image.ndim != 4 or image.shape[1:] != (size, size, 3):
        raise ValueError(
            f"expected images [B, {size}, {size}, 3], found {list(image.shape)}"
        )

    def features(module: Any, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        output = module.vision_model(pixel_values=image)
        feature = module.visual_projection(output.pooler_output)
        return feature, output.last_hidden_state[:, 1:]

    with _matmul_precision(config):
        feature, patches = _module(config).apply(
            {"params": params}, image, method=features
        )
    return feature.astype(jnp.float32), patches.astype(jnp.float32)


def encode_text(params: Any, tokens: jax.Array, *, config: ClipConfig) -> jax.Array:
    """Text features, not normalised.

    Args:
      params: parameters of the CLIP.
      tokens: [B, T] integers from `tokenize`, T at most config.context_length.
      config: static architecture.

    Returns:
      [B, embed_dim] float32.

    Raises:
      ValueError: the tokens have another shape.
    """
    if tokens.ndim != 2 or tokens.shape[1] > config.context_length:
        raise ValueError(
            f"expected tokens [B, at most {config.context_length}], "
            f"found {list(tokens.shape)}"
        )

    def features(module: Any, tokens: jax.Array) -> jax.Array:
        # Padding comes after the end token, where causal attention hides it.
        pooled = module.text_model(
            input_ids=tokens,
            attention_mask=None,
            position_ids=jnp.arange(tokens.shape[1])[None],
        ).pooler_output
        return module.text_projection(pooled)

    with _matmul_precision(config):
        feature = _module(config).apply({"params": params}, tokens, method=features)
    return feature.astype(jnp.float32)


def normalize(feature: jax.Array) -> jax.Array:
    """Features [..., D] scaled to unit length."""
    return feature / jnp.linalg.norm(feature, axis=-1, keepdims=True)


def logits(params: Any, image_feature: jax.Array, text_feature: jax.Array) -> jax.Array:
    """exp(logit_scale) · cosine of every image with every text.

    Args:
      params: parameters of the CLIP.
      image_feature: [B, D], need not be normalised.
      text_feature: [N, D], need not be normalised.

    Returns:
      [B, N], OpenAI's logits_per_image.
    """
    cosine = jnp.matmul(
        normalize(image_feature), normalize(text_feature).T, precision="highest"
    )
    return jnp.exp(params["logit_scale"]) * cosine


def encode_prompts(
    clip: Clip, tokenizer: bpe.Tokenizer, prompts: Sequence[str]
) -> jax.Array:
    """Normalised features [B, embed_dim] of prompts.

    Raises:
      UserError: a prompt is too long.
    """
    length = clip.config.context_length
    tokens = jnp.asarray(tokenize(tokenizer, prompts, context_length=length))
    encode = jax.jit(functools.partial(encode_text, config=clip.config))
    return normalize(encode(clip.params, tokens))


def preprocess_styleclip(image: jax.Array, *, config: ClipConfig) -> jax.Array:
    """CLIP's input as the losses of StyleCLIP make it: area average, nothing else.

    Parity: generated images go into CLIP in [-1, 1], without the scaling to [0, 1] and
    the mean and standard deviation that CLIP was trained with, and without clipping.

    Args:
      image: [B, H, H, 3] float.
      config: static architecture; its image_size is S.

    Returns:
      [B, S, S, 3] float32; the image itself when H = S.

    Raises:
      ValueError: the image is not square.

    Source: criteria/clip_loss.py, nearest upsampling ×7, then average pooling H / 32.
    """
    _expect_image(image)
    size, out = image.shape[1], config.image_size
    if image.shape[2] != size:
        raise ValueError(f"expected square images, found {list(image.shape)}")
    image = image.astype(jnp.float32)
    if size == out:
        return image
    # Upsampling ×7 splits a pixel into 7 equal ones, and pooling over k of them
    # averages [j, j + 1)·k/7 of the source. With k = size/32 that is the area
    # [j, j + 1)·size/224 under output pixel j of 224. (For a size that is no multiple
    # of 32 the official code gives another size than 224, or drops a border.)
    matrix = resampling.area_matrix(size, out)
    return resampling.resize_columns(resampling.resize_rows(image, matrix), matrix)


def preprocess_clip(image: jax.Array, *, config: ClipConfig) -> jax.Array:
    """CLIP's input as CLIP was trained with it, differentiable.

    `preprocess_clip_uint8` without its rounding: it differs by at most about one level
    of 8 bits. Clipped values, as in 8-bit images, have no gradient.

    Args:
      image: [B, H, W, 3] float in [-1, 1].
      config: static architecture; its image_size is S.

    Returns:
      [B, S, S, 3] float32.

    Raises:
      ValueError: the image has another number of axes or channels.
    """
    _expect_image(image)
    rows, columns = _clip_matrices(image, config.image_size)
    x = jnp.clip(image.astype(jnp.float32), -1, 1)
    # Bicubic weights overshoot at edges, and PIL clips after each pass.
    x = jnp.clip(resampling.resize_columns(x, columns.astype(np.float32)), -1, 1)
    x = jnp.clip(resampling.resize_rows(x, rows.astype(np.float32)), -1, 1)
    return _standardize((x + 1) / 2)


def preprocess_clip_uint8(image: jax.Array, *, config: ClipConfig) -> jax.Array:
    """CLIP's input from 8-bit images, bit for bit as PIL and torchvision make it.

    Args:
      image: [B, H, W, 3] uint8, such as `to_uint8` gives.
      config: static architecture; its image_size is S.

    Returns:
      [B, S, S, 3] float32.

    Raises:
      ValueError: the image has another type, number of axes or channels.

    Source: clip.load's transform; PIL's resampling of 8-bit images.
    """
    _expect_image(image)
    if image.dtype != jnp.uint8:
        raise ValueError(f"expected uint8 images, found {image.dtype}")
    rows, columns = _clip_matrices(image, config.image_size)
    x = resampling.resize_uint8(image, rows, columns)
    return _standardize(x.astype(jnp.float32) / 255)


def to_uint8(
    image: jax.Array, *, rounding: Literal["torch", "tf"] = "torch"
) -> jax.Array:
    """8-bit image of one in [-1, 1], as the official code rounds it.

    Parity: both truncate. TensorFlow's code adds half a level before, torch's does not,
    so its images are darker by half a level on average.

    Args:
      image: float, any shape; values outside [-1, 1] are clipped.
      rounding: "torch" for floor((x + 1) · 127.5), "tf" for floor(x · 127.5 + 128).

    Returns:
      uint8, same shape.

    Raises:
      ValueError: another rounding.
    """
    if rounding not in ("torch", "tf"):
        raise ValueError(f"rounding must be torch or tf, found {rounding!r}")
    x = image * 127.5 + 128 if rounding == "tf" else (image + 1) * 127.5
    return jnp.clip(x, 0, 255).astype(jnp.uint8)


def load(name_or_directory: str | pathlib.Path) -> Clip:
    """Reads a CLIP in transformers' Flax format.

    Args:
      name_or_directory: folder with config.json and model.safetensors (Flax) or
        flax_model.msgpack, or the name of one on the Hugging Face hub, such as
        "openai/clip-vit-base-patch32".

    Returns:
      The network, float32 whatever type the file stores.

    Raises:
      UserError: no such model, PyTorch weights, broken files, or tensors that do not
        belong to the configuration.
    """
    config_path = _require(name_or_directory, "config.json")
    config = read_config(config_path)
    path = _find(name_or_directory, _FLAX_WEIGHTS)
    if path is not None:
        tensors = _read_msgpack(path)
    else:
        path = _find(name_or_directory, _SAFE_WEIGHTS)
        if path is None:
            raise UserError(
                f"{name_or_directory}: expected {_SAFE_WEIGHTS} or {_FLAX_WEIGHTS}, "
                "found neither; " + _CONVERT.format("FILE")
            )
        tensors = _read_safetensors(path)
    _check(path, tensors, param_shapes(config))
    params = {
        name: jnp.asarray(tensor, jnp.float32) for name, tensor in tensors.items()
    }
    return Clip(flax.traverse_util.unflatten_dict(params, sep="/"), config)


def save(clip: Clip, directory: str | pathlib.Path, *, dtype: str = "float32") -> None:
    """Writes a CLIP in transformers' Flax format, without a tokenizer.

    Args:
      clip: the network.
      directory: folder to write into, made if need be.
      dtype: type to store parameters in; float16 halves the size.
    """
    import transformers

    config = _transformers_config(clip.config)
    size = clip.config.image_size
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), clip.params)
    with _quiet_transformers():
        model = transformers.FlaxCLIPModel(config, _do_init=False)
        model.save_pretrained(directory, params=params, safe_serialization=True)
        processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}
        )
        processor.save_pretrained(directory)


def read_config(path: pathlib.Path) -> ClipConfig:
    """Architecture that transformers' config.json describes.

    Raises:
      UserError: no such file, or not of a CLIP that we can build.
    """
    import transformers

    document = _read_json(path)
    if document.get("model_type") != "clip":
        raise UserError(
            f"{path}: expected model_type 'clip', found {document.get('model_type')!r}"
        )
    try:
        with _quiet_transformers():
            config: Any = transformers.CLIPConfig.from_dict(document)
        text, vision = config.text_config, config.vision_config
        for name in ("hidden_act", "layer_norm_eps"):
            if getattr(text, name) != getattr(vision, name):
                raise ValueError(f"{name} differs between text and vision")
        return ClipConfig(
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            vision_width=vision.hidden_size,
            vision_layers=vision.num_hidden_layers,
            vision_heads=vision.num_attention_heads,
            vision_mlp_width=vision.intermediate_size,
            vocab_size=text.vocab_size,
            context_length=text.max_position_embeddings,
            eos_token_id=text.eos_token_id,
            text_width=text.hidden_size,
            text_layers=text.num_hidden_layers,
            text_heads=text.num_attention_heads,
            text_mlp_width=text.intermediate_size,
            embed_dim=config.projection_dim,
            hidden_act=text.hidden_act,
            layer_norm_eps=text.layer_norm_eps,
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a valid CLIP configuration ({error})") from None


def load_tokenizer(name_or_directory: str | pathlib.Path) -> bpe.Tokenizer:
    """Reads vocab.json and merges.txt of a CLIP, of any number of merges.

    Args:
      name_or_directory: as for `load`.

    Returns:
      The tokenizer.

    Raises:
      UserError: no such files, broken ones, or more tokens than config.json says.
    """
    vocab_path, merges_path = (
        _require(name_or_directory, name) for name in TOKENIZER_FILES
    )
    tokenizer = bpe.read(vocab_path, merges_path)
    size = read_config(_require(name_or_directory, "config.json")).vocab_size
    if tokenizer.num_tokens > size:
        raise UserError(
            f"{vocab_path}: has {tokenizer.num_tokens} tokens, but vocab_size in "
            f"config.json is {size}: these files belong to different models"
        )
    return tokenizer


def tokenize(
    tokenizer: bpe.Tokenizer,
    texts: Sequence[str],
    *,
    context_length: int,
    truncate: bool = False,
) -> np.ndarray:
    """Token ids of texts: start, tokens, end, then zeros.

    Args:
      tokenizer: from `load_tokenizer`.
      texts: B texts; an empty one gives start and end alone.
      context_length: length T of a row.
      truncate: cut long texts, and let them end with the end token, instead of raising.

    Returns:
      [B, T] int32.

    Raises:
      UserError: a text is too long.

    Source: clip.tokenize.
    """
    tokens = np.zeros((len(texts), context_length), np.int32)
    for row, text in zip(tokens, texts, strict=True):
        ids = [tokenizer.start, *bpe.encode(tokenizer, text), tokenizer.end]
        if len(ids) > context_length:
            if not truncate:
                raise UserError(
                    f"text {text!r}: expected at most {context_length} tokens with "
                    f"start and end, found {len(ids)}: shorten it"
                )
            ids = [*ids[: context_length - 1], tokenizer.end]
        row[: len(ids)] = ids
    return tokens


def _clip_matrices(image: jax.Array, out: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column matrices [out, H], [out, W]: shorter side to out, centre crop."""
    height, width = image.shape[1:3]
    short = min(height, width)

    def matrix(size: int) -> np.ndarray:
        resized = out * size // short
        start = round((resized - out) / 2)
        return resampling.bicubic_matrix(size, resized)[start : start + out]

    return matrix(height), matrix(width)


def _standardize(image: jax.Array) -> jax.Array:
    return (image - jnp.array(PIXEL_MEAN)) / jnp.array(PIXEL_STD)


def _expect_image(image: jax.Array) -> None:
    if image.ndim != 4 or image.shape[3] != 3:
        raise ValueError(f"expected images [B, H, W, 3], found {list(image.shape)}")


@functools.cache
def _module(config: ClipConfig) -> Any:
    """The Linen module inside FlaxCLIPModel."""
    import transformers

    return transformers.FlaxCLIPModel.module_class(
        config=_transformers_config(config), dtype=jnp.dtype(config.dtype)
    )


def _matmul_precision(config: ClipConfig) -> contextlib.AbstractContextManager[Any]:
    # On accelerators JAX multiplies float32 matrices in less than float32 by default.
    return jax.default_matmul_precision(
        "highest" if config.dtype == "float32" else "default"
    )


def _transformers_config(config: ClipConfig) -> Any:
    import transformers

    both = {
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
        "projection_dim": config.embed_dim,
    }
    return transformers.CLIPConfig(
        text_config={
            **both,
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.context_length,
            "bos_token_id": config.vocab_size - 2,
            "eos_token_id": config.eos_token_id,
            "hidden_size": config.text_width,
            "num_hidden_layers": config.text_layers,
            "num_attention_heads": config.text_heads,
            "intermediate_size": config.text_mlp_width,
        },
        vision_config={
            **both,
            "image_size": config.image_size,
            "patch_size": config.patch_size,
            "hidden_size": config.vision_width,
            "num_hidden_layers": config.vision_layers,
            "num_attention_heads": config.vision_heads,
            "intermediate_size": config.vision_mlp_width,
        },
        projection_dim=config.embed_dim,
    )


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected JSON ({error})") from None
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected a JSON object")
    return document


def _read_msgpack(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        tree = flax.serialization.msgpack_restore(path.read_bytes())
        return flax.traverse_util.flatten_dict(tree, sep="/")
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"{path}: not a readable msgpack file ({error})") from None


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with safetensors.safe_open(path, "numpy") as file:
            found = (file.metadata() or {}).get("format")
        if found != "flax":
            raise UserError(
                f"{path}: expected weights in Flax format, found {found!r}; "
                + _CONVERT.format(path)
            )
        tensors = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None
    return {name.replace(".", "/"): tensor for name, tensor in tensors.items()}


def _check(
    path: pathlib.Path,
    tensors: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    faults = [f"missing {name}" for name in shapes if name not in tensors]
    faults += [f"surplus {name}" for name in tensors if name not in shapes]
    faults += [
        f"{name}: expected {list(shape)}, found {list(np.shape(tensors[name]))}"
        for name, shape in shapes.items()
        if name in tensors and np.shape(tensors[name]) != shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(f"{path}: {'; '.join(faults[:3])}{more}")


def _require(name_or_directory: str | pathlib.Path, filename: str) -> pathlib.Path:
    path = _find(name_or_directory, filename)
    if path is None:
        raise UserError(f"{name_or_directory}: has no {filename}")
    return path


def _find(name_or_directory: str | pathlib.Path, filename: str) -> pathlib.Path | None:
    """Path of a model's file, from the hub if need be; None if it has no such file."""
    directory, name = pathlib.Path(name_or_directory), str(name_or_directory)
    if directory.is_dir():
        path = directory / filename
        return path if path.is_file() else None
    if directory.exists():
        raise UserError(
            f"{name}: expected a CLIP directory, found a file; " + _CONVERT.format(name)
        )
    # A first part that is a folder here tells a mistyped path from a hub name.
    if not _HUB_NAME.fullmatch(name) or directory.parent.is_dir():
        raise UserError(f"{name}: no such CLIP directory")
    verbosity = huggingface_hub.logging.get_verbosity()
    # It reports every failed attempt to connect.
    huggingface_hub.logging.set_verbosity_error()
    try:
        return pathlib.Path(huggingface_hub.hf_hub_download(name, filename))
    except huggingface_hub.errors.LocalEntryNotFoundError:
        raise UserError(
            f"{name}: no such directory, and the Hugging Face hub cannot be reached "
            f"for {filename}"
        ) from None
    except huggingface_hub.errors.RepositoryNotFoundError:
        raise UserError(
            f"{name}: no such directory, and no such model on the Hugging Face hub"
        ) from None
    except huggingface_hub.errors.EntryNotFoundError:
        return None
    except OSError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: cannot download {filename} ({reason})") from None
    finally:
        huggingface_hub.logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hides warnings, such as that Flax classes will be removed from version 5."""
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
