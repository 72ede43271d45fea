"""Values of the page's controls, which programs other than the page may send too."""

import errno
import pathlib
import sys
from typing import Any

import gradio as gr

from styleclip_jax import errors
from styleclip_jax.app import storage
from styleclip_jax.errors import UserError

# Letters of a text, far more than CLIP reads, and of a value in a message.
_LONGEST_TEXT, _LONGEST_SHOWN = 2000, 40
# Photos of an upload.
MOST_UPLOADS = 8
# Letters of a line for people.
_LONGEST_LINE = 200


class Page(gr.Blocks):
    """Blocks that answer a wrong value with one line, and log one line."""

    async def process_api(
        self, block_fn: Any, inputs: Any, state: Any = None, *args: Any, **others: Any
    ) -> Any:
        """Outputs of an event.

        Raises:
          gr.Error: it was refused, with a line on why.
        """
        try:
            event = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
            if len(inputs) != len(event.inputs):
                raise UserError(
                    f"inputs: expected {len(event.inputs)} values, found {len(inputs)}"
                )
            for component, value in zip(event.inputs, inputs, strict=True):
                known = state is not None and component._id in state
                check(state[component._id] if known else component, value)
            try:
                return await super().process_api(
                    block_fn, inputs, state, *args, **others
                )
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise UserError(storage.FULL) from None
        except (UserError, gr.Error) as error:
            text = error.message if isinstance(error, gr.Error) else str(error)
            line = errors.printable(" ".join(str(text).split()))
            line = errors.cut(line, _LONGEST_LINE)
            print(f"refused: {line}", file=sys.stderr)
            raise gr.Error(line, print_exception=False) from None


def check(component: Any, value: Any) -> None:
    """Checks a value that was sent for a control.

    Raises:
      UserError: the page itself cannot send it.
    """
    expected = None
    if isinstance(component, gr.Slider):
        least, most = component.minimum, component.maximum
        if not (_is_number(value) and least <= value <= most):
            expected = f"a number from {least:g} to {most:g}"
    elif isinstance(component, gr.Number):
        if not (value is None or _is_number(value)):
            expected = "a number"
    elif isinstance(component, gr.Checkbox):
        if not isinstance(value, bool):
            expected = "true or false"
    elif isinstance(component, gr.Dropdown):
        choices = [str(x) for _, x in component.choices]
        if not isinstance(value, str) or value not in choices:
            expected = f"one of {', '.join(choices)}"
    elif isinstance(component, gr.Textbox):
        if not (value is None or isinstance(value, str)):
            expected = "a text"
        elif value and len(value) > _LONGEST_TEXT:
            expected = f"a text of {_LONGEST_TEXT} letters at most"
    elif isinstance(component, gr.UploadButton):
        several = component.file_count == "multiple"
        found = value if several else [value]
        if not (
            isinstance(found, list) and all(_is_upload(component, x) for x in found)
        ):
            expected = "an uploaded file"
        elif not 1 <= len(found) <= MOST_UPLOADS:
            expected = f"1 to {MOST_UPLOADS} files"
    if expected is not None:
        name = component.label or component.value
        raise UserError(f"{name}: expected {expected}, found {_show(value)}")


def index_of(event: gr.EventData, count: int) -> int:
    """Index of what was selected.

    Raises:
      UserError: there is none of it.
    """
    data = event._data
    index = data.get("index") if isinstance(data, dict) else None
    if type(index) is not int or not 0 <= index < count:
        raise UserError(
            f"index: expected a whole number from 0 to {count - 1}, "
            f"found {_show(index)}"
        )
    return index


def _is_number(value: Any) -> bool:
    """Whether it is a finite number; JSON has whole ones of any size."""
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and abs(value) <= sys.float_info.max


def _is_upload(component: gr.UploadButton, value: Any) -> bool:
    """Whether it is a file that a visitor has uploaded, and that is still there."""
    try:
        found = gr.FileData.model_validate(value, context={"validate_meta": True})
        path = pathlib.Path(found.path).resolve()
    except (OSError, ValueError):
        return False
    folder = pathlib.Path(component.GRADIO_CACHE).resolve()
    return path.is_relative_to(folder) and path.is_file()


def _show(value: Any) -> str:
    return errors.cut(repr(value), _LONGEST_SHOWN)
