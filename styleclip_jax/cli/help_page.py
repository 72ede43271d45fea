"""Help page of a program: its words, and all of its flags in sections."""

import re
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

from absl import flags

# Sections, in the order of the page.
FILES, MODELS, PHOTOS, LATENTS = "Files", "Models", "Photos", "Latents"
EDIT, TRAINING, MEASURES, PAGE = "Edit", "Training", "Measures", "Page"
OUTPUT, DEVICES, FURTHER = "Output", "Devices", "Further"
_SECTIONS = (
    *(FILES, MODELS, PHOTOS, LATENTS, EDIT, TRAINING, MEASURES, PAGE),
    *(OUTPUT, DEVICES, FURTHER),
)

# Sections of dataclasses, or their bases, by name; all others, such as a method's, are
# of edits.
_OF_CLASS = {
    "ModelSettings": MODELS,
    "GeneratorSettings": MODELS,
    "ClipSettings": MODELS,
    "EncoderSettings": MODELS,
    "PhotoRequest": PHOTOS,
    "SourceSettings": LATENTS,
    "TunedSettings": LATENTS,
    "DataRequest": LATENTS,
    "ArrangementSettings": LATENTS,
    "Architecture": TRAINING,
    "ArchitectureSettings": TRAINING,
    "TrainingConfig": TRAINING,
    "RunConfig": TRAINING,
    "ImageDataSettings": TRAINING,
    "RecipeSettings": TRAINING,
    "GanRunConfig": TRAINING,
    "RelevanceConfig": MEASURES,
    "EvaluationRequest": MEASURES,
    "MetricsSettings": MEASURES,
    "Content": OUTPUT,
    "Output": OUTPUT,
    "Extras": OUTPUT,
    "ExportRequest": OUTPUT,
    "MeasureSettings": OUTPUT,
    "PictureRequest": OUTPUT,
    "Hosts": PAGE,
    "Limits": PAGE,
}
# Sections of fields that mean the same in every dataclass.
_OF_FIELD = {
    **dict.fromkeys(("outdir", "output", "workdir", "grid"), OUTPUT),
    **dict.fromkeys(("film_format", "film_frames"), OUTPUT),
    **dict.fromkeys(("batch_size", "precision", "dtype", "remat"), DEVICES),
    **dict.fromkeys(("low_precision_from", "clip_precision", "clip_dtype"), DEVICES),
    "class_": LATENTS,
    "seeds": LATENTS,
}
# Flags of absl, and those that the runner itself answers.
_FURTHER = {
    "--help": "This page.",
    "--version": "Version of the program.",
    "--flagfile=FILE": "File of further flags, one a line as they are typed here.",
}
# Widest line of the page.
_WIDTH = 88


def section_of(config_type: type, field: str) -> str:
    """Section of the flag of a field."""
    names = [part.__name__ for part in config_type.__mro__]
    kind = next((_OF_CLASS[name] for name in names if name in _OF_CLASS), EDIT)
    return _OF_FIELD.get(field, kind)


def render(document: str, values: flags.FlagValues) -> str:
    """The page.

    Args:
      document: what the program is, with examples.
      values: its flags, of which the module is the section.
    """
    entries: dict[str, list[str]] = {name: [] for name in _SECTIONS}
    for module, defined in values.flags_by_module_dict().items():
        for flag in defined:
            # A flag that a program defines by itself has that program as its module.
            own = _OF_FIELD.get(flag.name, EDIT)
            section = module if module in entries else own
            entries[section].append(_entry(_head(flag), _text(flag)))
    entries[FURTHER] += [_entry(head, text) for head, text in _FURTHER.items()]
    sections = ["\n".join([f"{name}:", *x]) for name, x in entries.items() if x]
    return "\n\n".join([document.strip("\n"), *sections])


def _head(flag: flags.Flag[Any]) -> str:
    """How a flag is typed."""
    if flag.boolean:
        return f"--[no]{flag.name}"
    if isinstance(flag, flags.EnumFlag):
        choices: Sequence[str] = flag.parser.enum_values
        return f"--{flag.name}={'|'.join(choices)}"
    if isinstance(flag, flags.MultiFlag):
        return f"--{flag.name}=… (may be repeated)"
    if isinstance(flag.parser, flags.ListParser):
        return f"--{flag.name}=…,…"
    return f"--{flag.name}=…"


def _text(flag: flags.Flag[Any]) -> str:
    """What a flag is, and its default."""
    text = " ".join((flag.help or "").split())
    # What absl adds, which the head of the entry has.
    text = text.removesuffix("; repeat this option to specify a list of values")
    if isinstance(flag, flags.EnumFlag):
        text = text.partition(">: ")[2]
    text = text[:1].upper() + text[1:].rstrip(".")
    if flag.default is None or flag.default is False:
        return text if text.endswith(")") else f"{text}."
    return f"{text}. (default: {show(flag.default)})"


def show(default: Any) -> str:
    """A default as it is typed."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, list | tuple):
        return ",".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def _entry(head: str, text: str) -> str:
    """A flag and its text, broken into lines as wide as the terminal."""
    width = min(_WIDTH, max(40, shutil.get_terminal_size((_WIDTH, 24)).columns - 1))
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=" " * 6,
        subsequent_indent=" " * 6,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return "\n".join([*_typed(head, width), *lines])


def _typed(head: str, width: int) -> list[str]:
    """Lines of a flag as it is typed, broken between its choices."""
    lines = ["  "]
    for part in re.split(r"(?<=\|)", head):
        if len(lines[-1] + part) > width:
            lines.append(" " * 8)
        lines[-1] += part
    return lines
