"""What a PyTorch module keeps from one call to the next, and how it forgets. Python 3.6 grammar."""

import copy
import warnings
from typing import Any, Callable, Dict, List, Optional

#: What TorchScript does to values that outlive a call, beside writing into tensors.
_KEEPING = ("prim::SetAttr", "aten::append", "aten::_set_item", "aten::extend", "aten::insert", "aten::Delete")
#: Values that nobody can change: whether they are the same object tells whether they are the same.
_CONSTANT = (type(None), bool, int, float, complex, str, bytes)


def changes(tensor: Any) -> int:
    """How often a tensor's values were changed in place: autograd counts it."""
    return int(tensor._version)  # noqa: SLF001 - torch's documentation names it, and there is no public name


class ModuleMemory:
    """The state of an eager module as it was when this was made: buffers, and plain attributes of all its modules.

    Weights are not copied (they would fill the memory twice), only watched.

    Args:
        torch: The library.
        module: An ``nn.Module`` that has not run yet.
    """

    def __init__(self, torch: Any, module: Any) -> None:
        self._torch = torch
        self._modules = list(module.modules())
        # What is shared stays shared: a list of layers or of weights is copied as a list of the same ones.
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
        """Bring the module back; what cannot be brought back, as a sentence."""
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
    """The state of a TorchScript module, which forgets by being replaced with a copy of what the file holds.

    Args:
        module: That has not run yet.
        load: Reads it from the file once more.
    """

    def __init__(self, module: Any, load: Callable[[], Any]) -> None:
        self._module, self._load = module, load
        self._versions = _tensor_versions(module)
        self._fresh: Any = None

    def restored(self) -> Any:
        """A module that has not run; the same one where running leaves nothing in it."""
        if self._fresh is None:
            graph = self._module.inlined_graph
            keeps = any(graph.findAllNodes(kind) for kind in _KEEPING)
            if not keeps and _tensor_versions(self._module) == self._versions:
                return self._module
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that TorchScript is deprecated
                self._fresh = self._load()
        return copy.deepcopy(self._fresh)


class ProgramMemory:
    """The tensors of an exported program; those that running changes are read from the file once more.

    Args:
        torch: The library.
        module: The program's module, which has not run yet.
        load: Makes the module of the file once more.
    """

    def __init__(self, torch: Any, module: Any, load: Callable[[], Any]) -> None:
        self._torch, self._load = torch, load
        self._tensors = _held_tensors(module)
        self._versions = {name: changes(tensor) for name, tensor in self._tensors.items()}
        self._kept: Dict[str, Any] = {}

    def restore(self) -> None:
        """Bring the tensors back that were changed since."""
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
