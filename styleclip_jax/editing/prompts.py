"""Prompts of a work: one text, or those of a file; and how they are told to people."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from styleclip_jax.errors import UserError
from styleclip_jax.io import files

# Prompts that are printed.
_NUM_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class PromptRequest:
    """Texts to edit towards.

    Attributes:
      prompt: Text to edit towards.
      prompts_file: File of prompts, one a line; every latent gets each.
    """

    prompt: str | None = None
    prompts_file: str | None = None


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Texts to edit towards.

    Attributes:
      texts: one or several.
      file: that they are from, None for a single text.
    """

    texts: tuple[str, ...]
    file: str | None = None

    @classmethod
    def of(cls, prompt: str | Sequence[str]) -> "Prompts":
        """A text, or several."""
        return cls((prompt,) if isinstance(prompt, str) else tuple(prompt))

    @property
    def named(self) -> bool:
        """Whether results say which prompt they are of."""
        return self.file is not None or len(self.texts) > 1

    @property
    def title(self) -> str:
        """What an edit with these prompts leads to."""
        return title(self.texts)

    @property
    def inputs(self) -> dict[str, str]:
        """Hash of the file."""
        return {} if self.file is None else {"prompts_file": files.hash_file(self.file)}

    def name_settings(
        self, settings: Sequence[Sequence[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Settings of each prompt in turn, named where there are several."""
        return [
            {"prompt": prompt} | setting if self.named else setting
            for prompt, group in zip(self.texts, settings, strict=True)
            for setting in group
        ]


def read(request: PromptRequest) -> Prompts:
    """The prompts that are asked for.

    Raises:
      UserError: there is neither or both, or one is empty, broken or twice there.
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
    """A text without blanks around it.

    Args:
      field: that it is the value of.
      value: as it was given.

    Raises:
      UserError: it is missing or empty.
    """
    stripped = (value or "").strip()
    if not stripped:
        raise UserError(f"{field}: expected a text, found {value!r}", field=field)
    return stripped


def title(texts: Sequence[str]) -> str:
    """A text alone, or the number of them."""
    return texts[0] if len(texts) == 1 else f"{len(texts)} prompts"


def shorten(lines: Sequence[str], start: str) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - _NUM_SHOWN
    shown = [start + line for line in lines[:_NUM_SHOWN]]
    return [*shown, f"{start}{more} more"] if more > 0 else shown
