"""Settings and state that somebody broke or made to break us: one sentence, soon, and the daemon goes on."""

from __future__ import annotations

import os
import signal

import pytest

from edgeprof.errors import InputError
from edgeprof_exporters import configuration
from edgeprof_exporters.inferences import Tally
from edgeprof_exporters.state import Copy
from edgeprof_exporters.webconfig import read as read_web

#: Nine lines of nine references each: a billion values in a few hundred bytes.
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
BOMBS = {
    "nested references": LAUGHS + "rate_limit: {interval: *i}\n",
    "references in a setting": "web: {listen_address: &a [b], telemetry_path: *a}\n",
    "merged references": "x: &x {a: 1}\nweb: {<<: *x}\n",
    "depth": "web: " + "[" * 20_000 + "\n",
    "dots": "a." * 20_000 + "a = 1\n",
    "size": "#" + "x" * 200_000 + "\n",
    "a large number of digits": "rate_limit: {interval: " + "9" * 100_000 + "}\n",
    "base sixty": "rate_limit: {interval: " + ":".join(["59"] * 40_000) + "}\n",
    "a long text": "rate_limit: {interval: " + "y" * 100_000 + "}\n",
    "not UTF-8": b"web: \xff\n",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("suffix", ["yml", "toml"])
def test_a_file_that_makes_much_of_little_is_refused_in_one_sentence(tmp_path, bomb, suffix: str) -> None:
    path = tmp_path / f"settings.{suffix}"
    path.write_bytes(bomb if isinstance(bomb, bytes) else bomb.encode())
    for read in (lambda: configuration.load({}, {}, path), lambda: read_web(path)):
        with pytest.raises(InputError) as caught:
            read()
        assert str(path) in caught.value.message
        assert len(caught.value.message) < 1000


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "pipe.yml"
    os.mkfifo(path)
    return path


def test_a_fifo_is_refused_and_not_waited_for(fifo, tmp_path) -> None:
    for read in (lambda: configuration.load({}, {}, fifo), lambda: read_web(fifo)):
        with pytest.raises(InputError, match="not a regular file"):
            read()
    web = tmp_path / "web.yml"
    for cert, key in ((fifo, "x"), ("x", fifo), (fifo, fifo)):
        web.write_text(f"tls_server_config: {{cert_file: {cert}, key_file: {key}}}\n")
        with pytest.raises(InputError, match="not a regular file"):
            read_web(web)


def test_a_fifo_where_the_runtime_copy_was_is_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "state.copy")
    assert Copy(tmp_path / "state.copy").load() is None


def test_settings_that_became_a_fifo_leave_the_daemon_as_it_was(board, start, tmp_path) -> None:
    path = tmp_path / "exporter.yml"
    path.write_text("log: {level: info}\n")
    daemon = start(board.directory, "--config.file", str(path)).ready()
    path.unlink()
    os.mkfifo(path)
    daemon.child.send_signal(signal.SIGHUP)
    daemon.until(lambda: daemon.logged("reload refused"))
    assert daemon.value("edgeprof_config_last_reload_success") == 0
    assert daemon.end() == 0


@pytest.mark.parametrize("joules", [1e300, 1e13, float("inf")])
def test_a_state_of_joules_that_cannot_be_is_said_and_the_counters_begin_at_zero(
    board, start, tmp_path, joules: float
) -> None:
    state = tmp_path / "state.json"
    first = start(board.directory, f"--state.file={state}").ready()
    first.until(lambda: first.value("edgeprof_device_energy_joules_total") > 0)
    assert first.end() == 0
    text = state.read_text()
    shown = '"total":{"joules":'
    begin = text.index(shown) + len(shown)
    state.write_text(f"{text[:begin]}{joules!r}{text[text.index(',', begin) :]}".replace("inf", "Infinity"))
    second = start(board.directory, f"--state.file={state}").ready()
    assert second.logged("the state is not ours")
    assert second.value("edgeprof_device_energy_joules_total") < 1e4


@pytest.mark.parametrize("field", [0, 1, 2, 3])
def test_a_state_of_inferences_that_cannot_be_is_refused(field: int) -> None:
    state = Tally().state()
    state[field] = 10**300 if field < 2 else 1e300
    if field == 0:
        state[4][0] = 10**300
    if field == 3:
        state[3] = float("inf")
    with pytest.raises(ValueError, match=r"impossible|is not possible"):
        Tally.restored(state)
