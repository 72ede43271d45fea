"""Files of a training: networks, sheets, metrics, checkpoints."""

import contextlib
import errno
import importlib.util
import logging
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from styleclip_jax import documents
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, images
from styleclip_jax.methods.training import State
from styleclip_jax.progress import Listener, ignore

from .trainer import Best, Trainer, no_best

_NUM_KEPT = 2
# First words of errors of Orbax and TensorStore where files were removed meanwhile.
_GONE = ("NOT_FOUND", "Save failed", "Checkpoint directory does not exist")


class Results(NamedTuple):
    """Networks that a run makes, M of them.

    Attributes:
      kind: what they are called, such as mapper.
      prompts: text of each; None where a network is for no prompt.
      rows: labels of the rows of a sheet.
      save: (folder, index, parameters, about the training) writes one.
    """

    kind: str
    prompts: Sequence[str | None]
    rows: Sequence[str]
    save: Callable[[pathlib.Path, int, Any, dict[str, float]], None]


class Folder:
    """Files of a run; only the first process writes any."""

    def __init__(
        self,
        path: pathlib.Path,
        results: Results,
        batch_size: int,
        listener: Listener,
    ) -> None:
        """Writes nothing yet.

        Args:
          path: folder of the run.
          results: networks that it makes.
          batch_size: latents per step.
          listener: is told where the results are.
        """
        self.primary = jax.process_index() == 0
        self.path, self._results = path, results
        self._batch_size, self._listener = batch_size, listener
        self._names = folder_names(results.prompts)
        self._metrics: Metrics | None = None

    def begin(self, start: int) -> None:
        """Opens the metrics of a run with so many steps done."""
        if self.primary:
            tell = self._listener.tell
            self._metrics = Metrics(self.path, self._results.prompts, start, tell)
            if start:
                self._listener.tell(f"resumed: {start} steps are done")

    def write_terms(self, step: int, split: str, terms: dict[str, Any]) -> None:
        """Adds losses to the metrics."""
        if self._metrics is not None:
            self._metrics.write(step, split, terms)

    def write_networks(self, name: str, best: Best, which: Sequence[int]) -> None:
        """Writes some of the networks into the folder best or last."""
        if not self.primary:
            return
        for i in which:
            training: dict[str, float] = {"step": int(best.step[i])}
            if np.isfinite(best.loss[i]):
                training["validation_loss"] = float(best.loss[i])
            params = jax.tree.map(lambda x, i=i: x[i], best.params)
            self._results.save(self.path / name / self._names[i], i, params, training)

    def write_sheet(self, step: int, trainer: Trainer, params: Any, count: int) -> None:
        """Writes a sheet of latents held out and their edits."""
        if not self.primary:
            return
        sheet = images.grid(
            trainer.render(params, count),
            row_labels=list(self._results.rows),
            title=f"step {step}",
        )
        images.save_sheet(self.path / "sheets" / f"step_{step:06d}.png", sheet)

    def describe_failures(self, state: State, checkpoint: str) -> list[str]:
        """Lines on the losses that were not finite."""
        return [
            f"failed: the loss{'' if prompt is None else f' for {prompt!r}'} was not "
            f"finite at step {int(step) + 1}; last good checkpoint: {checkpoint}"
            for prompt, step in zip(self._results.prompts, state.failed_at, strict=True)
            if step >= 0
        ]

    def finish(self, state: State, best: Best, steps: int, seconds: float) -> None:
        """Writes the last networks and tells where everything is."""
        last = no_best(jax.device_get(state))
        self.write_networks("last", last, range(len(self._names)))
        if not self.primary:
            return
        if steps > 0:
            made = steps * self._batch_size * len(self._names)
            self._listener.tell(
                f"trained: {steps} steps in {seconds:.1f} s after the first, "
                f"{steps / seconds:.2f} steps/s, {made / seconds:.1f} images/s"
            )
        for i, name in enumerate(self._names):
            self._listener.tell(
                f"{self._results.kind}: {self.path / 'best' / name}, validation loss "
                f"{best.loss[i]:.4f} at step {best.step[i]}"
            )


def folder_names(prompts: Sequence[str | None]) -> list[str]:
    """Names for the folders of prompts, all different; empty where there is none."""
    names: list[str] = []
    for prompt in prompts:
        if prompt is None:
            names.append("")
            continue
        name = re.sub(r"\W+", "-", prompt.lower()).strip("-")[:60] or "prompt"
        taken = sum(other == name for other in names)
        names.append(f"{name}-{len(names)}" if taken else name)
    return names


class Checkpoints:
    """States of a run under `checkpoints/`, of which the last ones are kept."""

    def __init__(self, workdir: pathlib.Path) -> None:
        self._directory = (workdir / "checkpoints").absolute()
        # What killed runs were writing is removed.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_NUM_KEPT, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def restore(self, template: Any) -> tuple[int, Any]:
        """Steps done and the last state, or 0 and the template if there is none.

        Raises:
          UserError: the last checkpoint is damaged.
        """
        with self._writing():
            # A kill may have come before those that are not kept were removed.
            for step in sorted(self._manager.all_steps())[:-_NUM_KEPT]:
                self._manager.delete(step)
        step = self._manager.latest_step()
        if step is None:
            return 0, template
        arguments = ocp.args.StandardRestore(jax.device_get(template))
        try:
            return step, self._manager.restore(step, args=arguments)
        except Exception as error:  # Orbax and TensorStore raise errors of many kinds.
            raise UserError(
                f"{self._directory / str(step)}: not a readable checkpoint "
                f"({type(error).__name__}: {str(error)[:100]}); remove this folder to "
                "go on from the one before"
            ) from error

    def save(self, step: int, state: Any) -> None:
        """Writes a state in the background."""
        host = jax.device_get(state)
        with self._writing():
            self._manager.save(step, args=ocp.args.StandardSave(host))

    def last(self) -> str:
        """Path of the last checkpoint, or "none"."""
        with self._writing():
            self._manager.wait_until_finished()
        step = self._manager.latest_step()
        return "none" if step is None else str(self._directory / str(step))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Context in which errors of writing a checkpoint are one line."""
        with files.writable(self._directory):
            try:
                yield
            except ValueError as error:
                # TensorStore has one kind of error, whose text says what the disk did.
                found = re.search(r"os_error_code='(\d+)'", str(error))
                is_gone = not self._directory.is_dir()
                if found is None and not (is_gone or str(error).startswith(_GONE)):
                    raise
                code = errno.ENOENT if found is None else int(found[1])
                raise OSError(code, os.strerror(code)) from error

    def __enter__(self) -> Self:
        # Orbax logs tracebacks of errors that it raises too.
        logger = logging.getLogger("absl")
        self._level = logger.level
        logger.setLevel(logging.CRITICAL)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._pass_over_late
        self._unsynced = contextlib.ExitStack()
        with files.writable(self._directory):
            if not files.sync_folder(self._directory.parent):
                self._unsynced.enter_context(_without_sync())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # What goes wrong after an error is no news.
            ignored = (UserError,) if error else ()
            with contextlib.suppress(*ignored), self._writing():
                self._manager.close()
        finally:
            self._unsynced.close()
            sys.unraisablehook = self._hook
            logging.getLogger("absl").setLevel(self._level)

    def _pass_over_late(self, found: Any) -> None:
        """Passes over arrays that end after the first error of a checkpoint.

        It has ended the event loop that TensorStore tells of them, and is raised.
        """
        if str(found.exc_value) != "Event loop is closed":
            self._hook(found)


@contextlib.contextmanager
def _without_sync() -> Iterator[None]:
    """Context in which checkpoints are not synced, for file systems that cannot.

    TensorStore would fail there. Orbax has no setting for it, so what it gives to
    TensorStore is changed meanwhile; of an Orbax that gives something else the error of
    the file system is told.
    """
    module = sys.modules.get("orbax.checkpoint._src.serialization.tensorstore_utils")
    names = ("_BASE_TS_CONTEXT", "_DEFAULT_OCDBT_TS_CONTEXT")
    found = [getattr(module, name) for name in names if hasattr(module, name)]
    for context in found:
        context["file_io_sync"] = False
    try:
        yield
    finally:
        for context in found:
            del context["file_io_sync"]


class Metrics:
    """Metrics: `metrics.jsonl`, and events for TensorBoard if it is installed."""

    def __init__(
        self,
        workdir: pathlib.Path,
        prompts: Sequence[str | None],
        start: int,
        tell: Callable[[str], None] = ignore,
    ) -> None:
        """Opens the metrics, without lines after step `start`, which is done again.

        Args:
          workdir: folder of the run.
          prompts: text of each network; None where it is for no prompt.
          start: number of steps done.
          tell: takes a note if lines are damaged, which are left out.
        """
        self._path, self._prompts = workdir / "metrics.jsonl", prompts
        lines = []
        if self._path.exists():
            with self._path.open("rb") as file:
                lines = file.readlines()
        # The last line has no end if it was being written.
        whole = [line for line in lines if line.endswith(b"\n")]
        steps = [documents.whole_number(line, "step") for line in whole]
        if lost := steps.count(None):
            tell(
                f"note: {self._path} is damaged: {lost} of {len(whole)} lines are left "
                "out; the networks do not depend on them"
            )
        pairs = zip(steps, whole, strict=True)
        kept = b"".join(x for step, x in pairs if step is not None and step <= start)
        self._length = len(kept)
        files.write_bytes(self._path, kept)
        self._events = None
        if importlib.util.find_spec("tensorboard") is not None:
            from tensorboard import summary

            self._events = summary.Writer(str(workdir / "tensorboard"))

    def write(self, step: int, split: str, terms: dict[str, np.ndarray]) -> None:
        """Adds the terms [M] of every network.

        Args:
          step: number of steps done.
          split: "training", of the last step, or "validation".
          terms: losses by name.
        """
        text = ""
        for index, prompt in enumerate(self._prompts):
            values = {name: float(value[index]) for name, value in terms.items()}
            named = {} if prompt is None else {"prompt": prompt}
            line = {"step": step, "split": split, **named, **values}
            text += documents.dump(line, ensure_ascii=False) + "\n"
            if self._events is not None:
                for name, value in values.items():
                    tag = "/".join([split, name, *named.values()])
                    self._events.add_scalar(tag, value, step)
        content = text.encode()
        files.append(self._path, self._length, content)
        self._length += len(content)
        if self._events is not None:
            self._events.flush()
