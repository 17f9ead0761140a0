"""Flags that mean the same in every command (contract §1), declared once."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeprof.roots import Roots

F = TypeVar("F", bound="Callable[..., object]")


def root_options(command: F) -> F:
    """Add ``--sysfs-root`` and ``--procfs-root``; the command gets ``sysfs_root`` and ``procfs_root``."""
    command = click.option(
        "--procfs-root", metavar="DIR", help="Read this tree instead of /proc (EDGEPROF_PROCFS_ROOT)."
    )(command)
    return click.option(
        "--sysfs-root",
        metavar="DIR",
        help="Read this captured or simulated tree instead of /sys (EDGEPROF_SYSFS_ROOT).",
    )(command)


def json_option(command: F) -> F:
    """Add ``--json``; the command gets ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout, and nothing else.")(command)


def no_color_option(command: F) -> F:
    """Add ``--no-color`` (also NO_COLOR); the command gets ``no_color``."""
    return click.option("--no-color", is_flag=True, envvar="NO_COLOR", help="Print without colours.")(command)


def loading_options(command: F) -> F:
    """Add ``--device`` and ``--option``, as of bench; the command gets ``device`` and ``options`` (texts KEY=VALUE)."""
    command = click.option(
        "--option", "options", multiple=True, metavar="KEY=VALUE", help="Any other option that the runtime documents."
    )(command)
    return click.option(
        "--device", metavar="DEVICE", help="Device that models are loaded on (default: the runtime's)."
    )(command)


def safety_options(command: F) -> F:
    """Add ``--allow-code`` and ``--sandbox``, which say what a model may do.

    The command does not get them as arguments, but runs within what they allow.
    """

    @functools.wraps(command)
    def within(*args: Any, allow_code: bool, sandbox: bool, **kwargs: Any) -> object:
        from edgeprof.worker.embedded_code import code_allowed
        from edgeprof.worker.sandbox import asked_for

        if sandbox:
            _require_sandbox()
        with code_allowed(allow_code), asked_for(sandbox):
            return command(*args, **kwargs)

    decorated = click.option(
        "--sandbox", is_flag=True, help="Run models without network, new rights, or writing outside a scratch folder."
    )(cast("F", within))
    return click.option(
        "--allow-code", is_flag=True, help="Load also a model file that runs its author's code when it is loaded."
    )(decorated)


def _require_sandbox() -> None:
    """
    Raises:
        UnavailableError: this kernel cannot confine a process.
    """
    from edgeprof.errors import UnavailableError
    from edgeprof.worker.sandbox import why_not

    reason = why_not()
    if reason is not None:
        raise UnavailableError(
            f"--sandbox cannot be used here: {reason}",
            remedy="Leave it out for models that you trust, or run edgeprof in a container or a virtual machine.",
        )


def output_files(help_text: str, metavar: str = "FILE") -> Callable[[F], F]:
    """Return a decorator that adds ``-o FILE``, repeatable; the command gets ``output``, paths, each once."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(dir_okay=False, path_type=Path),
        multiple=True,
        callback=lambda _context, _option, paths: tuple(dict.fromkeys(paths)),
        metavar=metavar,
        help=help_text,
    )


def output_option(command: F) -> F:
    """Add ``-o FILE`` for results (``output_files``)."""
    return output_files(
        "Write to FILE; its suffix gives the format: .json .jsonl .csv .md .html"
        " .card.md .spdx3.json .github-benchmark.json. Repeatable."
    )(command)


def resolve_roots(sysfs_root: str | None, procfs_root: str | None) -> Roots:
    """Resolve the roots from the flags, else from the environment."""
    from edgeprof.roots import Roots

    return Roots.resolve(sysfs_root, procfs_root)


def counts(flag: str, text: str) -> list[int]:
    """Parse ``N`` or ``N,N,…`` into whole numbers.

    Args:
        flag: The flag that has this value, for messages.
        text: The value as it was typed.

    Raises:
        InputError: the text has another form.
    """
    from edgeprof.errors import InputError

    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"-?[0-9]{1,12}", part) for part in parts):
        raise InputError(f"{flag} {text} is not a whole number or a list of them", remedy=f"Write it as {flag} 128.")
    return [int(part) for part in parts]


def numbers(flag: str, text: str) -> list[float]:
    """``X`` or ``X,X,…`` as numbers.

    Args:
        flag: Whose value it is, for messages.
        text: As it was given.

    Raises:
        InputError: it is not written so.
    """
    from edgeprof.errors import InputError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{flag} {text} is no number, and no list of them", remedy=f"As: {flag} 5,15,30") from None


def can_ask() -> bool:
    """Whether a person sits at the other end of stdin."""
    return sys.stdin is not None and sys.stdin.isatty()


def typed_command() -> list[str] | None:
    """The words of the command that runs, as they were typed, without passwords in URLs.

    None outside of a command, and if a word is not text (a file name may be any bytes), since JSON cannot hold it.
    """
    context = click.get_current_context(silent=True)
    words = context.find_root().obj if context is not None else None
    if not words or any("\udc80" <= letter <= "\udcff" for word in words for letter in word):
        return None
    return ["edgeprof", *(re.sub(r"(?<=://)[^/@\s]+@", "", word) for word in words)]


def pairs(flag: str, texts: Sequence[str]) -> dict[str, str]:
    """Parse texts of the form ``KEY=VALUE`` into a dict.

    Raises:
        InputError: a text has another form.
    """
    from edgeprof.errors import InputError

    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise InputError(f"{flag} {text!r} is not KEY=VALUE")
        pairs[key] = value
    return pairs
