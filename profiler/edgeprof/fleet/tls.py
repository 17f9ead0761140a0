"""The certificates of a fleet's cluster, and checks that turn each way in which TLS fails into one sentence.

All connections between the desk, the scheduler and the hosts use TLS 1.3, and both sides must show a certificate of the
fleet's own authority. Dask compares no names (distributed.security): whoever holds a certificate of this authority can
run programs on every host. The authority must therefore sign nothing else.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import ssl
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeprof.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

#: How long a connection to the scheduler may take (s), and how long its first bytes may.
_CONNECT_S, _FIRST_BYTE_S = 10.0, 5.0
#: Permissions that the private key must not grant: a group may read it, as that of a service.
_TOO_OPEN = 0o037
_RECIPE = "docs/fleet.md, “A fleet of several hosts”, has the commands that make certificates."


@dataclass(frozen=True)
class Certificates:
    """The files of one machine.

    Attributes:
        folder: The folder with ``ca.pem`` (the authority), ``cert.pem`` and ``key.pem`` (this machine's).
    """

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def certificate(self) -> Path:
        return self.folder / "cert.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    def check(self) -> None:
        """Check that the files are there and fit together, by a connection of this machine with itself in memory.

        Raises:
            InputError: A file is missing, the key can be read by others or is another one, or the certificate has
                expired or is not of this authority.
        """
        for path in (self.authority, self.certificate, self.key):
            try:
                path.open("rb").close()
            except OSError as error:  # noqa: PERF203 - three files
                raise InputError(f"cannot read {path}: {error.strerror}", remedy=_RECIPE) from None
        if stat.S_IMODE(self.key.stat().st_mode) & _TOO_OPEN:
            raise InputError(f"{self.key} may be read by other users", remedy=f"chmod go= {shlex.quote(str(self.key))}")
        try:
            _shake_hands(self.context(ssl.PROTOCOL_TLS_SERVER), self.context(ssl.PROTOCOL_TLS_CLIENT))
        except ssl.SSLCertVerificationError as error:
            raise InputError(
                f"{self.certificate} cannot be used with {self.authority}: {error.verify_message}", remedy=_RECIPE
            ) from None
        except ssl.SSLError as error:
            raise InputError(
                f"{self.certificate} and {self.key} cannot be used: {_words(error)}", remedy=_RECIPE
            ) from None

    def context(self, protocol: int) -> ssl.SSLContext:
        """Return a context for TLS 1.3 in which both sides must have a certificate.

        Raises:
            ssl.SSLError: A file is not valid, or the key does not fit the certificate.
        """
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.authority)
        context.load_cert_chain(self.certificate, self.key, password=lambda: b"")  # never ask a terminal
        return context

    def security(self) -> Any:
        """Return these files as ``distributed.Security``."""
        from distributed.security import Security  # noqa: PLC0415 - of the extra fleet

        files = {
            f"tls_{role}_{kind}": str(path)
            for role in ("client", "scheduler", "worker")
            for kind, path in (("cert", self.certificate), ("key", self.key))
        }
        return Security(
            require_encryption=True, tls_ca_file=str(self.authority), tls_min_version=ssl.TLSVersion.TLSv1_3, **files
        )


def check_scheduler(address: str, certificates: Certificates) -> None:
    """Check that a scheduler answers, with a certificate of this authority, and accepts this machine's.

    Dask itself reports all of this as a timeout.

    Args:
        address: As ``tls://server.example:8786``.
        certificates: This machine's.

    Raises:
        InputError: The files cannot be used, or one side refuses the other's certificate.
        UnavailableError: Nothing answers there, or not with TLS 1.3.
    """
    certificates.check()
    host, _, port = address.removeprefix("tls://").rpartition(":")
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S) as plain,
            certificates.context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(plain) as wire,
        ):
            wire.settimeout(_FIRST_BYTE_S)
            with contextlib.suppress(TimeoutError):
                wire.recv(1)  # in TLS 1.3 a refused certificate is reported after the handshake
    except ssl.SSLCertVerificationError as error:
        raise InputError(
            f"the certificate of the scheduler {address} is refused: {error.verify_message}",
            remedy=f"It must be signed by the authority in {certificates.authority}.",
        ) from None
    except ssl.SSLError as error:
        if "ALERT" in (error.reason or "") and "VERSION" not in (error.reason or ""):
            raise InputError(
                f"the scheduler {address} refuses {certificates.certificate}: {_words(error)}", remedy=_RECIPE
            ) from None
        raise UnavailableError(
            f"what answers at {address} does not use TLS 1.3: {_words(error)}",
            remedy="Start the scheduler by edgeprof fleet scheduler.",
        ) from None
    except (OSError, ValueError, OverflowError) as error:
        raise UnavailableError(
            f"the scheduler {address} cannot be reached: {getattr(error, 'strerror', None) or error}",
            remedy="Is edgeprof fleet scheduler running there?",
        ) from None


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Connect two contexts with each other in memory.

    Raises:
        ssl.SSLError: One side refuses the other.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):  # TLS 1.3 needs two rounds
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()


def _words(error: ssl.SSLError) -> str:
    """Return OpenSSL's reason in plain words: ``TLSV1_ALERT_UNKNOWN_CA`` is ``unknown ca``."""
    reason = error.reason or str(error)
    return reason.rpartition("ALERT_")[2].replace("_", " ").lower()
