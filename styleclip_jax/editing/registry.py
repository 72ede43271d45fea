"""Registry of the methods: one entry each, which programs and sessions stand on."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from styleclip_jax.editing import direction_expressions, own_modules
from styleclip_jax.errors import UserError
from styleclip_jax.io import text_files
from styleclip_jax.settings import edits

if TYPE_CHECKING:
    from styleclip_jax.batch.editor import Editor
    from styleclip_jax.editing.loaded import Loaded
    from styleclip_jax.editing.prompts import Prompts


class Method(NamedTuple):
    """Method of editing: its settings, and the editor that comes of them.

    Attributes:
      config: frozen dataclass of the settings. A field is a flag of its name, with its
        default and its line under "Attributes:" as the help. Methods may have fields
        of the same name and type.
      edit: (loaded networks, prompts, settings) → `Editor`; the prompts are None where
        none are read. Keyword arguments beside them are for Python alone.
      reads: flags of the models that only methods which name them read.
      texts: (settings) → whether prompts are read.
      surplus: (settings) → {flag: reason} of what is of no use beside them.
      mixes_texts: whether it takes prompts with others beside them, `Prompts.beside`.
    """

    config: type
    edit: Callable[..., "Editor"]
    reads: Sequence[str] = ()
    texts: Callable[[Any], bool] = lambda config: True
    surplus: Callable[[Any], Mapping[str, str]] = lambda config: {}
    mixes_texts: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of the flags that the method reads and others may not."""
        return (*(f.name for f in dataclasses.fields(self.config)), *self.reads)


def _reads_none(config: Any) -> bool:
    """A method that reads no prompts does so whatever its settings are."""
    return False


def _late(module: str, name: str) -> Callable[..., Any]:
    """Function of a module of this package that is imported when it is called.

    What a method does takes JAX, and what its settings are does not.
    """

    def call(*args: Any, **options: Any) -> Any:
        home = importlib.import_module(f"{__package__}.{module}")
        return getattr(home, name)(*args, **options)

    return call


METHODS: dict[str, Method] = {
    "optimization": Method(
        edits.OptimizationSettings,
        _late("editors", "optimize"),
        reads=["identity"],
        surplus=_late("editors", "surplus_of_optimization"),
        mixes_texts=True,
    ),
    "mapper": Method(
        edits.MappingConfig,
        _late("editors", "map_latents"),
        texts=_reads_none,
        surplus=_late("editors", "surplus_of_mapping"),
    ),
    "direction": Method(
        direction_expressions.DirectionConfig,
        _late("directing", "direct"),
        reads=["templates"],
        texts=edits.reads_texts,
        surplus=_late("directing", "surplus"),
        mixes_texts=True,
    ),
    "delta": Method(
        edits.DeltaSettings,
        _late("deltas", "move"),
        reads=["templates"],
        surplus=_late("searching", "surplus"),
    ),
    "stylemc": Method(
        edits.StyleMCSettings,
        _late("learning", "learn_by_texts"),
        reads=["identity"],
        surplus=_late("objectives", "surplus"),
        mixes_texts=True,
    ),
    "essence": Method(
        edits.EssenceSettings,
        _late("learning", "learn_by_image"),
        reads=["identity"],
        texts=_reads_none,
    ),
}


def find(name: str) -> Method:
    """Method by its name, or one of a user's own module by module:NAME.

    Raises:
      UserError: there is no such method.
    """
    found = own_modules.find(name, METHODS, field="method", what="one")
    if not (isinstance(found, Method) and dataclasses.is_dataclass(found.config)):
        raise UserError(
            f"method: expected {name} to be a registry.Method with a dataclass of its "
            f"settings, found {type(found).__name__}",
            field="method",
        )
    return found


def configure(name: str, settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Configuration of a method from settings by name, and what is no field of it.

    Lists become tuples. A dict is no field: of objective it has functions.

    Raises:
      UserError: there is no such method, or a setting is wrong.
    """
    config, given = find(name).config, {}
    rest = dict(settings)
    for field in dataclasses.fields(config):
        if field.name in rest and not isinstance(rest[field.name], Mapping):
            value = rest.pop(field.name)
            given[field.name] = tuple(value) if isinstance(value, list) else value
    return config(**given), rest


def make_editor(
    loaded: "Loaded", name: str, texts: "Prompts | None", config: Any, **parts: Any
) -> "Editor":
    """Editor of a method.

    Args:
      loaded: loaded networks.
      name: name of the method, see `find`.
      texts: prompts, None where the method reads none.
      config: settings of the method.
      **parts: further arguments of `Method.edit`.

    Raises:
      UserError: a setting or text is wrong, missing, or of no use.
    """
    method = find(name)
    if method.texts(config) and texts is None:
        text_files.require("prompt", None)
    if texts is not None and not method.texts(config):
        raise UserError(
            f"prompt: {name} with these settings reads none, found {texts.title!r}",
            field="prompt",
        )
    if texts is not None and texts.beside and not method.mixes_texts:
        raise UserError(
            f"also and avoid: {name} takes one text at a time, found {texts.title!r}",
            field="also",
            also=["avoid"],
        )
    editor = method.edit(loaded, texts, config, **parts)
    if name in METHODS:
        return editor
    inputs = {**editor.inputs, "method": own_modules.fingerprint(name)}
    return editor._replace(method=name, inputs=inputs)
