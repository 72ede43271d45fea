"""Prompts of an edit: one text or those of a file, and their titles for people."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from styleclip_jax.errors import UserError
from styleclip_jax.io import files

# Number of prompts that are printed.
_NUM_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class PromptRequest:
    """Request for prompts: one text, or a file of texts.

    Attributes:
      prompt: Text to edit towards.
      prompts_file: File of prompts, one a line; each latent is edited towards every
        one of them.
    """

    prompt: str | None = None
    prompts_file: str | None = None


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Prompts: texts to edit towards.

    Attributes:
      texts: one text or several.
      file: file that the texts are from, None without a file.
    """

    texts: tuple[str, ...]
    file: str | None = None

    @classmethod
    def of(cls, prompt: str | Sequence[str]) -> "Prompts":
        """Prompts of a text, or of several."""
        return cls((prompt,) if isinstance(prompt, str) else tuple(prompt))

    @property
    def named(self) -> bool:
        """Whether results name their prompt."""
        return self.file is not None or len(self.texts) > 1

    @property
    def title(self) -> str:
        """Title of an edit with these prompts."""
        return title(self.texts)

    @property
    def inputs(self) -> dict[str, str]:
        """Hash of the file of prompts; empty without one."""
        return {} if self.file is None else {"prompts_file": files.hash_file(self.file)}

    def name_settings(
        self, settings: Sequence[Sequence[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Settings of each prompt in turn, with the prompt where results name it."""
        return [
            {"prompt": prompt} | setting if self.named else setting
            for prompt, group in zip(self.texts, settings, strict=True)
            for setting in group
        ]


def read(request: PromptRequest) -> Prompts:
    """Reads the prompts that are asked for.

    Raises:
      UserError: there is neither a prompt nor a file, or both, or a prompt is empty,
        broken or twice there.
    """
    path = request.prompts_file
    if path is None:
        return Prompts((text("prompt", request.prompt),))
    if request.prompt is not None:
        raise UserError(
            "prompt and prompts_file: expected one, found both",
            field="prompt",
            also=["prompts_file"],
        )
    found = files.read_lines(path, "prompts")
    twice = [prompt for prompt in found if found.count(prompt) > 1]
    if twice or not found:
        what = f"{twice[0]!r} twice" if twice else "none"
        raise UserError(f"{path}: expected different prompts, one a line, found {what}")
    return Prompts(tuple(found), path)


def text(field: str, value: str | None) -> str:
    """Text without blanks around it.

    Args:
      field: name of the field that holds the text.
      value: text as it was given.

    Raises:
      UserError: the text is missing or empty.
    """
    stripped = (value or "").strip()
    if not stripped:
        raise UserError(f"{field}: expected a text, found {value!r}", field=field)
    return stripped


def title(texts: Sequence[str]) -> str:
    """Title of texts: the only one, or their number."""
    return texts[0] if len(texts) == 1 else f"{len(texts)} prompts"


def shorten(lines: Sequence[str], start: str) -> list[str]:
    """First lines, and how many more there are."""
    more = len(lines) - _NUM_SHOWN
    shown = [start + line for line in lines[:_NUM_SHOWN]]
    return [*shown, f"{start}{more} more"] if more > 0 else shown
