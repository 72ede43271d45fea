r"""styleclip-app: edit faces with sliders in the browser.

  styleclip-app
  styleclip-app --generator=models/ffhq --clip=models/clip --encoder=models/e4e \
    --directions=models/directions --mapper=models/surprised,models/purple_hair

The program needs the extra app: pip install 'styleclip-jax[app]'. Without model flags
it shows the embedded models. The page is at http://127.0.0.1:7860, for this machine
alone unless --host says otherwise. Ctrl-C ends the program.
"""

import contextlib
import os
import signal
import socket
import tempfile
import threading

from absl import flags

from styleclip_jax.app import rooms
from styleclip_jax.cli import help_page, program
from styleclip_jax.editing.directing import DirectionConfig
from styleclip_jax.editing.editors import MappingConfig
from styleclip_jax.errors import UserError
from styleclip_jax.loading import Models

_LOOPBACK = "127.0.0.1"

VALUES = flags.FlagValues()
program.define(Models, VALUES)
program.define(MappingConfig, VALUES, ("mapper",))
program.define(DirectionConfig, VALUES, ("directions", "num_samples"))
flags.DEFINE_string(
    "host",
    _LOOPBACK,
    "Address to listen at; 0.0.0.0 lets other machines in, without a password.",
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
flags.DEFINE_integer(
    "max_upload_mb",
    20,
    "Size of the largest photo that is taken, in MB.",
    lower_bound=1,
    flag_values=VALUES,
    module_name=help_page.PAGE,
)


def open_room(values: flags.FlagValues) -> rooms.Room:
    """Opens the room that the flags ask for.

    Raises:
      UserError: a flag is wrong, or its file does not fit.
    """
    return rooms.open_room(
        program.build(Models, values),
        mappers=values.mapper or (),
        directions=values.directions,
        num_samples=values.num_samples,
    )


def main(values: flags.FlagValues) -> int:
    """Serves the page until it is interrupted or terminated."""
    _check_address(values.host, values.port)
    # Set before gradio is imported, so that it reports nothing to anybody, and (since
    # 6.24) keeps no history of the edits.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    try:
        from styleclip_jax.app import handlers, page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError(
            "styleclip-app needs gradio: pip install 'styleclip-jax[app]'"
        ) from None
    room = open_room(values)
    config = room.session.generator.config
    print(
        f"generator: {room.origin.name}, {config.resolution}²\n"
        f"clip: {values.clip or 'embedded'}\n"
        f"mappers: {', '.join(room.mappers) or 'none'}\n"
        "preparing …",
        flush=True,
    )
    rooms.warm_up(room)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="styleclip-"))
        # Uploads and pictures of the page are gone when the program ends.
        os.environ["GRADIO_TEMP_DIR"] = folder
        do = handlers.Handlers(room, folder)
        blocks = page.build(do)
        stack.callback(blocks.close, verbose=False)
        try:
            page.launch(
                blocks,
                host=values.host,
                port=values.port,
                max_upload_mb=values.max_upload_mb,
            )
        except OSError as error:
            raise UserError(
                f"--port: cannot listen at {values.host}:{values.port} ({error})"
            ) from None
        host = _LOOPBACK if values.host == "0.0.0.0" else values.host
        # KeyboardInterrupt is lost where it is raised in a callback of the garbage
        # collector.
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        print(f"ready: http://{host}:{values.port}", flush=True)
        rehearsal = threading.Thread(target=do.rehearse, args=[ended])
        rehearsal.start()
        ended.wait()
        rehearsal.join()
    return 0


def _check_address(host: str, port: int) -> None:
    """Checks before long work that the page can listen there; a UserError if not."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            # Servers set this too; else a program just ended would still have the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise UserError(
            f"--port: cannot listen at {host}:{port} ({error.strerror})"
        ) from None


def entry() -> None:
    """Console script of styleclip-app."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
