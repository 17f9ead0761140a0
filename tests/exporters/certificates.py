"""Certificates for tests, made by openssl: an authority, and what it signs."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def openssl(*argv: str) -> None:
    subprocess.run(["openssl", *argv], check=True, capture_output=True)


def authority(folder: Path, name: str = "ca") -> Path:
    """A certificate authority: ``NAME.crt`` and ``NAME.key``."""
    path = folder / f"{name}.crt"
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
        *("-subj", f"/CN={name}", "-keyout", str(folder / f"{name}.key"), "-out", str(path)),
    )
    return path


def signed(folder: Path, name: str, sans: str, ca: str = "ca") -> Path:
    """A certificate that the authority signed: ``NAME.crt`` and ``NAME.key``."""
    key, request, path = (folder / f"{name}{suffix}" for suffix in (".key", ".csr", ".crt"))
    extensions = folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName={sans}\n")
    openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}"),
        *("-keyout", str(key), "-out", str(request)),
    )
    openssl(
        *("x509", "-req", "-in", str(request), "-days", "2", "-extfile", str(extensions), "-out", str(path)),
        *("-CA", str(folder / f"{ca}.crt"), "-CAkey", str(folder / f"{ca}.key"), "-CAcreateserial"),
    )
    return path
