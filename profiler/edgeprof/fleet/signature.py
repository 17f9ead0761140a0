"""Sign results on the device that measured them, and verify them, with ``ssh-keygen -Y`` (OpenSSH 8.0 or later)."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from edgeprof.errors import InputError, UnavailableError

#: The purpose of the signature: a signature for another purpose is not valid for a result.
NAMESPACE = "edgeprof.result"
#: The time limit of ssh-keygen (s), because it would wait forever for the passphrase of a key.
_LONGEST_S = 30.0


def sign(text: bytes, key: str) -> str:
    """Sign a result's text, and return the signature.

    Args:
        text: The result, exactly as it is sent.
        key: The file of the device's private key, without a passphrase.

    Raises:
        UnavailableError: ssh-keygen is missing, too old, or cannot use the key.
    """
    done = _run(["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", key], text)
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise UnavailableError(
            f"the device cannot sign its result: {words[-1][:300] if words else 'ssh-keygen failed'}",
            remedy="Mend sign_key in the door's configuration; it needs OpenSSH 8.0 and a key without a passphrase.",
        )
    return done.stdout.decode("ascii", "replace")


def verify(text: bytes, signature: str | None, public_key: str, name: str) -> None:
    """Check that a result was signed by a device's key.

    Args:
        text: The result, exactly as it arrived.
        signature: The signature that arrived with it; None if there was none.
        public_key: The device's public key, such as ``ssh-ed25519 AAAA…``.
        name: The device's name in the inventory.

    Raises:
        InputError: The result is not signed, is signed by another key, or was changed.
        UnavailableError: ssh-keygen is missing.
    """
    if not signature:
        raise InputError(
            f"the result of {name} is not signed, and the inventory says signed_by",
            remedy="Set sign_key in the door's configuration on the device.",
        )
    with tempfile.TemporaryDirectory(prefix="edgeprof-signature-") as folder:
        signers, signed = Path(folder, "signers"), Path(folder, "signature")
        signers.write_text(f"device {public_key}\n", encoding="utf-8")
        signed.write_text(signature, encoding="utf-8")
        words = ["ssh-keygen", "-q", "-Y", "verify", "-f", str(signers), "-I", "device", "-n", NAMESPACE]
        done = _run([*words, "-s", str(signed)], text)
    if done.returncode != 0:
        raise InputError(
            f"the result of {name} was changed, or is signed by another key than the inventory names",
            remedy="Mend signed_by if the device has a new key; otherwise do not use this result.",
        )


def _run(argv: list[str], text: bytes) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(argv, input=text, capture_output=True, timeout=_LONGEST_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "it does not end"
        raise UnavailableError(
            f"ssh-keygen cannot be run: {reason}", remedy="Install the OpenSSH client, 8.0 or later."
        ) from None
