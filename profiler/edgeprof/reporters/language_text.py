"""The lines about language models below the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof import units

if TYPE_CHECKING:
    from edgeprof.results.schema import Language, Perplexity, Ratio, TokenTime, Variant


def language_lines(variants: list[Variant]) -> list[str]:
    """Write one line for each language model: the request, bits per weight, the times of tokens, and the closure."""
    return [
        f"{variant.name}: {_language_line(variant.language)}" for variant in variants if variant.language is not None
    ]


def _language_line(language: Language) -> str:
    behind = f" behind {language.depth}" if language.depth else ""
    parts = [f"{language.prompt_tokens} prompt tokens{behind}, {language.generated_tokens} generated"]
    if language.bits_per_weight is not None:
        parts.append(f"{language.bits_per_weight:.3g} bits per weight")
    if language.batch > 1:
        parts.append(f"{language.batch} requests at once")
    if language.random_weights:
        parts.append("random weights")
    parts += [
        f"{name} {_time_text(time)}"
        for name, time in (("TTFT", language.ttft_s), ("TPOT", language.tpot_s), ("ITL", language.itl_s))
        if time is not None
    ]
    if language.closure is not None:
        known = {"joules": language.closure.energy, "seconds": language.closure.time}
        shares = [f"{_ratio_text(ratio)} of its {what}" for what, ratio in known.items() if ratio is not None]
        if shares:
            parts.append(f"the phases of a request make {' and '.join(shares)}")
    if language.perplexity is not None:
        parts.append(_perplexity_text(language.perplexity))
    return "; ".join(parts) + "."


def _perplexity_text(perplexity: Perplexity) -> str:
    """As ``perplexity 23.80 (20.4–27.7) over 1530 tokens of wiki.txt, 1.049 (1.036–1.062) times the first one's``."""
    text = f"perplexity {units.significant(perplexity.value, 4)}"
    if perplexity.ci95 is not None:
        text += " ({}–{})".format(*(units.significant(end) for end in perplexity.ci95))
    text += f" over {perplexity.tokens} tokens of {perplexity.text}"
    return text if perplexity.ratio is None else f"{text}, {_ratio_text(perplexity.ratio)} times the first one's"


def _time_text(time: TokenTime) -> str:
    """The median (or the mean), and the 99th percentile if it is known."""
    middle = units.quantity(time.p50 if time.p50 is not None else time.mean, "s")
    return middle if time.p99 is None else f"{middle} (p99 {units.quantity(time.p99, 's')})"


def _ratio_text(ratio: Ratio) -> str:
    return "{:.3f} ({:.3f}–{:.3f})".format(ratio.value, *ratio.ci95)
