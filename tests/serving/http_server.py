"""Real HTTP on loopback, in this process, over any engine. Needs no torch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from job_wrappers.serving.server.app import build_app
from job_wrappers.serving.server.engine_client import EngineClient
from job_wrappers.serving.server.exchange import Desk
from job_wrappers.serving.server.serve import HttpServer, bind

TOKEN = "of-the-test"


@contextmanager
def http_server(engine: EngineClient) -> Iterator[str]:
    """Its URL."""
    sock = bind("127.0.0.1", 0)
    server = HttpServer(build_app(Desk(engine), token=TOKEN))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()
