"""The guest's side: installs edgeprof as a person would, and holds the service to its promises.

Run by the booted systemd (``lab.service``), twice: before and after a reboot. Standard library only. Each check is one
line of JSON on the second serial port.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import traceback
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

UNIT = "edgeprof-exporter.service"
EDGEPROF = "/opt/edgeprof/bin/edgeprof"
SETTINGS = Path("/etc/edgeprof/exporter.yml")
ZONE = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
URL = "http://127.0.0.1:28283"
#: What powercap.c draws.
RAPL_W = 20.0
#: The counter is shown once a second, and an emulated processor is slow: shares of what passes in ten seconds.
ROUGHLY = 0.25
#: Times that everything may take as long as on a real machine.
PATIENCE = 6.0
STATE = Path("/var/lib/lab.json")
BOUND = 2.0  # the exposure that systemd-analyze may find, and the seconds that SIGTERM may take

Check = tuple[str, "Callable[[], object]"]


def sh(*argv: str, check: bool = True, timeout_s: float = 600.0) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout_s)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def show(name: str, unit: str = UNIT) -> str:
    return sh("systemctl", "show", "--value", "-p", name, unit).strip()


def until(what: Callable[[], object], timeout_s: float, why: str) -> float:
    """Seconds until it is true."""
    begun = time.monotonic()
    timeout_s *= PATIENCE
    while True:
        with suppress(OSError, AssertionError, LookupError, ValueError):
            if what():
                return time.monotonic() - begun
        if time.monotonic() - begun > timeout_s:
            raise AssertionError(f"not within {timeout_s:g} s: {why}")
        time.sleep(0.1)


def scrape(url: str = URL) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def value(metric: str, label: str = "", url: str = URL) -> float:
    (found,) = [v for name, v in scrape(url).items() if re.match(rf"{metric}(\{{|$)", name) and label in name]
    return found


def joules() -> float:
    return value("edgeprof_rail_energy_joules_total", "package-0")


def main_pid() -> int:
    return int(show("MainPID"))


def equal(found: object, wanted: object) -> None:
    assert found == wanted, f"{found!r}, not {wanted!r}"


def mode(path: Path) -> tuple[str, str, str]:
    facts = path.stat()
    return oct(stat.S_IMODE(facts.st_mode)), pwd.getpwuid(facts.st_uid).pw_name, grp.getgrgid(facts.st_gid).gr_name


# -- the first boot ----------------------------------------------------------------------------------------------------


def before() -> str:
    equal(mode(ZONE), ("0o400", "root", "root"))
    return sh("systemctl", "--version").splitlines()[0] + ", Linux " + os.uname().release


def pip() -> None:
    """The venv's pip comes from Debian's own wheel, which saves an emulated processor minutes."""
    sh(sys.executable, "-m", "venv", "--without-pip", "/opt/edgeprof")
    (wheel,) = Path("/usr/share/python-wheels").glob("pip-*.whl")
    offline = ("--no-index", "--find-links", "/mnt/wheels", "--no-compile")
    pip = ("/opt/edgeprof/bin/python", f"{wheel}/pip")
    sh(*pip, "install", "-q", *offline, "edgeprof[exporter]")


def private_program() -> str:
    """A program that only root can reach is refused before anything is written."""
    sh("mkdir", "/root/edgeprof")
    sh("cp", "-a", "/opt/edgeprof/bin", "/opt/edgeprof/pyvenv.cfg", "/root/edgeprof")
    Path("/root/edgeprof/lib").symlink_to("/opt/edgeprof/lib")
    done = subprocess.run(
        ["/root/edgeprof/bin/python", "-m", "edgeprof", "exporter", "install", "--system"],
        capture_output=True,
        text=True,
        check=False,
    )
    sh("rm", "-rf", "/root/edgeprof")
    assert done.returncode == 2, done
    assert not Path("/etc/systemd/system", UNIT).exists()
    return done.stderr.strip()


def install() -> str:
    shown = sh(EDGEPROF, "exporter", "install", "--system", "--dry-run")
    done = sh(EDGEPROF, "exporter", "install", "--system")
    for line in done.splitlines():
        if line.startswith("written: "):
            assert f"# {line.removeprefix('written: ')}" in shown, line
    equal(show("ActiveState"), "active")
    return done


def ready() -> str:
    until(lambda: urllib.request.urlopen(f"{URL}/-/ready", timeout=60).status == 200, 10, "ready")
    equal((show("Type"), show("NRestarts"), show("UnitFileState")), ("notify", "0", "enabled"))
    return show("StatusText")


def not_root() -> str:
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{main_pid()}/status").read_text().splitlines() if ":\t" in line
    )
    uid = pwd.getpwnam("edgeprof").pw_uid
    equal(set(status["Uid"].split()), {str(uid)})
    equal((int(status["CapEff"], 16), int(status["CapBnd"], 16)), (0, 0))
    equal((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
    groups = sorted(grp.getgrgid(int(gid)).gr_name for gid in status["Groups"].split())
    assert {"edgeprof", "i2c"} <= set(groups), groups
    return f"groups {' '.join(groups)}"


def rules() -> str:
    equal(mode(ZONE), ("0o440", "root", "edgeprof"))
    devices = sorted(Path("/dev").glob("i2c-*"))
    assert devices
    for device in devices:
        equal(mode(device)[0::2], ("0o660", "i2c"))
    said = sh("udevadm", "test", "--action=add", "/sys/class/powercap/intel-rapl:0")
    assert "70-edgeprof.rules" in said
    complaints = [
        line
        for line in said.splitlines()
        if "70-edgeprof" in line and re.search(r"invalid|unknown|fail", line, re.IGNORECASE)
    ]
    equal(complaints, [])
    return " ".join(map(str, devices))


def modes() -> None:
    mine = ("edgeprof", "edgeprof")
    equal(mode(Path("/run/edgeprof")), ("0o755", *mine))
    for name in ("track.sock", "control.sock"):
        equal(mode(Path("/run/edgeprof", name)), ("0o660", *mine))
    equal(mode(Path("/var/lib/edgeprof")), ("0o750", *mine))


def power() -> str:
    """The counter's rate is the made-up package's."""
    began, first = time.monotonic(), joules()
    time.sleep(10)
    watts = (joules() - first) / (time.monotonic() - began)
    assert abs(watts / RAPL_W - 1) < ROUGHLY, watts
    return f"{watts:.2f} W"


_TRACK = "import edgeprof, edgeprof.tracking as t\nwith edgeprof.track('net'): pass\nprint(t.sender.dropped)"


def applications() -> None:
    sh("useradd", "--create-home", "--shell", "/bin/bash", "--groups", "edgeprof", "app")
    as_user = ("runuser", "-u")
    equal(sh(*as_user, "app", "--", "/opt/edgeprof/bin/python", "-c", _TRACK).strip(), "0")
    until(lambda: value("edgeprof_inferences_total", 'model="net"') == 1, 10, "the inference is counted")
    equal(sh(*as_user, "nobody", "--", "/opt/edgeprof/bin/python", "-c", _TRACK).strip(), "1")
    equal(value("edgeprof_inferences_total", 'model="net"'), 1)


def control() -> str:
    said = json.loads(sh("runuser", "-u", "app", "--", EDGEPROF, "exporter", "status"))
    refused = sh("runuser", "-u", "nobody", "--", EDGEPROF, "exporter", "status", check=False)
    assert "Traceback" not in refused
    assert "{" not in refused, refused
    return f"{sorted(said)}; nobody: {refused.strip()}"


def reload() -> str:
    pid = main_pid()
    SETTINGS.write_text("sampling: {rate_hz: 5}\nlog: {format: json}\n")
    sh("systemctl", "reload", UNIT)
    until(lambda: "reloaded" in sh("journalctl", "-u", UNIT, "-o", "cat"), 10, "reloaded")
    SETTINGS.write_text("sampling: {rate_hertz: 5}\n")
    sh("systemctl", "reload", UNIT, check=False)
    until(lambda: value("edgeprof_config_last_reload_success") == 0, 10, "the refusal is shown")
    said = [line for line in sh("journalctl", "-u", UNIT, "-o", "cat").splitlines() if "reload refused" in line]
    assert "rate_hertz" in said[-1]
    SETTINGS.write_text("sampling: {rate_hz: 10}\n")
    sh("systemctl", "reload", UNIT)
    until(lambda: value("edgeprof_config_last_reload_success") == 1, 10, "the good one is taken over")
    equal((main_pid(), show("ActiveState")), (pid, "active"))
    return said[-1]


def restart() -> str:
    first = joules()
    pid = main_pid()
    sh("systemctl", "restart", UNIT)
    second = joules()
    assert main_pid() != pid
    assert first <= second < first + 60 * RAPL_W, (first, second)
    equal(value("edgeprof_inferences_total", 'model="net"'), 1)
    equal(mode(Path("/var/lib/edgeprof/state.json"))[0], "0o600")
    return f"{first:.0f} J, then {second:.0f} J"


def stop() -> str:
    first, began = joules(), time.monotonic()
    sh("systemctl", "stop", UNIT)
    took = time.monotonic() - began
    equal(show("Result"), "success")
    (*_, ended) = re.findall(r"\bended\b.*\bseconds=([\d.]+)", sh("journalctl", "-u", UNIT, "-o", "cat"))
    assert float(ended) < BOUND, ended
    time.sleep(8)  # longer than what is bridged: a hardware counter loses nothing by it
    sh("systemctl", "start", UNIT)
    until(lambda: joules() > 0, 10, "a scrape")
    grown, passed = joules() - first, time.monotonic() - began
    assert abs(grown / (RAPL_W * passed) - 1) < ROUGHLY, (grown, passed)
    return f"ended in {ended} s (systemctl took {took:.2f} s); {grown:.0f} J in {passed:.1f} s"


def killed() -> str:
    first, pid = joules(), main_pid()
    os.kill(pid, signal.SIGKILL)
    until(lambda: main_pid() not in {0, pid} and joules() >= first, 30, "it is back, its counters go on")
    equal(show("NRestarts"), "1")
    equal(value("edgeprof_inferences_total", 'model="net"'), 1)
    return f"{first:.0f} J, then {joules():.0f} J"


def watchdog() -> str:
    equal(show("WatchdogUSec"), "30s")
    beat = show("WatchdogTimestampMonotonic")
    until(lambda: show("WatchdogTimestampMonotonic") != beat, 20, "the watchdog is fed")
    first, pid = joules(), main_pid()
    os.kill(pid, signal.SIGSTOP)
    took = until(lambda: main_pid() not in {0, pid} and joules() >= first, 90, "it is killed and back")
    said = sh("journalctl", "-u", UNIT, "-o", "cat")
    assert "Watchdog timeout" in said
    return f"back after {took:.0f} s"


def exposure() -> str:
    said = sh("systemd-analyze", "security", "--no-pager", UNIT)
    found = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert found, said
    assert float(found[1]) <= BOUND, said
    return found[1]


def journal() -> str:
    said = sh("journalctl", "-u", UNIT, "-o", "cat", "--no-pager")
    assert "Traceback" not in said, said
    for word in ("listening", "sampling", "ended"):
        assert re.search(rf"\b{word}\b", said), word
    denied = [line for line in sh("dmesg").splitlines() if "audit" in line and "edgeprof" in line]
    equal(denied, [])
    return next(line for line in said.splitlines() if "listening" in line)


def size() -> str:
    took = int(show("MemoryCurrent")) / 2**20
    rss = value("process_resident_memory_bytes") / 2**20
    assert took < 128, took
    return f"cgroup {took:.0f} MiB, resident {rss:.1f} MiB, {show('TasksCurrent')} tasks"


def twice() -> str:
    """Installed anew, as after an upgrade: the settings stay, the new program runs."""
    SETTINGS.write_text("sampling: {rate_hz: 5}\n")
    first, pid = joules(), main_pid()
    said = sh(EDGEPROF, "exporter", "install", "--system")
    assert f"kept: {SETTINGS}" in said
    equal(SETTINGS.read_text(), "sampling: {rate_hz: 5}\n")
    assert main_pid() != pid
    until(lambda: joules() >= first, 10, "the counters go on")
    return said


def activation() -> str:
    """A socket that systemd holds: the first scrape starts the daemon."""
    Path("/etc/systemd/system/edgeprof-exporter.socket").write_text(
        "[Socket]\nListenStream=127.0.0.1:28283\n[Install]\nWantedBy=sockets.target\n"
    )
    SETTINGS.write_text("web: {systemd_socket: true}\n")
    sh("systemctl", "stop", UNIT)
    sh("systemctl", "daemon-reload")
    sh("systemctl", "start", "edgeprof-exporter.socket")
    equal(show("ActiveState"), "inactive")
    found = joules()
    equal(show("ActiveState"), "active")
    sh("systemctl", "stop", "edgeprof-exporter.socket", UNIT)
    Path("/etc/systemd/system/edgeprof-exporter.socket").unlink()
    SETTINGS.write_text("{}\n")
    sh("systemctl", "daemon-reload")
    sh("systemctl", "start", UNIT)
    return f"{found:.0f} J"


def of_a_user() -> str:
    """A user's own unit, in the user's own systemd, beside the machine's."""
    home, uid = Path(pwd.getpwnam("app").pw_dir), pwd.getpwnam("app").pw_uid
    sh("loginctl", "enable-linger", "app")
    until(lambda: Path(f"/run/user/{uid}/bus").exists(), 20, "the user's systemd")
    settings = home / ".config/edgeprof/exporter.yml"
    settings.parent.mkdir(parents=True)
    settings.write_text('web: {listen_address: ["127.0.0.1:28284"]}\n')
    sh("chown", "-R", "app:app", str(home / ".config"))
    as_app = ("runuser", "-u", "app", "--", "env", f"HOME={home}", f"XDG_RUNTIME_DIR=/run/user/{uid}")
    said = sh(*as_app, EDGEPROF, "exporter", "install", "--user")
    equal(sh(*as_app, "systemctl", "--user", "is-active", UNIT).strip(), "active")
    until(lambda: value("edgeprof_build_info", url="http://127.0.0.1:28284") == 1, 10, "a scrape")
    track = Path(f"/run/user/{uid}/edgeprof/track.sock")
    equal(mode(track)[1], "app")
    sh(*as_app, "systemctl", "--user", "reload", UNIT)
    # Left enabled, it would listen at the machine's own port after the reboot.
    sh(*as_app, "systemctl", "--user", "disable", "--now", UNIT)
    equal(sh(*as_app, "systemctl", "--user", "show", "--value", "-p", "Result", UNIT).strip(), "success")
    shutil.rmtree(settings.parent)
    return said


def before_the_reboot() -> str:
    found = scrape()
    kept = {n: v for n, v in found.items() if re.match(r"edgeprof_(rail_energy_joules|inferences)_total", n)}
    assert kept
    STATE.write_text(json.dumps(kept))
    return str(kept)


# -- the second boot ---------------------------------------------------------------------------------------------------


def after_the_reboot() -> str:
    until(scrape, 30, "it answers")
    until(lambda: show("ActiveState") == "active", 10, "active")  # it answers a moment before it says that it is ready
    equal(show("NRestarts"), "0")
    kept, found = json.loads(STATE.read_text()), scrape()
    for name, least in kept.items():
        assert found[name] >= least, (name, least, found.get(name))
    rules()
    not_root()
    return show("StatusText")


def no_user() -> None:
    """Nothing that the daemon may not open is in its way, and nothing it opened is open to the network."""
    said = sh("sh", "-c", "cat /proc/net/tcp")
    ports = [line.split()[1] for line in said.splitlines()[1:] if line.split()[3] == "0A"]
    equal([one for one in ports if not one.startswith("0100007F")], [])
    with socket.create_connection(("127.0.0.1", 28283), timeout=5):
        pass


FIRST: tuple[Check, ...] = (
    ("before: the counter is root's alone", before),
    ("pip installs the wheel", pip),
    ("a program that the service could not reach is refused", private_program),
    ("install --system", install),
    ("systemd knows that it is ready", ready),
    ("it runs as its user, without capabilities", not_root),
    ("udev opened the devices to the groups", rules),
    ("modes of sockets and directories", modes),
    ("joules are those of the counter", power),
    ("applications report, strangers cannot", applications),
    ("the control socket knows its callers", control),
    ("reload", reload),
    ("restart keeps the counters", restart),
    ("stop within 2 s; the pause is counted", stop),
    ("kill -9: back, and the counters go on", killed),
    ("the watchdog is fed, and bites", watchdog),
    ("exposure of the running unit", exposure),
    ("journal", journal),
    ("memory and tasks", size),
    ("installed twice", twice),
    ("socket activation", activation),
    ("a user's unit", of_a_user),
    ("before the reboot", before_the_reboot),
)
SECOND: tuple[Check, ...] = (
    ("started by the boot; the counters go on", after_the_reboot),
    ("nothing on the network", no_user),
)


def main() -> None:
    again = STATE.exists()
    with Path("/dev/ttyS1").open("w") as port:

        def say(**line: object) -> None:
            port.write(json.dumps(line, ensure_ascii=True) + "\n")
            port.flush()

        failed = False
        for name, check in SECOND if again else FIRST:
            begun = time.monotonic()
            try:
                said = check()
            except BaseException:  # noqa: BLE001 - whatever it was, it is told to the host
                failed = True
                log = sh("journalctl", "-u", UNIT, "-n", "25", "-o", "short-monotonic", "--no-pager", check=False)
                say(check=name, ok=False, said=traceback.format_exc()[-3000:], journal=log[-4000:])
            else:
                say(check=name, ok=True, said=said, seconds=round(time.monotonic() - begun, 1))
        if again or failed:
            say(check="all", ok=not failed)
    sh("systemctl", "--no-block", "poweroff" if again or failed else "reboot")


main()
