"""Read a pickle's opcodes without running them: what it would import, and whether it can only build plain tensors.

Python 3.6 grammar and the standard library: the parent scans before a library opens a file, the worker scans again.
"""

import io
import pickletools
from typing import Any, Dict, List, NamedTuple

#: How much of a pickle is read; the structure of a whole model is far smaller, and its arrays follow it.
LIMIT_BYTES = 16 << 20
#: How many opcodes are read: a state_dict needs some 30 for each tensor, and Python reads 300,000 a second.
LIMIT_OPCODES = 400000
#: The longest name that is kept; the names of modules and classes are far shorter.
LIMIT_NAME = 200

#: What the pickle of a tensor imports. Source: torch/_utils.py, torch/_tensor.py (Tensor.__reduce_ex__).
_PLAIN = frozenset(
    {
        "collections.OrderedDict",
        "torch.Size",
        "torch.device",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_qtensor",
        "torch.nn.parameter.Parameter",
        "torch.storage.UntypedStorage",
        "torch.serialization._get_layout",
    }
)
#: The dtypes of torch as pickles name them.
_DTYPES = frozenset(
    (
        "bool",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
        "complex64",
        "complex128",
        "quint8",
        "qint8",
        "qint32",
        "float8_e4m3fn",
        "float8_e5m2",
    )
)
#: Opcodes that push a text, which STACK_GLOBAL may take for a module or a name.
_TEXTS = frozenset(
    ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING")
)
#: Opcodes that import by a number from a registry of the process (copyreg), or take bytes from outside of the pickle.
_INDIRECT = frozenset(("EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"))


class Scan(NamedTuple):
    """The imports in a pickle's opcodes."""

    names: List[str]  # every module.name that would be imported, in order, each once
    reason: str  # why some imports may be missing; empty if none can be


def is_plain(name: str) -> bool:
    """Whether the pickle of a plain tensor imports this ``module.name``; none of these runs code from the file."""
    module, _, attribute = name.rpartition(".")
    if module == "torch" and (attribute in _DTYPES or (attribute.endswith("Storage") and attribute.isidentifier())):
        return True
    return name in _PLAIN


def scan(pickled: bytes) -> Scan:
    """Find every name that a pickle would import by reading its opcodes; nothing is imported or run.

    A name that the pickle computes while it is loaded (STACK_GLOBAL of anything but two texts that stand in the
    pickle) cannot be known; ``Scan.reason`` then says so.
    """
    follower = _Follower()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(pickled[:LIMIT_BYTES]))):
            if count >= LIMIT_OPCODES:
                follower.reason = "it has more than {:,} operations".format(LIMIT_OPCODES)
                break
            follower.follow(opcode.name, argument)
    except (ValueError, UnicodeError, IndexError, OverflowError, KeyError) as error:
        follower.reason = "it is cut or damaged ({})".format(ascii(str(error))[1:80])
    return Scan(list(follower.names), follower.reason)


class _Follower:
    """Follows the texts on a pickle's stack and in its memo, as far as imports need them."""

    def __init__(self) -> None:
        self.names: Dict[str, None] = {}
        self.reason = ""
        self._memo: Dict[int, str] = {}
        self._top = ["", ""]  # the two uppermost values of the stack that are texts; "" for any other value

    def follow(self, name: str, argument: Any) -> None:
        """Follow one opcode."""
        if name in _TEXTS:
            self._push(str(argument)[:LIMIT_NAME])
        elif name in ("GLOBAL", "INST"):
            self.names[str(argument)[: 2 * LIMIT_NAME].replace(" ", ".", 1)] = None
            self._push("")
        elif name == "STACK_GLOBAL":
            self._import_from_stack()
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top[1]
        elif name.endswith("PUT"):
            self._memo[int(argument)] = self._top[1]
        elif name.endswith("GET"):
            self._push(self._memo.get(int(argument), ""))
        elif name not in ("PROTO", "FRAME"):
            if name in _INDIRECT:
                self.reason = self.reason or "it imports by a number ({})".format(name)
            self._top = ["", ""]  # what lies on the stack now is no text that can be followed

    def _push(self, text: str) -> None:
        self._top = [self._top[1], text]

    def _import_from_stack(self) -> None:
        module, name = self._top
        if module and name:
            self.names[module + "." + name] = None
        else:
            self.reason = self.reason or "it computes the name of what it imports"
        self._top = ["", ""]
