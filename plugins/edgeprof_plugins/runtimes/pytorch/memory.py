"""The state that a PyTorch module keeps from one call to the next, and how to reset it. Python 3.6 grammar."""

import copy
import warnings
from typing import Any, Callable, Dict, List, Optional

#: TorchScript operators that can change values that outlive a call, besides writing into tensors.
_KEEPING = ("prim::SetAttr", "aten::append", "aten::_set_item", "aten::extend", "aten::insert", "aten::Delete")
#: Immutable types, whose values need not be copied.
_CONSTANT = (type(None), bool, int, float, complex, str, bytes)


def changes(tensor: Any) -> int:
    """Return how often the values of a tensor were changed in place, as counted by autograd."""
    return int(tensor._version)  # noqa: SLF001 - documented by torch, but there is no public name


class ModuleMemory:
    """The initial state of an eager module: buffers, and plain attributes of all its submodules.

    Weights are not copied, because that would double the memory; changes to them are only detected.

    Args:
        torch: The library.
        module: An ``nn.Module`` that has not run yet.
    """

    def __init__(self, torch: Any, module: Any) -> None:
        self._torch = torch
        self._modules = list(module.modules())
        # Shared objects stay shared: a list of layers or weights is copied as a list of the same objects.
        self._shared = {id(submodule): submodule for submodule in self._modules}
        self._shared.update((id(parameter), parameter) for parameter in module.parameters())
        self._weights = [(name, parameter, changes(parameter)) for name, parameter in module.named_parameters()]
        self._uncopied: List[str] = []
        builtin = set(torch.nn.Module().__dict__) - {"training"}
        self._plain = [
            {key: (value, self._copied(key, value)) for key, value in part.__dict__.items() if key not in builtin}
            for part in self._modules
        ]
        self._buffers = [
            {
                name: (value, None if value is None else value.detach().clone())
                for name, value in part.__dict__["_buffers"].items()
            }
            for part in self._modules
        ]
        self._builtin = builtin

    def restore(self) -> Optional[str]:
        """Restore the module; return a sentence about state that cannot be restored, or None."""
        for module, plain, buffers in zip(self._modules, self._plain, self._buffers):
            for key in [key for key in module.__dict__ if key not in plain and key not in self._builtin]:
                del module.__dict__[key]
            for key, (original, copied) in plain.items():
                module.__dict__[key] = original if copied is original else self._copied(key, copied)
            with self._torch.no_grad():
                for name, (original, copied) in buffers.items():
                    module.__dict__["_buffers"][name] = original if copied is None else copied.clone()
        changed = [name for name, weight, version in self._weights if changes(weight) != version]
        if changed or self._uncopied:
            return "what the module keeps in {} stays from one sample to the next".format(
                ", ".join((changed + self._uncopied)[:3])
            )
        return None

    def _copied(self, key: str, value: Any) -> Any:
        if isinstance(value, _CONSTANT) or id(value) in self._shared or callable(value):
            return value
        try:
            if isinstance(value, self._torch.Tensor):
                return value.detach().clone()
            return copy.deepcopy(value, dict(self._shared))
        except Exception:
            if key not in self._uncopied:
                self._uncopied.append(key)
            return value


class ScriptMemory:
    """The initial state of a TorchScript module, which is reset by replacing it with a fresh copy from the file.

    Args:
        module: The module, which has not run yet.
        load: Reads the module from the file again.
    """

    def __init__(self, module: Any, load: Callable[[], Any]) -> None:
        self._module, self._load = module, load
        self._versions = _tensor_versions(module)
        self._fresh: Any = None

    def restored(self) -> Any:
        """Return a module that has not run, or the same module where running does not change it."""
        if self._fresh is None:
            graph = self._module.inlined_graph
            keeps = any(graph.findAllNodes(kind) for kind in _KEEPING)
            if not keeps and _tensor_versions(self._module) == self._versions:
                return self._module
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # ignore the warning that TorchScript is deprecated
                self._fresh = self._load()
        return copy.deepcopy(self._fresh)


class ProgramMemory:
    """The tensors of an exported program; tensors that running changes are read from the file again.

    Args:
        torch: The library.
        module: The module of the program, which has not run yet.
        load: Creates the module from the file again.
    """

    def __init__(self, torch: Any, module: Any, load: Callable[[], Any]) -> None:
        self._torch, self._load = torch, load
        self._tensors = _held_tensors(module)
        self._versions = {name: changes(tensor) for name, tensor in self._tensors.items()}
        self._kept: Dict[str, Any] = {}

    def restore(self) -> None:
        """Restore the tensors that have changed."""
        changed = [name for name, tensor in self._tensors.items() if changes(tensor) != self._versions[name]]
        if any(name not in self._kept for name in changed):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fresh = _held_tensors(self._load())
            self._kept.update((name, fresh[name]) for name in changed)
        with self._torch.no_grad():
            for name in changed:
                self._tensors[name].copy_(self._kept[name])
                self._versions[name] = changes(self._tensors[name])


def _held_tensors(module: Any) -> Dict[str, Any]:
    tensors = dict(module.named_parameters())
    tensors.update(module.named_buffers())
    return tensors


def _tensor_versions(module: Any) -> List[int]:
    return [changes(tensor) for tensor in list(module.parameters()) + list(module.buffers())]
