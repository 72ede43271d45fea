r"""styleclip-app: edit faces with sliders in the browser.

  styleclip-app
  styleclip-app --generator=models/ffhq --clip=models/clip --encoder=models/e4e \
    --directions=models/directions --mapper=models/surprised,models/purple_hair

Photos are inverted with the defaults of styleclip-invert, and at a tick the generator
is tuned to each.

The program needs the extra app: pip install 'styleclip-jax[app]'. Without model flags
it shows the embedded models. The page is at http://127.0.0.1:7860, for this machine
alone unless --host says otherwise. Ctrl-C ends the program.
"""

import contextlib
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from absl import flags

from styleclip_jax.app import accounts, guard
from styleclip_jax.app.guard import Hosts, Limits
from styleclip_jax.app.storage import Storage
from styleclip_jax.cli import help_page, program, signals
from styleclip_jax.errors import UserError
from styleclip_jax.settings.edits import DirectionSettings, MappingConfig
from styleclip_jax.settings.networks import (
    CLIP_FIELDS,
    GENERATOR_FIELDS,
    ModelSettings,
)
from styleclip_jax.settings.photos import PhotoRequest
from styleclip_jax.settings.tuning import TuningConfig

if TYPE_CHECKING:
    from styleclip_jax.app import rooms

_LOOPBACK = "127.0.0.1"
_EVERYWHERE = ("", "0.0.0.0", "::", "[::]")
# Seconds between two looks for signals, and for files that are old.
_TICK, _TIDY = 0.2, 60
_ADVICE = "start styleclip-app with --allowed_hosts=NAME"

_MODELS = (
    *(*GENERATOR_FIELDS, "remat", *CLIP_FIELDS),
    *("identity", "encoder", "lpips", "class_", "templates"),
)
_TUNING = ("tune_steps", "tune_rate", "tune_noise_rate", "tune_threshold")

VALUES = flags.FlagValues()
program.define(ModelSettings, VALUES, _MODELS)
program.define(MappingConfig, VALUES, ("mapper",))
program.define(DirectionSettings, VALUES, ("directions", "num_samples"))
program.define(PhotoRequest, VALUES, ("max_pixels",))
program.define(TuningConfig, VALUES, _TUNING, tune_steps=350)
flags.DEFINE_string(
    "host",
    _LOOPBACK,
    "Address to listen at; 0.0.0.0 lets other machines in. See --auth.",
    flag_values=VALUES,
    module_name=help_page.PAGE,
)
flags.DEFINE_integer(
    "port",
    7860,
    "Port to listen at.",
    lower_bound=1,
    upper_bound=65535,
    flag_values=VALUES,
    module_name=help_page.PAGE,
)
flags.DEFINE_string(
    "auth",
    None,
    'File with lines "name:password"; the page asks for one of them. None if absent.',
    flag_values=VALUES,
    module_name=help_page.PAGE,
)
program.define(Hosts, VALUES, ("allowed_hosts",))
program.define(Limits, VALUES)


def open_room(values: flags.FlagValues) -> "rooms.Room":
    """Opens the room that the flags ask for.

    Raises:
      UserError: a flag is wrong, or its file does not fit.
    """
    from styleclip_jax.app import rooms
    from styleclip_jax.loading import Models

    return rooms.open_room(
        program.build(Models, values, _MODELS),
        mappers=values.mapper or (),
        directions=values.directions,
        num_samples=values.num_samples,
        max_pixels=values.max_pixels,
        tuning=program.build(TuningConfig, values, _TUNING),
        max_tuned=program.build(Limits, values).max_tuned,
    )


def main(values: flags.FlagValues) -> int:
    """Serves the page until a signal ends it."""
    hosts = Hosts(values.host, tuple(values.allowed_hosts))
    limits = program.build(Limits, values)
    passwords = None if values.auth is None else accounts.read(values.auth)
    with contextlib.ExitStack() as stack:
        # The address is taken before long work, and opened after it.
        bound = stack.enter_context(_bind(values.host, values.port))
        # Set before gradio is imported, so that it reports nothing to anybody, and
        # (since 6.24) keeps no history of the edits.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_RUN_HISTORY"] = "False"
        try:
            from styleclip_jax.app import handlers, page, rooms, serving
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise UserError(
                "styleclip-app needs gradio: pip install 'styleclip-jax[app]'"
            ) from None
        room = open_room(values)
        config = room.session.generator.config
        print(
            f"generator: {room.origin.name}, {config.size_text}\n"
            f"clip: {values.clip or 'embedded'}\n"
            f"mappers: {', '.join(room.mappers) or 'none'}\n"
            "preparing …",
            flush=True,
        )
        rooms.warm_up(room)
        # Uploads and pictures of the page are gone when the program ends. Those of
        # requests that are still running may come while the folder goes.
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="styleclip-", ignore_cleanup_errors=True)
        )
        # Gradio puts its files into the one, and what is being uploaded into the other.
        os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = folder
        storage = Storage(folder, limits.max_disk)
        do = handlers.Handlers(room, storage)
        try:
            server = serving.serve(
                page.build(do),
                bound,
                hosts,
                storage,
                limits,
                advice=_ADVICE,
                passwords=passwords,
            )
            stack.enter_context(server)
        except OSError as error:
            raise _refused(values.host, values.port, error) from None
        _note_exposure(values)
        ended = stack.enter_context(_ended())
        came = stack.enter_context(signals.postponed())
        print(f"ready: http://{_shown(values.host)}:{values.port}", flush=True)
        threading.Thread(target=do.rehearse, args=[ended], daemon=True).start()
        tidied = time.monotonic()
        while not came():
            time.sleep(_TICK)
            if time.monotonic() - tidied > _TIDY:
                storage.tidy()
                tidied = time.monotonic()
    return 0


@contextlib.contextmanager
def _ended() -> Iterator[threading.Event]:
    """Yields an event that is set at the end of the context."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()


def _bind(host: str, port: int) -> socket.socket:
    """Socket at an address, which is taken but not yet open; a UserError if not."""
    name = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            # Without it a program that has just ended would still have the port.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise _refused(host, port, error) from None
    return bound


def _refused(host: str, port: int, error: OSError) -> UserError:
    return UserError(
        f"--port: cannot listen at {guard.bracketed(host)}:{port} ({error.strerror})"
    )


def _note_exposure(values: flags.FlagValues) -> None:
    """Tells of passwords that others can read, and of a page without any."""
    if values.auth is not None and accounts.is_exposed(values.auth):
        note = f"others of this machine can read {values.auth}: chmod 600 it"
    elif values.auth is None and values.host in _EVERYWHERE:
        note = "everybody who reaches this machine can use the page; see --auth"
    else:
        return
    print(f"note: {note}", file=sys.stderr)


def _shown(host: str) -> str:
    """Host to open the page by on this machine."""
    return _LOOPBACK if host in _EVERYWHERE else guard.bracketed(host)


def entry() -> None:
    """Console script of styleclip-app."""
    try:
        program.run(main, VALUES)
    except SystemExit as end:
        # Edits may be in a compilation, which nothing interrupts and the interpreter
        # would wait for, or crash in.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    entry()
