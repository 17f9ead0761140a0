"""Bytes from outside by the ten thousand, and those that once did harm."""

from __future__ import annotations

import pytest

pytest.importorskip("prometheus_client", reason="pip install 'edgeprof[exporter]'")

from tests.exporters.fuzzing import TARGETS, mutated

#: YAML's parser takes milliseconds for a file, and SQLite's rows are whole results.
COUNTS = {"web-config": 50, "settings": 50, "result": 200, "state": 3000}


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_that_resembles_what_is_right_does_any_harm(target: str) -> None:
    function, seeds = TARGETS[target]
    right = seeds()
    for data in (*right, *mutated(right, COUNTS.get(target, 10_000))):
        function(data)


@pytest.mark.parametrize(
    ("target", "data"),
    [
        ("settings", b"web: {max_requests: " + b"9" * 400 + b"}"),
        ("settings", b"web: {max_requests: .inf}"),
        ("settings", b"web: {max_requests: 0x" + b"f" * 6000 + b"}"),
        ("settings", b"a: 2001-99-99"),
        ("settings", b"a: !!timestamp x"),
        ("web-config", b"rate_limit: {interval: 1s, burst: " + b"9" * 400 + b"}"),
        ("web-config", b"tls_server_config: {min_version: [TLS12]}"),
        ("web-config", b"tls_server_config: {cipher_suites: [[a]]}"),
        ("web-config", b"tls_server_config: {curve_preferences: [{}]}"),
        ("web-config", b'tls_server_config: {cert: "\\ud800", key: "\\0"}'),
        ("web-config", b"basic_auth_users: {me: $2b$31$" + b"." * 53 + b"}"),
        ("web-config", b"basic_auth_users: {me: $2b$99$" + b"." * 53 + b"}"),
        ("result", b'{"schema": "\xff"}'),
        ("result", b"[" * 100_000),
    ],
)
def test_what_once_was_a_traceback_is_a_sentence(target: str, data: bytes) -> None:
    TARGETS[target][0](data)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"heat": 3', b'"heat": Infinity'),
        (b'"heat": 3', b'"\\ud800": 3'),
        (b'"yolo"', b'"\\ud800"'),
        (b'"yolo"', b'"a\\nb"'),
        (b"[3, 0,", b"[Infinity, 0,"),
        (b'"joules": 5.0', b'"joules": 1' + b"0" * 400),
        (b"[6.0, 0.5]", b"[6.0]"),
    ],
)
def test_a_state_with_one_wrong_value_is_not_ours(old: bytes, new: bytes) -> None:
    function, seeds = TARGETS["state"]
    (right,) = seeds()
    assert old in right
    function(right.replace(old, new))
