"""Loading of networks and their files: from directories, from the hub, or embedded."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from styleclip_jax import computation, places
from styleclip_jax.errors import UserError
from styleclip_jax.io import (
    checkpoints,
    clip_files,
    direction_files,
    files,
    generator_files,
    hub,
    text_files,
)
from styleclip_jax.methods import delta, global_directions, mapper
from styleclip_jax.models import (
    clip,
    clip_vit,
    discriminator,
    e4e,
    generators,
    inception,
    irse50,
    vgg16,
)
from styleclip_jax.models.clip import Clip, Tokenizer
from styleclip_jax.models.network import Network
from styleclip_jax.settings.networks import ModelSettings

# Folder of the generator that an encoder was trained for, in that of the encoder.
DECODER = "generator"
# Folder of the discriminator of a generator's training, in that of the generator.
DISCRIMINATOR = "discriminator"


@dataclasses.dataclass(frozen=True)
class Models(ModelSettings, computation.Computation):
    """Models that a work uses, and how they are computed, by their settings."""

    @classmethod
    def of(
        cls,
        *,
        clip: files.Path | Sequence[files.Path] | None = None,
        clip_weights: Sequence[float] | None = None,
        clip_towers: str = "own",
        class_: int | None = None,
        computed: Mapping[str, Any] | None = None,
        **paths: files.Path | None,
    ) -> "Models":
        """Models by paths, None for those that are absent; of CLIPs several.

        `computed` are fields of `Computation`.
        """
        named: dict[str, Any] = {n: str(x) for n, x in paths.items() if x is not None}
        if clip is not None:
            named["clip"] = ",".join(map(str, files.several(clip)))
        weights = None if clip_weights is None else tuple(clip_weights)
        return cls(
            clip_weights=weights,
            clip_towers=clip_towers,
            class_=class_,
            **(computed or {}),
            **named,
        )

    @property
    def generator_directory(self) -> pathlib.Path:
        """Directory that the generator is read from."""
        return places.find("generator", self.generator)

    @property
    def generator_name(self) -> str:
        """Name of the generator for people: as it was given, or embedded."""
        return self.generator or places.EMBEDDED

    @property
    def has_identity(self) -> bool:
        """Whether there is a face recognition network for this generator.

        The embedded one knows the faces of the embedded generator alone.
        """
        return self.identity is not None or self.generator is None

    def require_identity(self, id_lambda: float) -> None:
        """Refuses a weight of the identity where there is no network for it.

        Raises:
          UserError: the weight is not 0, and there is none.
        """
        if id_lambda and not self.has_identity:
            raise UserError(
                f"id_lambda: {id_lambda} needs a face recognition network, expected "
                "identity with it",
                field="id_lambda",
                also=["identity"],
            )

    def with_decoder(self) -> "Models":
        """The same with the encoder's own generator, where no other is named."""
        if self.generator is None and self.encoder is not None:
            decoder = places.find("encoder", self.encoder) / DECODER
            if decoder.is_dir():
                return dataclasses.replace(self, generator=str(decoder))
        return self

    def one_hot_label(self, config: generators.GeneratorConfig) -> jax.Array | None:
        """The class as a one-hot vector [c_dim], None for an unconditional generator.

        Raises:
          UserError: the class is missing, surplus or out of range.
        """
        if not config.c_dim:
            if self.class_ is not None:
                raise UserError(
                    "class: this generator is not class-conditional", field="class"
                )
            return None
        if self.class_ is None or not 0 <= self.class_ < config.c_dim:
            raise UserError(
                f"class: expected 0 to {config.c_dim - 1} for this class-conditional "
                f"generator, found {self.class_}",
                field="class",
            )
        return jnp.zeros(config.c_dim).at[self.class_].set(1.0)

    def fingerprints(self, *names: str) -> dict[str, str]:
        """SHA-256 of the weights of some models; a CLIP from the hub goes by its name.

        Of other networks from the hub there is the commit as well, as name_commit, and
        of a generator what its weights do not tell.

        Args:
          names: of generator, clip, identity and encoder.
        """
        found: dict[str, str] = {}
        for name in names:
            if name == "clip":
                found[name] = clip_identity(self.clip)
                continue
            directory = places.find(name, getattr(self, name))
            found[name] = checkpoints.fingerprint(directory)
            if commit := hub.commit(directory):
                found[f"{name}_commit"] = commit
            if name == "generator":
                found |= generator_files.untold(directory)
        return found

    def generator_origin(self) -> direction_files.Origin:
        """Identity of the generator, for files that hold numbers of it."""
        directory = self.generator_directory
        name = places.name_of(directory)
        if hub.commit(directory):
            name = self.generator_name
        elif name != places.EMBEDDED:
            name = directory.resolve().name
        return direction_files.Origin(name, checkpoints.fingerprint(directory))

    def clip_origin(self) -> direction_files.Origin:
        """Identity of the CLIP, likewise."""
        # A name on the hub, or the last part of a path.
        names = [
            "/".join(name.rsplit("/", 2)[-2:]) for name in places.clip_names(self.clip)
        ]
        if len(names) == 1:
            return direction_files.Origin(names[0], clip_fingerprint(self.clip))
        weights = self.clip_weights or (1.0,) * len(names)
        whole = f"{clip_identity(self.clip)} {[w / sum(weights) for w in weights]}"
        hashed = files.hash_bytes(whole.encode())
        return direction_files.Origin(" and ".join(names), hashed)

    def load_generator(self) -> Network:
        """Generator, computed as is asked for.

        Raises:
          UserError: no valid generator is found, or it cannot be computed so.
        """
        return self.of_generator(load_generator(self.generator))

    def load_identity(self, generator: generators.GeneratorConfig) -> Network:
        """Face recognition network, for images of a generator; likewise."""
        generator.expect_square("identity")
        return self.of_other(load_identity(self.identity))

    def load_encoder(self, generator: generators.GeneratorConfig) -> Network:
        """Encoder, which must be named, for a generator; likewise."""
        return self.of_other(load_encoder(str(self.encoder), generator))

    def load_mapper(
        self, directory: files.Path, generator: generators.GeneratorConfig
    ) -> Network[mapper.MapperConfig]:
        """Mapper of a directory for the generator, likewise."""
        return self.of_other(
            load_mapper(directory, self.generator_directory, generator)
        )

    def load_clip(self) -> tuple[Clip, Tokenizer]:
        """CLIP and its tokenizer, or several that count as one.

        Raises:
          UserError: no valid CLIP is found, or the weights are not as many.
        """
        pairs = [load_clip(name) for name in places.clip_names(self.clip)]
        networks = [
            self.of_clip(clip_vit.choose_towers(network, self.clip_towers))
            for network, _ in pairs
        ]
        joint = clip.join(networks, self.clip_weights or ())
        words = tuple(tokenizer for _, tokenizer in pairs)
        return joint, words if len(pairs) > 1 else words[0]

    def describe_generator(self, config: generators.GeneratorConfig) -> str:
        """Line on the generator, for people."""
        return (
            f"generator: {self.generator_name}, {config.size_text}, "
            f"{config.num_rows} rows of W+"
            f"{computation.describe_type(self.dtype, config.dtype)}"
        )

    def describe_clip(self, network: Clip) -> str:
        """Line on the CLIPs with the sizes of their input images, for people."""
        return "clip: " + " and ".join(
            f"{name}, {member.config.image_size}²"
            f"{computation.describe_type(self.clip_dtype, member.config.dtype)}"
            for name, member in zip(
                places.clip_names(self.clip), clip.members(network), strict=True
            )
        )


def load_generator(directory: files.Path | None = None) -> Network:
    """A generator from a model directory; the embedded one without an argument.

    Raises:
      UserError: the directory holds no valid generator.
    """
    return generator_files.load(places.find("generator", directory))


def load_discriminator(directory: files.Path) -> Network:
    """The discriminator that stands in the model directory of a generator.

    Raises:
      UserError: the directory holds no valid one.
    """
    directory = places.find("generator", directory) / DISCRIMINATOR
    config_type = discriminator.DiscriminatorConfig
    return _load(directory, "discriminator", config_type, discriminator)


def load_clip(name_or_directory: files.Path | None = None) -> tuple[Clip, Tokenizer]:
    """A CLIP and its tokenizer, by directory or hub name; by default the embedded one.

    Raises:
      UserError: no valid CLIP is found there.
    """
    source = places.clip_source(name_or_directory)
    return clip_files.load(source), clip_files.load_tokenizer(source)


def clip_identity(names: str | None) -> str:
    """SHA-256 of the weights of CLIPs, with commas; of one from the hub its name."""
    return ",".join(clip_fingerprint(name) or name for name in places.clip_names(names))


def clip_fingerprint(name_or_directory: files.Path | None = None) -> str | None:
    """SHA-256 of the weights that `load_clip` reads; None for one from the hub."""
    return clip_files.fingerprint(places.clip_source(name_or_directory))


def load_identity(directory: files.Path | None = None) -> Network:
    """A face recognition network from a model directory, or the embedded one.

    Raises:
      UserError: the directory holds no valid one.
    """
    where = places.find("identity", directory)
    return _load(where, "irse50", irse50.IrseConfig, irse50)


def load_encoder(
    directory: files.Path, generator: generators.GeneratorConfig
) -> Network:
    """An encoder of photos from a model directory.

    Args:
      directory: where it is.
      generator: that its latents are for.

    Raises:
      UserError: the directory holds no valid one, or one of another generator.
    """
    found_at = places.find("encoder", directory)
    encoder = _load(found_at, "e4e", e4e.E4eConfig, e4e)
    try:
        e4e.check_generator(encoder.config, generator)
    except ValueError as error:
        raise UserError(f"encoder: {error}", field="encoder") from None
    return encoder


def load_vgg16(directory: files.Path) -> vgg16.Vgg16:
    """A VGG16 from a model directory, with the parts that its file had.

    Raises:
      UserError: the directory holds no valid one.
    """
    return _load(places.find("vgg16", directory), "vgg16", vgg16.Vgg16Config, vgg16)


def load_inception(directory: files.Path) -> inception.Inception:
    """An Inception-v3 of FID from a model directory.

    Raises:
      UserError: the directory holds no valid one.
    """
    where = places.find("inception", directory)
    return _load(where, "inception", inception.InceptionConfig, inception)


def load_templates(path: files.Path | None = None) -> list[str]:
    """Prompt templates, one a line with {} for the text; by default the official 79.

    Raises:
      UserError: no such file, no template in it, or a line without {}.
    """
    path = pathlib.Path(path or places.ASSETS / "templates.txt")
    templates = text_files.read_lines(path, "templates")
    wrong = [line for line in templates if line.count("{}") != 1]
    if wrong:
        raise UserError(
            f"{path}: expected templates such as 'a photo of a {{}}.', found "
            f"{wrong[0]!r}"
        )
    return templates


def load_mapper(
    directory: files.Path,
    generator_directory: files.Path | None = None,
    generator: generators.GeneratorConfig | None = None,
) -> Network[mapper.MapperConfig]:
    """A mapper for a generator, from a model directory.

    Args:
      directory: written by `save_mapper`, or converted from an official checkpoint.
      generator_directory: of the generator to use it with; the embedded one if absent.
      generator: its configuration; read from there if absent.

    Raises:
      UserError: no mapper, or one of another generator. One that was converted does
        not say of which it is, so that its shapes alone are checked.
    """
    return _load_trained(
        directory, mapper.MapperConfig, mapper, generator_directory, generator
    )


def load_delta(
    directory: files.Path, models: Models, generator: generators.GeneratorConfig
) -> Network[delta.DeltaConfig]:
    """A delta network from a model directory.

    Args:
      directory: written by styleclip-train-delta.
      models: generator and CLIP to use it with.
      generator: configuration of this generator.

    Raises:
      UserError: no delta network, or one of another generator or CLIP.
    """
    network = _load_trained(
        directory, delta.DeltaConfig, delta, models.generator_directory, generator
    )
    found = clip_identity(models.clip)
    if checkpoints.source(directory).get("clip") != found:
        raise UserError(
            f"{directory}: expected clip to be the one that this network was trained "
            f"with, found {', '.join(places.clip_names(models.clip))}",
            also=["clip"],
        )
    return network


def _load_trained(
    directory: files.Path,
    config_type: type,
    module: ModuleType,
    generator_directory: files.Path | None,
    generator: generators.GeneratorConfig | None,
) -> Network:
    """A network that was trained with this generator, unless it does not say."""
    network = _load(directory, module.KIND, config_type, module)
    where = places.find("generator", generator_directory)
    if generator is None:
        generator = generator_files.read_config(where)
    try:
        module.check_generator(network.config, generator)
    except ValueError as error:
        raise UserError(f"{directory}: {error}") from None
    trained_on = checkpoints.source(directory).get("generator")
    found = checkpoints.fingerprint(where)
    if trained_on not in (None, found):
        raise UserError(
            f"{directory}: expected generator to be the one that this {module.KIND} "
            f"was trained on (SHA-256 {trained_on!s:.12}…), found "
            f"{places.name_of(where)} ({found[:12]}…)",
            also=["generator"],
        )
    return network


def save_mapper(
    directory: files.Path,
    params: Any,
    config: mapper.MapperConfig,
    *,
    prompt: str,
    generator: str,
    clip: str,
    training: dict[str, Any],
) -> None:
    """Writes a mapper; one that is there already is replaced.

    Args:
      directory: folder to make.
      params: parameters of the mapper.
      config: its architecture.
      prompt: text that it was trained for.
      generator: fingerprint of the generator.
      clip: fingerprint or name of the CLIP.
      training: steps, losses and the like, for people.
    """
    source = {
        "prompt": prompt,
        "generator": generator,
        "clip": clip,
        "training": training,
    }
    checkpoints.save_network(
        directory,
        kind=mapper.KIND,
        params=jax.device_get(params),
        config=config,
        source=source,
        overwrite=True,
    )


def mapper_prompt(directory: files.Path) -> str | None:
    """The prompt that a mapper was trained for, None if it does not say."""
    prompt = checkpoints.source(directory).get("prompt")
    return prompt if isinstance(prompt, str) else None


def read_relevance(
    path: files.Path, models: Models, generator: Network, clip_network: Clip
) -> tuple[global_directions.Relevance, dict[str, Any]]:
    """Channel relevance from a file, and how it was measured.

    Args:
      path: the file.
      models: which the file must have been measured with.
      generator: of these.
      clip_network: of these.

    Raises:
      UserError: no such file, a broken one, or one of other networks.
    """
    layout = generator.config.style_layout
    found = direction_files.read_relevance(
        path,
        layout=layout,
        generator=models.generator_origin(),
        clip=models.clip_origin(),
        embed_dim=clip_network.config.embed_dim,
    )
    relevance = global_directions.expand(found.rows, found.std, found.layers, layout)
    return relevance, found.about


def _load(
    directory: files.Path, kind: str, config_type: type, module: ModuleType
) -> Network:
    """A network of a kind, whose module knows the shapes of its parameters."""
    return checkpoints.load_network(
        directory, kind=kind, config_type=config_type, param_shapes=module.param_shapes
    )
