"""Make an ``Artifact`` from the text that a user gives."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import stat
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgeprof.artifact import gguf, language_folders, programs
from edgeprof.artifact.artifact import Artifact, checksum
from edgeprof.artifact.content import Content, external_files, identify
from edgeprof.artifact.formats import FORMATS
from edgeprof.errors import InputError, UnavailableError
from edgeprof.worker import embedded_code
from edgeprof.worker.pipeline import join_models, no_model_sentence, split_models

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_CALLABLE = re.compile(r"(?P<where>.+):(?P<attribute>[^\W\d]\w*(\.[^\W\d]\w*)*)")
#: The format of a model that is named by the URL of the server that runs it.
SERVER = "openai-server"
#: The format of a model that is named by the serial port of the device that holds it.
MICROCONTROLLER = "mcu"
_DAMAGED = "The file is damaged, or was made to do harm: export it again."
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_SUFFIXES = tuple(sorted({suffix for f in FORMATS.values() for suffix in f.suffixes if f.name != "hdf5"}))


def recognise(spec: str, own_formats: Mapping[str, tuple[int, bytes]] = MappingProxyType({})) -> Artifact:
    """Recognise a model file, a model's folder, ``FILE.py:attribute``, ``package.module:attribute`` (a pipeline with
    the models of its stages: ``FILE.py:attribute,stage=MODEL``), the URL of a server, or ``mcu:PORT``.

    This reads the file (for its checksum) but loads nothing: no pickle is loaded, no Python file is run.

    Args:
        spec: The text that the user gave.
        own_formats: The formats that plugins' runtimes recognise (``Runtime.own_formats``); they are tried only for a
            file that edgeprof does not know, so that no plugin can claim a known format.

    Raises:
        InputError: The model does not exist, cannot be read, is not a model or only a part of one, or would run its
            author's code (``embedded_code``); the message gives the reason.
    """
    if _is_server(spec):
        return Artifact(spec=spec, path=None, target=spec, format=SERVER, size_bytes=None, sha256=None)
    if spec.startswith(MICROCONTROLLER + ":"):
        return _recognise_port(spec)
    if "://" in spec:
        raise InputError(f"{spec} is an address, not a file", remedy="Download it first, and give the file's name.")
    path = Path(spec).expanduser()
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        name, models = split_models(spec)
        match = _CALLABLE.fullmatch(name)
        if match and (match["where"].endswith(".py") or _MODULE.fullmatch(match["where"])):
            application = _recognise_callable(name, match["where"], match["attribute"])
            return _with_models(spec, application, models, own_formats) if models else application
        raise _missing_file_error(spec, path, error) from None
    if stat.S_ISDIR(status.st_mode):
        return _recognise_folder(spec, path)
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{spec} is no regular file", remedy="Give a model file.")
    try:
        return _recognise_file(spec, path, status.st_size, own_formats)
    except OSError as error:
        raise _unreadable_error(spec, error) from None


def _is_server(spec: str) -> bool:
    """Return whether an address is that of a server and not of a file on a server."""
    scheme, separator, rest = spec.partition("://")
    return bool(separator and rest) and scheme in ("http", "https") and not rest.lower().endswith(_SUFFIXES)


def _recognise_port(spec: str) -> Artifact:
    place, at, baud = spec.partition(":")[2].partition("@")
    path = Path(place).expanduser()
    if not place or not path.exists():
        raise InputError(
            f"{spec} names no serial port: there is no {path}" if place else f"{spec} names no serial port",
            remedy="As mcu:/dev/ttyACM0, or mcu:/dev/ttyUSB0@9600; ls /dev/serial/by-id shows what is plugged in.",
        )
    target = f"{path.absolute()}{at}{baud}"
    return Artifact(spec=spec, path=None, target=target, format=MICROCONTROLLER, size_bytes=None, sha256=None)


def unsupported(artifact: Artifact, loadable: Iterable[str] = ()) -> UnavailableError:
    """Return the error for a recognised model whose format no runtime loads.

    Args:
        artifact: The model.
        loadable: The formats that the registered runtimes load.
    """
    kind = FORMATS[artifact.format]
    detail = f" ({artifact.detail})" if artifact.detail else ""
    others = ", ".join(sorted({*loadable}))
    return UnavailableError(
        f"{artifact.spec} is {kind.describe}{detail}; no installed runtime loads it",
        remedy=f"{kind.remedy.rstrip('.')}. The runtimes here load {others}." if others else kind.remedy,
    )


def _recognise_file(spec: str, path: Path, size: int, own_formats: Mapping[str, tuple[int, bytes]]) -> Artifact:
    if size == 0:
        raise InputError(f"{spec} is empty", remedy="Download or export it again.")
    if language_folders.is_config(path, size):
        return Artifact(
            spec=spec,
            path=path,
            target=str(path.resolve()),
            format="transformers",
            size_bytes=None,  # the configuration's size is not the model's
            sha256=checksum([path], path.parent),
            files=(path,),
            detail="a configuration without weights",
        )
    try:
        content = identify(path, size)
    except InputError:
        own_format = _own_format(path, own_formats)
        if own_format is None:
            raise
        content = Content(own_format)
    if content.format in ("pt2", "torchscript"):
        refusal = embedded_code.code_refusal(os.fspath(path))
        if refusal is not None:
            raise InputError(refusal.message, remedy=refusal.remedy)
    files = [path]
    if content.format == "onnx":
        files += _weight_files(path, external_files(path))
    elif content.format in ("openvino", "ncnn"):
        files += _weight_files(path, [path.with_suffix(".bin").name])
    elif content.format == "gguf":
        files += _other_parts(path)
    return Artifact(
        spec=spec,
        path=path,
        target=str(path.resolve()),
        format=content.format,
        size_bytes=sum(file.stat().st_size for file in files),
        sha256=checksum(files, path.parent),
        files=tuple(files),
        detail=content.detail,
        own_formats=dict(own_formats),
    )


def _own_format(path: Path, own_formats: Mapping[str, tuple[int, bytes]]) -> str | None:
    with path.open("rb") as file:
        for name, (offset, magic) in own_formats.items():
            file.seek(offset)
            if magic and file.read(len(magic)) == magic:
                return name
    return None


def _weight_files(path: Path, names: list[str]) -> list[Path]:
    """Return the files with a model's weights."""
    files = []
    for name in names:
        if "\0" in name:
            raise InputError(f"{path} wants its weights from a file whose name holds a zero byte", remedy=_DAMAGED)
        file = path.parent / name
        try:
            inside = file.resolve().is_relative_to(path.parent.resolve())
        except RuntimeError:  # a loop of symbolic links
            inside = False
        if not inside:
            raise InputError(
                f"{path} wants its weights from {name}, outside its own folder",
                remedy="Do not run a model that reads other files.",
            )
        if not file.is_file():
            raise InputError(
                f"{path} keeps its weights in {name}, which is not beside it", remedy="Copy both files into one folder."
            )
        files.append(file)
    return files


def _other_parts(path: Path) -> list[Path]:
    """Return the other parts of a split GGUF model, which are in the folder of its first part."""
    split = gguf.read_header(path).split
    if split is None:
        return []
    number, count = split
    names = gguf.part_names(path.name, count)
    if names is None:
        raise InputError(
            f"{path} is part {number} of {count} of a split GGUF model, and its name does not say so",
            remedy=f"Rename its parts to NAME-00001-of-{count:05d}.gguf and so on, as llama.cpp expects them.",
        )
    if number != 1:
        raise InputError(
            f"{path} is part {number} of {count} of a split GGUF model",
            remedy=f"Name its first part, {path.parent / names[0]}; the others are loaded with it.",
        )
    return _weight_files(path, names[1:])


def _recognise_folder(spec: str, path: Path) -> Artifact:
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise _unreadable_error(spec, error) from None
    kind = "savedmodel" if "saved_model.pb" in names else "coreml" if path.suffix == ".mlpackage" else None
    language = None if kind else language_folders.format_of(set(names))
    if kind is None and language is None:
        models = [name for name in names if name.lower().endswith(_SUFFIXES) and name != "__init__.py"]
        more = f", and {len(models) - 3} more" if len(models) > 3 else ""
        raise InputError(
            f"{spec} is a folder, not a model",
            remedy=f"Name a file in it: {', '.join(str(path / name) for name in models[:3])}{more}."
            if models
            else "Name a model file; this folder has none.",
        )
    files = sorted(file for file in path.rglob("*") if file.is_file())
    if language is not None:
        files = language_folders.files_of(path, language)
    return Artifact(
        spec=spec,
        path=path,
        target=str(path.resolve()),
        format=kind or language or "",
        size_bytes=sum(file.stat().st_size for file in files),
        sha256=checksum(files, path),
        files=tuple(files),
    )


def _recognise_callable(spec: str, where: str, attribute: str) -> Artifact:
    if not where.endswith(".py"):
        return Artifact(spec=spec, path=None, target=spec, format="python", size_bytes=None, sha256=None)
    path = Path(where).expanduser()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise _missing_file_error(where, path, error) from None
    tree = programs.parse(source, str(path))
    defined = programs.top_level(tree)
    first = attribute.partition(".")[0]
    if defined is not None and first not in defined:
        near = difflib.get_close_matches(first, defined, n=1)
        functions = ", ".join(sorted(defined)[:8])
        raise InputError(
            f"{where} defines no {first!r}",
            remedy=(f"Did you mean {where}:{near[0]}? " if near else "")
            + (f"It defines: {functions}." if functions else "It defines nothing at its top level."),
        )
    files = [path, *programs.files_of(path, tree)]
    return Artifact(
        spec=spec,
        path=path,
        target=f"{path.resolve()}:{attribute}",
        format="python",
        size_bytes=None,
        sha256=checksum(files, path.parent),
        files=tuple(files),
    )


def _with_models(
    spec: str, application: Artifact, models: Mapping[str, str], own_formats: Mapping[str, tuple[int, bytes]]
) -> Artifact:
    """Return a pipeline together with the models of its stages; its size and hash include theirs."""
    where, _, attribute = application.spec.rpartition(":")
    taken = None
    if application.path is not None:
        taken = programs.parameters(programs.parse(application.path.read_bytes(), where), attribute)
    parts = {}
    for stage, path in models.items():
        if taken is not None and stage not in taken:
            raise InputError(
                f"{application.spec}: {no_model_sentence(stage, taken)}",
                remedy=f'Write it as def {attribute}({stage}="MODEL"), in {where}.',
            )
        parts[stage] = recognise(path, own_formats)
    digest = hashlib.sha256(f"{application.sha256}\0".encode())
    for stage, part in parts.items():
        digest.update(f"{stage}\0{part.sha256}\0".encode())
    files = [*application.files, *(file for part in parts.values() for file in part.files)]
    return replace(
        application,
        spec=spec,
        target=join_models(application.target, {stage: part.target for stage, part in parts.items()}),
        size_bytes=sum(file.stat().st_size for file in files),
        sha256=digest.hexdigest(),
        files=tuple(files),
        own_formats=dict(own_formats),
    )


def _missing_file_error(spec: str, path: Path, error: OSError | ValueError) -> InputError:
    if isinstance(error, ValueError) or not isinstance(error, FileNotFoundError | NotADirectoryError):
        return _unreadable_error(spec, error)
    folder = path.parent
    if not folder.is_dir():
        return InputError(
            f"{spec} does not exist: there is no folder {folder}", remedy="Give the path of a model file."
        )
    try:
        names = {entry.name.lower(): entry.name for entry in folder.iterdir()}
    except OSError:
        names = {}
    near = [names[n] for n in difflib.get_close_matches(path.name.lower(), names, n=3, cutoff=0.6)]
    if near:
        remedy = f"Did you mean {' or '.join(str(folder / name) for name in near)}?"
    else:
        models = sorted(name for name in names.values() if name.lower().endswith(_SUFFIXES))[:3]
        here = "here" if str(folder) == "." else f"in {folder}"
        remedy = f"Models {here}: {', '.join(models)}." if models else f"There is no model {here}."
    return InputError(f"{spec} does not exist", remedy=remedy)


def _unreadable_error(spec: str, error: OSError | ValueError) -> InputError:
    if isinstance(error, PermissionError):
        return InputError(
            f"{spec} cannot be read: permission denied", remedy=f"ls -l {spec}; chmod +r {spec} if it is yours."
        )
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return InputError(f"{spec} cannot be read: {reason}", remedy="Give the path of a model file.")
