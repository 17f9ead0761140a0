"""Access to the exporter: TLS, client certificates, passwords, rates, in the format of Prometheus's exporter-toolkit.

``web-config.yml`` and the files that it names are checked before each connection and each request, and read again if
they have changed. If the new content is not valid, that is logged and the old rules stay in force: an exporter must not
become open while somebody is replacing a certificate.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import re
import ssl
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeprof.errors import EdgeprofError, InputError, UnavailableError, unknown
from edgeprof_exporters.configuration import read_mapping, shown
from edgeprof_exporters.logs import event
from edgeprof_exporters.quotas import Bucket, LatestFirst
from edgeprof_exporters.server import Response

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeprof_exporters.http_request import Request

_TOP = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
_TLS = (
    "cert_file",
    "cert",
    "key_file",
    "key",
    "client_ca_file",
    "client_ca",
    "client_auth_type",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "curve_preferences",
    "prefer_server_cipher_suites",
)
#: The allowed versions of TLS; the file cannot allow versions below 1.2.
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CLIENT_AUTH = {
    "": ssl.CERT_NONE,
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
#: Go's and IANA's name of a suite of TLS 1.2 → OpenSSL's name. Suites of TLS 1.3 cannot be chosen, as in Go.
_CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
_TLS13 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
#: The headers that exporter-toolkit lets a file set.
_HEADERS = (
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
)
#: Most password checks that wait for their turn; if there are more, the oldest is refused. A check takes about 50 ms of
#: a core, so the oldest one has waited for seconds.
_MOST_WAITING = 64
#: Most right and most wrong passwords whose check is remembered.
_MOST_RIGHT, _MOST_WRONG = 100, 1000
_MOST_BURST = 1_000_000
#: Allowed costs of a bcrypt hash: each step doubles the time of a check, and at 16 a check takes seconds.
_COSTS = range(4, 17)
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass
class Rules:
    """The content of a valid web-config.yml."""

    context: ssl.SSLContext | None = None
    allowed_sans: tuple[str, ...] = ()
    users: dict[str, bytes] = field(default_factory=dict)
    #: A hash of no known password; unknown users are checked against it, so that they take as long as known ones.
    nobody: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    limit: Bucket | None = None
    files: tuple[Path, ...] = ()


class WebConfig:
    """The guard of the server, configured by a file. The methods are thread-safe.

    Args:
        path: Path of web-config.yml.

    Raises:
        InputError: the file, or one that it names, is not valid.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._rules = read(path)
        self._stamp = self._look()
        self._checking = LatestFirst(_MOST_WAITING)  # bcrypt by one thread at a time: a flood must not take every core
        self._right: dict[bytes, None] = {}
        self._wrong: dict[bytes, None] = {}
        self._secret = os.urandom(32)

    def reread(self) -> None:
        """Read the file again now.

        Raises:
            InputError: the file is not valid; the old rules stay.
        """
        before = self._look()  # taken before reading, so that a change meanwhile is read next time
        rules = read(self.path)
        with self._lock:
            same = rules.files == self._rules.files
            if rules.limit and self._rules.limit and _same_rates(rules.limit, self._rules.limit):
                rules.limit = self._rules.limit
            self._rules = rules
            self._stamp = before if same else self._look()

    def context(self) -> ssl.SSLContext | None:
        return self._current().context

    def headers(self) -> Mapping[str, str]:
        return self._rules.headers

    def admits(self, connection: ssl.SSLSocket) -> bool:
        allowed = self._rules.allowed_sans
        if not allowed:
            return True
        names = _alternative_names(connection.getpeercert() or {})
        if not names & set(allowed):
            event(logging.WARNING, "a client certificate is not on the list", names=",".join(sorted(names)))
            return False
        return True

    def refuses(self, request: Request) -> Response | None:
        rules = self._current()
        if rules.limit is not None and not rules.limit.take():
            return Response(429, b"too many requests\n")
        if not rules.users:
            return None
        verdict = self._password(rules, request.headers.get("authorization", ""))
        if verdict is None:
            return Response(503, b"too many simultaneous logins; try again\n", close=True)
        if verdict:
            return None
        return Response(401, b"Unauthorized\n", headers={"WWW-Authenticate": 'Basic realm="edgeprof"'})

    # -- passwords ----------------------------------------------------------------------------------------------------

    def _password(self, rules: Rules, header: str) -> bool | None:
        """Whether the password is right; None if too many are being checked."""
        scheme, _, encoded = header.partition(" ")
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        if scheme.lower() != "basic" or not colon:
            return False
        hashed = rules.users.get(user.decode("utf-8", "replace"), b"")
        # Checked passwords are remembered by a keyed hash, so that a scraper costs one bcrypt and not one every 15 s.
        proof = hmac.new(self._secret, b"\0".join((user, hashed, password)), hashlib.sha256).digest()
        if hashed and proof in self._right:
            return True
        if proof in self._wrong:
            return False
        if not self._checking.enter():
            return None
        try:
            is_right = _bcrypt_matches(password, hashed or rules.nobody) and bool(hashed)
        finally:
            self._checking.leave()
        checked, most = (self._right, _MOST_RIGHT) if is_right else (self._wrong, _MOST_WRONG)
        with self._lock:
            while len(checked) >= most:
                del checked[next(iter(checked))]
            checked[proof] = None
        return is_right

    # -- the file -----------------------------------------------------------------------------------------------------

    def _current(self) -> Rules:
        stamp = self._look()
        if stamp != self._stamp:
            try:
                self.reread()
            except EdgeprofError as error:
                event(logging.ERROR, "the web configuration is not valid; the old one stays", reason=error.message)
                with self._lock:
                    self._stamp = stamp  # it is not read again until it changes again
            else:
                event(logging.INFO, "the web configuration was read again", file=str(self.path))
        return self._rules

    def _look(self) -> tuple[object, ...]:
        return tuple(_file_stamp(path) for path in (self.path, *self._rules.files))


def _same_rates(first: Bucket, second: Bucket) -> bool:
    return (first.interval_s, first.burst) == (second.interval_s, second.burst)


def _file_stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - for each request; a third of pathlib's time
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _bcrypt_matches(password: bytes, hashed: bytes) -> bool:
    import bcrypt  # noqa: PLC0415 - where there are passwords

    try:
        return bool(bcrypt.checkpw(password[:72], hashed))  # bcrypt itself uses only 72 bytes, in Go too
    except ValueError:
        return False


def _alternative_names(certificate: Mapping[str, Any]) -> set[str]:
    """The subject alternative names of a certificate, in the form of ssl."""
    return {str(value) for kind, value in certificate.get("subjectAltName", ()) if kind != "othername"}


# -- reading ----------------------------------------------------------------------------------------------------------


def read(path: Path) -> Rules:
    """Read a web-config.yml.

    Raises:
        InputError: a key or a value is not valid; the message names it.
        UnavailableError: bcrypt is needed but not installed.
    """
    content = read_mapping(path)
    for key in content:
        if key not in _TOP:
            raise _unknown_key_error(path, "key", key, _TOP)
    rules = Rules()
    tls = _optional_table(path, content, "tls_server_config")
    if tls:
        _read_tls(path, tls, rules)
    rules.headers = _read_headers(path, _optional_table(path, content, "http_server_config"))
    rules.users = _read_users(path, _optional_table(path, content, "basic_auth_users"))
    if rules.users:
        rules.nobody = _hash_of_nothing(max(int(hashed[4:6]) for hashed in rules.users.values()))
    rules.limit = _read_limit(path, _optional_table(path, content, "rate_limit"))
    return rules


def _read_tls(path: Path, tls: dict[str, Any], rules: Rules) -> None:
    for key in tls:
        if key not in _TLS:
            raise _unknown_key_error(path, "key of tls_server_config", key, _TLS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _tls_version(path, tls, "min_version", ssl.TLSVersion.TLSv1_2)
    context.maximum_version = _tls_version(path, tls, "max_version", ssl.TLSVersion.MAXIMUM_SUPPORTED)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    files: list[Path] = []
    _read_suites(path, tls, context)
    pair: dict[str, str] = {}
    descriptors: list[int] = []
    try:
        for what in ("cert", "key"):
            named = _named_file(path, tls, f"{what}_file")
            if named is not None:
                files.append(named)
                pair[what] = os.fspath(named)
            elif isinstance(tls.get(what), str):
                descriptors.append(_memory_file(tls[what]))
                pair[what] = f"/proc/self/fd/{descriptors[-1]}"
            else:
                raise InputError(f"{path}: tls_server_config needs {what}_file")
        try:
            context.load_cert_chain(pair["cert"], pair["key"], password=_no_password)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise InputError(f"{path}: the certificate and its key cannot be used: {why}") from None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    files += _read_clients(path, tls, context, rules)
    rules.context, rules.files = context, tuple(files)


def _read_clients(path: Path, tls: dict[str, Any], context: ssl.SSLContext, rules: Rules) -> list[Path]:
    kind = tls.get("client_auth_type") or ""
    if isinstance(kind, str) and kind in {"RequestClientCert", "RequireClientCert", "RequireAnyClientCert"}:
        raise InputError(
            f"{path}: client_auth_type {kind} would take any certificate without checking it",
            remedy="Use RequireAndVerifyClientCert.",
        )
    if not isinstance(kind, str) or kind not in _CLIENT_AUTH:
        raise _unknown_key_error(path, "client_auth_type", kind, [name for name in _CLIENT_AUTH if name])
    authority = _named_file(path, tls, "client_ca_file")
    inline = tls.get("client_ca")
    if _CLIENT_AUTH[kind] != ssl.CERT_NONE and authority is None and not inline:
        # Without one, OpenSSL would accept every certificate that the system's authorities have signed.
        raise InputError(f"{path}: client_auth_type {kind} needs client_ca_file")
    if _CLIENT_AUTH[kind] == ssl.CERT_NONE and (authority is not None or inline):
        raise InputError(
            f"{path}: there is a client_ca_file, but client_auth_type admits every client",
            remedy="Add client_auth_type: RequireAndVerifyClientCert.",
        )
    sans = tls.get("client_allowed_sans") or []
    if not isinstance(sans, list) or not all(isinstance(name, str) for name in sans):
        raise InputError(f"{path}: client_allowed_sans has to be a list of names")
    if sans and _CLIENT_AUTH[kind] != ssl.CERT_REQUIRED:
        raise InputError(f"{path}: client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert")
    try:
        if authority is not None:
            context.load_verify_locations(os.fspath(authority))
        elif isinstance(inline, str):
            context.load_verify_locations(cadata=inline)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path}: client_ca_file cannot be used: {why}") from None
    context.verify_mode = _CLIENT_AUTH[kind]
    rules.allowed_sans = tuple(sans)
    return [authority] if authority is not None else []


def _read_suites(path: Path, tls: dict[str, Any], context: ssl.SSLContext) -> None:
    suites = tls.get("cipher_suites") or []
    if not isinstance(suites, list):
        raise InputError(f"{path}: cipher_suites has to be a list")
    for suite in suites:
        if not isinstance(suite, str) or (suite not in _CIPHERS and suite not in _TLS13):
            raise _unknown_key_error(path, "cipher suite", suite, (*_CIPHERS, *_TLS13))
    chosen = [_CIPHERS[suite] for suite in suites if suite in _CIPHERS] or list(_CIPHERS.values())
    try:
        context.set_ciphers(":".join(chosen))
    except ssl.SSLError as error:
        raise InputError(f"{path}: this machine's OpenSSL has none of the cipher_suites: {error}") from None
    curves = tls.get("curve_preferences") or []
    if not isinstance(curves, list) or len(curves) > 1:
        raise InputError(f"{path}: curve_preferences may name one curve here", remedy=f"One of {', '.join(_CURVES)}.")
    for curve in curves:
        if not isinstance(curve, str) or curve not in _CURVES:
            raise _unknown_key_error(path, "curve", curve, _CURVES)
        try:
            context.set_ecdh_curve(_CURVES[curve])
        except (ssl.SSLError, ValueError):
            raise InputError(
                f"{path}: this machine's OpenSSL does not know the curve {curve}", remedy="Leave curve_preferences out."
            ) from None


def _read_headers(path: Path, http: dict[str, Any]) -> dict[str, str]:
    for key in http:
        if key not in {"http2", "headers"}:  # http2 is accepted and ignored: the server does not speak it
            raise _unknown_key_error(path, "key of http_server_config", key, ("http2", "headers"))
    headers = _optional_table(path, http, "headers")
    for name, value in headers.items():
        if name not in _HEADERS:
            raise _unknown_key_error(path, "header", name, _HEADERS)
        if not isinstance(value, str) or not value.isprintable() or not value.isascii():
            raise InputError(f"{path}: the header {name} is {shown(value)}; it has to be one line of plain text")
    return {name: value for name, value in headers.items() if value}


def _read_users(path: Path, users: dict[str, Any]) -> dict[str, bytes]:
    if not users:
        return {}
    try:
        import bcrypt  # noqa: F401, PLC0415 - only whether it is there
    except ImportError:
        raise UnavailableError(
            f"{path} has passwords, and bcrypt is not installed", remedy="pip install 'edgeprof[exporter]'"
        ) from None
    hashes = {}
    for user, hashed in users.items():
        if not isinstance(hashed, str) or not re.fullmatch(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}", hashed):
            raise InputError(
                f"{path}: the password of {user} is not a bcrypt hash",
                remedy="Make one: htpasswd -nBC 10 '' | tr -d ':\\n'",
            )
        if int(hashed[4:6]) not in _COSTS:
            raise InputError(
                f"{path}: the password of {user} has the bcrypt cost {hashed[4:6]}",
                remedy=f"Use a cost from {_COSTS.start} to {_COSTS.stop - 1}; each step doubles the time of a check.",
            )
        hashes[str(user)] = hashed.encode()
    return hashes


def _hash_of_nothing(cost: int) -> bytes:
    import bcrypt  # noqa: PLC0415 - where there are passwords

    return bytes(bcrypt.hashpw(os.urandom(24).hex().encode(), bcrypt.gensalt(cost)))


def _read_limit(path: Path, limit: dict[str, Any]) -> Bucket | None:
    if not limit:
        return None
    for key in limit:
        if key not in {"interval", "burst"}:
            raise _unknown_key_error(path, "key of rate_limit", key, ("interval", "burst"))
    given, burst = limit.get("interval"), limit.get("burst", 0)
    interval = given if isinstance(given, str) else ""
    parts = re.findall(r"([\d.]+)(ns|us|µs|ms|s|m|h)", interval)
    try:
        interval_s = sum(float(number) * _UNITS[unit] for number, unit in parts)
    except ValueError:
        interval_s = 0.0
    if not parts or "".join(map("".join, parts)) != interval or not interval_s > 0:
        raise InputError(f"{path}: rate_limit.interval is {shown(given)}; it has to be a time, as in 1s")
    if not isinstance(burst, int) or isinstance(burst, bool) or not 0 <= burst <= _MOST_BURST:
        raise InputError(
            f"{path}: rate_limit.burst is {shown(burst)}; it has to be a whole number from 0 to {_MOST_BURST}"
        )
    return Bucket(interval_s, max(1, burst))


def _optional_table(path: Path, content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{path}: {key} is not a table")
    return value


def _named_file(path: Path, tls: dict[str, Any], key: str) -> Path | None:
    """A file that the configuration names, relative to its own directory; None if it names none."""
    value = tls.get(key)
    if not value:
        return None
    if not isinstance(value, str):
        raise InputError(f"{path}: {key} is not a path")
    file = path.parent / value
    try:
        is_other = file.exists() and not file.is_file()  # at a FIFO the daemon would wait for a writer
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise InputError(f"{path}: {key}: {file} cannot be read: {error.strerror}") from None
    if is_other:
        raise InputError(f"{path}: {key}: {file} is not a regular file")
    return file


def _tls_version(path: Path, tls: dict[str, Any], key: str, usual: ssl.TLSVersion) -> ssl.TLSVersion:
    value = tls.get(key)
    if value is None:
        return usual
    if isinstance(value, str) and value in {"TLS10", "TLS11"} and key == "min_version":
        raise InputError(f"{path}: {value} is insecure and not supported", remedy="min_version: TLS12")
    if not isinstance(value, str) or value not in _VERSIONS:
        raise _unknown_key_error(path, key, value, _VERSIONS)
    return _VERSIONS[value]


def _memory_file(text: str) -> int:
    """A descriptor of a file in memory with this text, since ssl reads a chain only from files."""
    descriptor = os.memfd_create("edgeprof")
    os.write(descriptor, text.encode("utf-8", "replace"))
    return descriptor


def _no_password() -> str:
    """Refuse a key with a passphrase; without this function OpenSSL would ask for it on the terminal."""
    raise ValueError("the key has a passphrase")


def _unknown_key_error(path: Path, kind: str, name: object, valid: Any) -> InputError:
    error = unknown(kind, name if isinstance(name, str) else shown(name), valid)
    return InputError(f"{path}: {error.message}", remedy=error.remedy)
