"""Wrappers around a network in a file: the levels and prefixes above its tensors.

The same state dict comes alone, in a checkpoint beside an optimizer, inside a module of
a training, or below an average of the weights. All of these only lengthen the dotted
names of its tensors. A network is therefore found by a few names that it must have,
whatever stands before them; that prefix is taken off, and told.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from styleclip_jax.errors import UserError
from styleclip_jax.io import foreign, torch_files
from styleclip_jax.io.pickled.inert import Object
from styleclip_jax.io.torch_files import TorchFile

from . import rules

# Levels that a wrapped module adds anywhere among names, none of which is a network's.
MODULES = {
    "module",
    "_orig_mod",
    "_forward_module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
}
# Words in the name of a level of averaged weights: g_ema, ema_model, Gs, g_running.
_AVERAGED = {"ema", "avg", "average", "averaged", "swa", "shadow", "running", "gs"}
# Levels that hold the state of a training.
_TRAINING = re.compile(
    r"(\w+_)?(optim|optimi[sz]ers?|sched|schedulers?|scaler|amp|opts|args|hparams"
    r"|hyper_parameters|config|callbacks|loops|metrics|history|rng|training_state)"
    r"(_\w+)?"
    r"|epoch|step|global_step|iter|iteration|loss|n_averaged|num_updates|decay|initted"
)
# Where trainings keep their flags.
_OPTIONS = ("opts", "hyper_parameters", "hparams", "args", "config", "cfg")
# Prefixes that official files have, which is no news.
_OFFICIAL = ("", "g_ema.", "G_ema.", "state_dict.")
# The average of w, which stands beside a state dict that it belongs to.
AVERAGE = "latent_avg"
_MAX_SHOWN = 5


class Layout(NamedTuple):
    r"""Names by which a network is found.

    Attributes:
      owner: whose names they are.
      marks: names that must all be there, regular expressions such as r"a\.weight".
    """

    owner: str
    marks: tuple[str, ...]


class Part(NamedTuple):
    """A network in a file.

    Attributes:
      layout: the layout that found it.
      path: what stands before its names in the file, "" or ending in ".".
      tensors: its tensors, without that.
      node: object of the file that they are in, unless the path ends inside of names.
      levels: dicts around it in the file, the innermost first.
      beside: further tensors of the file, but for the state of a training, by level.
    """

    layout: Layout
    path: str
    tensors: dict[str, np.ndarray]
    node: Any
    levels: list[Mapping[Any, Any]]
    beside: dict[str, int]

    @property
    def is_averaged(self) -> bool:
        """Whether it lies below a level of averaged weights."""
        return any(_words(level) & _AVERAGED for level in self.path.split("."))

    @property
    def notes(self) -> list[str]:
        """What was taken off and left out, as lines for the user."""
        notes = []
        if self.path not in _OFFICIAL:
            notes.append(f"taken off the names of its tensors: {self.path}")
        if self.beside:
            levels = [f"{name} ({count})" for name, count in self.beside.items()]
            notes.append(f"left out, tensors of: {rules.list_names(levels)}")
        return notes

    def value(self, name: str) -> Any:
        """Value of a name in the levels around, None if it is nowhere."""
        return next((level[name] for level in self.levels if name in level), None)

    @property
    def options(self) -> Mapping[str, Any]:
        """Flags of the training, stored as a dict or a namespace."""
        for name in _OPTIONS:
            if isinstance(options := _flags(self.value(name)), dict):
                # Lightning keeps them below a name of their own.
                inner = _flags(options.get("opts"))
                return inner if isinstance(inner, dict) else options
        return {}


def lacks(file: TorchFile, layouts: Sequence[Layout]) -> list[str]:
    """What a file lacks of each layout, where it has most of its names, for people."""
    names, lines = torch_files.tensors(file.content), []
    for layout in layouts:
        paths = [_paths(names, mark) for mark in layout.marks]
        every = {path for some in paths for path in some}
        best = max(every, key=lambda x: sum(x in some for some in paths), default="")
        missing = [
            _example(mark)
            for mark, some in zip(layout.marks, paths, strict=True)
            if best not in some
        ]
        lines.append(f"{' and '.join(best + name for name in missing)}, {layout.owner}")
    return lines


def find(file: TorchFile, layouts: Sequence[Layout]) -> Part | None:
    """The network of some layouts in a file, None if there is none.

    Averaged weights count before others, then what has the fewest levels around it.

    Raises:
      UserError: several count alike.
    """
    parts = find_all(file, layouts)
    if not parts:
        return None
    best = [part for part in parts if _rank(part) == _rank(parts[0])]
    if len(best) > 1:
        top = "the names at the top"
        names = ", ".join(part.path.rstrip(".") or top for part in best[:_MAX_SHOWN])
        raise UserError(
            f"{file.path}: expected one network, found {len(best)} ({names}); give one "
            "as --part",
            field="part",
        )
    return parts[0]


def find_all(file: TorchFile, layouts: Sequence[Layout]) -> list[Part]:
    """All networks of some layouts in a file, what counts most first."""
    tensors, found = torch_files.tensors(file.content), dict[str, Part]()
    for layout in layouts:
        first, *others = (_paths(tensors, mark) for mark in layout.marks)
        for path in first:
            if all(path in more for more in others) and _is_below(path, file.part):
                found[path] = _part(file, layout, path, tensors)
    return sorted(found.values(), key=_rank)


def require(file: TorchFile, layouts: Sequence[Layout], what: str) -> Part:
    """The network of some layouts in a file.

    Raises:
      UserError: there is none, or several count alike.
    """
    part = find(file, layouts)
    if part is None:
        raise UserError(f"{file.path}: expected {what}, found {explain(file)}")
    return part


def keep(part: Part, pattern: str) -> Part:
    """A network without tensors whose names do not match, which its notes name.

    An archive of a program may hold constants beside the weights of its network.
    """
    inside = {name for name in part.tensors if re.fullmatch(pattern, name)}
    outside = {name: 1 for name in part.tensors if name not in inside}
    kept = {name: x for name, x in part.tensors.items() if name in inside}
    return part._replace(tensors=kept, beside=part.beside | outside)


def explain(file: TorchFile) -> str:
    """What a file holds in which no network was found, "none" if that is not known."""
    if file.part:
        return f"none below {file.part}"
    names = list(torch_files.tensors(file.content))
    return foreign.explain(file.content, names) or "none"


def modules(module: Any, prefix: str = "") -> Iterator[tuple[str, Object]]:
    """All modules below one, by dotted path; none below what is no module."""
    state = module.state if isinstance(module, Object) else None
    children = state.get("_modules") if isinstance(state, dict) else None
    for name, child in children.items() if isinstance(children, dict) else ():
        if isinstance(child, Object) and isinstance(child.state, dict):
            yield f"{prefix}{name}", child
            yield from modules(child, f"{prefix}{name}.")


def _rank(part: Part) -> tuple[bool, int]:
    return (not part.is_averaged, _without_modules(part.path).count("."))


def _part(
    file: TorchFile, layout: Layout, path: str, tensors: Mapping[str, np.ndarray]
) -> Part:
    """The part of a file below a prefix."""
    inside: dict[str, np.ndarray] = {}
    sources: dict[str, str] = {}
    beside: dict[str, int] = {}
    for name, tensor in tensors.items():
        branch = _branch(name, path)
        level = branch.rpartition(".")[2]
        if _TRAINING.fullmatch(level):
            continue
        if not name.startswith(path):
            if level != AVERAGE:
                beside[branch] = beside.get(branch, 0) + 1
            continue
        short = _without_modules(name.removeprefix(path))
        if short in inside:
            raise UserError(
                f"{file.path}: tensors {sources[short]} and {name} would both become "
                f"{short}"
            )
        inside[short], sources[short] = tensor, name
    node, levels = _walk(file.content, path)
    return Part(layout, path, inside, node, levels, beside)


def _paths(names: Iterable[str], mark: str) -> dict[str, None]:
    """What stands before a mark in names, modules before and inside of it or not."""
    regex = re.compile(rf"(|.+?\.)(?:{mark})")
    paths: dict[str, None] = {}
    for name in names:
        if match := regex.fullmatch(_without_modules(name)):
            paths[_path_of(name, match[1])] = None
    return paths


def _example(mark: str) -> str:
    """A name that a mark stands for: with options, the first of alternatives."""
    name = re.sub(r"\(\?:([^|)]*)[^)]*\)\??", r"\1", mark)
    return name.replace(r"\d+", "4").replace("\\", "")


def _flags(value: Any) -> Any:
    """Flags of a namespace or of a class of dicts; others as they are."""
    return value.items or value.state if isinstance(value, Object) else value


def _branch(name: str, path: str) -> str:
    """First levels of a name, up to the one that is not in a prefix."""
    levels, shared = name.split("."), 0
    for level, wanted in zip(levels, path.split("."), strict=False):
        if level != wanted:
            break
        shared += 1
    return ".".join(levels[: shared + 1])


def _path_of(name: str, start: str) -> str:
    """Prefix of a name that becomes `start` without its modules, these included."""
    levels, kept, wanted = name.split("."), 0, start.count(".")
    for end, level in enumerate(levels):
        if kept == wanted and level not in MODULES:
            return "".join(f"{level}." for level in levels[:end])
        kept += level not in MODULES
    return name


def _walk(content: Any, path: str) -> tuple[Any, list[Mapping[Any, Any]]]:
    """The object at a path, None inside of names; and dicts on the way, reversed."""
    levels: list[Mapping[Any, Any]] = []
    while True:
        if isinstance(content, dict):
            levels.insert(0, content)
        if not path:
            return content, levels
        for name, child in torch_files.children(content):
            if path.startswith(f"{name}.") and not isinstance(child, np.ndarray):
                content, path = child, path.removeprefix(f"{name}.")
                break
        else:
            return None, levels


def _is_below(name: str, start: str) -> bool:
    """Whether a dotted name lies below a level, which may end in "."."""
    start = start.rstrip(".")
    return not start or name.startswith(f"{start}.")


def _without_modules(name: str) -> str:
    return ".".join(level for level in name.split(".") if level not in MODULES)


def _words(level: str) -> set[str]:
    """Words of a name in lower case: netG_ema, emaModel."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", level)}
