"""The daemon's settings: one table for flags, environment variables, the file and the documentation.

A flag takes precedence over ``EDGEPROF_EXPORTER_*``, which takes precedence over the file (YAML or TOML) and the
default.
"""

from __future__ import annotations

import math
import os
import reprlib
import stat
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof import toml_files
from edgeprof.errors import InputError, unknown
from edgeprof_exporters.thrift.light import borrowed_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: A port outside of 9100 to 9999, which the exporters in Prometheus's list use, and below the kernel's range for
#: clients (32768 and up), so that no client occupies it by chance.
DEFAULT_PORT = 28283
PREFIX = "EDGEPROF_EXPORTER_"
#: Largest size (bytes) and depth of a file of settings; a web configuration may contain certificates.
_MOST_BYTES, _MOST_DEPTH = 128 << 10, 16
_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxstring, _SHOWN.maxother = 2, 100, 100


def _setting_field(
    default: Any,
    text: str,
    *,
    section: str,
    low: float = -math.inf,
    high: float = math.inf,
    choices: tuple[str, ...] = (),
    metavar: str = "",
) -> Any:
    facts = {"text": text, "section": section, "low": low, "high": high, "choices": choices, "metavar": metavar}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=facts)
    return field(default=default, metadata=facts)


@dataclass(frozen=True)
class Settings:
    """All settings.

    A field ``web_listen_address`` of the section ``web`` is ``listen_address`` under ``web`` in the file,
    ``EDGEPROF_EXPORTER_WEB_LISTEN_ADDRESS`` in the environment and ``--web.listen-address`` on the command line.
    """

    web_listen_address: list[str] = _setting_field(  # noqa: RUF009 - _setting_field makes a field
        [f"127.0.0.1:{DEFAULT_PORT}"],
        "Address to listen on: HOST:PORT, [IPV6]:PORT, or :PORT for all addresses; repeatable.",
        section="web",
        metavar="ADDRESS",
    )
    web_systemd_socket: bool = _setting_field(False, "Use the listening sockets that systemd passes.", section="web")
    web_telemetry_path: str = _setting_field("/metrics", "Path of the metrics.", section="web", metavar="PATH")
    web_max_requests: int = _setting_field(
        40, "Most simultaneous scrapes; any further one gets 503. 0: no limit.", section="web", low=0, high=10_000
    )
    web_max_connections: int = _setting_field(
        1024, "Most simultaneous connections; a late or idle one makes room.", section="web", low=4, high=10_000
    )
    web_config_file: str = _setting_field(
        "", "TLS and passwords, in the format of Prometheus's exporter-toolkit (web-config.yml).", section="web",
        metavar="FILE",
    )  # fmt: skip
    sampling_rate_hz: float = _setting_field(10.0, "Readings per second.", section="sampling", low=0.1, high=100.0)
    sampling_bridge_s: float = _setting_field(
        5.0,
        "Longest gap in power readings that is bridged (s); longer gaps are counted and left out.",
        section="sampling",
        low=0.0,
        high=3600.0,
    )
    sampling_sensors: list[str] = _setting_field(  # noqa: RUF009 - _setting_field makes a field
        [], "Sensor source to use (edgeprof sensors lists them; default: all).", section="sampling", metavar="NAME"
    )
    sampling_rail: str = _setting_field("", "Rail that measures the whole device.", section="sampling", metavar="NAME")
    sampling_sysfs_root: str = _setting_field("", "Read this tree instead of /sys.", section="sampling", metavar="DIR")
    sampling_procfs_root: str = _setting_field(
        "", "Read this tree instead of /proc.", section="sampling", metavar="DIR"
    )
    collectors_exclude: list[str] = _setting_field(  # noqa: RUF009 - _setting_field makes a field
        [], "Collector to switch off.", section="collectors", metavar="NAME"
    )
    track_socket: str = _setting_field(
        "auto",
        "Datagram socket for edgeprof.track; auto: track.sock in the runtime directory; empty: none.",
        section="track",
        metavar="PATH",
    )
    track_max_series: int = _setting_field(
        50, "Most label sets; any further ones are counted under other.", section="track", low=1, high=10_000
    )
    control_socket: str = _setting_field(
        "auto",
        "Control socket; auto: control.sock in the runtime directory; empty: none.",
        section="control",
        metavar="PATH",
    )
    control_group: str = _setting_field(
        "", "Group whose members may use both sockets, as root and the daemon's own user may.", section="control",
        metavar="GROUP",
    )  # fmt: skip
    state_file: str = _setting_field(
        "auto",
        "File from which counters continue after a restart; auto: state.json in systemd's state directory, if there is "
        "one; empty: none.",
        section="state",
        metavar="FILE",
    )
    state_interval_s: float = _setting_field(
        300.0, "Seconds between two writes of the state file.", section="state", low=1.0, high=86_400.0
    )
    bench_directory: str = _setting_field(
        "",
        "Folder in which edgeprof bench stores its results (its EDGEPROF_DATA_DIR); default: this user's.",
        section="bench",
        metavar="DIR",
    )
    log_level: str = _setting_field(
        "info", "Least severe level that is logged.", section="log", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _setting_field("logfmt", "Format of the log.", section="log", choices=("logfmt", "json"))


KEYS: dict[str, Any] = {f.name: f for f in fields(Settings)}


def key_of(name: str) -> str:
    """The key of a setting in the file: ``web_listen_address`` → ``web.listen_address``."""
    section: str = KEYS[name].metadata["section"]
    return f"{section}.{name[len(section) + 1 :]}"


def flag_of(name: str) -> str:
    """The flag of a setting: ``web_listen_address`` → ``--web.listen-address``; three flags have their usual names."""
    known = {
        "web_config_file": "--web.config.file",
        "sampling_sysfs_root": "--sysfs-root",
        "sampling_procfs_root": "--procfs-root",
    }
    return known.get(name) or "--" + key_of(name).replace("_", "-")


def variable_of(name: str) -> str:
    """The environment variable of a setting: ``web_listen_address`` → ``EDGEPROF_EXPORTER_WEB_LISTEN_ADDRESS``."""
    return PREFIX + name.upper()


def load(
    flags: Mapping[str, Any], environ: Mapping[str, str] | None = None, path: Path | None = None
) -> tuple[Settings, Path | None]:
    """Load the settings.

    Args:
        flags: Field name → value; None and an empty tuple mean that the flag was not given.
        environ: The environment; ``os.environ`` by default.
        path: ``--config.file``; else ``EDGEPROF_CONFIG``, else ``exporter.yml``, ``.yaml`` or ``.toml`` in systemd's
            configuration directory, else no file.

    Returns:
        The settings, and the file that was read.

    Raises:
        InputError: a name or a value is not valid; the message says where it was found.
    """
    environ = os.environ if environ is None else environ
    path = path or _usual_file(environ)
    values: dict[str, Any] = {}
    if path is not None:
        values.update(_from_file(path))
    for variable, text in environ.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable[len(PREFIX) :].lower()
        if name not in KEYS:
            raise unknown("environment variable", variable, map(variable_of, KEYS))
        kind = KEYS[name].default_factory
        value: Any = [word.strip() for word in text.split(",") if word.strip()] if callable(kind) else text
        values[name] = _check_value(name, value, f"the environment variable {variable}")
    for name, given in flags.items():
        if given is not None and given != ():
            value = list(given) if isinstance(given, tuple) else given
            values[name] = _check_value(name, value, flag_of(name))
    return Settings(**values), path


def _usual_file(environ: Mapping[str, str]) -> Path | None:
    if environ.get("EDGEPROF_CONFIG"):
        return Path(environ["EDGEPROF_CONFIG"])
    directory = environ.get("CONFIGURATION_DIRECTORY", "").split(":")[0]
    if directory:
        for name in ("exporter.yml", "exporter.yaml", "exporter.toml"):
            if (Path(directory) / name).is_file():
                return Path(directory) / name
    return None


def read_mapping(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML or TOML file, by its suffix; an empty file gives an empty mapping.

    Raises:
        InputError: the file cannot be read, has another format, or contains no mapping.
    """
    text = _read_text(path)
    content: Any
    if path.suffix == ".toml":
        content = toml_files.parse(text, path)
    else:
        try:
            with borrowed_yaml() as yaml:
                _check_yaml(yaml, text)
                content = yaml.safe_load(text)
        except ImportError:
            raise InputError(
                f"{path} is YAML, and its library is not installed", remedy="pip install 'edgeprof[exporter]'"
            ) from None
        except Exception as error:  # noqa: BLE001 - PyYAML passes on whatever its constructors of dates and numbers raise
            raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} does not contain a table of settings")
    return content


def _read_text(path: Path) -> str:
    """Read the text of a file.

    Raises:
        InputError: the file cannot be read, is not a regular file, or is too large for settings.
    """
    try:
        # Without O_NONBLOCK the daemon would wait at a FIFO until somebody writes to it.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(
                    f"{path} is not a regular file",
                    remedy="Give a regular file, since it is read again when it has changed.",
                )
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise InputError(f"{path} is larger than {_MOST_BYTES >> 10} KiB, too large for settings")
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{path} cannot be read: {why}") from None


def _check_yaml(yaml: Any, text: str) -> None:
    """Refuse YAML that expands to much more than its text: references (``*name``), and deep nesting.

    Raises:
        ValueError: the text contains references, or is nested too deeply.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("references (*name) are not supported: write the value itself")  # noqa: TRY004 - not a type error
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_DEPTH:
            raise ValueError(f"it is nested more than {_MOST_DEPTH} deep")


def _from_file(path: Path) -> dict[str, Any]:
    sections: dict[str, dict[str, str]] = {}
    for name in KEYS:
        section, _, key = key_of(name).partition(".")
        sections.setdefault(section, {})[key] = name
    values: dict[str, Any] = {}
    for section, content in read_mapping(path).items():
        if section not in sections:
            raise _unknown_key_error(path, "section", section, sections)
        if content is None:
            continue
        if not isinstance(content, dict):
            raise InputError(
                f"{path}: {section} is not a table", remedy=f"Its keys are {', '.join(sections[section])}."
            )
        for key, value in content.items():
            if key not in sections[section]:
                raise _unknown_key_error(path, f"setting of {section}", key, sections[section])
            name = sections[section][key]
            values[name] = _check_value(name, value, f"{path}: {section}.{key}")
    return values


def _unknown_key_error(path: Path, kind: str, name: object, valid: Mapping[str, object]) -> InputError:
    error = unknown(kind, name if isinstance(name, str) else shown(name), valid)
    return InputError(f"{path}: {error.message}", remedy=error.remedy)


def _check_value(name: str, value: Any, where: str) -> Any:
    """Convert a value from a flag, a text or a file to the type of its field.

    Raises:
        InputError: the value is not valid.
    """
    facts, default = KEYS[name].metadata, KEYS[name].default
    if callable(KEYS[name].default_factory):
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise InputError(f"{where} is {shown(value)}; it has to be a list of texts")
        return items
    if isinstance(default, bool):
        words = {
            "true": True,
            "yes": True,
            "1": True,
            "on": True,
            "false": False,
            "no": False,
            "0": False,
            "off": False,
        }
        if isinstance(value, str) and value.lower() in words:
            return words[value.lower()]
        if not isinstance(value, bool):
            raise InputError(f"{where} is {shown(value)}; it has to be true or false")
        return value
    if isinstance(default, (int, float)):
        return _checked_number(value, default, facts, where)
    return _checked_text(name, value, facts["choices"], where)


def _checked_text(name: str, value: Any, choices: Sequence[str], where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where} is {shown(value)}; it has to be a text")
    if "\0" in value:
        raise InputError(f"{where} has a zero byte in it")
    if name == "web_telemetry_path" and (not value.startswith("/") or value.startswith("/-/")):
        raise InputError(f"{where} is {value!r}", remedy="It has to begin with / and not with /-/, as in /metrics.")
    if choices and value not in choices:
        raise InputError(f"{where} is {value!r}", remedy=f"It has to be one of {', '.join(choices)}.")
    return value


def _checked_number(value: Any, default: float, facts: Mapping[str, Any], where: str) -> float:
    kind: type[int | float] = int if isinstance(default, int) else float
    number: float | None = None
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            number = kind(value) if isinstance(value, str) or kind is float or value == int(value) else None
    if number is None:
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"{where} is {shown(value)}; it has to be {what}")
    if not facts["low"] <= number <= facts["high"]:
        raise InputError(f"{where} is {shown(value)}; it has to be from {facts['low']:g} to {facts['high']:g}")
    return number


def shown(value: object) -> str:
    """Format a value for a message; a long value is cut, since Python refuses to format an integer of many digits."""
    try:
        text = _SHOWN.repr(value)
    except (ValueError, RecursionError):
        return "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:100]}…"
