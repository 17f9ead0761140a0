"""What a Python program that makes a model defines, and the files that it names; the program is not run."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprof.artifact.formats import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The longest program (bytes) that is read.
LONGEST = 4 << 20
#: The most files that belong to one program.
_MOST_FILES = 256
#: Suffixes of files with weights, beyond those of the formats of models.
_WEIGHTS = (".bin", ".ckpt", ".h5", ".hdf5", ".msgpack", ".npy", ".npz", ".pickle", ".pkl", ".pth", ".safetensors")
_SUFFIXES = (*_WEIGHTS, *(suffix for kind in FORMATS.values() for suffix in kind.suffixes))
#: Folders of files that are not data but the state of the system.
_SYSTEM = ("/dev/", "/proc/", "/run/", "/sys/")


def parse(source: bytes, name: str) -> ast.Module | None:
    """Return the syntax tree of a program; None where this Python cannot parse it, or it is too long."""
    if len(source) > LONGEST:
        return None
    try:
        return ast.parse(source, name)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # the worker's Python may be a different version, so it decides


def top_level(tree: ast.AST | None) -> set[str] | None:
    """Return the names that a program defines at its top level; None if they are unknown."""
    names: set[str] = set()
    waiting: list[ast.AST] = [] if tree is None else [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue  # names that are defined inside are not the module's
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            if node.name == "*":
                return None
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("exec", "globals"):
            return None
    return None if tree is None or "__getattr__" in names else names


def parameters(tree: ast.Module | None, function: str) -> list[str] | None:
    """Return the parameters of a program's function; None if they are unknown."""
    for node in tree.body if tree is not None else ():
        if isinstance(node, ast.FunctionDef) and node.name == function and node.args.kwarg is None:
            return [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
    return None


def files_of(path: Path, tree: ast.AST | None) -> list[Path]:
    """Return the files with weights that a program names, and the modules that it imports from its own folder.

    A name is a text in the program, or several that are joined with ``/`` or by one call (``os.path.join``). It is
    looked up in the program's folder, then in the current one. The modules are searched in the same way.
    """
    by_path: dict[str, Path] = {}
    waiting = [(path, tree)]
    while waiting:
        program, its_tree = waiting.pop()
        if its_tree is None:
            continue
        for name in _names(its_tree):
            file = _existing(program.parent, name)
            if file is None or len(by_path) >= _MOST_FILES:
                continue
            key = os.path.realpath(file)
            if key in by_path or key == os.path.realpath(path):
                continue
            by_path[key] = file
            if file.suffix == ".py" and file.stat().st_size <= LONGEST:
                waiting.append((file, parse(file.read_bytes(), str(file))))
    return sorted(by_path.values())


def _names(tree: ast.AST) -> Iterator[str]:
    """Yield names of files in a program: of modules, with ``.py``, and of weights."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name for alias in node.names for name in _module_files(alias.name))
        elif isinstance(node, ast.ImportFrom):
            up = "../" * (node.level - 1) if node.level else ""
            inside = [f"{node.module}.{alias.name}" if node.module else alias.name for alias in node.names]
            yield from (up + name for module in (node.module or "", *inside) for name in _module_files(module))
        elif isinstance(node, ast.Constant | ast.BinOp | ast.Call):
            name = _joined(node)
            if name.lower().endswith(_SUFFIXES) and "\0" not in name and not name.endswith(".py"):
                yield name


def _module_files(module: str) -> list[str]:
    place = module.replace(".", "/")
    return [f"{place}.py", f"{place}/__init__.py"] if place else []


def _joined(node: ast.AST) -> str:
    """Return the constant end of a path; "" where there is none."""
    if isinstance(node, ast.Call):
        parts = [part for part in map(_text, node.args) if part] if len(node.args) > 1 else []
        return "/".join(parts)
    parts = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and _text(node.right):
        parts.append(_text(node.right))
        node = node.left
    if not parts or (not isinstance(node, ast.BinOp) and _text(node)):
        parts.append(_text(node))
    return "/".join(reversed(parts))


def _text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _existing(folder: Path, name: str) -> Path | None:
    """Return the file of this name, in a folder or in the current one; None if there is none."""
    return next((file for file in (folder / name, Path(name)) if _is_data(file)), None)


def _is_data(file: Path) -> bool:
    try:
        return file.is_file() and not os.path.realpath(file).startswith(_SYSTEM)
    except (OSError, RuntimeError, ValueError):  # its name is too long, or leads in a circle
        return False
