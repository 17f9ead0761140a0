"""Language models on a server with OpenAI's protocol (llama-server, Ollama, vLLM and others), given by its URL.

A call of ``request`` is one streamed completion of a prompt of known length. A call of ``prefill`` is a completion of a
single token, because reading the prompt produces the first token. Every prompt begins with different words, so that no
prompt cache can answer it. The server's token count (``usage``) is compared with the request each time. The protocol
has no request for decoding alone.

The energy is measured on this device, so the server must run on it. Its processor time and memory are not measured.
"""

import contextlib
import http.client
import itertools
import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple
from urllib.parse import urlsplit

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker.language import Lengths, TokenClock, read_lengths
from edgeprof.worker.runtime import Availability, LoadError, LoadOptions, Runtime, Session
from edgeprof.worker.workload import Workload

if TYPE_CHECKING:
    from array import array

#: How long a server may send nothing, in seconds.
SILENCE_S = 60.0
#: The most bytes that are read of an answer that is not a stream, and of one line of a stream.
LIMIT_BYTES = 4 << 20
#: All words have four letters, so that prompts with equally many words have equally many tokens with any tokenizer.
_WORDS = (
    "time",
    "year",
    "work",
    "life",
    "hand",
    "part",
    "case",
    "week",
    "fact",
    "home",
    "room",
    "area",
    "book",
    "word",
    "name",
    "line",
    "city",
    "idea",
    "body",
    "face",
)
#: The number of words at the beginning that make a prompt unique: there are 20⁶ combinations.
_DISTINCT = 6
#: The share of a prompt that may come from a cache, such as a begin-of-text token or a chat template.
_CACHED_SHARE = 0.05
#: Parameters for servers that know them, such as llama-server and vLLM; they are omitted for others.
_EXTRAS = {"ignore_eos": True, "cache_prompt": False}


class Chunk(NamedTuple):
    """One message of a stream, and its arrival time (CLOCK_MONOTONIC, in seconds)."""

    time_s: float
    content: Dict[str, Any]


class OpenAI(Runtime):
    name = "openai"
    formats = ("openai-server",)
    default_device = "server"
    is_for_language = True

    def availability(self) -> Availability:
        return Availability("completions v1", None, None)

    def devices(self) -> List[str]:
        return ["server"]

    def load(self, path: str, options: LoadOptions) -> Session:
        lengths = read_lengths(options, others=("model",))
        if options.device != "server":
            raise LoadError(
                "--device {} says nothing to a server".format(options.device), "The server chose its device."
            )
        if options.threads:
            raise LoadError("--threads says nothing to a server", "Its threads are chosen where it is started.")
        if lengths.depth or lengths.context is not None:
            raise LoadError("a server takes no --depth and no --context", "Its context is chosen where it is started.")
        server = Server(path)
        try:
            return ServerSession(server, _choose_model(server, options.options.get("model")), lengths)
        except BaseException:
            server.close()
            raise


class Server:
    """One connection to a server."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url, self._secure = url, parts.scheme == "https"
        try:
            self.host, self._port = parts.hostname or "", parts.port
        except ValueError:
            raise LoadError("{} is no address of a server".format(url), "As: http://127.0.0.1:8080") from None
        self._base = parts.path.rstrip("/")
        if not self._base.endswith("/v1"):
            self._base += "/v1"
        self._connection: Optional[http.client.HTTPConnection] = None

    def fetch(self, what: str, body: Optional[Dict[str, Any]] = None) -> Any:
        """Send a request and return the answer, a single JSON document.

        Raises:
            LoadError: the server does not answer, or the answer is not JSON.
        """
        with self._explained():
            response = self._send(what, body)
            text = response.read(LIMIT_BYTES)
            response.read()
        try:
            return json.loads(text.decode("utf-8"))
        except ValueError:
            raise self._refusal("answered {} with something that is not JSON".format(what)) from None

    def stream(self, body: Dict[str, Any]) -> Iterator[Chunk]:
        """Request a streamed completion and yield its messages, each with its arrival time.

        Raises:
            LoadError: the server does not answer, or the answer is not such a stream.
        """
        with self._explained():
            response = self._send("completions", dict(body, stream=True, stream_options={"include_usage": True}))
            while True:
                line = response.readline(LIMIT_BYTES)
                now = time.monotonic()  # before the line is parsed
                if not line:
                    return
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    response.read()  # read the rest, because the connection is reused
                    return
                yield Chunk(now, self._message(data))

    def _message(self, data: bytes) -> Dict[str, Any]:
        try:
            content = json.loads(data.decode("utf-8"))
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise self._refusal("streams something that is not JSON")
        if "error" in content:
            raise self._refusal("failed within a request: {}".format(_error_text(content)))
        return content

    def _send(self, what: str, body: Optional[Dict[str, Any]]) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"}
        key = os.environ.get("EDGEPROF_SERVER_KEY")
        if key:
            headers["Authorization"] = "Bearer " + key
        data = None if body is None else json.dumps(body).encode()
        for is_fresh in (self._connection is None, True):
            try:
                connection = self._connect()
                connection.request("GET" if data is None else "POST", self._base + "/" + what, data, headers)
                response = connection.getresponse()
                break
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                self.close()  # a server may close idle connections; a new connection is tried once
                if is_fresh:
                    raise
        if response.status != 200:
            text = response.read(LIMIT_BYTES)
            self.close()
            raise RefusedError(
                response.status, self._refusal("refuses {}: {}".format(what, _body_text(response, text)))
            )
        return response

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            self._connection = kind(self.host, self._port, timeout=SILENCE_S)
        return self._connection

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except socket.timeout:
            self.close()
            raise self._refusal("has said nothing for {:g} s".format(SILENCE_S)) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise self._refusal("does not answer: {}".format(reason)) from None

    def _refusal(self, what: str) -> LoadError:
        return LoadError(
            "the server {} {}".format(self.url, what), "Start it, and try its address: curl {}/models".format(self.v1)
        )

    @property
    def v1(self) -> str:
        """The base address of the paths of the protocol."""
        parts = urlsplit(self.url)
        return "{}://{}{}".format(parts.scheme, parts.netloc, self._base)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class RefusedError(LoadError):
    """The server answered with an error."""

    def __init__(self, status: int, error: LoadError) -> None:
        super().__init__(error.message, None)
        self.status = status


class ServerSession(Session):
    """A session with a model on a server, and with a prompt whose tokens the server has counted."""

    def __init__(self, server: Server, model: str, lengths: Lengths) -> None:
        self._server, self._model = server, model
        self._clock = TokenClock()
        self._numbers = itertools.count(int(time.time() * 1000))  # a later run finds none of these prompts in a cache
        self._extras = self._known_extras()
        self._words, prompt_tokens = self._find_length(lengths.prompt)
        self._lengths = lengths._replace(prompt=prompt_tokens)
        sent = ", ".join(sorted(self._extras)) or "none"
        self.facts = {"server": server.url, "model": model, "extras": sent, "place": self._place()}

    def workloads(self) -> Sequence[Workload]:
        return [workload for workload in self._lengths.workloads() if workload.name != "decode"]

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:  # noqa: ARG002 - the session makes its own prompts
        self._request()
        return {"generated_tokens": np.array([self._lengths.generate])}

    def bind_workload(self, name: str, feeds: Dict[str, Any]) -> Callable[[], Any]:  # noqa: ARG002 - the session makes its own prompts
        return {"request": self._request, "prefill": self._prefill}[name]

    def language(self) -> Optional[Dict[str, Any]]:
        return {
            "prompt_tokens": self._lengths.prompt,
            "generated_tokens": self._lengths.generate,
            "depth": 0,
            "context": None,
            "kv_type": None,
            "method": "requests",
            "place": self._place(),
        }

    def take_token_times(self) -> "Tuple[array[int], array[float]]":
        return self._clock.take()

    def close(self) -> None:
        self._server.close()

    def _place(self) -> str:
        """Where the server runs; the energy measured on this device includes the server only if it runs here."""
        return "this device" if _is_own_address(self._server.host) else "another machine"

    def _known_extras(self) -> Dict[str, Any]:
        """The parameters beyond the protocol that this server accepts; a strict server rejects unknown ones."""
        try:
            self._count_tokens(self._prompt(_DISTINCT), _EXTRAS)
        except RefusedError as error:
            if error.status not in (400, 422):
                raise
            return {}
        return dict(_EXTRAS)

    def _find_length(self, tokens: int) -> Tuple[int, int]:
        """The number of words of a prompt with about ``tokens`` tokens, and the token count of the server."""
        counted = {}
        for words in (_DISTINCT, 2 * _DISTINCT):  # short prompts, which fit any context, give the tokens per word
            counted[words] = self._count_tokens(self._prompt(words), self._extras)
        for _ in range(6):
            best = min(counted, key=lambda words: abs(counted[words] - tokens))
            a_word = (counted[2 * _DISTINCT] - counted[_DISTINCT]) / _DISTINCT
            words = max(_DISTINCT, best + round((tokens - counted[best]) / max(a_word, 0.1)))
            if words in counted:
                break
            counted[words] = self._count_tokens(self._prompt(words), self._extras)
        best = min(counted, key=lambda words: abs(counted[words] - tokens))
        return best, counted[best]

    def _count_tokens(self, prompt: str, extras: Dict[str, Any]) -> int:
        answer = self._server.fetch("completions", dict(self._body(prompt, 1), **extras))
        return self._usage(answer if isinstance(answer, dict) else {})["prompt_tokens"]

    def _prompt(self, words: int) -> str:
        """A text of this many words with a unique beginning."""
        number, chosen = next(self._numbers), []
        for _ in range(_DISTINCT):
            number, digit = divmod(number, len(_WORDS))
            chosen.append(_WORDS[digit])
        repeated = itertools.islice(itertools.cycle(_WORDS), max(0, words - _DISTINCT))
        return " ".join(itertools.chain(chosen, repeated))

    def _body(self, prompt: str, generate: int) -> Dict[str, Any]:
        return {"model": self._model, "prompt": prompt, "max_tokens": generate, "temperature": 0}

    def _prefill(self) -> None:
        answer = self._server.fetch("completions", dict(self._body(self._prompt(self._words), 1), **self._extras))
        self._check(answer if isinstance(answer, dict) else {}, 1)

    def _request(self) -> None:
        generate = self._lengths.generate
        last: Dict[str, Any] = {}
        chunks = 0
        body = dict(self._body(self._prompt(self._words), generate), **self._extras)
        self._clock.start()
        for chunk in self._server.stream(body):
            if chunk.content.get("usage"):
                last = chunk.content
            if _text(chunk.content):
                self._clock.token_at(chunk.time_s)
                chunks += 1
        self._clock.end()
        self._check(last, generate)
        if not chunks:
            raise self._wrong("streams empty chunks: when its tokens came cannot be told")

    def _check(self, answer: Dict[str, Any], generate: int) -> None:
        """Compare the token counts of the server with the request.

        Raises:
            LoadError: the counts differ from the request, or a cache answered it.
        """
        usage = self._usage(answer)
        if usage["completion_tokens"] != generate:
            raise LoadError(
                "the server {} ended a request after {} of {} tokens".format(
                    self._server.url, usage["completion_tokens"], generate
                ),
                "Give a smaller --generate, or a server that takes ignore_eos (llama-server, vLLM).",
            )
        if usage["prompt_tokens"] != self._lengths.prompt:
            raise self._wrong(
                "counts {} tokens in a prompt as long as one of {}".format(usage["prompt_tokens"], self._lengths.prompt)
            )
        if usage["cached_tokens"] > _CACHED_SHARE * self._lengths.prompt + 1:
            raise self._wrong(
                "took {} of {} prompt tokens from its cache".format(usage["cached_tokens"], usage["prompt_tokens"])
            )

    def _usage(self, answer: Dict[str, Any]) -> Dict[str, int]:
        usage = answer.get("usage")
        if not isinstance(usage, dict):
            raise self._wrong("does not count its tokens (no usage in its answers)")
        details = usage.get("prompt_tokens_details")
        counts = dict(usage, cached_tokens=(details if isinstance(details, dict) else {}).get("cached_tokens") or 0)
        names = ("prompt_tokens", "completion_tokens", "cached_tokens")
        if not all(isinstance(counts.get(name), int) for name in names):
            raise self._wrong("does not count its tokens (no numbers in its usage)")
        return {name: counts[name] for name in names}

    def _wrong(self, what: str) -> LoadError:
        return LoadError("the server {} {}".format(self._server.url, what))


def _choose_model(server: Server, asked: Optional[str]) -> str:
    """The requested model, or the only model of the server.

    Raises:
        LoadError: the server does not answer, does not have this model, or has several and none was requested.
    """
    try:
        answer = server.fetch("models")
    except RefusedError:  # some servers have no list of models
        if asked is None:
            raise LoadError("the server {} does not list its models".format(server.url), "Give --model NAME.") from None
        return asked
    listed = answer.get("data") if isinstance(answer, dict) else None
    names = [str(model.get("id")) for model in listed if isinstance(model, dict)] if isinstance(listed, list) else []
    if asked is not None and (asked in names or not names):
        return asked
    if asked is None and len(names) == 1:
        return names[0]
    shown = ", ".join(names[:8]) or "none"
    if asked is None:
        raise LoadError("the server {} has several models: {}".format(server.url, shown), "Give one: --model NAME.")
    raise LoadError("the server {} has no model {}; it has {}".format(server.url, asked, shown))


def _text(content: Dict[str, Any]) -> str:
    """The text of a message; "" where it has none."""
    choices = content.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    return str(choice.get("text") or "")


def _error_text(content: Dict[str, Any]) -> str:
    error = content.get("error")
    text = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(text).split())[:300]


def _body_text(response: http.client.HTTPResponse, body: bytes) -> str:
    """Why a server refused a request: its error message, or its status."""
    with contextlib.suppress(ValueError):
        content = json.loads(body.decode("utf-8"))
        if isinstance(content, dict) and content.get("error"):
            return "{} ({})".format(_error_text(content), response.status)
    return "{} {}".format(response.status, response.reason)


def _is_own_address(host: str) -> bool:
    """Whether a host is this machine, because only then can a socket be bound to its address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("openai", OpenAI)
