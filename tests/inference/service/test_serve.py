"""The service as a process: its address, signals, a port in use, kills, and many clients."""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from programs import checkpoint_of, compose

from hblm.config.serve import ServeConfig
from hblm.data.dataset import open_prepared
from hblm.errors import ConfigError
from hblm.inference.predictor import open_predictor
from hblm.inference.service.serve import listening
from hblm.inference.service.server import make_app
from hblm.inference.service.service import Service

PATIENCE = 120  # seconds for a process on a busy machine


class Process:
    """A service in a process of its own.

    Attributes:
        url: its address, once it listens.
    """

    def __init__(self, checkpoint: Path, *keys: str) -> None:
        self.log = Path(f"serve{time.monotonic_ns()}.log").absolute()
        command = [sys.executable, "-m", "hblm.serve", f"checkpoint={checkpoint}", "device=cpu", *keys]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self.url = ""

    def until(self, happened: Callable[[], Any]) -> Any:
        """Wait until the process gives a true value, and return it."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            ended = self.process.poll() is not None
            if value := happened():
                return value
            assert not ended, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def listening(self) -> Process:
        address = self.until(lambda: re.search(r"listening at (http://\S+)\n", self.log.read_text()))
        self.url = address[1]
        return self

    def ready(self) -> Process:
        if not self.url:
            self.listening()
        self.until(lambda: httpx.get(f"{self.url}/health").status_code == 200)
        return self

    def predict(self, *texts: str) -> httpx.Response:
        return httpx.post(f"{self.url}/predict", json={"texts": texts}, timeout=PATIENCE)

    def end(self) -> int:
        return self.process.wait(PATIENCE)


@pytest.fixture
def serve(trained) -> Iterator[Callable[..., Process]]:
    """Give a function that starts a service with these keys; all are killed in the end."""
    started: list[Process] = []

    def start(*keys: str) -> Process:
        started.append(Process(checkpoint_of(trained), *keys))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


@contextlib.contextmanager
def long_request(service: Process) -> Iterator[Any]:
    """Give the future of a request whose texts take a second or more, once the first ones are computed."""
    texts = ["A C F x y z " * 2_500] * 128
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(service.predict, *texts)
        service.until(lambda: "hblm_queue_texts 0.0" not in httpx.get(f"{service.url}/metrics").text)
        yield future


def test_answers_are_those_of_the_predictor_whatever_is_computed_together(trained, learnable):
    config = compose(
        "serve", ServeConfig, f"checkpoint={checkpoint_of(trained)}", "device=cpu", "max_batch=5"
    )
    predictor = open_predictor(config)
    service = Service(config)
    service.start(predictor)
    threading.Thread(target=service.work, daemon=True).start()
    texts = [document.text for document in open_prepared(learnable).documents("test")]
    raw = predictor.scores(texts)
    decision = predictor.decision(consistency="none")
    expected = [
        [path.nodes for path in decision.paths(decision.decide(raw), row)] for row in range(len(texts))
    ]
    ids = [node.id for node in predictor.taxonomy.nodes]

    async def ask() -> list[Any]:
        transport = httpx.ASGITransport(make_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            options = {"all_scores": True, "consistency": "none"}
            bodies = [{"texts": texts}, *({"text": text} for text in texts)]
            sent = [client.post("/predict", json={**body, **options}) for body in bodies]
            return [answer.json()["documents"] for answer in await asyncio.gather(*sent)]

    together, *alone = asyncio.run(ask())
    service.batcher.close()
    for documents in (together, [document for (document,) in alone]):
        scores = np.array([[document["scores"][node] for node in ids] for document in documents])
        np.testing.assert_allclose(scores, raw, atol=1e-6)
        assert [[tuple(path["nodes"]) for path in document["paths"]] for document in documents] == expected
    assert any(expected)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["host=no.such.name.invalid"], "host=no.such.name.invalid is not an address"),
        (["host=192.0.2.1"], "cannot listen at host=192.0.2.1 port=0"),  # an address of no machine
    ],
)
def test_an_address_that_is_not_of_this_machine(keys, message):
    with pytest.raises(ConfigError, match=message), listening(keys[0].partition("=")[2], 0):
        pass


def test_an_open_address_is_warned_of(caplog):
    with listening("127.0.0.1", 0), listening("localhost", 0):
        assert caplog.text == ""
    with listening("0.0.0.0", 0):
        assert "there is no authentication" in caplog.text


def test_a_request_that_could_never_have_room_is_a_conflict():
    with pytest.raises(ConfigError, match="max_texts=256 is more than queue=100"):
        compose("serve", ServeConfig, "checkpoint=x", "queue=100")


@pytest.mark.slow
def test_a_service_is_killed_restarted_and_stopped(serve):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first = serve(f"port={port}").listening()
    assert first.url == f"http://127.0.0.1:{port}"
    assert httpx.get(f"{first.url}/health").json()["status"] in ("loading", "ready")
    second = serve(f"port={port}")
    assert second.end() == 2
    message = second.log.read_text()
    assert f"hblm.serve: cannot listen at host=127.0.0.1 port={port}: Address already in use" in message
    assert "Traceback" not in message

    first.ready()
    with httpx.Client() as kept:  # its connection is open when the process dies
        assert kept.get(f"{first.url}/health").status_code == 200
        first.process.kill()
        first.end()
        third = serve(f"port={port}", "timeout=100").ready()
        answer = third.predict("A C F").json()

    with long_request(third) as long:
        third.process.send_signal(signal.SIGTERM)
        documents = long.result(PATIENCE).json()["documents"]
    assert len(documents) == 128
    assert third.end() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{third.url}/health")
    assert answer["documents"][0]["paths"]
    assert "Traceback" not in third.log.read_text()


@pytest.mark.long
def test_ctrl_c_ends_it_after_the_answers_and_a_second_signal_at_once(serve):
    loading = serve("port=0").listening()
    loading.process.send_signal(signal.SIGINT)
    assert loading.end() == 130
    assert "Traceback" not in loading.log.read_text()

    service = serve("port=0", "timeout=100").ready()
    with long_request(service) as long:
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        service.process.send_signal(signal.SIGTERM)
        assert service.end() == 128 + signal.SIGTERM
        assert isinstance(long.exception(PATIENCE), httpx.TransportError)


@pytest.mark.long
def test_damaged_weights_end_it_with_a_message(trained, tmp_path, serve):
    copy = shutil.copytree(checkpoint_of(trained), tmp_path / "copy")
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    damaged = Process(copy, "port=0")
    assert damaged.end() == 2
    text = damaged.log.read_text()
    assert "hblm.serve: " in text
    assert "Traceback" not in text


@pytest.mark.long
def test_many_clients_for_a_while(serve, learnable):
    service = serve("port=0", "queue=64", "max_texts=16").ready()
    texts = [document.text for document in open_prepared(learnable).documents("test")]
    expected = {text: service.predict(text).json()["documents"][0]["paths"] for text in texts}
    end = time.monotonic() + 4
    codes: list[int] = []

    def client(number: int) -> bool:
        right = True
        with httpx.Client(base_url=service.url, timeout=PATIENCE) as session:
            for at in range(10**6):
                if time.monotonic() > end:
                    return right
                count = 1 + (number + at) % 7
                some = [texts[(number * 5 + at + each) % len(texts)] for each in range(count)]
                answer = session.post("/predict", json={"texts": some})
                codes.append(answer.status_code)
                if answer.status_code == 200:
                    ends = [_ends(document["paths"]) for document in answer.json()["documents"]]
                    right &= ends == [_ends(expected[text]) for text in some]
        return right

    with ThreadPoolExecutor(32) as threads:
        assert all(threads.map(client, range(32)))
    assert {*codes} <= {200, 429}
    assert codes.count(200) > 50
    assert service.predict(*texts[:16]).status_code == 200
    assert "hblm_queue_texts 0.0" in httpx.get(f"{service.url}/metrics").text
    service.process.terminate()
    assert service.end() == 0


def _ends(paths: Any) -> list[Any]:
    return [(path["nodes"], [round(score, 4) for score in path["scores"]]) for path in paths]


def test_the_image_has_what_setup_cfg_installs():
    root = Path(__file__).parents[3]
    image = (root / "Dockerfile").read_text(encoding="utf-8")
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    (torch,) = re.findall(r"^torch.*$", setup["options"]["install_requires"], re.MULTILINE)
    assert f'"{torch}"' in image
    folders = re.findall(r"= (\w+)", setup["options"]["package_dir"])
    ignored = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for folder in folders:
        assert f"COPY {folder} /src/{folder}\n" in image
        assert f"!{folder}" in ignored
    for name in re.findall(r"^COPY (.*) /src/$", image, re.MULTILINE)[0].split():
        assert (root / name).is_file()
        assert f"!{name}" in ignored
