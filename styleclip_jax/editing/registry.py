"""Registry of the methods: one entry each, which programs and sessions stand on."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from styleclip_jax.batch.editor import Editor
from styleclip_jax.editing import directing, editors, own_modules
from styleclip_jax.editing.editors import Loaded
from styleclip_jax.editing.prompts import Prompts
from styleclip_jax.errors import UserError
from styleclip_jax.io import text_files
from styleclip_jax.methods.optimization import OptimizationConfig


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
    """

    config: type
    edit: Callable[..., Editor]
    reads: Sequence[str] = ()
    texts: Callable[[Any], bool] = lambda config: True
    surplus: Callable[[Any], Mapping[str, str]] = lambda config: {}

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of the flags that the method reads and others may not."""
        return (*(f.name for f in dataclasses.fields(self.config)), *self.reads)


METHODS: dict[str, Method] = {
    "optimization": Method(OptimizationConfig, editors.optimize, reads=["identity"]),
    "mapper": Method(
        editors.MappingConfig,
        editors.map_latents,
        texts=lambda config: False,
        surplus=editors.surplus_of_mapping,
    ),
    "direction": Method(
        directing.DirectionConfig,
        directing.direct,
        reads=["templates"],
        texts=directing.reads_texts,
        surplus=directing.surplus,
    ),
}


def find(name: str) -> Method:
    """Method by its name, or one of a user's own module by module:NAME.

    Raises:
      UserError: there is no such method.
    """
    if name in METHODS:
        return METHODS[name]
    if ":" not in name:
        raise UserError(
            f"method: expected {', '.join(METHODS)}, or one of your own as "
            f"module:NAME, found {name!r}",
            field="method",
        )
    found = own_modules.load(name, field="method")
    if not (isinstance(found, Method) and dataclasses.is_dataclass(found.config)):
        raise UserError(
            f"method: expected {name} to be a registry.Method with a dataclass of its "
            f"settings, found {type(found).__name__}",
            field="method",
        )
    return found


def configure(name: str, settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Configuration of a method from settings by name, and what is no field of it.

    Raises:
      UserError: there is no such method, or a setting is wrong.
    """
    config = find(name).config
    fields = {field.name for field in dataclasses.fields(config)}
    given = {n: value for n, value in settings.items() if n in fields}
    return config(**given), {n: x for n, x in settings.items() if n not in fields}


def make_editor(
    loaded: Loaded, name: str, texts: Prompts | None, config: Any, **parts: Any
) -> Editor:
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
    editor = method.edit(loaded, texts, config, **parts)
    if name in METHODS:
        return editor
    inputs = {**editor.inputs, "method": own_modules.fingerprint(name)}
    return editor._replace(method=name, inputs=inputs)
