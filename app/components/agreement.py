"""Cause and correlation: what steering says of a feature, what its images say, and whether the two agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.components.markup import Markup, h
from app.components.numbers import n_equals, number, percent
from app.services import Services
from backend.feature_store import ExplanationRecord, FeatureRecord

CAUSAL = "steering"
CORRELATIONAL = "top_k_masks"
"""The two arms whose texts the atlas compares (``agreement``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether two texts of one feature say the same."""

    same: bool | None
    """True for the same words, False for different sorts of thing; None where that cannot be told, also where both name
    the same sort: a palm tree and a tulip are both plants, and no agreement."""
    words: str


def verdict(causal: Sequence[str] | None, correlational: Sequence[str] | None, same_text: bool) -> Verdict:
    """Compare the groups that the two texts name (None or empty: not known)."""
    if same_text:
        return Verdict(same=True, words="They agree: both say the same.")
    if not causal or not correlational:
        return Verdict(same=None, words="Whether they name the same sort of thing is not known.")
    shared = [group for group in causal if group in correlational]
    if shared:
        told = f"In different words, both name the same sort of thing: {listed(shared)}. It need not be the same thing."
        return Verdict(same=None, words=told)
    told = f"They disagree: steering names {listed(causal)}, the top images {listed(correlational)}."
    return Verdict(same=False, words=told)


def listed(groups: Sequence[str]) -> str:
    """``animal and background``, with the underscores of ids as blanks."""
    return " and ".join(group.replace("_", " ") for group in groups)


def agreement(services: Services, record: FeatureRecord) -> Markup | None:
    """The section; None where the atlas lacks one of the two arms."""
    said = {one.arm.key: one for one in services.store.explanations(record.feature)}
    if CAUSAL not in said or CORRELATIONAL not in said:
        return None
    causal, correlational = said[CAUSAL], said[CORRELATIONAL]
    parts = [
        _side("Cause", "what the model says when the feature is added to a blank image", services, causal),
        _side("Correlation", "what the model sees in the images where it fires most", services, correlational),
    ]
    if causal.text is None or correlational.text is None:
        found = Verdict(same=None, words="One of the two has no words, so they cannot be compared.")
    else:
        groups = [services.store.text_groups(one.text) for one in (causal, correlational) if one.text is not None]
        found = verdict(groups[0], groups[1], causal.text == correlational.text)
    kind = {True: "right", False: "wrong", None: "undecidable"}[found.same]
    told = h("p", h("strong", found.words), " ", _cosine(services, record), class_="ico-verdict", data_kind=kind)
    return h(
        "section",
        h("h2", "Do cause and correlation agree?"),
        h("div", *parts, class_="ico-two"),
        told,
    )


def _side(title: str, lede: str, services: Services, record: ExplanationRecord) -> Markup:
    groups = None if record.text is None else services.store.text_groups(record.text)
    named = f"names {listed(groups)}" if groups else "what sort of thing it names is not known"
    said = h("p", record.text, class_="ico-words") if record.text else h("p", f"No text: {record.failure}")
    return h(
        "div",
        h("h3", title, " ", h("span", record.arm.label, class_="ico-why")),
        h("p", lede, class_="ico-why"),
        said,
        h("p", named, class_="ico-why") if record.text else None,
        class_="ico-panel",
        data_arm=record.arm.key,
    )


def _cosine(services: Services, record: FeatureRecord) -> str:
    """The cosine of the two texts, and where it stands among the features of this atlas."""
    if record.agreement is None:
        return "The cosine of the two texts was not computed."
    known = services.store.features["agreement"].to_numpy(zero_copy_only=False).astype(np.float64)
    known = known[np.isfinite(known)]
    below = percent(float(np.mean(known < record.agreement)))
    n = n_equals(int(known.size))
    return f"Their cosine is {number(record.agreement)} (1: same meaning), above that of {below} of features, {n}."
