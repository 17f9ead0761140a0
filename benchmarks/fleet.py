"""What a fleet costs its Prometheus: the evaluation of the rules for 1,000 devices, timed by Prometheus itself.

    python benchmarks/fleet.py                  # 1,000 devices, two minutes
    python benchmarks/fleet.py --smoke          # 50 devices

Every device is a real scrape target with its own path on one small server, which answers with the exposition of the
tests' simulated site (the exporter's names and labels). The output is the number of series for each device, the series
that the rules add, and how long each group of rules takes. Target: every group takes at most a tenth of its interval.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.dashboards import imagined
from tests.dashboards.tools import Prometheus, free_port

from edgeprof_dashboards.export import export

#: Series about the scrape itself, which Prometheus adds to each target.
_ADDED = ("up", "scrape_duration_seconds", "scrape_samples_post_metric_relabeling")


class Devices:
    """A server that answers for all devices on one port: GET /<name>."""

    def __init__(self, devices: list[imagined.Device]) -> None:
        self.port = free_port()
        self.devices = {device.name: device for device in devices}
        self._pages = {name: self._page(device) for name, device in self.devices.items()}
        self._started = time.monotonic()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._ready.wait(30)

    @staticmethod
    def _page(device: imagined.Device) -> list[tuple[str, float, bool]]:
        values = imagined.sample(device, 43_200.0, 1.0, random.Random(device.seed))  # the increase in one second
        lines = []
        for (name, labels), value in values.items():
            if name in _ADDED:
                continue
            inside = ",".join(f'{key}="{text}"' for key, text in labels)
            grows = name.endswith(("_total", "_bucket", "_sum", "_count"))
            lines.append((f"{name}{{{inside}}}", value, grows))
        return lines

    def _text(self, name: str) -> bytes:
        passed, now = time.monotonic() - self._started, time.time()
        out = []
        for series, value, grows in self._pages[name]:
            shown = value * passed if grows else now if "last_sample" in series else value
            out.append(f"{series} {shown:.6g}" if shown < 1e9 else f"{series} {shown:.3f}")
        return "\n".join([*out, ""]).encode()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readline():
                while (await reader.readline()).strip():
                    pass
                body = self._text(request.split()[1].decode().lstrip("/").split("?")[0])
                head = (
                    f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                writer.write(head.encode() + body)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._answer, "127.0.0.1", self.port, backlog=2000))
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="50 devices for 20 seconds")
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=120.0)
    given = parser.parse_args()
    if shutil.which("prometheus") is None:
        print("skipped: Prometheus is not installed (apt-get install --no-install-recommends prometheus)")
        return 0
    count, span = (50, 20.0) if given.smoke else (given.devices, given.seconds)
    devices = Devices(imagined.fleet(count))
    with tempfile.TemporaryDirectory() as scratch:
        export(Path(scratch))
        folder = Path(scratch) / "prometheus"
        groups = [
            {
                "targets": [f"127.0.0.1:{devices.port}"],
                "labels": {"instance": name, "site": device.site, "__metrics_path__": f"/{name}"},
            }
            for name, device in devices.devices.items()
        ]
        (folder / "targets" / "edgeprof.json").write_text(json.dumps(groups))
        config = (folder / "prometheus.yml").read_text("utf-8")
        if given.smoke:
            config = config.replace(": 15s", ": 5s").replace(": 10s", ": 5s")
        (folder / "prometheus.yml").write_text(config)
        # With the shipped intervals, some groups would run only once in five minutes; here all run every ten seconds.
        for path in (folder / "rules").glob("*.yml"):
            text = path.read_text("utf-8")
            for old in ("30s", "1m", "5m"):
                text = text.replace(f"    interval: {old}\n", "    interval: 10s\n")
            path.write_text(text)
        server = Prometheus(folder)
        try:
            return report(server, count, span)
        finally:
            server.end()
            devices.end()


def report(server: Prometheus, count: int, span: float) -> int:
    deadline = time.monotonic() + span
    while time.monotonic() < deadline:
        time.sleep(1)
    up = sum(target["health"] == "up" for target in server.targets())
    print(f"{up} of {count} devices up")
    scraped = server.value("quantile(0.5, scrape_samples_post_metric_relabeling)")
    recorded = server.value('count({__name__=~".+:.+"})')
    print(f"{scraped:.0f} series a device, {recorded / count:.1f} more a device by the rules")
    late = False
    for group in server.api("rules")["groups"]:
        bad = [rule["name"] for rule in group["rules"] if rule["health"] == "err"]
        took = group["evaluationTime"]
        print(f"{group['name']:28} {took * 1000:8.1f} ms{'  failing: ' + ', '.join(bad) if bad else ''}")
        late |= took > 3.0 or bool(bad)  # a tenth of the shortest shipped interval (30 s)
    memory = Path(f"/proc/{server.process.pid}/status").read_text().split("VmRSS:")[1].split()[0]
    print(f"{int(memory) / 1024:.0f} MiB resident in Prometheus")
    return int(late or up < count)


if __name__ == "__main__":
    sys.exit(main())
