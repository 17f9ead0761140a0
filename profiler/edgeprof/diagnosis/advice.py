"""Next steps: chains of ``--with`` that the model's format and the methods' own parameters take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeprof.compression.variant import parse_chain, settings
from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeprof.compression.compressor import Compressor
    from edgeprof.plugins import PluginHost


@dataclass(frozen=True)
class Methods:
    """The methods that take one format.

    Attributes:
        by_name: Method → the compressor that serves the format.
    """

    by_name: Mapping[str, Compressor]

    @classmethod
    def of(cls, host: PluginHost, model_format: str) -> Methods:
        """Those that are installed."""
        compressors = {name: factory() for name, factory in host.of("compressors").items()}
        return cls({
            name: compressor.for_format(model_format)
            for name, compressor in compressors.items()
            if model_format in compressor.takes
        })  # fmt: skip

    def chain(self, method: str, /, *, given: Mapping[str, Any] | None = None, **changes: Any) -> str | None:
        """``method:key=value`` as --with takes it; None where the format has no such method, or it no such parameter.

        Args:
            method: Its name.
            given: What it was given before, which stays: defaults are left out.
            changes: Parameters to set.
        """
        tool = self.by_name.get(method)
        if tool is None:
            return None
        if changes.get("exclude") == "auto" and not any(
            parameter.name == "exclude" and "auto" in parameter.help for parameter in tool.parameters
        ):
            return None  # takes names only
        defaults = {parameter.name: parameter.default for parameter in tool.parameters}
        if not changes.keys() <= defaults.keys():
            return None
        before = {key: value for key, value in (given or {}).items() if key in defaults and value != defaults[key]}
        words = {key: _setting_text(value) for key, value in {**before, **changes}.items()}
        text = method + "".join(f"{':' if k == 0 else ','}{key}={words[key]}" for k, key in enumerate(words))
        try:
            (step,) = parse_chain(text)
            if dict(step.given) != words:
                return None  # a name with a comma or a plus in it
            settings(tool, step.given)
        except (InputError, ValueError):
            return None
        return text


def _setting_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def made_again(methods: Methods | None, recipe: Sequence[Mapping[str, Any]], /, **changes: Any) -> str | None:
    """The chain of a variant, its last method that takes these parameters given them; None where none takes them."""
    if methods is None:
        return None
    steps = [methods.chain(str(step.get("compressor")), given=step.get("parameters")) for step in recipe]
    for index in range(len(recipe) - 1, -1, -1):
        step = recipe[index]
        had = step.get("parameters") or {}
        if all(had.get(key) == value for key, value in changes.items()):
            continue  # that is how it was made
        changed = methods.chain(str(step.get("compressor")), given=had, **changes)
        if changed is not None:
            steps[index] = changed
            break
    else:
        return None
    known = [step for step in steps if step is not None]
    return "+".join(known) if len(known) == len(steps) else None
