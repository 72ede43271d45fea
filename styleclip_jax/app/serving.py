"""Server of the page: gradio's application behind the guard, in a thread of its own."""

import contextlib
import logging
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Mapping

import fastapi
import gradio as gr
import uvicorn

from styleclip_jax.app import look, values
from styleclip_jax.app.guard import Guard, Hosts, Limits
from styleclip_jax.app.storage import Storage

# Visitors whose edits are kept.
_MAX_VISITORS = 100
# Seconds until a server that ends is left behind.
_PATIENCE = 1


@contextlib.contextmanager
def serve(
    page: gr.Blocks,
    bound: socket.socket,
    hosts: Hosts,
    storage: Storage,
    limits: Limits,
    *,
    advice: str,
    passwords: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Serves a page while the context lasts.

    Args:
      page: page.
      bound: socket at its address.
      hosts: hosts that it may be opened by.
      storage: where uploads and pictures are.
      limits: limits of what visitors ask for.
      advice: what to do to let another host in, for people.
      passwords: passwords by name, one of which a visitor must know; None for none.

    Raises:
      OSError: another program listens at the address.
    """
    # Gradio's own code causes these warnings at every event.
    warnings.filterwarnings("ignore", module=r"gradio\.routes")
    page.state_session_capacity = _MAX_VISITORS
    # Else gradio takes any file of this machine for an upload.
    page.has_launched = True
    application = gr.mount_gradio_app(
        fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page.queue(
            default_concurrency_limit=1, max_size=limits.max_queue, api_open=False
        ),
        "/",
        auth=None if passwords is None else list(passwords.items()),
        root_path=os.environ.get("GRADIO_ROOT_PATH"),
        max_file_size=limits.max_upload,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        footer_links=[],
        theme=look.theme(),
        css_paths=look.CSS,
    )
    guard = Guard(
        application,
        hosts,
        max_upload=values.MOST_UPLOADS * limits.max_upload,
        has_room=storage.has_room,
        advice=advice,
    )
    server = uvicorn.Server(uvicorn.Config(guard, log_level="warning", ws="none"))
    bound.listen()
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [bound]}, daemon=True
    )
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    if not server.started:
        raise RuntimeError("the server of the page has ended")
    try:
        yield
    finally:
        # Visitors who wait are left; what their requests raise then is no error.
        logging.getLogger("uvicorn.error").disabled = True
        server.should_exit = server.force_exit = True
        thread.join(_PATIENCE)
