"""How to cite a feature: in words and as BibTeX, with what pins the data (the artifact's fingerprint) and the address.

The address is written relative; the browser completes it (``data-absolute``), since only it knows where the page is.
"""

from __future__ import annotations

import re

from app.components.markup import Markup, h
from app.feature_document import citation, link
from app.services import Services
from backend.feature_store import FeatureRecord

_SPECIAL = re.compile(r"([&%$#_{}])")
_ESCAPED = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def bibtex_text(text: str) -> str:
    """``text`` on one line with TeX's special characters escaped."""
    flat = " ".join(text.split())
    parts = (_ESCAPED.get(one) or _SPECIAL.sub(r"\\\1", one) for one in flat)
    return "".join(parts)


def bibtex(services: Services, record: FeatureRecord) -> tuple[str, str]:
    """The entry before and after the address."""
    fingerprint = services.store.artifact.manifest.fingerprint
    title = str(services.meta.get("title") or services.subject_name)
    said = f": {record.best_text}" if record.best_text else ""
    key = re.sub(r"[^a-z0-9]", "", f"iconoscope{services.key}{record.feature}".lower())
    before = (
        f"@misc{{{key},\n"
        f"  title = {{Feature {record.feature}{bibtex_text(said)}}},\n"
        f"  howpublished = {{Iconoscope atlas: {bibtex_text(title)}}},\n"
        f"  note = {{Artifact sha256:{fingerprint}}},\n"
        f"  url = {{"
    )
    return before, "},\n}"


def cite(services: Services, record: FeatureRecord) -> Markup:
    """Both forms, folded, each with a button that copies it."""
    address = h("span", link(services, record.feature), data_absolute="")
    before, after = bibtex(services, record)
    title = str(services.meta.get("title") or services.subject_name)
    plain = [f"{citation(services, record)} Atlas: {title}. ", address]
    return h(
        "details",
        h("summary", "Cite this feature"),
        _copyable("In words", *plain),
        _copyable("BibTeX", before, address, after),
        class_="ico-cite",
    )


def _copyable(label: str, *parts: str | Markup) -> Markup:
    button = h("button", "Copy", class_="ico-button", type="button", data_copy_text="", aria_label=f"Copy: {label}")
    head = h("div", h("h3", label), button, class_="ico-cite-head")
    return h("div", head, h("pre", *parts, class_="ico-raw"), class_="ico-cite-form")
