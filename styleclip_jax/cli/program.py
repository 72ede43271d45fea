"""Program runner: flags from dataclasses, help, version, one-line errors, caches."""

import contextlib
import dataclasses
import inspect
import math
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from absl import flags

from styleclip_jax import errors
from styleclip_jax.cli import allocator, help_page, processes, signals
from styleclip_jax.errors import UserError
from styleclip_jax.version import __version__

Config = TypeVar("Config")

# Flags of a program and their values.
Values = flags.FlagValues

EXIT_FAILED_ITEMS = 1
EXIT_USER_ERROR = 2
# Exit code as of a program that SIGPIPE ends.
EXIT_UNREAD = 141

# Names of the flags that all programs have, and of that of all with bars.
CACHE, DETERMINISTIC, PROFILE = "compilation_cache", "deterministic", "profile"
# What to say when the memory of a device is full.
_MEMORY = (
    "the memory of a device is full: expected fewer at a time, or smaller networks"
)

# Field, its type and the type of its elements.
_Field = tuple[dataclasses.Field[Any], type, type]
_MISSING = dataclasses.MISSING

_DEFINERS: dict[type, Callable[..., Any]] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
    tuple: flags.DEFINE_list,
}


def define(
    config_type: type,
    values: flags.FlagValues,
    names: Sequence[str] | None = None,
    **defaults: Any,
) -> None:
    """Defines a flag for every field of a dataclass.

    The field is the sole home of the default, and its entry under "Attributes:" in the
    docstring is the help. Its metadata may hold `choices` and `lower_bound`. A tuple is
    a list with commas, or with `repeated` the flag once for each of its texts. The
    field `class_` has the flag `class`.

    Args:
      config_type: the dataclass; fields are str, int, float, bool, tuples of these, or
        None.
      values: where the flags are defined.
      names: fields that get a flag; None for all.
      **defaults: defaults of this program, where they are others than the fields'.
    """
    helps = _attribute_docs(config_type)
    for found in _fields(config_type, names):
        name = found[0].name
        default = _default(found, defaults.get(name, _MISSING))
        section = help_page.section_of(config_type, name)
        _define(found, default, helps[name], values, section)


def define_shared(
    configs: Mapping[str, type],
    values: flags.FlagValues,
    without: Collection[str] = (),
) -> None:
    """Defines the flags of several dataclasses, of which a run builds one.

    Fields of the same name are one flag. Where their defaults or texts differ, the help
    says whose is which. Where the defaults differ, the flag has none, and `build` gives
    each its own.

    Args:
      configs: dataclasses as in `define`, by the names that people know them by.
      values: where the flags are defined.
      without: fields that read a flag which is defined already.

    Raises:
      UserError: a field has no text or a wrong type, or its name is that of another
        flag.
    """
    fields: dict[str, dict[str, _Field]] = {}
    for label, config in configs.items():
        for found in _fields(config, None):
            if found[0].name not in without:
                fields.setdefault(found[0].name, {})[label] = found
    texts = {label: _attribute_docs(config) for label, config in configs.items()}
    for name, owners in fields.items():
        first, *others = owners.values()
        for label, found in owners.items():
            if found[1] not in _DEFINERS or found[1:] != first[1:]:
                kinds = [_describe_kind(x) for x in (first, found)]
                raise UserError(
                    f"{label}: its field {name} is {kinds[1]}, expected "
                    + (kinds[0] if others else "str, int, float, bool or a tuple")
                )
            if name not in texts[label] or _flag_of(name) in values:
                why = "another name than a flag of the program"
                if name not in texts[label]:
                    why = 'its text under "Attributes:" in the docstring'
                raise UserError(f"{label}: field {name}: expected {why}")
        defaults = {label: _default(found) for label, found in owners.items()}
        default = next(iter(defaults.values()))
        sayers: dict[str, list[str]] = {}
        for label in owners:
            sayers.setdefault(texts[label][name], []).append(label)
        text = next(iter(sayers))
        if len(sayers) > 1:
            text = " ".join(f"For {' and '.join(n)}: {x}" for x, n in sayers.items())
        if any(x != default for x in defaults.values()):
            each = [
                f"{label} {'none' if x is None else help_page.show(x)}"
                for label, x in defaults.items()
            ]
            default, text = None, f"{text} (default: {', '.join(each)})"
        # What only some of them restrict is checked when they are built.
        equal = all(x[0].metadata == first[0].metadata for x in others)
        section = help_page.EDIT
        _define(first, default, text, values, section, restricted=equal)


def define_profile(values: flags.FlagValues) -> None:
    """Defines the flag of the profile, which `profiling` makes."""
    flags.DEFINE_string(
        PROFILE,
        None,
        "Folder for a trace of a few steps, those after the first, which compile.",
        flag_values=values,
        module_name=help_page.DEVICES,
    )


def build(
    config_type: type[Config],
    values: flags.FlagValues,
    names: Sequence[str] | None = None,
) -> Config:
    """Builds a dataclass from flags; fields without a flag, or a value, have defaults.

    Args:
      config_type: dataclass, as given to `define`.
      values: parsed flags.
      names: fields that have a flag, as given to `define`.

    Raises:
      UserError: the dataclass refuses a value.
    """
    found: dict[str, Any] = {}
    for field, kind, element in _fields(config_type, names):
        flag = _flag_of(field.name)
        value = values[flag].value
        if value is None and field.default is not dataclasses.MISSING:
            continue
        if kind is tuple and value is not None:
            value = tuple(_parse(flag, element, text) for text in value)
        _check(field, value)
        found[field.name] = value
    return config_type(**found)


def settings(values: flags.FlagValues, without: Sequence[str] = ()) -> dict[str, Any]:
    """Values of all flags by name, for the record of a run.

    Args:
      values: parsed flags.
      without: flags that do not decide the results: where, how long or how fast.
    """
    left_out = {CACHE, DETERMINISTIC, PROFILE, *without}
    return {name: values[name].value for name in values if name not in left_out}


def used(config: Any) -> dict[str, Any]:
    """Values of a dataclass by the names of their flags, as `settings` has them."""
    found = _fields(type(config), None)
    return {_flag_of(x[0].name): _plain(x, getattr(config, x[0].name)) for x in found}


@contextlib.contextmanager
def end_if_unread() -> Iterator[None]:
    """Ends the program quietly once nobody reads its stdout any more, such as head."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Lines left in the buffer would raise again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_UNREAD)


@signals.end_in_a_line()
@end_if_unread()
def run(
    main: Callable[[flags.FlagValues], int | None],
    values: flags.FlagValues,
    argv: Sequence[str] | None = None,
    *,
    extend: Callable[[Sequence[str]], flags.FlagValues | None] = lambda argv: None,
) -> None:
    """Parses flags and runs a program.

    The exit code is 0, or what `main` returns, or 2 after one line on what is wrong, or
    130 after Ctrl-C, 143 after SIGTERM.

    Args:
      main: main function of the program. The docstring of its module is the help, and
        begins with the name of the program and a colon.
      values: flags that the program defines.
      argv: command line; None for the process's own.
      extend: (command line) → flags in place of these, if it asks for further ones.
    """
    argv = list(sys.argv if argv is None else argv)
    module = inspect.getmodule(main)
    try:
        values = extend(argv) or values
    except UserError as error:
        _fail(describe(error))
    if CACHE not in values:
        flags.DEFINE_string(
            CACHE,
            None,
            "Folder for compiled programs, which later runs start faster with; none "
            "for none. If absent, JAX_COMPILATION_CACHE_DIR or one in the user's "
            "cache.",
            flag_values=values,
            module_name=help_page.DEVICES,
        )
        flags.DEFINE_bool(
            DETERMINISTIC,
            False,
            "Equal bits in each run on GPUs of one kind, which takes slower kernels. "
            "CPUs and TPUs need no flag.",
            flag_values=values,
            module_name=help_page.DEVICES,
        )
    try:
        if answer(argv, (module and module.__doc__) or "", values):
            sys.exit(0)
        surplus = values(argv)[1:]
        if surplus:
            raise UserError(f"{surplus[0]}: expected flags alone, found an argument")
        allocator.keep_freed_memory()
        # JAX takes most of a second, which help and wrong flags need not wait for: what
        # takes it is imported from here on, and in each program's main.
        from styleclip_jax import traced
        from styleclip_jax.cli import environment, traces

        environment.steady_threads()
        environment.apply_settings()
        if values[DETERMINISTIC].value:
            environment.equal_bits()
        environment.keep_compiled(values[CACHE].value)
        with traced.kept_in(traces.folder()):
            code = main(values)
    except (UserError, flags.Error) as error:
        _fail(describe(error))
    except FloatingPointError as error:
        _fail(describe(UserError(f"JAX_DEBUG_NANS: {error}")))
    except (AssertionError, MemoryError, RuntimeError) as error:
        from styleclip_jax import parallel

        if parallel.is_out_of_memory(error):
            name = "--batch_size: " if "batch_size" in values else ""
            reason: str | None = f"{name}{_MEMORY}"
        else:
            reason = parallel.why_no_device()
        if reason is None:
            raise
        _fail(f"error: {reason}")
    sys.exit(code or 0)


def _fail(line: str) -> NoReturn:
    """Ends the program, with a line on what is wrong."""
    print(line, file=sys.stderr)
    processes.leave_soon(EXIT_USER_ERROR)
    sys.exit(EXIT_USER_ERROR)


def answer(argv: Sequence[str], document: str, values: flags.FlagValues) -> bool:
    """Prints the help or the version, if the command line asks for one of them.

    Args:
      argv: command line.
      document: docstring of the program's module.
      values: flags of the program.

    Returns:
      Whether one of them was printed.
    """
    if {"--help", "-h", "-help"} & set(argv):
        print(help_page.render(document, values))
        return True
    if "--version" in argv:
        name = document.partition(":")[0].removeprefix("python -m ")
        print(f"{name} {__version__}")
        return True
    return False


def describe(error: Exception) -> str:
    """Line on an error, in which the fields that it names have the dashes of flags."""
    message = " ".join(str(error).split()).removeprefix("flag ")
    named = error if isinstance(error, UserError) else UserError("")
    for name in filter(None, (named.field, *named.also)):
        flag = _flag_of(name)
        # The field is matched as a word of its own, not in a path.
        pattern = rf"(?<![^\s(])(?:--)?{re.escape(flag)}(?![\w/-]|\.\w)"
        places = list(re.finditer(pattern, message))
        if places:
            # A message begins with its field, and ends with what to do about it.
            start, stop = places[0 if name == named.field else -1].span()
            message = f"{message[:start]}--{flag}{message[stop:]}"
    return errors.printable(f"error: {message}")


def _fields(config_type: type, names: Sequence[str] | None) -> list[_Field]:
    """Fields with their types, and the types of the elements of tuples."""
    hints, found = typing.get_type_hints(config_type), []
    for field in dataclasses.fields(config_type):
        if names is not None and field.name not in names:
            continue
        hint = hints[field.name]
        if types.NoneType in typing.get_args(hint):
            (hint,) = set(typing.get_args(hint)) - {types.NoneType}
        element = (*typing.get_args(hint), str)[0]
        found.append((field, typing.get_origin(hint) or hint, element))
    return found


def _define(
    found: _Field,
    default: Any,
    text: str,
    values: flags.FlagValues,
    section: str,
    *,
    restricted: bool = True,
) -> None:
    """Defines the flag of a field, with the choices and bounds of its metadata.

    absl's module of a flag is its section in the help.
    """
    field, kind, _ = found
    metadata = field.metadata if restricted else {}
    options: dict[str, Any] = {"flag_values": values, "module_name": section}
    if "choices" in metadata:
        choices = list(metadata["choices"])
        flags.DEFINE_enum(_flag_of(field.name), default, choices, text, **options)
        return
    if "lower_bound" in metadata:
        options["lower_bound"] = metadata["lower_bound"]
    if "repeated" in metadata:
        flags.DEFINE_multi_string(_flag_of(field.name), default, text, **options)
        return
    _DEFINERS[kind](_flag_of(field.name), default, text, **options)


def _default(found: _Field, other: Any = _MISSING) -> Any:
    """Default of the flag of a field, or another in its place."""
    value = found[0].default if other is _MISSING else other
    return None if value is _MISSING else _plain(found, value)


def _plain(found: _Field, value: Any) -> Any:
    """Value of a field as its flag has it: a tuple as a list of texts."""
    if found[1] is not tuple or value is None:
        return value
    return [f"{x:g}" if found[2] is float else str(x) for x in value]


def _describe_kind(found: _Field) -> str:
    name = found[1].__name__
    return f"{name}[{found[2].__name__}]" if found[1] is tuple else name


def _check(field: dataclasses.Field[Any], value: Any) -> None:
    """Refuses a value that the metadata of its field exclude."""
    choices, least = (field.metadata.get(x) for x in ("choices", "lower_bound"))
    expected = None
    if value is not None and choices is not None and value not in choices:
        expected = f"one of {', '.join(choices)}"
    if value is not None and least is not None and value < least:
        expected = f"{least} or more"
    if expected:
        raise UserError(
            f"{field.name}: expected {expected}, found {value}", field=field.name
        )


def _flag_of(field: str) -> str:
    """Name of the flag of a field, which may be a keyword of Python."""
    return field.removesuffix("_")


def _parse(flag: str, kind: type, text: str) -> Any:
    """Parses an element of a list flag."""
    try:
        value = kind(text)
        if kind is float and not math.isfinite(value):
            raise ValueError
    except ValueError:
        message = f"{flag}: expected numbers, found {text!r}"
        raise UserError(message, field=flag) from None
    return value


def _attribute_docs(config_type: type) -> dict[str, str]:
    """Texts under "Attributes:" by name of the field, from the class and its bases."""
    found: dict[str, str] = {}
    for part in reversed(config_type.__mro__):
        section = inspect.cleandoc(part.__doc__ or "").partition("Attributes:")[2]
        entries = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", section, re.MULTILINE)
        found |= {name: " ".join(text.split()) for name, text in entries}
    return found
