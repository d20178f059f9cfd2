"""How numbers look: a value never stands without its n, and a missing one says why."""

from __future__ import annotations

import math

from app.components.markup import Markup, h
from backend.feature_records import FeatureRecord


def number(value: float, digits: int = 2) -> str:
    """A short decimal for reading: about three significant figures, thousands grouped."""
    if math.isnan(value) or math.isinf(value):
        return "not a number"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 0.1:
        return f"{value:.2g}"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.{min(digits, 1) if size >= 10 else digits}f}"


def percent(fraction: float) -> str:
    """A fraction in [0, 1] as a percentage; below one per cent it keeps two significant figures."""
    share = 100 * fraction
    if 0 < share < 1:
        return f"{share:.2g}\N{NO-BREAK SPACE}%"
    shown = f"{share:.0f}" if share >= 9.95 or share == 0 else f"{share:.1f}"
    return f"{shown}\N{NO-BREAK SPACE}%"


def count(n: int) -> str:
    return f"{n:,}"


def n_equals(n: int) -> str:
    """``n = N``, never broken over two lines."""
    return f"n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{count(n)}"


def missing(reason: str | None) -> Markup:
    """An absent value: a dash for the eye, the reason for the reader."""
    why = reason or "not computed"
    return h("span", h("span", "–", aria_hidden="true"), " ", h("span", why, class_="ico-why"), class_="ico-missing")


def estimate(
    value: float | None, n: int | None, low: float | None = None, high: float | None = None, reason: str | None = None
) -> Markup:
    """``value [low, high] n = N``; or the reason it is absent."""
    if value is None:
        return missing(reason)
    parts: list[Markup] = [h("span", number(value), class_="ico-value")]
    if low is not None and high is not None:
        parts.append(h("span", f"[{number(low)}, {number(high)}]", class_="ico-interval", title="95 % interval"))
    if n is not None:
        parts.append(h("span", n_equals(n), class_="ico-n"))
    return h("span", *(part for pair in zip(parts, [" "] * len(parts), strict=True) for part in pair), class_="ico-est")


def precision_words(record: FeatureRecord) -> str | None:
    """``average precision 0.71 [0.65, 0.76] n = 1,000 images``: how well it detects its concept; None without one."""
    if record.truth_ap is None:
        return None
    words = f"average precision {number(record.truth_ap)}"
    if record.truth_ap_low is not None and record.truth_ap_high is not None:
        words += f" [{number(record.truth_ap_low)}, {number(record.truth_ap_high)}]"
    return words + (f" {n_equals(record.truth_n_images)} images" if record.truth_n_images else "")


def firing_words(record: FeatureRecord) -> str:
    """What a firing fraction is a share of, and on how many images the feature fires: ``of 409,600 patches; ...``."""
    n_active = sum(record.histogram)
    # The table keeps the share as float32: seven digits, of which six are sure.
    n = f"{float(f'{n_active / record.firing_fraction:.6g}'):,.0f} " if n_active and record.firing_fraction else ""
    return f"of {n}patches; on {count(record.n_images_active)} images"


def fact(label: str, value: Markup | str, note: str | None = None) -> Markup:
    """One labelled number in a row of facts."""
    return h(
        "div",
        h("dt", label),
        h("dd", value, h("span", note, class_="ico-n") if note else None),
        class_="ico-fact",
    )


def facts(*items: Markup) -> Markup:
    return h("dl", *items, class_="ico-facts")
