"""Editors of directions that are learned before the edits: StyleMC, and essences.

A direction is learned on one device, so that their number changes no bit of it.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import checks, latents, losses, parallel, progress
from styleclip_jax.batch.editor import Editor
from styleclip_jax.batch.source import LatentSource
from styleclip_jax.editing import directing, editors, objectives
from styleclip_jax.editing.loaded import Loaded
from styleclip_jax.editing.prompts import Prompts
from styleclip_jax.errors import UserError
from styleclip_jax.io import direction_files, files, latent_files
from styleclip_jax.methods import essence, optimization, stylemc
from styleclip_jax.methods.global_directions import Direction
from styleclip_jax.photos import finding
from styleclip_jax.settings.edits import EssenceSettings, StyleMCSettings

# Truncation of the faces that are learned from.
_PSI = 0.7


def learn_by_texts(loaded: Loaded, texts: Prompts, config: StyleMCSettings) -> Editor:
    """Editor of StyleMC's directions, one for each prompt.

    Raises:
      UserError: a setting or text is wrong, or a network is missing.
    """
    alphas = checks.numbers("alpha", config.alpha)
    _refuse_to_save(config, len(texts.texts))
    problem = stylemc.official(config, loaded.generator.config.style_layout)
    preprocess = optimization.PREPROCESSINGS[config.clip_preprocess]
    terms = objectives.extend(problem.objective, config.objective, preprocess)
    problem = problem._replace(objective=terms)
    features = editors.encode(loaded, texts)
    neutral = editors.encode_neutral(loaded, texts, config)
    networks, source = _draw_faces(loaded, config, problem)
    return _edit_along(
        loaded,
        _learn(loaded, config, problem, networks, source, features, neutral),
        alphas,
        config,
        method="stylemc",
        title=texts.title,
        settings=texts.name_settings([[{"alpha": a} for a in alphas]] * len(features)),
        record=dataclasses.asdict(config) | editors.record_prompts(texts),
        inputs=texts.inputs | objectives.inputs(config.objective),
        about=editors.describe(loaded, texts),
    )


def learn_by_image(loaded: Loaded, texts: None, config: EssenceSettings) -> Editor:
    """Editor of the essence of an image.

    Raises:
      UserError: a setting is wrong, or the image cannot be read.
    """
    alphas = checks.numbers("alpha", config.alpha)
    problem = essence.official(config, loaded.generator.config.style_layout)
    target, hashed = _read_target(loaded, config, problem)
    networks, source = _draw_faces(loaded, config, problem)
    target = parallel.replicate(target, _mesh(loaded))
    encode = jax.jit(functools.partial(essence.encode, config=config))
    features, faces = (encode(networks.clip, x) for x in (target, source.image))
    neutral = jnp.mean(faces, axis=0)
    return _edit_along(
        loaded,
        _learn(loaded, config, problem, networks, source, features, neutral),
        alphas,
        config,
        method="essence",
        title=f"the essence of {pathlib.Path(str(config.target)).name}",
        settings=[{"alpha": alpha} for alpha in alphas],
        record=dataclasses.asdict(config),
        inputs={"target": hashed},
        about=[
            loaded.models.describe_clip(networks.clip),
            f"target: {config.target}",
        ],
    )


def _edit_along(
    loaded: Loaded,
    directions: Sequence[Direction],
    alphas: Sequence[float],
    config: StyleMCSettings | EssenceSettings,
    **about: Any,
) -> Editor:
    """Editor of directions with each of their strengths; a single one is saved."""
    if config.save_direction is not None:
        direction_files.write_direction(
            config.save_direction,
            np.asarray(directions[0].delta),
            layout=directions[0].layout,
            generator=loaded.models.generator_origin(),
            about={"method": about["method"], "title": about["title"]},
        )
    names = ["clip", *(["identity"] if config.id_lambda else [])]
    about["inputs"] |= loaded.models.fingerprints(*names)
    weights = [(one, jnp.float32(alpha)) for one in directions for alpha in alphas]
    return directing.move_along(loaded, weights, **about)


def _refuse_to_save(config: StyleMCSettings, count: int) -> None:
    """Refuses to save several directions in one file."""
    if config.save_direction is not None and count > 1:
        raise UserError(
            f"save_direction: expected one prompt, found {count}",
            field="save_direction",
        )


def _mesh(loaded: Loaded) -> jax.sharding.Mesh:
    """Mesh of the one device that directions are learned on."""
    return parallel.make_mesh([loaded.mesh.local_devices[0]])


def _draw_faces(
    loaded: Loaded, config: stylemc.StyleMCConfig, problem: stylemc.Problem
) -> tuple[losses.Networks, losses.Source]:
    """Networks that directions are learned through, and the random faces.

    Raises:
      UserError: there is no network for the identity.
    """
    loaded.models.require_identity(config.id_lambda)
    mesh, (model, _) = _mesh(loaded), loaded.clip()
    identity = loaded.identity() if config.id_lambda else None
    networks = losses.Networks(loaded.generator, model, identity)
    shape = (config.num_samples, loaded.generator.config.z_dim)
    z = np.random.RandomState(config.seed).randn(*shape).astype(np.float32)
    networks, z, label = parallel.replicate((networks, z, loaded.label), mesh)
    styles = latents.convert(
        networks.generator,
        z,
        space="z",
        truncation_psi=_PSI,
        cutoff=None,
        to="s",
        label=label,
    )
    describe = jax.jit(functools.partial(stylemc.describe, problem=problem))
    return networks, describe(networks, styles)


def _learn(
    loaded: Loaded,
    config: stylemc.StyleMCConfig,
    problem: stylemc.Problem,
    networks: losses.Networks,
    source: losses.Source,
    features: jax.Array,
    neutral: jax.Array | None,
) -> list[Direction]:
    """Directions towards features [T, E], learned from the same faces.

    Raises:
      UserError: a step is not finite.
    """
    mesh = _mesh(loaded)
    features, neutral, start = parallel.replicate(
        (features, neutral, stylemc.start(problem=problem)), mesh
    )
    stride = parallel.steps_per_call(problem.steps, parallel.over_batch(mesh))

    @jax.jit
    def step(inputs: Any, state: stylemc.State) -> stylemc.State:
        def one(_: int, state: stylemc.State) -> stylemc.State:
            networks, faces = inputs
            return stylemc.step(networks, faces, state, problem=problem)

        if stride == 1:
            return one(0, state)
        return jax.lax.fori_loop(0, stride, one, state)

    faces = [stylemc.Faces(source, feature, neutral) for feature in features]
    with loaded.listener.bar(1, "trial step") as report:
        jax.block_until_ready(step((networks, faces[0]), start))
        report(1)
    calls = problem.steps / stride
    seconds = calls * progress.measure(lambda: step((networks, faces[0]), start))
    loaded.listener.tell(
        f"learning: {problem.steps} steps on {config.num_samples} faces at "
        f"{problem.resolution}², about {seconds:.0f} s per direction"
    )
    found = []
    with loaded.listener.bar(problem.steps * len(faces), "step") as report:
        for each in faces:
            state = progress.take_steps(
                step, (networks, each), start, problem.steps, report, stride=stride
            )
            if int(state.failed_at) >= 0:
                raise UserError(
                    f"learning_rate: step {int(state.failed_at)} of learning was not "
                    f"finite, expected a smaller one, found {config.learning_rate:g}",
                    field="learning_rate",
                )
            found.append(state.direction)
    return found


def _read_target(
    loaded: Loaded, config: EssenceSettings, problem: stylemc.Problem
) -> tuple[jax.Array, str]:
    """Image [1, H, W, 3] at the problem's resolution, and the hash of its file.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    if not config.target:
        raise UserError(
            "target: expected an image whose essence faces take on, found none",
            field="target",
        )
    path, row = _row_of(config.target)
    if row is not None:
        styles = _read_row(loaded, path, row)
        networks = losses.Networks(loaded.generator, loaded.clip()[0])
        describe = jax.jit(functools.partial(stylemc.describe, problem=problem))
        return describe(networks, styles).image, latent_files.hash_source(path)
    size = loaded.generator.config.size_at(problem.resolution)
    if config.align_target:
        loaded.generator.config.expect_square("align_target")
    _, cut = finding.cut_all(
        [path],
        is_aligned=not config.align_target,
        resolution=size,
        encoded_size=None,
    )
    return cut.target, files.hash_file(path)


def _row_of(target: str) -> tuple[pathlib.Path, int | None]:
    """File of a target, and its row if the file is one of latents."""
    before, _, after = target.rpartition(":")
    path, row = (before, int(after)) if before and after.isdecimal() else (target, 0)
    if not latent_files.is_latents(path):
        return pathlib.Path(target), None
    return pathlib.Path(path), row


def _read_row(loaded: Loaded, path: pathlib.Path, row: int) -> Any:
    """Styles [1, C] of a row of a file of latents.

    Raises:
      UserError: the file has no such row, or does not fit the generator.
    """
    config = loaded.generator.config
    found = latent_files.read(path, config, None)
    if row >= len(found.array):
        raise UserError(
            f"target: expected a row below {len(found.array)} of {path}, found {row}",
            field="target",
        )
    source = LatentSource(
        found.space,
        range(len(found.array)),
        found.array,
        config.style_layout,
        config.z_dim,
    )
    batch = source.load(np.array([row]))
    return source.convert(loaded.generator, batch, to="s", label=loaded.label)
