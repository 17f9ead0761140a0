"""The door behind a real SSH server: what a key of the fleet permits, and the message of each failure."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeprof.errors import InputError
from edgeprof.fleet import inventory, task
from edgeprof.fleet.link import Link, LinkError, RefusedError
from edgeprof.fleet.signature import verify
from edgeprof.fleet.store import fleet_store, keep
from edgeprof.fleet.task import Job, Watch
from tests import models
from tests.profiler.fleet.boards import SHORT, Boards
from tests.profiler.fleet.sshd import make_key, require_sshd, serve

DOCS = Path(__file__).parents[3] / "docs/fleet.md"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Two boards behind one server, which also takes certificates of an authority."""
    require_sshd()
    boards = Boards(tmp_path_factory.mktemp("boards"))
    boards.add("nano-1", "jetson-orin-nano")
    boards.add("pi5-1", "raspberry-pi-5")
    folder = tmp_path_factory.mktemp("sshd")
    recipe = re.search(r"<!-- recipe: certificates -->\n```sh\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert recipe is not None
    door = boards.folder / "nano-1/door.sh"
    script = recipe[1].replace('"edgeprof door"', f'"{door}"')
    subprocess.run(["sh", "-euc", script], cwd=folder, check=True)
    (folder / "principals").write_text("nano-1\n")
    certificates = (f"TrustedUserCAKeys {folder}/fleet_ca.pub", f"AuthorizedPrincipalsFile {folder}/principals")
    with serve(folder, boards, *certificates) as config:
        patch = pytest.MonkeyPatch()
        patch.setenv("EDGEPROF_SSH", f"ssh -F {config}")
        patch.setenv("EDGEPROF_DATA_DIR", str(folder / "data"))
        patch.setattr(task, "PAUSES_S", ())
        yield SimpleNamespace(boards=boards, folder=folder, config=config)
        patch.undo()


def ssh(lab, *words: str):
    argv = ["ssh", "-F", str(lab.config), "-o", "BatchMode=yes", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL, check=False)


def with_config(lab, monkeypatch, tmp_path, change) -> None:
    """Use a changed ssh configuration."""
    config = tmp_path / "config"
    config.write_text(change(lab.config.read_text()))
    monkeypatch.setenv("EDGEPROF_SSH", f"ssh -F {config}")


def failure(name: str = "nano-1") -> LinkError:
    with pytest.raises(LinkError) as caught, Link(inventory.parse_device(name, name)) as link:
        link.hello()
    assert "\n" not in caught.value.message
    assert caught.value.remedy
    return caught.value


def test_a_key_of_the_fleet_opens_the_door_of_its_board(lab) -> None:
    for name, board in (("nano-1", "NVIDIA Jetson Orin Nano"), ("pi5-1", "Raspberry Pi 5")):
        with Link(inventory.parse_device(name, name)) as link:
            assert link.hello().board == board


@pytest.mark.parametrize("words", ["cat /etc/shadow", "edgeprof bench x.onnx", "edgeprof door; id"])
def test_it_runs_nothing_else(lab, words) -> None:
    done = ssh(lab, "nano-1", words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "opens the door of a fleet and runs nothing else" in done.stderr


@pytest.mark.parametrize("words", [("-W", "127.0.0.1:22", "nano-1"), ("-s", "nano-1", "sftp"), ("-tt", "nano-1", "sh")])
def test_it_forwards_nothing_and_has_no_subsystem_and_no_terminal(lab, words) -> None:
    done = ssh(lab, *words)
    assert done.returncode != 0
    assert done.stdout == ""


def test_a_variable_of_the_client_does_not_reach_the_door(lab, tmp_path) -> None:
    done = ssh(lab, "-o", f"SetEnv=EDGEPROF_DATA_DIR={tmp_path} LD_PRELOAD=/tmp/x.so", "nano-1", "edgeprof", "door")
    assert done.returncode == 0
    assert not list(tmp_path.iterdir())


def test_a_certificate_opens_the_device_that_it_names(lab) -> None:
    words = ("-o", f"IdentityFile={lab.folder}/desk", "-o", f"CertificateFile={lab.folder}/desk-cert.pub")
    pattern = re.sub(r"  IdentityFile .*\n", "", lab.config.read_text())
    config = lab.folder / "certified"
    config.write_text(pattern)
    argv = ["ssh", "-F", str(config), "-o", "BatchMode=yes", *words]
    opened = subprocess.run([*argv, "nano-1", "id"], capture_output=True, text=True, timeout=20, check=False)
    assert "runs nothing else" in opened.stderr
    sign = ["ssh-keygen", "-q", "-s", lab.folder / "fleet_ca", "-I", "desk", "-O", "clear"]
    for more in (("-n", "pi5-1"), ("-n", "nano-1", "-V", "20200101:20210101")):
        subprocess.run([*sign, *more, lab.folder / "desk.pub"], check=True)
        refused = subprocess.run([*argv, "nano-1", "id"], capture_output=True, text=True, timeout=20, check=False)
        assert refused.returncode == 255
        assert "Permission denied" in refused.stderr


def test_a_changed_host_key_is_one_sentence(lab, monkeypatch, tmp_path) -> None:
    other = make_key(tmp_path / "other")
    address = (lab.folder / "known_hosts").read_text().split()[0]
    (tmp_path / "known_hosts").write_text(f"{address} {other}\n")
    with_config(lab, monkeypatch, tmp_path, lambda text: text.replace(f"{lab.folder}/known", f"{tmp_path}/known"))
    error = failure()
    assert "its SSH host key is not the one that is known" in error.message
    command = re.search(r"remove the old key with (ssh-keygen .*?) and accept", error.remedy or "")
    assert command is not None
    subprocess.run(["sh", "-euc", command[1]], capture_output=True, check=True)
    assert "its SSH host key is not known here" in failure().message  # the old one is gone


def test_an_unknown_host_key_is_one_sentence(lab, monkeypatch, tmp_path) -> None:
    with_config(lab, monkeypatch, tmp_path, lambda text: text.replace(f"{lab.folder}/known", f"{tmp_path}/known"))
    assert "its SSH host key is not known here" in failure().message


def test_a_key_that_is_not_installed_is_one_sentence(lab, monkeypatch, tmp_path) -> None:
    make_key(tmp_path / "id_nano-1")
    with_config(lab, monkeypatch, tmp_path, lambda text: text.replace(f"{lab.folder}/id_nano", f"{tmp_path}/id_nano"))
    assert "does not accept any SSH key" in failure().message


def test_a_closed_port_and_an_unknown_name_are_one_sentence_each(lab, monkeypatch, tmp_path) -> None:
    assert "its name cannot be resolved" in failure("nowhere.invalid").message
    with_config(lab, monkeypatch, tmp_path, lambda text: re.sub(r"Port \d+", "Port 9", text))
    assert "nothing answers SSH there" in failure().message


def test_what_is_no_door_is_one_sentence(lab, monkeypatch, tmp_path) -> None:
    fake = tmp_path / "ssh"
    fake.write_text("#!/bin/sh\necho Welcome to Ubuntu\n")
    fake.chmod(0o755)
    monkeypatch.setenv("EDGEPROF_SSH", str(fake))
    assert "is no door of edgeprof" in failure().message


def test_another_version_on_the_device_is_one_sentence(lab, monkeypatch) -> None:
    monkeypatch.setattr("edgeprof.fleet.link.__version__", "0.0.1")
    assert "this machine 0.0.1" in failure().message


def test_the_key_of_another_board_does_not_pass_for_this_one(lab, monkeypatch, tmp_path) -> None:
    """A stolen key opens only its own board's door, and the inventory contains which machine is expected."""
    with Link(inventory.parse_device("nano-1", "nano-1")) as link:
        machine = link.hello().machine
    model = tmp_path / "m.onnx"
    models.onnx_affine(model)
    job = Job.of([str(model)], {})
    device = inventory.Device("nano-1", "nano-1", ssh="pi5-1", machine=machine)
    with pytest.raises(RefusedError, match="the inventory says") as caught:
        task.measure(device, job, Watch())
    assert caught.value.exit_code == 78


def test_a_model_is_measured_over_it(lab, tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    model = models.onnx_affine(tmp_path / "m.onnx", external=True)
    flags = {SHORT[n].lstrip("-"): [SHORT[n + 1]] for n in range(0, len(SHORT), 2)}
    job = Job.of([str(model)], flags)
    device = inventory.parse_device("nano-1", "nano-1")
    first = task.measure(device, job, Watch())
    assert (first.was_there, first.result.host.board) == (False, "NVIDIA Jetson Orin Nano")
    assert first.result.variants[0].status in {"ok", "degraded"}
    key = make_key(tmp_path / "sign")
    (lab.boards.folder / "nano-1/door.toml").write_text(f'sign_key = "{tmp_path}/sign"\n')
    signed = task.measure(replace(device, signed_by=key), job, Watch())
    assert (signed.was_there, signed.result.id) == (True, first.result.id)
    assert keep(signed, "nano-1").id == first.result.id
    with pytest.raises(InputError, match="signed by another key"):
        task.measure(replace(device, signed_by=make_key(tmp_path / "other")), job, Watch())
    signature = (fleet_store().directory / f"signed/{signed.key}.json.sig").read_text()
    text = (fleet_store().directory / f"signed/{signed.key}.json").read_bytes()
    verify(text, signature, key, "nano-1")
    with pytest.raises(InputError, match="was changed"):
        verify(text + b" ", signature, key, "nano-1")
    recipe = re.search(r"<!-- recipe: signatures -->\n```sh\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert recipe is not None
    folder = fleet_store().directory / "signed"
    variables = {"KEY": signed.key, "PUBLIC": key, "PATH": os.environ["PATH"]}
    for change in (b"", b" "):
        path = folder / f"{signed.key}.json"
        path.write_bytes(path.read_bytes() + change)
        done = subprocess.run(["sh", "-euc", recipe[1]], cwd=folder, env=variables, capture_output=True, check=False)
        assert (done.returncode == 0) is (not change)


def test_a_device_behind_a_gateway_is_reached_by_the_users_own_ssh_configuration(lab, monkeypatch, tmp_path) -> None:
    """A site's devices are not reachable from outside; ssh jumps through the one machine that is."""
    gateway = f"restrict,port-forwarding {make_key(tmp_path / 'gate')}\n"
    keys = lab.folder / "authorized_keys"
    before = keys.read_text()
    keys.write_text(before + gateway)
    block = re.search(r"Host nano-1\n(?:  .*\n)+", lab.config.read_text())
    assert block is not None
    jump = block[0].replace("Host nano-1", "Host gate").replace(f"{lab.folder}/id_nano-1", f"{tmp_path}/gate")
    with_config(
        lab, monkeypatch, tmp_path, lambda text: jump + text.replace("Host nano-1\n", "Host nano-1\n  ProxyJump gate\n")
    )
    with Link(inventory.parse_device("nano-1", "nano-1")) as link:
        assert link.hello().board == "NVIDIA Jetson Orin Nano"
    keys.write_text(before)
    assert "does not accept any SSH key" in failure().message
