"""What all programs share: flags from dataclasses, one-line errors, progress."""

import contextlib
import dataclasses
import hashlib
import inspect
import os
import pathlib
import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
from absl import flags

from styleclip_jax.cli import allocator
from styleclip_jax.errors import UserError

Config = TypeVar("Config")


EXIT_FAILED_ITEMS = 1
EXIT_USER_ERROR = 2
# As of a program that SIGPIPE ends.
EXIT_UNREAD = 141

# Flag of all programs.
CACHE = "compilation_cache"
# Seconds from which on compiling counts as slow.
_MIN_COMPILE_TIME = 0.1


def define(config_type: type, values: flags.FlagValues) -> None:
    """Defines a flag for every field of a configuration.

    The field is the sole home of the default, and its entry under "Attributes:" in the
    dataclass's docstring is the help.
    """
    helps = _attribute_docs(config_type)
    definers: dict[type, Callable[..., Any]] = {
        str: flags.DEFINE_string,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        bool: flags.DEFINE_bool,
    }
    for field in dataclasses.fields(config_type):
        define_flag = definers[type(field.default)]
        define_flag(field.name, field.default, helps[field.name], flag_values=values)


def build(config_type: type[Config], values: flags.FlagValues) -> Config:
    """The configuration that the flags say.

    Raises:
      UserError: the configuration refuses a value.
    """
    fields = dataclasses.fields(config_type)  # type: ignore[arg-type]
    try:
        return config_type(**{field.name: values[field.name].value for field in fields})
    except ValueError as error:
        # Configurations name the field first.
        raise UserError(f"--{error}") from None


@contextlib.contextmanager
def end_if_unread() -> Iterator[None]:
    """Ends the program quietly once nobody reads its stdout any more, such as head."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is left would raise again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_UNREAD)


@end_if_unread()
def run(
    main: Callable[[flags.FlagValues], int | None],
    values: flags.FlagValues,
    argv: Sequence[str] | None = None,
) -> None:
    """Parses flags and runs a program.

    Exits with 0, with what `main` returns, or with 2 after one line on what is wrong.

    Args:
      main: the program; its module's docstring is the help.
      values: the flags that it defines.
      argv: command line; None for the process's own.
    """
    argv = list(sys.argv if argv is None else argv)
    module = inspect.getmodule(main)
    if CACHE not in values:
        flags.DEFINE_string(
            CACHE,
            None,
            "Folder for compiled programs, which later runs start faster with; none "
            "for none. If absent, JAX_COMPILATION_CACHE_DIR or one in the user's "
            "cache.",
            flag_values=values,
        )
    try:
        if {"--help", "-h", "-help"} & set(argv):
            print(f"{module.__doc__ if module else ''}\n{values.get_help()}")
            sys.exit(0)
        surplus = values(argv)[1:]
        if surplus:
            raise UserError(f"{surplus[0]}: expected flags alone, found an argument")
        allocator.keep_freed_memory()
        _steady_threads()
        _keep_compiled(values[CACHE].value)
        code = main(values)
    except (UserError, flags.Error) as error:
        message = " ".join(str(error).split())
        print(f"error: {message.removeprefix('flag ')}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(code or 0)


def _steady_threads() -> None:
    """Gives XLA two threads or more on a CPU.

    With one it computes convolutions in another way. With more, results do not depend
    on their number, and so not on that of simulated devices.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    os.environ.setdefault("NPROC", str(max(2, count)))


def _keep_compiled(folder: str | None) -> None:
    """Turns the persistent compilation cache on, unless that is done or not wanted."""
    if folder == "none":
        jax.config.update("jax_enable_compilation_cache", False)
    chosen = getattr(jax.config, "jax_compilation_cache_dir", None)
    if folder == "none" or (folder is None and chosen):
        return
    if folder is None:
        cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        # Programs for one kind of CPU may not run on another that sees the same folder.
        folder = str(pathlib.Path(cache) / "styleclip_jax" / _describe_cpu())
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_TIME)


def _describe_cpu() -> str:
    """What sets the CPU apart: its architecture and a hash of its features."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    features = [x for x in lines if x.startswith(("flags", "Features"))] or lines
    digest = hashlib.sha256("".join(features[:1]).encode()).hexdigest()
    return f"{platform.machine()}-{digest[:8]}"


def _attribute_docs(config_type: type) -> dict[str, str]:
    """Field name to its text under "Attributes:"."""
    section = (inspect.getdoc(config_type) or "").split("Attributes:")[1]
    entries = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
