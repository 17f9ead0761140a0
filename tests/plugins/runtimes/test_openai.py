"""Servers that speak OpenAI's protocol: a small one of our own on loopback, with faults that are switched on."""

from __future__ import annotations

import http.server
import importlib.util
import json
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from edgeprof.artifact import recognise
from edgeprof.benchmark.conductor import bench
from edgeprof.benchmark.request import BenchRequest, ModelRequest
from edgeprof.errors import InputError
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.worker.runtime import LoadError, LoadOptions
from edgeprof_plugins.runtimes import openai
from edgeprof_plugins.runtimes.openai import OpenAI, ServerSession
from tests.profiler.artifact import gguf_files
from tests.profiler.watching import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOKEN_S = 0.002


class Server(http.server.ThreadingHTTPServer):
    """A model of one word a token; its faults are switched on by name."""

    daemon_threads = True
    block_on_close = True

    def __init__(self, **faults: Any) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults = faults
        self.prompts: list[str] = []
        self.bodies: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.server.faults.get("no_list"):
            self._answer(404, {"error": {"message": "no such path"}})
        else:
            names = self.server.faults.get("models", ["small"])
            self._answer(200, {"data": [{"id": name} for name in names]})

    def do_POST(self) -> None:
        faults = self.server.faults
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.prompts.append(body["prompt"])
        self.server.bodies.append(body)
        if faults.get("strict") and "ignore_eos" in body:
            return self._answer(422, {"error": {"message": "unknown field ignore_eos"}})
        prompt_tokens = len(body["prompt"].split()) + faults.get("template", 0)
        if prompt_tokens > faults.get("context", 10**9):
            return self._answer(400, {"error": {"message": f"the request has {prompt_tokens} tokens, the context 16"}})
        if faults.get("silent"):
            faults["silent"].wait()
            return self.wfile.close()
        generated = min(body["max_tokens"], faults.get("stops_after", 10**9))
        usage: dict[str, Any] = {"prompt_tokens": prompt_tokens, "completion_tokens": generated}
        usage["prompt_tokens_details"] = {"cached_tokens": faults.get("cached", 0)}
        told = {} if faults.get("no_usage") else {"usage": usage}
        if not body.get("stream"):
            return self._answer(200, {"choices": [{"text": "word"}], **told})
        return self._stream(generated, told)

    def _stream(self, generated: int, told: dict[str, Any]) -> None:
        faults = self.server.faults
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        together = faults.get("together", 1)
        self._chunk({"choices": [{"text": ""}]})
        for number in range(generated):
            time.sleep(TOKEN_S)
            if (number + 1) % together == 0:
                self._chunk({"choices": [{"text": "" if faults.get("empty") else " word" * together}]})
        if faults.get("fails"):
            self._chunk({"error": {"message": "out of memory"}})
        self._chunk({"choices": [], **told})
        self._line(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, content: dict[str, Any]) -> None:
        self._line(b"data: " + (b"{" if self.server.faults.get("garbage") else json.dumps(content).encode()) + b"\n\n")

    def _line(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[tuple[Server, threading.Thread]] = []

    def start(**faults: Any) -> Server:
        server = Server(**faults)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def load(server: Server, **options: str) -> ServerSession:
    asked = {"prompt": "32", "generate": "5", **options}
    session = OpenAI().load(server.url, LoadOptions("server", None, 1, {}, asked))
    assert isinstance(session, ServerSession)
    return session


@pytest.fixture
def session_of() -> Iterator[Callable[..., ServerSession]]:
    sessions: list[ServerSession] = []

    def open_one(server: Server, **options: str) -> ServerSession:
        sessions.append(load(server, **options))
        return sessions[-1]

    yield open_one
    for session in sessions:
        session.close()


def test_a_request_has_the_tokens_that_were_asked_for_and_the_time_of_each(serve, session_of) -> None:
    session = session_of(serve())
    assert [(w.name, w.unit, w.units_per_call) for w in session.workloads()] == [
        ("request", "request", 1),
        ("prefill", "prompt token", 32),
    ]
    assert session.language()["prompt_tokens"] == 32
    assert session.language()["place"] == "this device"
    session.run({})
    counts, seconds = session.take_token_times()
    assert list(counts) == [5]
    assert seconds[0] >= TOKEN_S
    assert seconds[4] >= 5 * TOKEN_S
    assert list(seconds) == sorted(seconds)


def test_no_two_prompts_begin_alike(serve, session_of) -> None:
    server = serve()
    session = session_of(server)
    for name in ("prefill", "request") * 5:
        session.bind_workload(name, {})()
    beginnings = [prompt.split()[:6] for prompt in server.prompts]
    assert all(beginnings.count(one) == 1 for one in beginnings)
    assert all(body.get("cache_prompt") is False for body in server.bodies)


def test_a_template_that_the_server_adds_is_counted(serve, session_of) -> None:
    session = session_of(serve(template=10))
    assert session.language()["prompt_tokens"] == 32
    session.run({})
    short = session_of(serve(template=50))  # the shortest prompt is longer than what was asked for: said, not hidden
    assert short.language()["prompt_tokens"] == 56


def test_a_strict_server_is_asked_without_what_it_does_not_know(serve, session_of) -> None:
    server = serve(strict=True)
    session = session_of(server)
    session.run({})
    assert session.facts["extras"] == "none"
    assert "ignore_eos" not in server.bodies[-1]


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"no_usage": True}, "does not count its tokens"),
        ({"stops_after": 3}, "ended a request after 3 of 5 tokens"),
        ({"cached": 30}, "took 30 of 32 prompt tokens from its cache"),
        ({"empty": True}, "streams empty chunks"),
        ({"garbage": True}, "streams something that is not JSON"),
        ({"fails": True}, "failed within a request: out of memory"),
        ({"context": 16}, r"the request has 32 tokens, the context 16 \(400\)"),
        ({"models": ["a", "b"]}, "has several models: a, b"),
        ({"no_list": True}, "does not list its models"),
    ],
)
def test_a_server_at_fault_is_one_sentence(serve, session_of, faults: dict[str, Any], says: str) -> None:
    server = serve(**faults)
    with pytest.raises(LoadError, match=says) as caught:
        session_of(server).run({})
    assert server.url in caught.value.message
    assert "\n" not in caught.value.message


def test_a_model_that_the_server_has_not_is_told_with_those_that_it_has(serve, session_of) -> None:
    with pytest.raises(LoadError, match="has no model large; it has small"):
        session_of(serve(), model="large")
    assert session_of(serve(no_list=True), model="large").facts["model"] == "large"


def test_a_server_that_is_down_or_says_nothing_is_one_sentence(serve, session_of, monkeypatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(LoadError, match=r"does not answer: Connection refused") as caught:
            OpenAI().load(url, LoadOptions("server", None, 1, {}, {}))
    assert f"curl {url}/v1/models" in caught.value.remedy
    monkeypatch.setattr(openai, "SILENCE_S", 0.1)
    silence = threading.Event()
    try:
        with pytest.raises(LoadError, match=r"has said nothing for 0\.1 s"):
            session_of(serve(silent=silence))
    finally:
        silence.set()


@pytest.mark.parametrize(
    ("device", "threads", "options", "says"),
    [
        ("cuda", None, {}, "--device cuda says nothing to a server"),
        ("server", 2, {}, "--threads says nothing"),
        ("server", None, {"depth": "5"}, "takes no --depth"),
        ("server", None, {"promt": "5"}, "there is no option promt"),
    ],
)
def test_what_only_a_local_model_takes_is_refused(device: str, threads: int | None, options: dict, says: str) -> None:
    with pytest.raises(LoadError, match=says):
        OpenAI().load("http://127.0.0.1:1", LoadOptions(device, threads, 1, {}, options))


def test_chunks_of_several_tokens_give_no_gap_between_tokens(serve, tmp_path: Path, monkeypatch) -> None:
    variant = bench_of(serve(together=2), tmp_path, monkeypatch, generate=6)
    assert variant.language.itl_s is None
    assert variant.language.tpot_s.samples == variant.latency_s.samples


def test_a_bench_of_a_server_has_no_joules_of_the_client_and_no_memory_of_it(
    serve, tmp_path: Path, monkeypatch
) -> None:
    variant = bench_of(serve(), tmp_path, monkeypatch, generate=5)
    assert (variant.runtime.name, variant.runtime.device, variant.model.format) == ("openai", "server", "openai-server")
    assert [workload.name for workload in variant.workloads] == ["request", "prefill"]
    assert variant.workloads[1].units_per_call == 32
    assert variant.memory_bytes is None
    energy = variant.energy_j_per_inference
    assert energy is None or energy.gross.value is None
    assert variant.utilization.cpu is None
    assert variant.language.itl_s.mean > 0
    assert variant.language.closure is None
    assert "served_elsewhere" not in [reason.code for reason in variant.reasons]


def bench_of(server: Server, tmp_path: Path, monkeypatch, *, generate: int) -> Any:
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "sys").mkdir()  # a device without sensors
    request = BenchRequest(
        models=[ModelRequest(server.url, "small")],
        server_model="small",
        language={"prompt": 32, "generate": generate},
        windows=2,
        window_s=0.2,
        warmup_s=0.05,
        isolated=False,
    )
    result = bench(request, PluginHost.from_environment(), Roots.resolve(tmp_path / "sys", None), Watcher())
    return result.variants[0]


def test_the_address_of_a_file_is_no_server() -> None:
    assert recognise("http://127.0.0.1:8080").format == "openai-server"
    assert recognise("https://example.com/v1").format == "openai-server"
    with pytest.raises(InputError, match="is an address, not a file"):
        recognise("https://example.com/m.gguf")
    with pytest.raises(InputError, match="is an address, not a file"):
        recognise("s3://bucket/models")


XLLAMACPP = """
import sys, xllamacpp
asked = xllamacpp.CommonParams()
asked.model.path, asked.port = sys.argv[1], 0
asked.n_ctx, asked.n_parallel, asked.warmup = 512, 1, False
asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(asked)
print("at " + server.listening_address, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is not installed")
def test_a_real_llama_server_is_measured(tmp_path: Path) -> None:
    """A llama-server in a process of its own, which ends when its stdin does."""
    (tmp_path / "small.gguf").write_bytes(gguf_files.llama(tokenizer=True))
    command = [sys.executable, "-c", XLLAMACPP, str(tmp_path / "small.gguf")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        url = next(line for line in process.stdout if line.startswith("at http"))[3:].strip()
        session = OpenAI().load(url, LoadOptions("server", None, 1, {}, {"prompt": "200", "generate": "6"}))
        try:
            assert abs(session.language()["prompt_tokens"] - 200) <= 5
            for name in ("prefill", "request", "request"):
                session.bind_workload(name, {})()
            counts, _ = session.take_token_times()
            assert len(counts) == 2
        finally:
            session.close()
            process.stdin.close()
            process.kill()
