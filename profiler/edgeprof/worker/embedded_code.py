"""Find the code that a model file carries before a library opens it: torch.export programs and TorchScript archives.

A ``.pt2`` is a zip of JSON, raw weights and pickles. PyTorch unpickles whatever the archive marks as a pickle, loads
bundled libraries, evaluates the texts of symbolic shapes and guards, and calls whatever function a node names; each of
these runs what the file's author wrote. This module reads the archive by itself and names the entry that would run.
edgeprof opens a ``.pt2`` through ``load_program`` only, which searches the file and then keeps PyTorch from running
what the search may have missed.

Python 3.6 grammar and the standard library: the parent searches before it starts anything, the worker searches again.

Sources: torch/export/pt2_archive/_package.py, torch/_export/serde/serialize.py (deserialize_operator, _parse_sym_expr),
torch/export/_unlift.py (_convert_guards_code_to_fn), torch/utils/_pytree.py (treespec_loads) of PyTorch 2.13; for files
of 2.1 to 2.7 torch/export/__init__.py (load).
"""

import ast
import contextlib
import importlib
import json
import os
import re
import zipfile
from typing import IO, Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

from edgeprof.worker import pickles, zips
from edgeprof.worker.runtime import LoadError

#: The largest JSON of a program and the largest code of a TorchScript archive that are looked through, bytes.
LIMIT_JSON = 64 << 20
LIMIT_CODE = 16 << 20

REMEDY = "Run it only if you trust its author as you trust a program: add --allow-code."

#: Whether this process may open files that carry code; set by ``code_allowed``.
_ALLOWED = [False]

#: Functions that a node of a program may call: operators, and arithmetic on sizes.
_TARGET = re.compile(
    r"torch\.ops\.(?P<operator>\w+\.\w+)(\.\w+)?|torch\.(_sym_\w+|sym_\w+)|_operator\.\w+|math\.\w+"
    r"|torch\._functorch\.predispatch\._\w+"
)
#: Operators of PyTorch that read or write files by a name that the program gives.
_FILE_OPERATORS = re.compile(
    r"aten\.(from_file|save|load)\b|debugprims\.|prim\.Print\b|inductor\.|higher_order\.(print|triton_)"
)
#: Entries of a package that are pickled objects, and those that are pickles which may hold plain tensors.
_OBJECT = re.compile(r"data/constants/(opaque|custom)_obj_")
_PICKLE = re.compile(r"data/(sample_inputs/.+|(weights|constants)/[^/]*\.pt$)")
#: Functions that the text of a symbolic shape may call. Sources: torch/utils/_sympy/functions.py, sympy.
_SHAPE_FUNCTIONS = re.compile(
    r"(Symbol|Dummy|Integer|Float|Rational|Add|Mul|Pow|Abs|Max|Min|Mod|Eq|Ne|Equality|Unequality|Ge|Gt|Le|Lt"
    r"|GreaterThan|LessThan|StrictGreaterThan|StrictLessThan|And|Or|Not|Piecewise|ExprCondPair|Tuple"
    r"|floor|ceiling|FloorDiv|ModularIndexing|Where|PythonMod|CleanDiv|CeilDiv|CeilToInt|FloorToInt|LShift|RShift"
    r"|PowByNatural|FloatPow|FloatTrueDiv|IntTrueDiv|IsNonOverlappingAndDenseIndicator|TruncToFloat|TruncToInt"
    r"|RoundToInt|RoundDecimal|ToFloat|Identity|sqrt|cos|cosh|sin|sinh|tan|tanh|asin|acos|atan|exp|log"
    r"|OpaqueUnaryFn_\w+|BitwiseFn_\w+)$"
)
#: What the text of a guard may ask a tensor.
_GUARD_METHODS = frozenset(
    ("size", "stride", "storage_offset", "dim", "numel", "shape", "ndim", "dtype", "device", "isnan", "inf", "nan")
)
#: Kinds of containers in which inputs and outputs may come.
_CONTAINERS = frozenset(("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"))
_LIBRARY = re.compile(r"\.(so|so\.[\d.]+|dylib|dll|pyd|cubin|ptx)$")
#: Calls in the source of a TorchScript archive that read or write files.
_SCRIPT_FILES = re.compile(
    r"\b(?:torch|ops\.aten|aten)\.(save|from_file)\(|\bops\.(?!prim\b|aten\b)(\w+)\.(\w*file\w*)\("
)


@contextlib.contextmanager
def code_allowed(allowed: bool = True) -> Iterator[None]:
    """A context in which files that carry code may be opened, which only ``--allow-code`` asks for."""
    before = _ALLOWED[0]
    allow_code(allowed)
    try:
        yield
    finally:
        allow_code(before)


def allow_code(allowed: bool) -> None:
    """As ``code_allowed``, but for the rest of this process: a worker calls it with the setting of its parent."""
    _ALLOWED[0] = allowed


def is_code_allowed() -> bool:
    """Whether ``--allow-code`` was given."""
    return _ALLOWED[0]


def find_code(path: str) -> Optional[str]:
    """Return which entry of a PyTorch archive would run code when it is loaded, and how; None if no entry would.

    Args:
        path: A ``.pt2`` or a TorchScript archive. A file that is no zip has no entries, and gives None.

    Returns:
        A clause, such as ``data/sample_inputs/model.pt is a pickle that imports os.system``.
    """
    try:
        with open(path, "rb") as file:
            _look_through(file)
    except CodeFoundError as error:
        return str(error)
    except (OSError, zips.UnreadableError):
        return None  # the library will not read it either, and says why
    return None


def code_refusal(path: str) -> Optional[LoadError]:
    """The error for an archive that would run code, unless ``--allow-code`` was given; None if it may be loaded."""
    reason = None if is_code_allowed() else find_code(path)
    if reason is None:
        return None
    return LoadError("{} would run its author's code: {}".format(os.path.basename(path), reason), REMEDY)


def load_program(torch: Any, path: str) -> Any:
    """Search a file for code, then load it by ``torch.export.load`` while PyTorch's own ways to run code are closed.

    Raises:
        LoadError: the file would run code, and ``--allow-code`` was not given.
    """
    error = code_refusal(path)
    if error is not None:
        raise error
    if is_code_allowed():
        return torch.export.load(path)
    with _closed_doors(torch):
        program = torch.export.load(path)
    if not all(_is_guard(guard) for guard in getattr(program, "_guards_code", ())):
        _refuse_code()
    return program


class CodeFoundError(Exception):
    """Raised for a file that would run code; its text is one clause that says which part would, and how."""


def _refuse_code(*_: Any, **__: Any) -> Any:
    """Takes the place of functions by which PyTorch runs code from a file, should the search have missed that code."""
    raise CodeFoundError("the file would run its author's code, which needs --allow-code")


@contextlib.contextmanager
def _closed_doors(torch: Any) -> Iterator[None]:
    """Close PyTorch's ways to run code: it loads pickles as ``weights_only``, and no bundled libraries or opaque
    objects.

    PyTorch reads zips by another reader than Python, so a file that was made for the purpose could look harmless to the
    search and still hold code for PyTorch.
    """
    changed: List[Tuple[Any, str, Any]] = []

    def replace_attribute(owner: Any, name: str, value: Any) -> None:
        if owner is not None and hasattr(owner, name):
            changed.append((owner, name, getattr(owner, name)))
            setattr(owner, name, value)

    original = torch.load

    def load_weights(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **dict(kwargs, weights_only=True))

    class _NoPickle:
        loads = staticmethod(_refuse_code)
        load = staticmethod(_refuse_code)
        Unpickler = staticmethod(_refuse_code)

    package = reader = None
    with contextlib.suppress(ImportError):
        package = importlib.import_module("torch.export.pt2_archive._package")  # new versions only
    with contextlib.suppress(ImportError):
        reader = importlib.import_module("torch._export.serde.serialize").GraphModuleDeserializer
    parse: Any = getattr(reader, "_parse_sym_expr", None)

    def parse_arithmetic(self: Any, text: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(text, str) and not _is_shape(text):
            _refuse_code()
        return parse(self, text, *args, **kwargs)

    replace_attribute(reader, "_parse_sym_expr", parse_arithmetic)
    replace_attribute(torch, "load", load_weights)
    replace_attribute(package, "pickle", _NoPickle)
    replace_attribute(package, "_load_aoti", _refuse_code)
    replace_attribute(getattr(torch, "_C", None), "_pickle_load_obj", _refuse_code)
    try:
        yield
    finally:
        for owner, name, value in reversed(changed):
            setattr(owner, name, value)


def _look_through(file: "IO[bytes]") -> None:
    """Search an archive for entries that would run code.

    Raises:
        CodeFoundError: an entry would run code, or cannot be searched.
        zips.UnreadableError: the file is no archive.
    """
    archive = zips.open_zip(file)
    names = [info.filename for info in archive.infolist()]
    inner = [name.partition("/")[2] for name in names]
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        _look_through_torchscript(archive)
        return
    legacy = any(name.startswith("serialized_") for name in names)
    if not legacy and not any(name.startswith("models/") for name in inner):
        return
    _refuse_ambiguous(file, archive, "it")
    if legacy:
        _look_through_legacy(archive)
    else:
        _look_through_package(archive)


def _look_through_package(archive: zipfile.ZipFile) -> None:
    """Search a ``.pt2`` of PyTorch 2.8 and later."""
    entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    folders = {name.partition("/")[0] for name in archive.namelist()}
    if len(folders) != 1:
        raise CodeFoundError("its entries lie in {} folders".format(len(folders)))
    marked: Set[str] = set()
    for name, info in entries.items():
        lower = name.lower()
        if lower.startswith("data/aotinductor/") or _LIBRARY.search(lower):
            raise CodeFoundError("{} is compiled code".format(name))
        if _OBJECT.match(lower):
            raise CodeFoundError("{} is a pickled object".format(name))
        if _PICKLE.match(lower):
            marked.add(name)
        if lower.startswith("models/") or lower.endswith("_config.json"):
            marked.update(name.rpartition("/")[0] + "/" + entry for entry in _marked_in_json(archive, info, name))
    for name in sorted(marked):
        if name not in entries:
            raise CodeFoundError("{} is marked as a pickle, and is not where the archive says".format(printable(name)))
        _look_through_saved(archive, entries[name], name)


def _look_through_legacy(archive: zipfile.ZipFile) -> None:
    """Search a ``.pt2`` of PyTorch 2.1 to 2.7."""
    for info in archive.infolist():
        name = info.filename
        if name.startswith("serialized_exported_program") and name.endswith(".json"):
            _marked_in_json(archive, info, name)
        elif name.startswith("serialized_"):
            _look_through_saved(archive, info, name)
        elif name != "version" and not name.startswith("extra_files"):
            raise CodeFoundError("{} is nothing that torch.export.save writes".format(printable(name)))


def _look_through_saved(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> None:
    """Search an entry that ``torch.save`` wrote: a zip with one pickle, which may hold plain tensors only."""
    if info.file_size == 0:
        return
    try:
        offset = zips.data_offset(archive, info)
        part = zips.Part(archive.fp, offset, info.file_size)
        if part.read(4) != b"PK\x03\x04":
            raise CodeFoundError("{} is a pickle that torch.export.save does not write".format(name))
        inside = zips.open_zip(part)
        _refuse_ambiguous(part, inside, name)
        inner = [entry for entry in inside.infolist() if entry.filename.endswith(".pkl")]
        if len(inner) != 1 or not inner[0].filename.endswith("/data.pkl"):
            raise CodeFoundError("{} holds {} pickles, not the one that torch.save writes".format(name, len(inner)))
        scan = pickles.scan(zips.read(inside, inner[0], pickles.LIMIT_BYTES))
    except zips.UnreadableError as error:
        raise CodeFoundError("{} cannot be looked through: {}".format(name, error)) from None
    foreign = [imported for imported in scan.names if not pickles.is_plain(imported)]
    if foreign:
        raise CodeFoundError("{} is a pickle that imports {}".format(name, printable(foreign[0])))
    if scan.reason:
        raise CodeFoundError("{} is a pickle that cannot be followed: {}".format(name, scan.reason))


def _refuse_ambiguous(file: Any, archive: zipfile.ZipFile, name: str) -> None:
    reason = zips.find_ambiguity(file, archive)
    if reason:
        raise CodeFoundError("two readers could see different files in {}: {}".format(name, reason))


def _marked_in_json(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Set[str]:
    """The entries that a JSON of a program marks as pickles.

    Raises:
        CodeFoundError: something in it would be run as Python.
    """
    marked: Set[str] = set()

    def look(pairs: List[Tuple[str, Any]]) -> bool:
        """Judge one object and forget it, so that memory does not grow with the program."""
        values = dict(pairs)
        if len(values) != len(pairs):
            raise CodeFoundError("an object names a key twice")
        if values.get("use_pickle"):
            marked.add(str(values.get("path_name")))
        for key, value in pairs:
            reason = code_in_value(key, value)
            if reason:
                raise CodeFoundError(reason)
        return True

    try:
        json.loads(zips.read(archive, info, LIMIT_JSON).decode("utf-8"), object_pairs_hook=look)
    except CodeFoundError as error:
        raise CodeFoundError("{}: {}".format(name, error)) from None
    except (ValueError, RecursionError, zips.UnreadableError) as error:
        raise CodeFoundError("{} cannot be looked through ({})".format(name, type(error).__name__)) from None
    return marked


def code_in_value(key: str, value: Any) -> Optional[str]:
    """Return why one value of a program's JSON would be run as Python; None if it would not."""
    judge = _JUDGES.get(key)
    if judge is not None:
        return judge(value)
    if key.endswith("_name") and isinstance(value, str) and re.search(r"[\"'\\\n\r()=]", value):
        return "the name {} is no name".format(printable(value))
    return None


def _judge_shape(value: Any) -> Optional[str]:
    return None if _is_shape(value) else "the shape {} is no arithmetic".format(printable(value))


def _judge_guards(value: Any) -> Optional[str]:
    for guard in value if isinstance(value, list) else [value]:
        if not _is_guard(guard):
            return "the guard {} is no comparison".format(printable(guard))
    return None


def _judge_target(value: Any) -> Optional[str]:
    match = _TARGET.match(value) if isinstance(value, str) else None
    if isinstance(value, str) and (match is None or match.end() != len(value)):
        return "a node calls {}, which is no operator".format(printable(value))
    if match is not None and match.group("operator") and _FILE_OPERATORS.match(match.group("operator")):
        return "a node calls {}, which may touch files".format(printable(value))
    return None


def _judge_name(value: Any) -> Optional[str]:
    """Judge a name; the value ``True`` stands for an object that was judged already (see ``_marked_in_json``)."""
    if not value or value is True or (isinstance(value, str) and value.isidentifier()):
        return None
    return "the name {} is no name".format(printable(value))


def _judge_tree(value: Any) -> Optional[str]:
    if not isinstance(value, str) or not value or _is_tree(value):
        return None
    return "its inputs or outputs come in {}".format(printable(value))


def _judge_path(value: Any) -> Optional[str]:
    if str(value).startswith(("opaque_obj_", "custom_obj_")):
        return "it marks {} as a pickled object".format(printable(value))
    return None


_JUDGES: Dict[str, Callable[[Any], Optional[str]]] = {
    "expr_str": _judge_shape,
    "guards_code": _judge_guards,
    "target": _judge_target,
    "name": _judge_name,
    "as_name": _judge_name,
    "in_spec": _judge_tree,
    "out_spec": _judge_tree,
    "path_name": _judge_path,
}


def _is_tree(text: str) -> bool:
    """Whether the text of a pytree names plain containers only; PyTorch finds other kinds by importing their names."""
    kinds: List[Any] = []

    def look(pairs: List[Tuple[str, Any]]) -> bool:
        values = dict(pairs)
        kinds.append(values.get("type"))
        if "__enum__" in str(values.get("context")):
            kinds.append("an enumeration")
        return True

    try:
        json.loads(text, object_pairs_hook=look)
    except (ValueError, RecursionError):
        return False
    return all(kind is None or kind in _CONTAINERS for kind in kinds)


def _is_shape(text: Any) -> bool:
    """Whether the text of a symbolic shape, which sympy evaluates as Python, is arithmetic of symbols and numbers."""
    tree = _parse_expression(text)
    return tree is not None and all(_is_shape_node(node) for node in ast.walk(tree))


def _is_shape_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or not _SHAPE_FUNCTIONS.match(node.func.id):
            return False
        symbol = node.func.id in ("Symbol", "Dummy", "Float", "Integer")
        return all(symbol or _text_of(argument) is None for argument in node.args)
    if isinstance(node, ast.Name):
        return not node.id.startswith("__")
    text = _text_of(node)
    if text is not None:
        return re.match(r"[\w.+\-]{1,80}$", text) is not None
    plain = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.Tuple, ast.keyword, ast.expr_context)
    operators = (ast.operator, ast.unaryop, ast.cmpop, ast.boolop)
    return isinstance(node, plain + operators) or _is_number(node)


def _is_guard(text: Any) -> bool:
    """Whether the text of a guard, which PyTorch compiles as Python, only compares sizes of inputs."""
    tree = _parse_expression(text)
    return tree is not None and all(_is_guard_node(node) for node in ast.walk(tree))


def _is_guard_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in _GUARD_METHODS
    if isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Name):
            return _SHAPE_FUNCTIONS.match(function.id) is not None or function.id in ("len", "int", "float", "bool")
        return isinstance(function, ast.Attribute) and function.attr in _GUARD_METHODS
    subscript = (ast.Subscript, ast.Slice, getattr(ast, "Index", ast.Slice))
    return isinstance(node, subscript) or _text_of(node) is not None or _is_shape_node(node)


def _parse_expression(text: Any) -> Optional[ast.Expression]:
    if not isinstance(text, str) or len(text) > 10000:
        return None
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree


def _text_of(node: ast.AST) -> Optional[str]:
    """The text of a string constant; ast.Str is what Python before 3.8 has for it."""
    value = getattr(node, "value", getattr(node, "s", None)) if type(node).__name__ in ("Constant", "Str") else None
    return value if isinstance(value, str) else None


def _is_number(node: ast.AST) -> bool:
    kind = type(node).__name__
    if kind in ("Num", "NameConstant"):
        return True
    return kind == "Constant" and isinstance(getattr(node, "value", None), (int, float, bool, type(None)))


def _look_through_torchscript(archive: zipfile.ZipFile) -> None:
    """Search TorchScript: it is interpreted and cannot call Python, but it has operators that write and read files."""
    left = LIMIT_CODE
    for info in archive.infolist():
        name = info.filename.partition("/")[2]
        if not name.startswith("code/") or not name.endswith(".py"):
            continue
        try:
            source = zips.read(archive, info, left).decode("utf-8", "replace")
        except zips.UnreadableError as error:
            raise CodeFoundError("{} cannot be looked through: {}".format(printable(name), error)) from None
        left -= len(source)
        match = _SCRIPT_FILES.search(source)
        if match:
            raise CodeFoundError("{} calls {}), which reads or writes files".format(name, match.group(0)))


def printable(value: Any) -> str:
    """A text of the file as a message may show it: short, quoted, and without control codes that a terminal obeys."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "…" + text[0]
