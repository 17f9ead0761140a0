"""The share of a model that a compression step changed: describe it, and reject a step without effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeprof.errors import VariantError
from edgeprof.reasons import Code

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A step that changes less than this share of the weights and of the multiply-accumulates is rejected.
LEAST_SHARE = 0.01
#: The most reasons in one sentence.
_REASONS = 3


def check_share(name: str, model: str, facts: Mapping[str, Any], least: float, *, same: bool) -> None:
    """Reject a step that changed nothing or too little.

    Args:
        name: The compressor's name.
        model: The user's name for the model.
        facts: The facts of the step; without an account (``coverage``) only the files are compared.
        least: Share of the weights or of the multiply-accumulates that must have changed; 0 allows any change.
        same: Whether the step's output file equals its input file.

    Raises:
        VariantError: Nothing changed, or less than ``least`` (``changed_nothing``).
    """
    account = facts.get("coverage")
    if account is None:
        if same:
            raise VariantError(f"{name} changed nothing in {model}", code=Code.CHANGED_NOTHING)
        return
    shares = [account[key]["share"] or 0.0 for key in ("weights", "macs")]
    if max(shares) >= least and account["families"] and any(shares):
        return
    why = reasons(account)
    raise VariantError(
        f"{name} would change {describe(account)} of {model}" + (f"; it leaves {why}" if why else ""),
        remedy=account.get("remedy") or "Use a method that changes these layers (docs: what each method changes).",
        code=Code.CHANGED_NOTHING,
    )


def describe(account: Mapping[str, Any]) -> str:
    """Return a text such as ``98.2 % of the weights and 99.9 % of the multiply-accumulates``."""
    weights, macs = account["weights"]["share"], account["macs"]["share"]
    weight_share = "none" if weights is None else _percent_text(weights)
    if macs is None:  # a model without multiplications has neither share nor reason
        reason = account["macs"].get("reason")
        work = f"an unknown share ({reason})" if reason else "none"
    else:
        work = _percent_text(macs)
    return f"{weight_share} of the weights and {work} of the multiply-accumulates"


def reasons(account: Mapping[str, Any]) -> str:
    """List what was left unchanged and why, the most work first: ``Conv_1 and 3 more (a grouped convolution)``."""
    left = sorted(account["left"].items(), key=lambda item: (-item[1]["macs"], -item[1]["weights"]))
    sentences = []
    for reason, entry in left[:_REASONS]:
        more = f" and {entry['parts'] - 1} more" if entry["parts"] > 1 else ""
        sentences.append(f"{entry['names'][0]}{more} ({reason or 'it gives no reason'})")
    others = len(left) - _REASONS
    more = f", and more for {others} other reason{'s' if others > 1 else ''}" if others > 0 else ""
    return ", ".join(sentences) + more


def _percent_text(share: float) -> str:
    """Format a share in percent so that a small one is not shown as 0 % and one below 1 is not shown as 100 %."""
    percent = 100 * share
    for digits in (1, 2, 3):
        text = f"{percent:.{digits}f}"
        if (float(text) > 0 or share == 0) and (float(text) < 100 or share == 1):
            return f"{text} %"
    return f"{percent:.2g} %" if share < 0.5 else "nearly 100 %"
