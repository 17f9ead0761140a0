"""Results without a daemon: each receiver is the real thing, or its reference library."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.server
import shutil
import subprocess
import threading
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from edgeprof.errors import EdgeprofError, InputError
from edgeprof.plugins import PluginHost, points_of
from edgeprof.results import schema
from edgeprof.results.store import Store
from edgeprof_exporters import latest_results as bench
from edgeprof_exporters import push
from edgeprof_exporters.metric_names import BY_NAME
from tests.exporters.conftest import EDGEPROF, samples
from tests.profiler.results import samples as made

if TYPE_CHECKING:
    from pathlib import Path

SHOWN = {name for name in BY_NAME if name.startswith("edgeprof_bench")}


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    Store().save(made.study())
    return tmp_path


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what is sent to it."""

    got: list[tuple[str, dict[str, str], bytes]]
    code = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_PUT = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver():
    kind = type("Kept", (Receiver,), {"got": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield kind, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_newest_result_of_each_variant_is_shown_with_its_provenance_and_uncertainty(stored: Path) -> None:
    found = push.stored()
    energy = {tuple(labels): value for labels, value in found["edgeprof_bench_energy_joules_per_inference"]}
    result = made.study()
    assert {labels[1] for labels in energy} == {v.name for v in result.variants if v.energy_j_per_inference}
    for labels, value in energy.items():
        variant = next(v for v in result.variants if v.name == labels[1])
        assert labels[4] == variant.energy_j_per_inference.provenance
        assert value == getattr(variant.energy_j_per_inference, labels[5]).value
    # None of these models has several workloads, and none is a language model.
    others = ("workload", "token", "language", "perplexity", "bench_memory_bytes")
    assert set(found) == {name for name in SHOWN if not any(word in name for word in others)}


def test_a_language_model_is_shown_with_its_tokens_its_memory_and_what_it_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path))
    result = made.one()
    variant = result.variants[0]
    phases = (("request", "request", 1), ("prefill", "prompt token", 512), ("decode", "output token", 127))
    variant.workloads = [
        schema.Workload(
            name=name, unit=unit, units_per_call=count, energy_j_per_unit=made.energy(1 / count), throughput_per_s=count
        )
        for name, unit, count in phases
    ]
    times = schema.TokenTime(mean=0.5, p50=0.4, p90=None, p99=None, samples=20)
    variant.language = schema.Language(
        prompt_tokens=512, generated_tokens=128, kv_type="q8_0", architecture="qwen2", ttft_s=times, random_weights=True
    )
    variant.memory_bytes.anonymous, variant.memory_bytes.mapped = 7, 8
    variant.memory_bytes.kv_cache = schema.KvCache(bytes=9, formula_bytes=9, source="measured")
    Store().save(result)
    found = push.stored()
    who = 4
    gross = {
        tuple(labels[who:]): value
        for labels, value in found["edgeprof_bench_energy_joules_per_token"]
        if labels[-1] == "gross"
    }
    assert gross == {
        (name, "measured", "gross"): workload.energy_j_per_unit.gross.value
        for name, workload in zip(("prefill", "decode"), variant.workloads[1:], strict=True)
    }
    assert {labels[who]: value for labels, value in found["edgeprof_bench_tokens_per_second"]} == {
        "prefill": 512,
        "decode": 127,
    }
    ((_, first_token),) = found["edgeprof_bench_time_to_first_token_seconds"]
    assert first_token == ([("0.5", 0.4)], 10.0, 20)
    memory = {labels[who]: value for labels, value in found["edgeprof_bench_memory_bytes"]}
    assert memory == {"anonymous": 7, "mapped": 8, "kv_cache": 9}
    ((labels, _),) = found["edgeprof_bench_language_info"]
    assert labels[who:] == ["qwen2", "q8_0", "512", "128", "0", "1", "true"]


def test_a_variant_that_failed_is_shown_as_failed_and_without_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path))
    Store().save(made.failed())
    found = push.stored()
    broken = {labels[1] for labels, value in found["edgeprof_bench_last_run_success"] if value == 0}
    assert broken
    assert not {labels[1] for labels, _ in found.get("edgeprof_bench_throughput_per_second", [])} & broken


def test_a_variant_that_could_not_be_run_stands_until_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path))
    refused = made.variant(status="failed", runtime=None, energy_j_per_inference=None, latency_s=None)

    def success() -> list[float]:
        return [value for _, value in push.stored()["edgeprof_bench_last_run_success"]]

    Store().save(made.result([refused], id="20260101-0000-aaa", created="2026-01-01T00:00:00+00:00"))
    assert success() == [0.0]
    Store().save(made.result([made.variant()], id="20260102-0000-bbb", created="2026-01-02T00:00:00+00:00"))
    assert success() == [1.0]
    Store().save(made.result([refused], id="20260103-0000-ccc", created="2026-01-03T00:00:00+00:00"))
    assert sorted(success()) == [0.0, 1.0]


def test_a_store_of_many_results_shows_a_bounded_number_of_series() -> None:
    rows = {
        "edgeprof_bench_last_run_timestamp_seconds": [([f"m{n}", "v", "r", "s"], float(n)) for n in range(500)],
        "edgeprof_bench_latency_seconds": [([f"m{n}", "v", "r", "s"], ([], 1.0, 1)) for n in range(500)],
    }
    kept = bench.limited(rows)
    assert [len(some) for some in kept.values()] == [bench.MOST_RESULTS] * 2
    assert kept["edgeprof_bench_latency_seconds"][0][0][0] == f"m{500 - bench.MOST_RESULTS}"


def test_results_of_many_series_each_are_shown_whole_and_fewer() -> None:
    names = [f"edgeprof_bench_made_up_{n}_seconds" for n in range(44)]
    names.append("edgeprof_bench_last_run_timestamp_seconds")
    rows = {name: [([f"m{n}", "v", "r", "s"], float(n)) for n in range(60)] for name in names}
    kept = bench.limited(rows)
    assert {len(some) for some in kept.values()} == {bench.MOST_SERIES // 45}
    assert {row[0][0] for some in kept.values() for row in some} == {f"m{n}" for n in range(60 - 28, 60)}


def test_the_textfile_is_what_node_exporter_reads(stored: Path) -> None:
    node_exporter = shutil.which("prometheus-node-exporter")
    target = stored / "textfiles"
    target.mkdir()
    done = subprocess.run([EDGEPROF, "exporter", "--textfile", str(target)], capture_output=True, text=True, check=True)
    assert "edgeprof.prom" in done.stdout
    assert [path.name for path in target.iterdir()] == ["edgeprof.prom"]
    text = (target / "edgeprof.prom").read_text()
    assert len(samples(text, "edgeprof_bench_energy_joules_per_inference")) > 3
    if node_exporter is None:
        pytest.skip("apt-get install --no-install-recommends prometheus-node-exporter")
    child = subprocess.Popen(
        [
            node_exporter,
            "--web.listen-address=127.0.0.1:39080",
            "--collector.disable-defaults",
            "--collector.textfile",
            f"--collector.textfile.directory={target}",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        served = _until(lambda: urllib.request.urlopen("http://127.0.0.1:39080/metrics", timeout=5).read().decode())
    finally:
        child.terminate()
        child.wait(10)
    assert samples(served, "node_textfile_scrape_error") == [0.0]
    for name in SHOWN:
        assert sorted(samples(served, name)) == sorted(samples(text, name))


@pytest.mark.skipif(
    shutil.which("prometheus-pushgateway") is None,
    reason="apt-get install --no-install-recommends prometheus-pushgateway",
)
def test_the_pushgateway_takes_them_under_this_device(stored: Path) -> None:
    child = subprocess.Popen(
        ["prometheus-pushgateway", "--web.listen-address=127.0.0.1:39091"], stderr=subprocess.DEVNULL
    )
    try:
        url = "http://127.0.0.1:39091"
        _until(lambda: urllib.request.urlopen(f"{url}/-/ready", timeout=5).read())
        for _ in range(2):  # again: it replaces and does not pile up
            subprocess.run([EDGEPROF, "exporter", "--push", url], check=True, capture_output=True)
        served = urllib.request.urlopen(f"{url}/metrics", timeout=5).read().decode()
    finally:
        child.terminate()
        child.wait(10)
    found = push.stored()
    for name, rows in found.items():
        assert sorted(samples(served, name, job="edgeprof")) == pytest.approx(sorted(v for _, v in push.flat(rows)))
    # A gateway makes up a sum and a count of 0 for a summary without them.
    (_, (_, total, count)), *_ = found["edgeprof_bench_latency_seconds"]
    assert total in samples(served, "edgeprof_bench_latency_seconds_sum", job="edgeprof")
    assert count in samples(served, "edgeprof_bench_latency_seconds_count", job="edgeprof")


def test_a_password_in_the_url_is_sent_as_a_header_and_not_in_the_path(stored: Path, receiver) -> None:
    kind, url = receiver
    push.to_pushgateway(push.stored(), url.replace("http://", "http://me:p%40ss@"))
    path, headers, _ = kind.got[0]
    assert path.startswith("/metrics/job/edgeprof/instance/")
    assert base64.b64decode(headers["authorization"].split()[1]) == b"me:p@ss"


def test_otlp_carries_every_figure_as_the_reference_library_reads_it(stored: Path, receiver) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="pip install 'edgeprof[otlp]'")
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    kind, url = receiver
    push.to_otlp(push.stored(), f"{url}/v1/metrics")
    path, headers, body = kind.got[0]
    assert path == "/v1/metrics"
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    request = ExportMetricsServiceRequest.FromString(body)
    (resource,) = request.resource_metrics
    attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert attributes["service.name"] == "edgeprof"
    got = {
        metric.name: sorted(
            (tuple(sorted((a.key, a.value.string_value) for a in point.attributes)), point.as_double)
            for point in metric.gauge.data_points
        )
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    wanted = {
        name: sorted(
            (tuple(sorted(zip(BY_NAME[name].labels, labels, strict=True))), v) for labels, v in push.flat(rows)
        )
        for name, rows in push.stored().items()
    }
    assert got == wanted
    kind.code = 404
    with pytest.raises(EdgeprofError, match=r"did not take the results: .*404"):
        push.to_otlp(push.stored(), f"{url}/v1/metrics")


def test_what_cannot_be_sent_is_one_sentence(stored: Path, tmp_path: Path, receiver) -> None:
    kind, url = receiver
    with pytest.raises(InputError, match="cannot be written"):
        push.to_textfile(push.stored(), tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a URL"):
        push.to_pushgateway(push.stored(), "gateway:9091")
    with pytest.raises(EdgeprofError, match="did not take"):
        push.to_pushgateway(push.stored(), "http://127.0.0.1:1")
    kind.code = 400
    with pytest.raises(EdgeprofError, match="did not take"):
        push.to_pushgateway(push.stored(), url)


def test_nothing_stored_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError) as caught:
        push.stored()
    assert "edgeprof bench" in str(caught.value.remedy)


def test_the_plugin_registers_the_three_ways_for_others_to_call(tmp_path: Path) -> None:
    host = PluginHost(points_of("exporter"))
    assert set(host.of("exporters")) == {"textfile", "pushgateway", "otlp"}
    host.get("exporters", "textfile")([made.study(), made.study()], tmp_path)
    assert samples((tmp_path / "edgeprof.prom").read_text(), "edgeprof_bench_last_run_success")


def _until(attempt):
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError):
            return attempt()
        assert time.monotonic() < deadline
        time.sleep(0.05)
