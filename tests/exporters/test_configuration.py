"""Settings: one table, four places, and a sentence for everything that does not fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeprof.errors import InputError
from edgeprof_exporters import configuration as table
from edgeprof_exporters.inferences import BUCKETS, MOST_SERIES
from edgeprof_exporters.latest_results import MOST_RESULTS
from edgeprof_exporters.metric_names import BY_NAME
from edgeprof_exporters.server import parse_address

DOCS = Path(__file__).parents[2] / "docs/exporter.md"


def test_flags_come_before_the_environment_before_the_file_before_the_default(tmp_path: Path) -> None:
    path = tmp_path / "exporter.yml"
    path.write_text("sampling: {rate_hz: 5, bridge_s: 3}\nweb: {max_requests: 7}\n")
    environ = {"EDGEPROF_EXPORTER_SAMPLING_RATE_HZ": "4", "EDGEPROF_EXPORTER_SAMPLING_BRIDGE_S": "2"}
    settings, found = table.load({"sampling_rate_hz": 2.0, "web_max_requests": None}, environ, path)
    assert (settings.sampling_rate_hz, settings.sampling_bridge_s, settings.web_max_requests) == (2.0, 2.0, 7)
    assert settings.log_level == "info"
    assert found == path


def test_toml_says_the_same_as_yaml(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text('web: {listen_address: [":1", "[::1]:2"]}\nlog: {format: json}\n')
    (tmp_path / "a.toml").write_text('[web]\nlisten_address = [":1", "[::1]:2"]\n[log]\nformat = "json"\n')
    assert table.load({}, {}, tmp_path / "a.yml")[0] == table.load({}, {}, tmp_path / "a.toml")[0]


def test_the_file_is_found_by_its_variable_or_in_the_directory_of_the_service(tmp_path: Path) -> None:
    (tmp_path / "exporter.yml").write_text("log: {level: debug}\n")
    for environ in ({"CONFIGURATION_DIRECTORY": str(tmp_path)}, {"EDGEPROF_CONFIG": str(tmp_path / "exporter.yml")}):
        assert table.load({}, environ)[0].log_level == "debug"
    assert table.load({}, {})[1] is None


def test_lists_in_the_environment_are_divided_by_commas() -> None:
    environ = {"EDGEPROF_EXPORTER_WEB_LISTEN_ADDRESS": "127.0.0.1:1, [::1]:2"}
    assert table.load({}, environ)[0].web_listen_address == ["127.0.0.1:1", "[::1]:2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("web: {listen_adress: [x]}", "Did you mean listen_address?"),
        ("wep: {}", "Did you mean web?"),
        ("web: 5", "not a table"),
        ("web: {listen_address: 5}", "a list of texts"),
        ("web: {telemetry_path: metrics}", "begin with /"),
        ("web: {telemetry_path: /-/ready}", "begin with /"),
        ("web: {max_requests: -1}", "from 0 to"),
        ("web: {max_requests: 1.5}", "a whole number"),
        ("web: {max_requests: true}", "a whole number"),
        ("web: {systemd_socket: maybe}", "true or false"),
        ("sampling: {rate_hz: 1000}", "from 0.1 to 100"),
        ("sampling: {rate_hz: .nan}", "from 0.1 to 100"),
        ("log: {level: loud}", "debug, info"),
        ("track: {socket: 5}", "a text"),
        ("[", "not YAML"),
        ("- a", "not contain a table"),
        ("a: !!python/object/apply:os.system [true]", "not YAML"),
    ],
)
def test_what_does_not_fit_is_named_with_the_file_and_a_way_out(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "exporter.yml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        table.load({}, {}, path)
    assert str(path) in caught.value.message
    assert said in f"{caught.value.message} {caught.value.remedy or ''}"


def test_an_unknown_variable_is_named_with_the_nearest_one() -> None:
    with pytest.raises(InputError) as caught:
        table.load({}, {"EDGEPROF_EXPORTER_LOG_LEVLE": "x"})
    assert "EDGEPROF_EXPORTER_LOG_LEVEL" in str(caught.value.remedy)


@pytest.mark.parametrize("text", ["", "localhost", "::1:9", "x:99999", "x:-1", "[::1]"])
def test_an_address_that_is_none_is_a_sentence(text: str) -> None:
    with pytest.raises(InputError, match="not an address"):
        parse_address(text)


def test_every_setting_has_a_flag_a_variable_and_a_line_in_the_documentation() -> None:
    flags = [table.flag_of(name) for name in table.KEYS]
    assert len(set(flags)) == len(flags)
    text = DOCS.read_text("utf-8")
    documented = set(re.findall(r"^\| `([a-z]+\.[a-z_]+)`", text, re.MULTILINE))
    assert documented == {table.key_of(name) for name in table.KEYS}


def test_the_example_file_of_the_installation_is_read_without_objection(tmp_path: Path) -> None:
    files = Path(table.__file__).parent / "files"
    assert table.load({}, {}, files / "exporter.yml")[0] == table.Settings()


def test_every_metric_has_its_line_in_the_documentation_and_none_is_made_up() -> None:
    text = DOCS.read_text("utf-8")
    documented = re.findall(r"^\| `(edgeprof_[a-z_]+)` \| ([a-z_, ]*) \|", text, re.MULTILINE)
    assert {name: tuple(filter(None, labels.split(", "))) for name, labels in documented} == {
        name.name: name.labels for name in BY_NAME.values()
    }


def test_the_numbers_of_series_that_the_documentation_states_are_so() -> None:
    each = len(BUCKETS) + 1 + 2 + 3  # the buckets with +Inf, sum and count, and three counters
    text = " ".join(DOCS.read_text("utf-8").split())
    assert f"The first {MOST_SERIES} (`track.max_series`) combinations of model, variant and runtime" in text
    assert f"have series of their own, {each} each" in text
    assert f"The {MOST_RESULTS} newest benchmark results are shown" in text
    assert MOST_SERIES * each <= 1000
