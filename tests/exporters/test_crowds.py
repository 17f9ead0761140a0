"""Many connections at once: slow ones give way first, nobody's crowd keeps others out, and scrapes go on."""

from __future__ import annotations

import contextlib
import http.client
import resource
import selectors
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprof_exporters.connections import Connection, Places
from edgeprof_exporters.quotas import Budget, LatestFirst, affordable_connections
from edgeprof_exporters.server import Response, Server, listen
from tests.clocks import turn_clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeprof_exporters.http_request import Request


class Hello:
    def answer(self, request: Request) -> Response:
        return Response(200, b"hello")


@pytest.fixture
def port():
    server = Server(listen(["127.0.0.1:0"]), Hello(), max_connections=32)
    server.start()
    yield int(server.addresses[0].rpartition(":")[2])
    server.stop()


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0))


def scrape(port: int, source: str = "127.0.0.1") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10, source_address=(source, 0))
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


@contextlib.contextmanager
def dripping(port: int, count: int):
    """Clients that send a head byte by byte, and come back when they are dropped."""
    stop = threading.Event()

    def drip() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError), connect(port) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
                while not stop.wait(0.02):
                    sock.sendall(b"a")

    threads = [threading.Thread(target=drip) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_slow_heads_lock_out_neither_new_nor_kept_scrapers(port: int, source: str) -> None:
    """Twice as many dripping clients as places; from the same address as the scraper, and from another."""
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=10, source_address=(source, 0))
    kept.request("GET", "/")
    kept.getresponse().read()
    with dripping(port, 64):
        for _ in range(20):
            assert scrape(port, source) == 200
            kept.request("GET", "/")
            answer = kept.getresponse()
            assert (answer.status, answer.read()) == (200, b"hello")
    kept.close()


def test_a_thousand_kept_connections_cost_no_new_scrape(port: int) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for number in range(1000):
            sock = stack.enter_context(connect(port))
            sock.sendall(request)
            assert sock.recv(4096).startswith(b"HTTP/1.1 200")
            if number % 50 == 0:
                assert scrape(port) == 200
        assert scrape(port, "127.0.0.3") == 200


def test_only_requests_that_have_arrived_have_threads() -> None:
    server = Server(listen(["127.0.0.1:0"]), Hello())
    server.start()
    port = int(server.addresses[0].rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(port)).sendall(b"GET / HTTP/1.1\r\n")
            sock = stack.enter_context(connect(port))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 200")
        assert sum(thread.name == "edgeprof web client" for thread in threading.enumerate()) < 8
    server.stop()


@contextlib.contextmanager
def places(most: int) -> Iterator[Places]:
    with selectors.DefaultSelector() as selector:
        places = Places(selector, most)
        yield places
        places.close_waiting()


def newcomer(address: str = "192.0.2.1", state: str = "late") -> Connection:
    connection = Connection(socket.socket(), address)
    connection.has_asked = state != "late"
    return connection


def test_one_address_never_has_all_places() -> None:
    with places(16) as ours:
        crowd = [newcomer(state="idle") for _ in range(16)]
        for connection in crowd:
            assert ours.admit(connection)
            ours.wait(connection)
        assert sum(not connection.has_place for connection in crowd) == 2  # an eighth is for others
        other = newcomer("192.0.2.2")
        assert ours.admit(other)
        ours.wait(other)
        assert sum(connection.has_place for connection in crowd) == 14


def test_addresses_of_one_ipv6_network_count_as_one() -> None:
    for first, second, same in (
        ("2001:db8::1", "2001:db8::2:3:4", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ):
        a, b = newcomer(first), newcomer(second)
        assert (a.network == b.network) is same
        a.close()
        b.close()


states = st.lists(st.tuples(st.sampled_from(["late", "idle", "answering"]), st.integers(0, 3)), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(states)
def test_whoever_is_answered_keeps_its_place_and_the_late_go_before_the_idle(drawn) -> None:
    with places(100) as ours:
        everyone = [newcomer(f"192.0.2.{network}", state) for state, network in drawn]
        for connection, (state, _) in zip(everyone, drawn, strict=True):
            assert ours.admit(connection)
            if state != "answering":
                ours.wait(connection)
        left = list(zip(everyone, [state for state, _ in drawn], strict=True))
        while ours.make_room():
            (gone,) = (pair for pair in left if not pair[0].has_place)
            late = [c.network for c, state in left if state == "late"]
            assert gone[1] == ("late" if late else "idle")
            same = [c for c, state in left if state == gone[1] and (not late or c.network == gone[0].network)]
            assert gone[0] is same[0]  # the oldest
            assert not late or late.count(gone[0].network) == max(map(late.count, late))
            left.remove(gone)
        assert {state for _, state in left} <= {"answering"}
        for connection, _ in left:
            ours.leave(connection)
        ours.leave(everyone[0])  # it has none
        assert not ours._counts


def test_bytes_that_drip_make_no_connection_younger_and_its_deadline_ends_it() -> None:
    with places(8) as ours:
        dripper, peer = socket.socketpair()
        dripper.setblocking(False)
        connection, other = Connection(dripper, "192.0.2.1"), newcomer()
        for one in (connection, other):
            assert ours.admit(one)
            ours.wait(one)
        for byte in b"GET":
            peer.send(bytes([byte]))
            with pytest.raises(BlockingIOError):
                connection.read_head()
            ours.wait(connection)
        assert ours.make_room()
        assert connection.has_place  # its head began after the other had connected
        connection.since -= 10
        ours._next_search = 0.0
        ours.close_overdue()
        assert not connection.has_place
        peer.close()


def test_in_a_flood_the_newcomer_is_next_and_the_oldest_of_too_many_is_sent_away() -> None:
    turns = LatestFirst(3)
    assert turns.enter()
    order: list[tuple[int, bool]] = []
    with ThreadPoolExecutor(4) as pool:

        def wait(number: int) -> None:
            granted = turns.enter()
            order.append((number, granted))
            if granted:
                turns.leave()

        running = []
        for number in range(4):
            running.append(pool.submit(wait, number))
            deadline = time.monotonic() + 10
            while len(turns._waiting) != min(number + 1, 3) or (number == 3 and not order):
                assert time.monotonic() < deadline
                time.sleep(0.001)
        turns.leave()
        for one in running:
            one.result(10)
    assert order == [(0, False), (3, True), (2, True), (1, True)]


def test_where_descriptors_run_out_resting_connections_go_and_it_is_said(board, start) -> None:
    daemon = start(board.directory).ready()
    limit = daemon.descriptors() + 12
    resource.prlimit(daemon.child.pid, resource.RLIMIT_NOFILE, (limit, limit))
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(connect(daemon.port))
        for _ in range(3):
            assert daemon.get("/-/healthy")[0] == 200
        assert daemon.value("edgeprof_device_energy_joules_total") >= 0
    assert daemon.logged("a connection could not be accepted")
    assert daemon.end() == 0


def test_connections_are_as_many_as_descriptors_allow(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    for soft, hard, most in ((64, 64, 32), (1024, 4096, 256), (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 256)):
        limits = [(soft, hard)]
        monkeypatch.setattr(resource, "getrlimit", lambda _, now=limits: now[-1])
        monkeypatch.setattr(resource, "setrlimit", lambda _, new, now=limits: now.append(new))
        assert affordable_connections(256) == most
    assert "fewer connections" in caplog.text


def test_reports_stay_within_their_part_of_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is always busy rests three times as long as it works, after a burst."""
    clock = {"now": 0.0, "used": 0.0}
    turn_clock(
        monkeypatch,
        monotonic=lambda: clock["now"],
        thread_time=lambda: clock["used"],
        sleep=lambda seconds: clock.update(now=clock["now"] + seconds),
    )
    budget = Budget(0.25, 0.05)
    for _ in range(1000):
        clock["now"] += 0.001
        clock["used"] += 0.001
        budget.rest()
    assert clock["used"] == pytest.approx(0.25 * clock["now"], abs=0.06)
