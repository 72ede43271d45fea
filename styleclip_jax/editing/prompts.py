"""Prompts of an edit: one text or those of a file, and their titles for people."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from styleclip_jax.errors import UserError
from styleclip_jax.io import files, text_files
from styleclip_jax.progress import ignore

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
        """Prompts of a text, or of several, cleaned.

        Raises:
          UserError: one of them shows nothing.
        """
        given = (prompt,) if isinstance(prompt, str) else prompt
        return cls(tuple(text_files.require("prompt", text) for text in given))

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


def read(request: PromptRequest, *, tell: Callable[[str], None] = ignore) -> Prompts:
    """Reads the prompts that are asked for.

    Args:
      request: the text, or the file of them.
      tell: is given a line if the file is in another encoding than UTF-8.

    Raises:
      UserError: there is neither a prompt nor a file, or both, or a prompt is empty,
        broken or twice there.
    """
    path = request.prompts_file
    if path is None:
        return Prompts((text_files.require("prompt", request.prompt),))
    if request.prompt is not None:
        raise UserError(
            "prompt and prompts_file: expected one, found both",
            field="prompt",
            also=["prompts_file"],
        )
    return Prompts(tuple(text_files.read_lines(path, "prompts", tell=tell)), path)


def title(prompts: Sequence[str]) -> str:
    """Title of prompts: the only one, or their number."""
    return prompts[0] if len(prompts) == 1 else f"{len(prompts)} prompts"


def shorten(lines: Sequence[str], start: str) -> list[str]:
    """First lines, and how many more there are."""
    more = len(lines) - _NUM_SHOWN
    shown = [start + line for line in lines[:_NUM_SHOWN]]
    return [*shown, f"{start}{more} more"] if more > 0 else shown
