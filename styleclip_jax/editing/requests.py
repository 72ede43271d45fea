"""Requests for edits: all that one run of styleclip-edit needs, and its execution."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from styleclip_jax.batch import edits, runs
from styleclip_jax.batch.editor import Editor
from styleclip_jax.batch.source import LatentSource, SourceRequest
from styleclip_jax.editing import export, registry
from styleclip_jax.editing.export import ExportRequest
from styleclip_jax.editing.prompts import Prompts
from styleclip_jax.editing.session import Session
from styleclip_jax.errors import UserError
from styleclip_jax.loading import Models
from styleclip_jax.progress import Listener


@dataclasses.dataclass(frozen=True)
class EditRequest:
    """Request for edits of the latents of a source by one method.

    Attributes:
      models: names of the networks.
      source: source of the latents.
      method: name of the method, see `registry.find`.
      prompts: prompts, None where the method reads none.
      config: settings of the method.
      output: files to write.
      extras: additional files of each edit.
      export: program to write instead of edits.
      settings: all of this by the names of the flags, for run.json.
      tuned: folder of tuned generators, see `TunedSettings`.
    """

    models: Models
    source: SourceRequest
    method: str
    prompts: Prompts | None
    config: Any
    output: runs.Output
    extras: edits.Extras
    export: ExportRequest
    settings: Mapping[str, Any]
    tuned: str | None = None


def carry_out(request: EditRequest, listener: Listener) -> runs.Summary | None:
    """Makes every edit of a request that is missing.

    Args:
      request: latents, and how they are edited.
      listener: listener for the progress.

    Returns:
      Summary of the run; None where a program was written instead.

    Raises:
      UserError: something asked for is wrong or does not fit.
    """
    session = Session(request.models, listener=listener)
    generator, _ = session.generator, session.label
    editor = registry.make_editor(
        session.loaded, request.method, request.prompts, request.config
    )
    if request.export.export is not None:
        for line in export.write(request.export, editor, generator):
            listener.tell(line)
        return None
    source = _open(request, session, editor)
    generators = edits.open_generators(
        session, editor, request.tuned, request.source.latents, len(source)
    )
    listener.tell(request.models.describe_generator(generator.config))
    for line in editor.about:
        listener.tell(line)
    *notes, last = source.describe()
    for line in (*notes, f"{last}, edited in {editor.space}"):
        listener.tell(line)
    return edits.carry_out(
        session,
        editor,
        source,
        latents_file=request.source.latents,
        generators=generators,
        output=request.output,
        extras=request.extras,
        settings={**request.settings, **request.models.record()},
        listener=listener,
    )


def _open(request: EditRequest, session: Session, editor: Editor) -> LatentSource:
    """Opens the source of the latents, in a space that the editor takes."""
    asked, config = request.source, session.generator.config
    if editor.from_average:
        if asked.latents is not None or asked.seeds is not None:
            raise UserError(
                "mode: free_generation starts at the average latent, expected "
                "neither latents nor seeds",
                field="mode",
                also=["latents", "seeds"],
            )
        w_avg = np.asarray(session.generator.params["mapping"]["w_avg"])[None]
        layout = config.style_layout
        return LatentSource("w", range(1), w_avg, layout, config.z_dim)
    source = asked.open(config, default_seeds="0-7")
    if source.space == "s" and editor.space != "s":
        wanted = f"latents in {editor.space}, which the {request.method} edits"
        if hasattr(request.config, "space"):
            wanted = "space=s with it"
        raise UserError(
            f"latents: {asked.latents} is in s, expected {wanted}",
            field="latents",
            also=["space"],
        )
    return source
