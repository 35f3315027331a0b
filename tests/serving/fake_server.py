"""A whole server process over an engine without a model: `python fake_server.py SOCKET DRAIN_S`. It prints its port.

SIGUSR2 lets held answers go on, SIGHUP makes the engine crash.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from job_wrappers.serving.server.serve import ServeOptions, Service, bind
from tests.serving.fake_engine import FakeEngine


def main() -> None:
    engine, sock = FakeEngine(), bind("127.0.0.1", 0)
    engine.hold()
    options = ServeOptions(sock=sock, unix_socket=Path(sys.argv[1]), token=None, drain_s=float(sys.argv[2]))
    service = Service(engine, options, say=lambda line: print(line, flush=True))
    signal.signal(signal.SIGUSR2, lambda *_: engine.go())
    signal.signal(signal.SIGHUP, lambda *_: service.crash("rank 1 is gone"))
    print(sock.getsockname()[1], flush=True)
    failed = service.run()
    if failed is not None:
        print(failed, flush=True)
        sys.exit(6)


if __name__ == "__main__":
    main()
