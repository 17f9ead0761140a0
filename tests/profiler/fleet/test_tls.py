"""The certificates of a fleet's cluster: made by the commands of the documentation, and refused in one sentence."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from edgeprof.errors import InputError, UnavailableError
from edgeprof.fleet.tls import Certificates, check_scheduler
from tests.profiler.fleet.services import make_certificates

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The certificates of this fleet, and those of another one."""
    folder = tmp_path_factory.mktemp("tls")
    return make_certificates(folder / "ours"), make_certificates(folder / "theirs")


@pytest.fixture
def files(site, tmp_path) -> Certificates:
    """A copy of the desk's files, to be damaged."""
    return Certificates(Path(shutil.copytree(site[0] / "desk", tmp_path / "desk")))


def refusal(files: Certificates) -> str:
    with pytest.raises(InputError) as caught:
        files.check()
    assert "\n" not in caught.value.message
    assert caught.value.remedy
    return caught.value.message


def test_certificates_of_the_documented_commands_are_accepted(files) -> None:
    files.check()


def test_a_missing_file_is_one_sentence(files) -> None:
    files.key.unlink()
    assert "key.pem: No such file" in refusal(files)


def test_a_key_that_others_may_read_is_refused(files) -> None:
    files.key.chmod(0o644)
    assert "may be read by other users" in refusal(files)


def test_the_key_of_another_certificate_is_one_sentence(site, files) -> None:
    shutil.copy(site[0] / "server/key.pem", files.key)
    assert "key values mismatch" in refusal(files)


def test_a_key_with_a_passphrase_asks_nobody(files) -> None:
    command = ["openssl", "ec", "-aes256", "-passout", "pass:secret", "-in", files.key, "-out", files.key]
    subprocess.run(command, check=True, capture_output=True)
    assert "cannot be used" in refusal(files)


def test_a_certificate_of_another_authority_is_one_sentence(site, files) -> None:
    shutil.copy(site[1] / "desk/ca.pem", files.authority)
    assert "cannot be used with" in refusal(files)


def test_an_expired_certificate_is_one_sentence(site, files) -> None:
    folder = files.folder
    request = ["openssl", "x509", "-req", "-in", "request.pem", "-CA", site[0] / "ca.pem", "-CAkey", site[0] / "ca.key"]
    subprocess.run([*request, "-days", "-1", "-out", "cert.pem"], cwd=folder, check=True, capture_output=True)
    assert "certificate has expired" in refusal(files)


class Listener:
    """Accepts one connection as a scheduler would, or with another context or none."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"tls://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        wire, _ = self._socket.accept()
        with wire:
            try:
                if self._context is None:
                    wire.sendall(b"SSH-2.0-OpenSSH\r\n")
                    wire.recv(1000)
                else:
                    with self._context.wrap_socket(wire, server_side=True) as shielded:
                        shielded.send(b"hello")
            except OSError:
                pass

    def __enter__(self) -> str:
        self._thread.start()
        return self.address

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._socket.close()


def test_a_scheduler_of_this_authority_is_accepted(site) -> None:
    with Listener(Certificates(site[0] / "server").context(ssl.PROTOCOL_TLS_SERVER)) as address:
        check_scheduler(address, Certificates(site[0] / "desk"))


def test_a_scheduler_of_another_authority_is_refused(site) -> None:
    with (
        Listener(Certificates(site[1] / "server").context(ssl.PROTOCOL_TLS_SERVER)) as address,
        pytest.raises(InputError, match=r"the certificate of the scheduler .* is refused"),
    ):
        check_scheduler(address, Certificates(site[0] / "desk"))


def test_a_scheduler_that_refuses_this_certificate_is_one_sentence(site, tmp_path) -> None:
    """The server trusts another authority than the one that signed the desk's certificate."""
    mixed = Path(shutil.copytree(site[0] / "server", tmp_path / "mixed"))
    context = Certificates(mixed).context(ssl.PROTOCOL_TLS_SERVER)
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(mixed / "cert.pem", mixed / "key.pem")
    other.load_verify_locations(site[1] / "ca.pem")
    other.verify_mode = ssl.CERT_REQUIRED
    assert context.verify_mode == other.verify_mode
    with Listener(other) as address, pytest.raises(InputError, match=r"refuses .*cert\.pem: unknown ca"):
        check_scheduler(address, Certificates(site[0] / "desk"))


def test_an_older_tls_and_no_tls_are_refused(site) -> None:
    old = Certificates(site[0] / "server").context(ssl.PROTOCOL_TLS_SERVER)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (old, None):
        with Listener(context) as address, pytest.raises(UnavailableError, match=r"does not use TLS 1\.3"):
            check_scheduler(address, Certificates(site[0] / "desk"))


def test_a_scheduler_that_is_not_there_is_one_sentence(site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tls://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UnavailableError, match="cannot be reached: Connection refused"):
        check_scheduler(address, Certificates(site[0] / "desk"))
