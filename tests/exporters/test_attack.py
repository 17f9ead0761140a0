"""What strangers on the network do, and slow friends: nothing crashes, leaks, or is served to whom it should not."""

from __future__ import annotations

import base64
import http.client
import shutil
import socket
import ssl
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge

from edgeprof.errors import InputError
from edgeprof_exporters import webconfig
from edgeprof_exporters.http_request import BadRequestError, Request, parse_head
from edgeprof_exporters.quotas import Bucket
from edgeprof_exporters.server import Response, Server, listen
from edgeprof_exporters.web import Web
from edgeprof_exporters.webconfig import WebConfig, read
from tests.exporters.certificates import authority, signed

if TYPE_CHECKING:
    from pathlib import Path

bcrypt = pytest.importorskip("bcrypt")
pytest.importorskip("prometheus_client", reason="pip install 'edgeprof[exporter]'")
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")


class Hello:
    """Answers at once, or when it is let."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def answer(self, request: Request) -> Response:
        if request.path == "/slow":
            self.gate.wait(10)
        if request.path == "/crash":
            raise RuntimeError("secret")
        return Response(200, b"hello")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    authority(folder)
    authority(folder, "other-ca")
    signed(folder, "server", "DNS:localhost,IP:127.0.0.1")
    signed(folder, "server2", "DNS:localhost,IP:127.0.0.1")
    signed(folder, "prometheus", "DNS:prometheus.example")
    signed(folder, "stranger", "DNS:stranger.example")
    signed(folder, "forged", "DNS:prometheus.example", ca="other-ca")
    return folder


@pytest.fixture
def serve(tmp_path: Path):
    with ExitStack() as stack:

        def make(config: str | None = None, most: int = 256) -> tuple[int, WebConfig | None, Hello]:
            guard = None
            if config is not None:
                path = tmp_path / "web.yml"
                path.write_text(config)
                guard = WebConfig(path)
            application = Hello()
            sockets = listen(["127.0.0.1:0"])
            port = sockets[0].getsockname()[1]
            server = Server(sockets, application, guard, most)
            server.start()
            stack.callback(server.stop)
            stack.callback(application.gate.set)
            return port, guard, application

        yield make


def plain(port: int, path: str = "/", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def over_tls(port: int, pki: Path, client: str | None = None, context: ssl.SSLContext | None = None) -> int:
    context = context or trusting(pki)
    if client:
        context.load_cert_chain(pki / f"{client}.crt", pki / f"{client}.key")
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=10)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def trusting(pki: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=pki / "ca.crt")


def tls(pki: Path, *more: str) -> str:
    return "\n".join(
        ["tls_server_config:", f"  cert_file: {pki}/server.crt", f"  key_file: {pki}/server.key", *more, ""]
    )


def mutual(pki: Path, *more: str) -> str:
    return tls(pki, f"  client_ca_file: {pki}/ca.crt", "  client_auth_type: RequireAndVerifyClientCert", *more)


def test_silent_connections_block_nobody_over_plain_http_and_tls(serve, pki: Path) -> None:
    """prometheus_client's own server stops here: its handshake waits where connections are accepted."""
    for config, ask in ((None, plain), (tls(pki), lambda port: over_tls(port, pki))):
        port, _, _ = serve(config)
        with ExitStack() as stack:
            for _ in range(50):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            begun = time.monotonic()
            assert ask(port) == 200
            assert time.monotonic() - begun < 3


def test_one_byte_a_second_gains_no_time(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprof_exporters.connections.HEAD_S", 0.6)
    port, _, _ = serve()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        begun = time.monotonic()
        sock.settimeout(0.05)
        sock.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        while time.monotonic() - begun < 5:
            try:
                sock.send(b"a")
                if sock.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert time.monotonic() - begun < 5


def test_a_reader_that_does_not_read_holds_no_thread_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprof_exporters.connections.WRITE_S", 0.3)

    class Large:
        def answer(self, request: Request) -> Response:
            return Response(200, b"x" * 20_000_000)

    server = Server(listen(["127.0.0.1:0"]), Large())
    server.start()
    port = int(server.addresses[0].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        deadline = time.monotonic() + 10
        while not server._answering:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        while server._answering:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    server.stop()


def test_with_all_places_taken_by_idle_connections_a_scrape_still_gets_through(serve) -> None:
    port, _, _ = serve(most=8)
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            time.sleep(0.005)
        assert plain(port) == 200


def test_two_hundred_scrapes_at_once_are_all_answered(shared) -> None:
    descriptors = shared.descriptors()
    with ThreadPoolExecutor(200) as pool:
        codes = list(pool.map(lambda _: shared.get()[0], range(200)))
    assert set(codes) <= {200, 503}
    assert 200 in codes
    shared.until(lambda: shared.descriptors() <= descriptors + 2)
    assert shared.get("/-/healthy")[0] == 200
    assert not shared.logged('"error"')


def test_scrapes_that_wait_for_each_other_share_the_next_one_and_none_is_older_than_its_request() -> None:
    begun, gate, asked = [], threading.Event(), threading.Semaphore(0)

    class Counted:
        def registry(self, *_: object) -> CollectorRegistry:
            asked.release()
            registry, gauge = CollectorRegistry(), Gauge("scrapes", "S.", registry=None)
            gauge.set_function(lambda: len(begun))
            registry.register(gauge)
            return registry

    def before_scrape() -> None:
        begun.append(1)
        gate.wait(10)

    web = Web(Counted(), max_requests=0, before_scrape=before_scrape)
    request = Request("GET", "/metrics", "", {})
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(web.answer, request)
        asked.acquire()
        deadline = time.monotonic() + 10
        while not begun:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        others = [pool.submit(web.answer, request) for _ in range(8)]
        for _ in others:
            asked.acquire()
        time.sleep(0.1)  # from here on they wait for the first
        gate.set()
        assert b"scrapes 1.0" in first.result(10).body
        assert all(b"scrapes 2.0" in one.result(10).body for one in others)
    assert len(begun) == 2
    assert b"scrapes 3.0" in web.answer(request).body


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 60_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 60_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: x\r\n" % n for n in range(101)) + b"\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
        (b"GET / HTTP/3\r\n\r\n", 505),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded: x\r\n\r\n", 400),
        (b"GET /crash HTTP/1.1\r\nHost: x\r\n\r\n", 500),
    ],
)
def test_what_is_no_plain_request_is_refused_and_tells_nothing(serve, sent: bytes, status: int) -> None:
    port, _, _ = serve()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(sent)
        answer = b""
        while data := sock.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"secret" not in answer
    assert plain(port) == 200


@settings(max_examples=200, deadline=None)  # test_fuzzing has the ten thousand
@given(
    st.one_of(st.binary(max_size=300), st.binary(max_size=100).map(lambda b: b"GET /" + b + b" HTTP/1.1\r\nA: " + b))
)
def test_no_head_whatever_makes_the_parser_fail(head: bytes) -> None:
    try:
        request = parse_head(head)
    except BadRequestError:
        return
    assert request.path.startswith("/")
    assert not any("\n" in value or "\r" in value for value in request.headers.values())


def test_a_server_that_ends_lets_running_answers_end(serve) -> None:
    application = Hello()
    application.gate.clear()
    server = Server(listen(["127.0.0.1:0"]), application)
    server.start()
    port = int(server.addresses[0].rpartition(":")[2])
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(plain, port, "/slow")
        deadline = time.monotonic() + 5
        while not server._answering:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        threading.Timer(0.1, application.gate.set).start()
        server.stop(drain_s=2.0)
        assert running.result(5) == 200
    with pytest.raises(OSError, match="refused"):
        plain(port)


# -- TLS and certificates ---------------------------------------------------------------------------------------------


def test_tls_1_2_is_the_oldest_that_is_spoken(serve, pki: Path) -> None:
    port, _, _ = serve(tls(pki))
    assert over_tls(port, pki) == 200
    old = trusting(pki)
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        over_tls(port, pki, context=old)
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        plain(port)


def test_only_certificates_of_our_authority_and_on_the_list_get_in(serve, pki: Path) -> None:
    port, _, _ = serve(mutual(pki, "  client_allowed_sans: [prometheus.example]"))
    assert over_tls(port, pki, "prometheus") == 200
    for client in (None, "stranger", "forged"):
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            over_tls(port, pki, client)


def test_a_certificate_is_swapped_under_load_without_one_failed_scrape(serve, pki: Path, tmp_path: Path) -> None:
    for kind in ("crt", "key"):
        shutil.copy(pki / f"server.{kind}", tmp_path / f"live.{kind}")
    port, _, _ = serve(f"tls_server_config:\n  cert_file: {tmp_path}/live.crt\n  key_file: {tmp_path}/live.key\n")
    stop, codes, serials = threading.Event(), [], set()

    def scrape() -> None:
        while not stop.is_set():
            codes.append(over_tls(port, pki))

    def serial() -> str:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
            trusting(pki).wrap_socket(raw, server_hostname="localhost") as sock,
        ):
            return sock.getpeercert()["serialNumber"]

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(scrape) for _ in range(3)]
        for name in ("server2", "server") * 3:
            shutil.copy(pki / f"{name}.crt", tmp_path / "new")
            (tmp_path / "new").replace(tmp_path / "live.crt")
            time.sleep(0.05)  # for a moment certificate and key do not fit one another
            shutil.copy(pki / f"{name}.key", tmp_path / "new")
            (tmp_path / "new").replace(tmp_path / "live.key")
            time.sleep(0.05)
            serials.add(serial())
        stop.set()
        for one in running:
            one.result(10)
    assert set(codes) == {200}
    assert len(serials) == 2


# -- passwords --------------------------------------------------------------------------------------------------------

HASH = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(7)).decode()
USERS = f'basic_auth_users:\n  prometheus: "{HASH}"\n'


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_the_right_password_gets_in_and_nothing_else_does(serve) -> None:
    port, _, _ = serve(USERS)
    assert plain(port, **basic("prometheus", "correct horse")) == 200
    for headers in (
        {},
        basic("prometheus", "wrong"),
        basic("nobody", "correct horse"),
        basic("prometheus", ""),
        {"Authorization": "Basic ???"},
        {"Authorization": "Bearer x"},
        {"Authorization": "Basic " + base64.b64encode(b"prometheus").decode()},
    ):
        assert plain(port, **headers) == 401


def test_a_wrong_password_takes_as_long_for_a_user_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text(USERS)
    guard = WebConfig(tmp_path / "web.yml")
    times: dict[str, list[float]] = {"prometheus": [], "nobody": []}
    for turn in range(25):
        for user, taken in times.items():
            request = Request("GET", "/", "", {"authorization": basic(user, f"wrong{turn}")["Authorization"]})
            begun = time.thread_time()
            assert guard.refuses(request).status == 401
            taken.append(time.thread_time() - begun)
    known, unknown = (min(taken) for taken in times.values())
    assert 0.5 < known / unknown < 2.0
    assert statistics.median(times["nobody"]) > 1e-3  # it was truly computed


def test_a_flood_of_wrong_passwords_keeps_out_nobody_whose_password_is_right(serve) -> None:
    """Neither who logged in before nor who comes for the first time, each in one try."""
    port, _, _ = serve(USERS)
    assert plain(port, **basic("prometheus", "correct horse")) == 200
    fresh, _, _ = serve(USERS)
    stop = threading.Event()

    def guess(number: int) -> set[int]:
        codes, turn = set(), 0
        while not stop.is_set():
            turn += 1
            for one in (port, fresh):
                codes.add(plain(one, **basic("prometheus", f"wrong {number} {turn}")))
        return codes

    with ThreadPoolExecutor(24) as pool:
        flood = [pool.submit(guess, number) for number in range(24)]
        try:
            assert plain(port, **basic("prometheus", "correct horse")) == 200
            assert plain(fresh, **basic("prometheus", "correct horse")) == 200
        finally:
            stop.set()
        assert set().union(*(one.result() for one in flood)) <= {401, 503}


def test_the_same_wrong_password_costs_one_check(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    port, _, _ = serve(USERS)
    checked = []
    check = bcrypt.checkpw
    monkeypatch.setattr(bcrypt, "checkpw", lambda *arguments: checked.append(1) or check(*arguments))
    assert {plain(port, **basic("prometheus", "old password")) for _ in range(20)} == {401}
    assert len(checked) == 1


def test_a_password_that_is_taken_away_gets_in_no_more(serve, tmp_path: Path) -> None:
    port, guard, _ = serve(USERS)
    assert plain(port, **basic("prometheus", "correct horse")) == 200
    other = bcrypt.hashpw(b"battery staple", bcrypt.gensalt(5)).decode()
    guard.path.write_text(f'basic_auth_users:\n  prometheus: "{other}"\n')
    assert plain(port, **basic("prometheus", "correct horse")) == 401
    assert plain(port, **basic("prometheus", "battery staple")) == 200
    guard.path.write_text("basic_auth_users: [")  # half-way through an edit it must not open up
    assert plain(port) == 401
    assert plain(port, **basic("prometheus", "battery staple")) == 200


def test_rates_are_limited_and_headers_added(serve) -> None:
    port, _, _ = serve(
        "rate_limit: {interval: 1h, burst: 3}\nhttp_server_config:\n  headers: {X-Frame-Options: deny}\n"
    )
    assert [plain(port) for _ in range(4)] == [200, 200, 200, 429]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().headers["X-Frame-Options"] == "deny"
    connection.close()


def test_a_bucket_fills_again() -> None:
    bucket = Bucket(0.01, 1)
    assert bucket.take()
    deadline = time.monotonic() + 5
    while not bucket.take():
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tls_serverconfig: {}", "Did you mean tls_server_config?"),
        ("tls_server_config: {cert_file: x}", "needs key_file"),
        ("tls_server_config: {cert_file: x.crt, key_file: x.key}", "cannot be used"),
        ("tls_server_config: {certfile: x}", "Did you mean cert_file?"),
        ("tls_server_config: {cert_file: S.crt, key_file: S.key, min_version: TLS10}", "min_version: TLS12"),
        ("tls_server_config: {cert_file: S.crt, key_file: S.key, min_version: SSL3}", "no min_version"),
        ("tls_server_config: {cert_file: S.crt, key_file: T.key}", "cannot be used"),
        ("tls_server_config: {cert_file: S.crt, key_file: S.key, client_auth_type: RequireAnyClientCert}", "without"),
        (
            "tls_server_config: {cert_file: S.crt, key_file: S.key, client_auth_type: RequireAndVerifyClientCert}",
            "needs client_ca_file",
        ),
        ("tls_server_config: {cert_file: S.crt, key_file: S.key, client_ca_file: C}", "admits every client"),
        ("tls_server_config: {cert_file: S.crt, key_file: S.key, client_allowed_sans: [a]}", "needs client_auth_type"),
        ("tls_server_config: {cert_file: S.crt, key_file: S.key, cipher_suites: [TLS_RSA_RC4]}", "no cipher suite"),
        ("basic_auth_users: {a: plaintext}", "not a bcrypt hash"),
        ("rate_limit: {interval: soon}", "has to be a time"),
        ("rate_limit: {interval: 1s, burst: many}", "whole number"),
        ("http_server_config: {headers: {Set-Cookie: x}}", "no header"),
        ('http_server_config: {headers: {X-Frame-Options: "a\\r\\nb"}}', "one line"),
        ("[", "not YAML"),
        ("- a", "not contain a table"),
    ],
)  # fmt: skip
def test_a_web_config_that_does_not_fit_is_named_with_what_to_do(
    tmp_path: Path, pki: Path, text: str, said: str
) -> None:
    path = tmp_path / "web.yml"
    path.write_text(text.replace("S.", f"{pki}/server.").replace("T.", f"{pki}/server2."))
    with pytest.raises(InputError) as caught:
        read(path)
    assert said in f"{caught.value.message} {caught.value.remedy or ''}"


@pytest.mark.parametrize("name", ["no-such-curve", "secp112r1"])
def test_a_curve_that_this_openssl_does_not_have_is_refused_with_what_to_do(
    tmp_path: Path, pki: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """OpenSSL answers a name it has never heard with ValueError, a curve it does not use for TLS with SSLError."""
    monkeypatch.setattr(webconfig, "_CURVES", {"CurveP256": name})
    keys = f"cert_file: {pki}/server.crt, key_file: {pki}/server.key"
    path = tmp_path / "web.yml"
    path.write_text(f"tls_server_config: {{{keys}, curve_preferences: [CurveP256]}}\n")
    with pytest.raises(InputError, match="does not know the curve CurveP256") as caught:
        read(path)
    assert caught.value.remedy == "Leave curve_preferences out."


def test_cipher_suites_that_this_openssl_does_not_have_are_refused(
    tmp_path: Path, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webconfig, "_CIPHERS", {"TLS_OLD": "NO-SUCH-CIPHER"})
    path = tmp_path / "web.yml"
    keys = f"cert_file: {pki}/server.crt, key_file: {pki}/server.key"
    path.write_text(f"tls_server_config: {{{keys}, cipher_suites: [TLS_OLD]}}\n")
    with pytest.raises(InputError, match="has none of the cipher_suites"):
        read(path)


def test_certificates_may_be_in_the_file_itself(serve, pki: Path) -> None:
    def indented(name: str) -> str:
        return "".join(f"    {line}\n" for line in (pki / name).read_text().splitlines())

    port, _, _ = serve(f"tls_server_config:\n  cert: |\n{indented('server.crt')}  key: |\n{indented('server.key')}")
    assert over_tls(port, pki) == 200
