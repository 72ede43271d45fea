"""Stage "clip": a small CLIP of faces and captions.

Besides matching pictures and captions it learns

- to name the attributes from all patches together, by linear heads that are thrown
  away; they teach the patches what a mouth is long before the feature attends to it,
- features whose angles say in how many attributes pictures and captions agree. Matching
  alone leaves the angles free: blonde hair came to lie next to blue, so that edits of
  brown hair towards blonde went to blue, and captions lay far from all pictures, in
  directions that also spoke of what they do not mention.

A caption is also right for every other face of the batch that it is true of.

In the last steps the heads are done, the angles weigh more, and matching is at the
scale of OpenAI's CLIP, with which this one is written. The CLIP now also sees what
small moves in W+ do: its feature is to change as the faces' attributes do, and nothing
else of it. An edit follows such changes, which are too small to matter to a loss of
whole pictures: without it the first tenths of the way to a bald head said nothing, and
a beard was also a matter of the background.

A third of the pictures are the generator's, of perturbed latents, since an edit moves
through such pictures, and a CLIP that has never seen them is easily fooled. Of the
drawings half lie between two faces. Captions are true in part of what lies between two
values: the similarity rises all the way from one to the other. (Where such pictures
counted as neither, there was a valley between the two that no edit got across. Where
only the generator's lay between, a plateau: the first tenth of a beard is no greater
than what the perturbed latents do anyway, and said nothing. Pictures changed by one
signed gradient step to be hard, by 0.02 to 0.05, made such plateaus as well, and edits
then changed what they should have kept.)

Half of the pictures enter in [-1, 1], as the losses of StyleCLIP feed CLIP, and half
standardised with OpenAI's mean and deviation, as the global directions do.
"""

import dataclasses
import pathlib
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from styleclip_jax import loading
from styleclip_jax.io import clip_files
from styleclip_jax.models import bpe, clip, clip_vit
from styleclip_jax.models.network import Network
from styleclip_jax.models.preprocessing import OPENAI
from styleclip_jax.ops import norms
from styleclip_jax.toy import attributes, captioning

from . import clip_losses, clip_pictures, common, judge_stage

NUM_MERGES = 4000
# OpenAI's largest scale; the official losses assume it.
_LOGIT_SCALE = np.float32(np.log(100))

# Small parts of the picture are learned last.
_NAMING_WEIGHTS = {"mouth": 3.0, "facial_hair": 3.0, "eyes": 2.0}

_VOCAB_SIZE = bpe.NUM_TOKENS_BESIDE_MERGES + NUM_MERGES


_NETWORK = clip.ClipConfig(
    image_size=64,
    patch_size=8,
    vision_width=128,
    vision_layers=3,
    vision_heads=4,
    vision_mlp_width=256,
    vocab_size=_VOCAB_SIZE,
    context_length=32,
    eos_token_id=_VOCAB_SIZE - 1,
    text_width=128,
    text_layers=2,
    text_heads=4,
    text_mlp_width=256,
    embed_dim=64,
)


@dataclasses.dataclass(frozen=True)
class ClipTraining:
    """Settings of the CLIP's training.

    Attributes:
      network: architecture.
      steps: optimization steps.
      refining_steps: further steps, in which the angles weigh more and moves are seen.
      batch_size: faces per step, each with a caption.
      moves_per_step: moves per refining step.
      learning_rate, refining_rate: peaks of the schedules of both.
      weight_decay: of AdamW.
      num_drawn, num_generated, num_moves: pictures and moves to learn from.
      captions_per_face: captions made of each.
      agreement_weight, refining_weight: of the losses of the pictures' and captions'
        angles in both.
      moves_weight: of the loss of moves.
      naming_weight: of the loss of the attribute heads.
      unknown_words: share of tokens replaced by random ones.
      seed: of everything random.
    """

    network: clip.ClipConfig = _NETWORK
    steps: int = 4500
    refining_steps: int = 4000
    batch_size: int = 64
    moves_per_step: int = 48
    learning_rate: float = 1e-3
    refining_rate: float = 6e-4
    weight_decay: float = 0.02
    num_drawn: int = 40_000
    num_generated: int = 20_000
    num_moves: int = 24_000
    captions_per_face: int = 2
    agreement_weight: float = 10.0
    refining_weight: float = 60.0
    moves_weight: float = 40.0
    naming_weight: float = 0.5
    unknown_words: float = 0.03
    seed: int = 4


# Prompts that name each value, for zero-shot classification.
PROMPTS: dict[str, dict[str, str]] = {
    "hair_color": {v: f"a face with {v} hair" for v in attributes.HAIR_COLORS},
    "hair_style": {
        "short": "a face with short hair",
        "long": "a face with long hair",
        "bald": "a bald face",
        "curly": "a face with curly hair",
        "bun": "a face with a bun",
        "bob": "a face with a bob",
    },
    "skin": {v: f"a face with {v} skin" for v in attributes.SKIN_COLORS},
    "eyes": {v: f"a face with {v} eyes" for v in attributes.EYE_COLORS},
    "mouth": {
        "neutral": "a neutral face",
        "smile": "a smiling face",
        "sad": "a sad face",
        "surprised": "a surprised face",
    },
    "facial_hair": {
        "none": "a clean shaven face",
        "beard": "a face with a beard",
        "moustache": "a face with a moustache",
    },
    "glasses": {
        "none": "a face with no glasses",
        "glasses": "a face wearing glasses",
        "sunglasses": "a face wearing sunglasses",
    },
    "background": {
        v: f"a face on a {v} background" for v in attributes.BACKGROUND_COLORS
    },
    "clothes": {v: f"a face wearing a {v} shirt" for v in attributes.CLOTHES_COLORS},
}


def tokenizer(workdir: pathlib.Path) -> bpe.Tokenizer:
    """The official byte-level BPE with its first merges."""
    bpe.write(bpe.OPENAI_MERGES, workdir, NUM_MERGES)
    return bpe.read(*(workdir / name for name in clip_files.TOKENIZER_FILES))


def captions(
    workdir: pathlib.Path, vectors: np.ndarray, training: ClipTraining
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [N, K, T] and contradicted values [N, K, V] of K captions of each face."""
    count = training.captions_per_face

    def make() -> common.Arrays:
        rng = np.random.default_rng(training.seed)
        faces = [attributes.from_vector(vector) for vector in vectors]
        made = [captioning.caption(face, rng) for face in faces for _ in range(count)]
        tokens = bpe.tokenize(
            tokenizer(workdir),
            [caption.text for caption in made],
            context_length=training.network.context_length,
            truncate=True,
        )
        contradicted = captioning.contradictions(made).astype(np.uint8)
        shape = (len(vectors), count, -1)
        return tokens.reshape(shape), contradicted.reshape(shape)

    checksum = zlib.crc32(vectors.tobytes())
    name = f"captions_{training.seed}_{count}_{checksum:08x}.npz"
    return common.kept(workdir / name, make)


def as_inputs(key: jax.Array, image: jax.Array) -> jax.Array:
    """CLIP's input in either of the two ways, at random for each picture."""
    mean, deviation = jnp.array(OPENAI.mean), jnp.array(OPENAI.std)
    standardized = ((image + 1) / 2 - mean) / deviation
    chosen = jax.random.bernoulli(key, 0.5, (len(image), 1, 1, 1))
    return jnp.where(chosen, standardized, image)


def zero_shot(
    params: Any,
    images: np.ndarray,
    vectors: np.ndarray,
    *,
    config: clip.ClipConfig,
    words: bpe.Tokenizer,
) -> dict[str, float]:
    """Share of pictures in [-1, 1] given the right one of an attribute's prompts."""
    network = Network(params, config)
    encode = jax.jit(lambda x: norms.unit(clip.encode_image(network, x)))
    parts = np.array_split(images, max(1, len(images) // 250))
    features = np.concatenate([encode(common.to_float(part)) for part in parts])
    truth, result = attributes.labels(vectors), {}
    for name, prompts in PROMPTS.items():
        tokens = clip.tokenize(network, words, list(prompts.values()))
        text = clip.encode_text(network, jnp.asarray(tokens))
        text = norms.unit(text)
        found = np.argmax(features @ np.asarray(text).T, axis=1)
        right = (found == truth[name])[attributes.visible(vectors, name)]
        result[name] = float(right.mean())
    return result


def _heads(size: int) -> dict[str, Any]:
    return {
        name: {"kernel": jnp.zeros((size, len(values))), "bias": jnp.zeros(len(values))}
        for name, values in attributes.ATTRIBUTES.items()
    }


def _naming(heads: Any, patches: jax.Array, vectors: jax.Array) -> jax.Array:
    """Cross-entropy of the attributes named by the heads, [], for patches [B, P, D]."""
    flat = patches.reshape(len(patches), -1)
    by_attribute = [
        _NAMING_WEIGHTS.get(name, 1.0)
        * attributes.shown(vectors, name)
        * optax.softmax_cross_entropy(
            flat @ layer["kernel"] + layer["bias"],
            vectors[:, attributes.SLICES[name]],
        )
        for name, layer in heads.items()
    ]
    return jnp.mean(sum(by_attribute))


def _initial_state(training: ClipTraining) -> tuple[dict[str, Any], Any]:
    key = jax.random.key(training.seed)
    network = clip.init(key, training.network)
    network["logit_scale"] = jnp.float32(np.log(20))
    # transformers' 0.02 hides where a patch lies for thousands of steps.
    position = network["vision_model"]["embeddings"]["position_embedding"]
    position["embedding"] = position["embedding"] * 15
    config = training.network
    num_patches = (config.image_size // config.patch_size) ** 2
    heads = _heads(num_patches * config.vision_width)
    params = {"clip": network, "heads": heads}
    optimizer = optax.inject_hyperparams(optax.adamw)(
        learning_rate=0.0, b2=0.98, weight_decay=training.weight_decay
    )
    state = {"step": 0, "params": params, "optimizer": optimizer.init(params)}
    return state, optimizer


def _schedule(step: int, training: ClipTraining) -> tuple[float, float]:
    """Learning rate and weight of the angles."""
    refining = step - training.steps
    if refining < 0:
        peak = training.learning_rate
        rate = common.warmup_cosine(step, training.steps, peak=peak)
        return rate, training.agreement_weight
    peak = training.refining_rate
    rate = common.warmup_cosine(refining, training.refining_steps, peak=peak)
    return rate, training.refining_weight


def train(
    training: ClipTraining,
    workdir: pathlib.Path,
    images: np.ndarray,
    vectors: np.ndarray,
    moves: common.Arrays,
) -> Any:
    """Trains from the last saved state on.

    Args:
      training: settings.
      workdir: folder of the state.
      images: [N, H, W, 3] uint8 to learn from.
      vectors: [N, VECTOR_SIZE] of what they show.
      moves: pictures and vectors of `clip_pictures.moves`.

    Returns:
      The parameters of the CLIP and of the heads.
    """
    config = training.network
    tokens, contradicted = captions(workdir, vectors, training)
    held_out = [
        part[:1000]
        for part in common.drawn_faces(
            workdir, 5000, seed=1000, resolution=config.image_size
        )
    ]
    words = tokenizer(workdir)
    initial, optimizer = _initial_state(training)

    def loss(params: Any, key: jax.Array, weight: jax.Array, batch: Any) -> Any:
        keys = jax.random.split(key, 6)
        text = batch["tokens"].astype(jnp.int32)
        is_word = (text > 0) & (text < config.vocab_size - 2)
        replaced = is_word & jax.random.bernoulli(
            keys[2], training.unknown_words, text.shape
        )
        random = jax.random.randint(keys[3], text.shape, 1, config.vocab_size - 2)
        text = jnp.where(replaced, random, text)
        network = Network(params["clip"], config)
        text_feature = clip.encode_text(network, text)
        vectors = batch["vectors"]
        contradicted = batch["contradicted"].astype(jnp.float32)
        wrong = vectors[:, : attributes.NUM_VALUES] @ contradicted.T
        fits = jnp.maximum(1 - wrong, 0)
        refines = "moves" in batch
        scale = _LOGIT_SCALE if refines else params["clip"]["logit_scale"]
        scale = jnp.exp(jnp.minimum(scale, _LOGIT_SCALE))

        def encode(keys: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
            image = common.to_float(images)
            image = judge_stage.augment(keys[0], image, max_shift=1, max_blur=0.3)
            image = as_inputs(keys[1], image)
            return clip_vit.encode_image_and_patches(network, image)

        feature, patches = encode(keys[:2], batch["image"])
        terms = {
            "matching": clip_losses.contrastive(feature, text_feature, scale, fits),
            "agreement": clip_losses.agreement(
                feature, clip_losses.picture_code(vectors)
            ),
            "text": clip_losses.agreement(
                text_feature, clip_losses.caption_code(contradicted)
            ),
        }
        if refines:
            pictures, shown = batch["moves"]
            features = [encode(keys[4:], pictures[:, side])[0] for side in range(2)]
            codes = [clip_losses.picture_code(shown[:, side]) for side in range(2)]
            terms["moves"] = clip_losses.disagreement(features, codes)
        else:
            terms["naming"] = _naming(params["heads"], patches, vectors)
        weights: dict[str, Any] = {
            "matching": 1.0,
            "agreement": weight,
            "text": weight,
            "moves": training.moves_weight,
            "naming": training.naming_weight,
        }
        total = jnp.sum(jnp.stack([weights[name] * terms[name] for name in terms]))
        return total, terms

    @jax.jit
    def update(
        params: Any,
        opt_state: Any,
        schedule: tuple[jax.Array, jax.Array],
        key: jax.Array,
        batch: Any,
    ) -> Any:
        rate, weight = schedule
        (_, terms), gradient = jax.value_and_grad(loss, has_aux=True)(
            params, key, weight, batch
        )
        opt_state.hyperparams["learning_rate"] = rate
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, terms

    path = workdir / "clip.state"
    state = common.restore_state(path, initial)
    start, total = state["step"], training.steps + training.refining_steps
    progress = common.Progress("clip", start, total, training.batch_size)
    indices = common.batches(
        len(images), training.batch_size, seed=training.seed, start=start
    )
    move_indices = common.batches(
        len(moves[0]), training.moves_per_step, seed=training.seed, start=start
    )
    params, opt_state = state["params"], state["optimizer"]
    for step in range(start, total):
        rows, which = next(indices), step % training.captions_per_face
        batch = {
            "image": images[rows],
            "vectors": vectors[rows],
            "tokens": tokens[rows, which],
            "contradicted": contradicted[rows, which],
        }
        rows = next(move_indices)
        if step >= training.steps:
            batch["moves"] = tuple(part[rows] for part in moves)
        schedule = jax.tree.map(jnp.float32, _schedule(step, training))
        key = jax.random.fold_in(jax.random.key(training.seed), step)
        params, opt_state, terms = update(params, opt_state, schedule, key, batch)
        if (step + 1) % 50 == 0:
            scale = float(jnp.exp(params["clip"]["logit_scale"]))
            progress.log(step + 1, scale=scale, **jax.device_get(terms))
        if (step + 1) % 200 == 0 or step + 1 == total:
            state = {"step": step + 1, "params": params, "optimizer": opt_state}
            common.save_state(path, state)
            scores = zero_shot(params["clip"], *held_out, config=config, words=words)
            shares = " ".join(f"{name} {share:.3f}" for name, share in scores.items())
            logging.info("clip: zero-shot at %d steps: %s", step + 1, shares)
    return params


def run(workdir: pathlib.Path, assets: pathlib.Path) -> None:
    """Trains the CLIP and writes it with its tokenizer."""
    training = ClipTraining()
    generator = loading.load_generator(assets / "generator")
    drawn = clip_pictures.drawn(
        workdir,
        training.num_drawn,
        resolution=training.network.image_size,
        seed=training.seed,
    )
    made = clip_pictures.generated(
        workdir, generator, training.num_generated, seed=training.seed
    )
    moves = clip_pictures.moves(
        workdir, generator, training.num_moves, seed=training.seed
    )
    images, vectors = map(np.concatenate, zip(drawn, made, strict=True))
    export(train(training, workdir, images, vectors, moves), training, assets)


def export(params: Any, training: ClipTraining, assets: pathlib.Path) -> None:
    """Writes the CLIP and its tokenizer in transformers' format."""
    params = {**params["clip"], "logit_scale": jnp.asarray(_LOGIT_SCALE)}
    directory = assets / "clip"
    directory.mkdir(parents=True, exist_ok=True)
    network = clip.Clip(params, training.network)
    clip_files.save(network, directory, dtype="float16")
    bpe.write(bpe.OPENAI_MERGES, directory, NUM_MERGES)
