"""Prompts of an edit: one text or those of a file, and their titles for people."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from styleclip_jax.errors import UserError
from styleclip_jax.io import files, text_files
from styleclip_jax.progress import ignore
from styleclip_jax.settings.edits import PromptRequest

# Number of prompts that are printed.
_NUM_SHOWN = 8


class Weighted(NamedTuple):
    """Text beside the prompts, with its weight: below zero to edit away from it.

    Attributes:
      text: the text.
      weight: its weight beside that of the prompt, which is 1.
    """

    text: str
    weight: float

    def __str__(self) -> str:
        number = abs(self.weight)
        factor = "" if number == 1 else f"{number:g} "
        return f"{'-' if self.weight < 0 else '+'} {factor}{self.text}"


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Prompts: texts to edit towards.

    Attributes:
      texts: one text or several.
      file: file that the texts are from, None without a file.
      beside: texts that go along with each.
    """

    texts: tuple[str, ...]
    file: str | None = None
    beside: tuple[Weighted, ...] = ()

    @classmethod
    def of(
        cls,
        prompt: str | Sequence[str],
        also: str | Sequence[str] | None = None,
        avoid: str | Sequence[str] | None = None,
    ) -> "Prompts":
        """Prompts of a text, or of several, cleaned; see `PromptRequest` for the rest.

        Raises:
          UserError: one of them shows nothing, or a weight is not above 0.
        """
        given = (prompt,) if isinstance(prompt, str) else prompt
        texts = tuple(text_files.require("prompt", text) for text in given)
        return cls(texts, beside=_beside(also, avoid))

    @property
    def total(self) -> float:
        """Sum of the weights, where a prompt has 1."""
        return 1 + sum(text.weight for text in self.beside)

    @property
    def named(self) -> bool:
        """Whether results name their prompt."""
        return self.file is not None or len(self.texts) > 1

    @property
    def title(self) -> str:
        """Title of an edit with these prompts."""
        return " ".join([title(self.texts), *map(str, self.beside)])

    @property
    def inputs(self) -> dict[str, str]:
        """Hash of the file of prompts; empty without one."""
        return {} if self.file is None else {"prompts_file": files.hash_file(self.file)}

    def name_settings(
        self, settings: Sequence[Sequence[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Settings of each prompt in turn, with the texts where results name them."""
        beside = {"beside": [str(x) for x in self.beside]} if self.beside else {}
        return [
            ({"prompt": prompt} if self.named else {}) | beside | setting
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
    beside = _beside(request.also, request.avoid)
    if path is None:
        prompt = text_files.require("prompt", request.prompt)
        return Prompts((prompt,), beside=beside)
    if request.prompt is not None:
        raise UserError(
            "prompt and prompts_file: expected one, found both",
            field="prompt",
            also=["prompts_file"],
        )
    texts = tuple(text_files.read_lines(path, "prompts", tell=tell))
    return Prompts(texts, path, beside)


def title(prompts: Sequence[str]) -> str:
    """Title of prompts: the only one, or their number."""
    return prompts[0] if len(prompts) == 1 else f"{len(prompts)} prompts"


def _beside(
    also: str | Sequence[str] | None, avoid: str | Sequence[str] | None
) -> tuple[Weighted, ...]:
    """Texts beside the prompts, with signed weights."""
    found = []
    for field, sign, given in (("also", 1, also), ("avoid", -1, avoid)):
        for entry in (given,) if isinstance(given, str) else given or ():
            text, weight = text_files.split_weight(entry)
            if weight is not None and weight <= 0:
                raise UserError(
                    f"{field}: expected a weight above 0, found {entry!r}", field=field
                )
            weight = sign * (1.0 if weight is None else weight)
            found.append(Weighted(text_files.require(field, text), weight))
    return tuple(found)


def shorten(lines: Sequence[str], start: str) -> list[str]:
    """First lines, and how many more there are."""
    more = len(lines) - _NUM_SHOWN
    shown = [start + line for line in lines[:_NUM_SHOWN]]
    return [*shown, f"{start}{more} more"] if more > 0 else shown
