"""Next steps: chains for ``--with`` that suit the model's format and the parameters of the methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeprof.compression.recipe import changes_of
from edgeprof.compression.variant import parse_chain, settings
from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeprof.compression.compressor import Change, Compressor
    from edgeprof.plugins import PluginHost


@dataclass(frozen=True)
class Methods:
    """The methods that accept one format.

    Attributes:
        by_name: Method → its compressor for the format.
    """

    by_name: Mapping[str, Compressor]

    @classmethod
    def of(cls, host: PluginHost, model_format: str) -> Methods:
        """Return the installed methods for a format."""
        compressors = {name: factory() for name, factory in host.of("compressors").items()}
        return cls({
            name: compressor.for_format(model_format)
            for name, compressor in compressors.items()
            if model_format in compressor.takes
        })  # fmt: skip

    def chain(self, method: str, /, *, given: Mapping[str, Any] | None = None, **changes: Any) -> str | None:
        """Return ``method:key=value`` for --with; None if there is no such method for the format, or no such parameter.

        Args:
            method: The method's name.
            given: Its earlier parameters, which are kept unless they are defaults.
            changes: Parameters to set.
        """
        tool = self.by_name.get(method)
        if tool is None:
            return None
        if changes.get("exclude") == "auto" and not any(
            parameter.name == "exclude" and "auto" in parameter.help for parameter in tool.parameters
        ):
            return None  # this method accepts only names
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

    def need_data(self, chain: str) -> bool:
        """Return whether a step of a chain of these methods calibrates or trains."""
        steps = parse_chain(chain)
        return any(self.by_name[s.compressor].needs_data != "no" for s in steps if s.compressor in self.by_name)


def _setting_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def made_again(methods: Methods | None, recipe: Sequence[Mapping[str, Any]], /, **changes: Any) -> str | None:
    """Return the chain of a variant with ``changes`` set in the last step that accepts them; None if none does."""
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


def repeated(methods: Methods | None, recipe: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the chain that made a variant, to make it again with other data; None if it is unknown."""
    if methods is None or not recipe:
        return None
    steps = [methods.chain(str(step.get("compressor")), given=step.get("parameters")) for step in recipe]
    known = [step for step in steps if step is not None]
    return "+".join(known) if len(known) == len(steps) else None


def replaced(
    methods: Methods | None, recipe: Sequence[Mapping[str, Any]], change: Change, method: str, /, **options: Any
) -> str | None:
    """Return the chain of a variant with another method in place of the steps that make the same kind of change.

    If no step does, the method comes first, because weights are removed before they are rounded. The result is None if
    the format has no such method.
    """
    new = None if methods is None else methods.chain(method, **options)
    if methods is None or new is None:
        return None
    steps = [
        new if change in changes_of(step) else methods.chain(str(step.get("compressor")), given=step.get("parameters"))
        for step in recipe
    ]
    if None in steps:
        return new  # the other steps cannot be written for this format
    if new not in steps:
        steps.insert(0, new)
    return "+".join(dict.fromkeys(step for step in steps if step is not None))


def with_chain(words: str, chain: str | None) -> str:
    """Return a remedy with the chain, if any, at its end."""
    return f"{words.rstrip('.')}: --with {chain}" if chain else words
