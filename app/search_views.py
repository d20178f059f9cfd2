"""How the Search tab shows what was found: cards with pictures, words, reasons, reliability, and ways to go on."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from app import pictures
from app.components import addresses
from app.components.cards import AUROC_TOLD, go_button, words
from app.components.charts import TRUTH_KINDS, truth_badge
from app.components.exemplars import figure
from app.components.markup import Child, Markup, h, join
from app.components.numbers import count, estimate
from app.searching import LIKE_WORDS, Found, outcome, picture_name, reliability
from app.services import Services
from app.subject_worker import Waiting
from backend.lexical import STOP_WORDS, WORD, stem, terms
from backend.search import Hit
from backend.types import ARM_BY_KEY

N_EXAMPLES = 6
N_PICTURES = 4
LIKE_LINKS = (("meaning", "Meaning"), ("direction", "Direction"), ("coactivation", "Fires together"))
_SPACE = re.compile(r"\s+")


# cards ---------------------------------------------------------------------------------------------------------------


def marked(text: str, stems: Collection[str]) -> Markup:
    """``text`` with the words of the query in <mark>; forms of one word count as the same."""
    parts: list[Child] = []
    done = 0
    for word in WORD.finditer(text):
        folded = word.group().casefold()
        if folded not in STOP_WORDS and stem(folded) in stems:
            parts += [text[done : word.start()], h("mark", word.group())]
            done = word.end()
    return join([*parts, text[done:]])


def card(services: Services, hit: Hit, stems: Collection[str]) -> Markup:
    """One feature that was found."""
    record = services.store.feature(hit.feature)
    href = addresses.page(tab="feature", feature=hit.feature)
    strip = [
        figure(exemplar, record.maximum, services.version, caption=False)
        for exemplar in services.pictures(hit.feature, N_PICTURES)
    ]
    text = h("p", marked(hit.text, stems), class_="ico-words") if hit.text else words(None)
    return h(
        "article",
        h("div", *strip, class_="ico-hit-strip"),
        h("a", text, href=href, class_="ico-hit-name", data_go="feature", data_value=hit.feature),
        h("div", h("span", f"feature {hit.feature}", class_="ico-id"), _badges(services, hit), class_="ico-hit-head"),
        h("p", h("span", _why(hit, stems), class_="ico-why"), class_="ico-hit-why"),
        _more_like(hit.feature),
        class_="ico-hit",
        data_go="feature",
        data_value=hit.feature,
        data_reason=hit.reason,
    )


def _why(hit: Hit, stems: Collection[str]) -> Child:
    by = f"written by {hit.arm.label}; " if hit.arm is not None else ""
    return [by, marked(hit.why, stems) if hit.reason in {"words", "both"} else hit.why]


def _badges(services: Services, hit: Hit) -> Markup:
    score = reliability(services, hit)
    if score is None:
        shown = estimate(None, None, reason="was not computed")
    else:
        shown = estimate(score.value, score.n, score.low, score.high, score.reason)
    return h(
        "span",
        truth_badge(outcome(services, hit)),
        h("span", "AUROC ", shown, class_="ico-badge ico-hit-auroc", data_sign="↗", title=AUROC_TOLD),
        class_="ico-hit-badges",
    )


def _more_like(feature: int) -> Markup:
    links = [
        h(
            "a",
            label,
            href=addresses.page(tab="search", like=f"{kind}:{feature}"),
            data_go="like",
            data_value=f"{kind}:{feature}",
            title=f"Features like {feature} {LIKE_WORDS[kind]}",
        )
        for kind, label in LIKE_LINKS
    ]
    return h("div", h("span", "More like this", class_="ico-n"), *links, class_="ico-hit-like")


# pages ---------------------------------------------------------------------------------------------------------------


def by_words(services: Services, query: str, arm_key: str, found: Found) -> Markup:
    """Hits of a query."""
    if not found.hits:
        return nothing_found(services, query, arm_key)
    arm = ARM_BY_KEY.get(arm_key)
    known = ", cluster names and the known truth" if services.meta.get("concept_coverage") else " and cluster names"
    searched = f"the words of {arm.label} only" if arm else f"what every method said{known}"
    title: Child = ["Features for ", h("span", query, class_="ico-words")]
    return _results(services, title, found, f"Searched: {searched}.", set(terms(query)), q=query, arm=arm_key)


def by_likeness(services: Services, kind: str, feature: int, found: Found) -> Markup:
    """Hits of a likeness."""
    record = services.store.feature(feature)
    title: Child = [
        f"Like feature {feature} ",
        LIKE_WORDS[kind],
        ": ",
        h("span", record.best_text or "no words", class_="ico-words" if record.best_text else "ico-why"),
    ]
    others = [
        go_button(label, "like", f"{one}:{feature}", addresses.page(tab="search", like=f"{one}:{feature}"))
        for one, label in LIKE_LINKS
        if one != kind
    ]
    compared = {
        "meaning": "Compared: the texts of all methods, by their mean cosine in meaning.",
        "direction": "Compared: the cosine of decoder rows.",
        "coactivation": "Compared: how often both fire on the same patches.",
    }
    if not found.hits:
        told = f"The atlas stores no feature near feature {feature} {LIKE_WORDS[kind]}."
        return _frame(h("div", h("p", told), h("div", *others, class_="ico-examples"), class_="ico-empty"))
    return _results(services, title, found, compared[kind], (), others=others, like=f"{kind}:{feature}")


def by_picture(services: Services, image_id: str, found: Found) -> Markup:
    """Hits of a picture."""
    name = picture_name(image_id)
    image = h("img", src=pictures.address(services, image_id), alt=name, class_="ico-asked-picture")
    if not found.hits:
        told = f"No feature of the atlas fires on {name}. Choose another picture."
        return _frame(h("div", image, h("p", told), class_="ico-empty"))
    title: Child = [image, h("span", f"What fires on {name}")]
    inspected = go_button("Choose patches of it", "inspect", image_id or "blank", addresses.page(tab="inspect"))
    told = "Ranked by how unusually strongly they fire."
    return _results(services, title, found, told, (), others=[inspected], qimage=image_id or "blank")


def waiting(text: str) -> Markup:
    """A line while nothing can be shown yet."""
    return _frame(h("p", text, class_="ico-empty", role="status"))


def in_line(step: Waiting) -> str:
    """A place in the line for the model, in words."""
    if step.loading:
        return "Loading the subject model …"
    if step.ahead == 0:
        return "The model is looking at the picture …"
    return f"Waiting for the model: {count(step.ahead)} {'request' if step.ahead == 1 else 'requests'} before yours."


def problem(services: Services, text: str) -> Markup:
    """Why a search failed, and what to try."""
    return _frame(h("div", h("p", text, role="alert"), _example_buttons(services), class_="ico-empty"))


def welcome(services: Services) -> Markup:
    """What can be searched, before anything was."""
    kinds = ", ".join(label for _, label, _ in TRUTH_KINDS)
    told = f"Every hit says why it was found. The badge says whether its explanation is {kinds}, where that is known."
    n = f"{count(len(services.store))} features, and what every method said about each."
    return _frame(
        h(
            "div",
            h("p", "Type a word or a phrase, or try one of these:"),
            _example_buttons(services),
            h("p", f"Searched are {n} {told}", class_="ico-why ico-search-told"),
            class_="ico-empty",
        )
    )


def nothing_found(services: Services, query: str, arm_key: str = "") -> Markup:
    """No hit at all."""
    arm = ARM_BY_KEY.get(arm_key)
    said = f"Nothing {arm.label} said" if arm else "No explanation in this atlas"
    again = None
    if arm:
        again = go_button("Search all methods", "search", query, addresses.page(tab="search", q=query))
    return _frame(
        h(
            "div",
            h("p", f"{said} is near to ", h("span", query, class_="ico-words"), "."),
            h("div", again, class_="ico-actions") if again else None,
            h("p", "Use other words, or fewer. These work here:"),
            _example_buttons(services),
            class_="ico-empty",
        )
    )


def examples(services: Services) -> list[str]:
    """Queries worth trying here: the families of truth if known, else the names of the largest clusters."""
    groups = services.store.features["truth_group"].value_counts().to_pylist()
    counts = {row["values"]: row["counts"] for row in groups if row["values"]}
    if len(counts) >= N_EXAMPLES // 2:
        names = sorted(counts, key=lambda name: (-counts[name], name))[:N_EXAMPLES]
        return [str(name).replace("_", " ") for name in names]
    largest = sorted(services.store.clusters, key=lambda one: (-one.n_features, one.cluster))
    return [one.label for one in largest[:N_EXAMPLES]]


def _results(
    services: Services,
    title: Child,
    found: Found,
    searched: str,
    stems: Collection[str],
    others: Sequence[Markup] = (),
    **fields: str,
) -> Markup:
    n = f"{count(len(found.hits))} best of {count(found.n_searched)} features"
    told = f"{n}, {found.seconds * 1000:,.0f} ms. {searched} {found.told}"
    on_map = go_button("Show these on the map", "lit", "", addresses.page(tab="map", **fields))
    return _frame(
        h("div", h("h2", title, class_="ico-search-title"), on_map, *others, class_="ico-search-head"),
        h("p", _SPACE.sub(" ", told).strip(), class_="ico-why", role="status"),
        h("div", *(card(services, hit, stems) for hit in found.hits), class_="ico-hits"),
    )


def _frame(*children: Child) -> Markup:
    return h("div", *children, class_="ico-page ico-searched")


def _example_buttons(services: Services) -> Markup:
    buttons = [go_button(text, "search", text, addresses.page(tab="search", q=text)) for text in examples(services)]
    return h("div", *buttons, class_="ico-examples")
