"""`python -m hblm.serve`: a service that predicts over HTTP, from its start to its end."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import ipaddress
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from hblm.config.serve import ServeConfig
from hblm.console import log
from hblm.errors import ConfigError

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from hblm.inference.predictor import Predictor
    from hblm.inference.service.service import Service

_NEEDED = ("fastapi", "uvicorn", "prometheus_client")
_BACKLOG = 2048  # connections that the system keeps until they are accepted
_PATIENCE = 5.0  # seconds for the worker's thread to end after the last answer


def run(config: ServeConfig) -> None:
    """Serve until SIGTERM or Ctrl-C; the requests that are there by then are answered.

    Raises:
        CheckpointError: a checkpoint is damaged, or two do not belong together.
        ConfigError: a key does not apply to these models, the service cannot listen at host and port, or its
            libraries are not installed.
        KeyboardInterrupt: it was stopped by Ctrl-C.
    """
    _require_installed()
    from hblm.inference.predictor import load_predictor, open_members

    load = functools.partial(load_predictor, config, open_members(config))
    with _stopping() as stop, listening(config.host, config.port) as listener:
        from hblm.inference.service.server import make_app
        from hblm.inference.service.service import Service

        service = Service(config)
        server = _server(config, make_app(service))
        stop.service, stop.server = service, server
        worker = _Worker(service, server, load)
        worker.start()
        print(f"listening at {_url(listener)}", flush=True)
        server.run(sockets=[listener])
        service.batcher.close()
        worker.join(_PATIENCE)
        if worker.failure is not None:
            raise worker.failure
        if worker.is_alive():  # it loads, or computes for a client that left; Python would wait for it
            _exit_now(130 if stop.received == signal.SIGINT else 0)
        if stop.received == signal.SIGINT:
            raise KeyboardInterrupt


class _Worker(threading.Thread):
    """The thread that loads the model and computes; when it fails, the server ends.

    Attributes:
        failure: why it ended too early.
    """

    def __init__(self, service: Service, server: uvicorn.Server, load: Callable[[], Predictor]) -> None:
        super().__init__(name="model", daemon=True)
        self._service, self._server, self._load = service, server, load
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Load the model, and compute batches until the service ends."""
        try:
            started = time.perf_counter()
            self._service.start(self._load())
            log.info("ready after %.1f s", time.perf_counter() - started)
            self._service.work()
        except BaseException as error:
            self.failure = error
            self._server.should_exit = True


class _Stop:
    """What SIGTERM and Ctrl-C do: the first one ends the service after its answers, a second one at once.

    Attributes:
        received: the first signal.
        service, server: what is ended; None until they are there.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.service: Service | None = None
        self.server: uvicorn.Server | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            _exit_now(128 + number)
        self.received = number
        if self.service is None or self.server is None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            sys.exit(0)
        self.service.state = "stopping"
        self.server.should_exit = True


@contextlib.contextmanager
def _stopping() -> Iterator[_Stop]:
    """Handle SIGTERM and Ctrl-C in the block."""
    stop = _Stop()
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Give a socket that listens, and close it.

    Raises:
        ConfigError: the address is not one of this machine, or the port is in use or reserved.
    """
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"host={host} is not an address: {error}; write 127.0.0.1 or 0.0.0.0") from None
    # `localhost` may be ::1 first, where programs that use 127.0.0.1 do not look
    family, kind, protocol, _, address = min(places, key=lambda place: place[0] != socket.AF_INET)
    with socket.socket(family, kind, protocol) as listener:
        # after a kill, connections of the last process hold the port for a minute otherwise
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            way_out = "write another port=, or port=0 for a free one"
            raise ConfigError(
                f"cannot listen at host={host} port={port}: {error.strerror}; {way_out}"
            ) from None
        if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
            log.warning(
                "host=%s: whoever reaches this address can use the model; there is no authentication", host
            )
        yield listener


def _server(config: ServeConfig, app: FastAPI) -> uvicorn.Server:
    """Return the HTTP server of an application; signals are not its concern."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(
        uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=int(config.timeout) + 1,
        )
    )


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _require_installed() -> None:
    """Refuse to start without the libraries of the extra `serve`.

    Raises:
        ConfigError: with the command that installs them.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"hblm.serve needs {' and '.join(missing)}: pip install 'hblm[serve]'")


def _exit_now(code: int) -> NoReturn:
    """End this process without waiting for its threads."""
    with contextlib.suppress(RuntimeError):  # a signal may have interrupted a write
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
