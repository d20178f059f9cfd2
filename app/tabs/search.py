"""Search: from words to features, by meaning and by words; every hit says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import gradio as gr

from app.components import addresses
from app.components.cards import go_button, hit_card
from app.components.charts import TRUTH_KINDS
from app.components.markup import Markup, h
from app.components.numbers import count
from app.hub import Hub, Updates
from app.services import Services
from app.tabs.map import show_hits
from app.url_fields import Field, Text, UrlState
from backend.feature_store import FeatureRecord
from backend.search import Hit

TITLE = "Search"
QUERY = Text("q", most=1000)
FIELDS: tuple[Field, ...] = (QUERY,)
N_HITS = 24
N_EXAMPLES = 6
N_PICTURES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTab:
    """Components of the tab."""

    query: gr.Textbox
    button: gr.Button
    results: gr.HTML
    shown_query: gr.Textbox
    """The query whose hits are shown, as opposed to what is being typed; hidden."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a query found, as shown and as ids for the map."""

    page: Markup
    features: tuple[int, ...]
    query: str


def build(services: Services, static_version: str) -> SearchTab:
    del static_version  # this tab has no script of its own
    with gr.Row(elem_classes="ico-search-row", equal_height=True):
        query = gr.Textbox(
            label="Search for what a feature shows",
            placeholder="depth, striped pattern, a red car …",
            max_lines=1,
            max_length=1000,
            scale=6,
            elem_id="ico-query",
        )
        button = gr.Button("Search", variant="primary", scale=0, min_width=120, elem_id="ico-search")
    results = gr.HTML(str(welcome(services)), elem_id="ico-results", apply_default_css=False)
    # "hidden" keeps it in the page, so that its changes reach the address.
    shown = gr.Textbox("", visible="hidden", elem_id="ico-shown-query")
    return SearchTab(query=query, button=button, results=results, shown_query=shown)


def wire(hub: Hub, tab: SearchTab) -> None:
    the_map = hub.page.parts["map"].map

    def searched(services: Services, query: str) -> Updates:
        return _searched(hub, services, tab, query)

    hub.on(
        [tab.query.submit, tab.button.click], searched, [tab.query], [tab.query, tab.results, tab.shown_query, the_map]
    )
    hub.follow(tab.shown_query, QUERY)
    hub.action("search", lambda services, value: searched(services, value) | hub.tab("search"))
    hub.action("show", lambda services, value: searched(services, value) | hub.tab("map"))
    hub.action("clear", lambda services, _: searched(services, "") | {tab.query: ""})


def _searched(hub: Hub, services: Services, tab: SearchTab, query: str) -> Updates:
    """Hits of a query on this tab, lit on the map. Raises what Search.query raises."""
    result = run(services, query)
    return {
        tab.query: result.query or query,
        tab.results: str(result.page),
        tab.shown_query: result.query,
        hub.page.parts["map"].map: show_hits(result.features, result.query),
    }


def restore(hub: Hub, services: Services, tab: SearchTab, state: UrlState) -> Updates:
    return _searched(hub, services, tab, state["q"])


def opened(services: Services, tab: SearchTab, record: FeatureRecord, state: UrlState | None) -> Updates:
    """A search stays as it is when a feature opens."""
    del services, tab, record, state
    return {}


def run(services: Services, query: str) -> SearchResult:
    """Search and lay out the hits. An empty query shows the welcome instead; raises what Search.query raises."""
    if not query.strip():
        return SearchResult(page=welcome(services), features=(), query="")
    started = perf_counter()
    hits = services.search.query(query, n=N_HITS)
    seconds = perf_counter() - started
    page = results_page(services, query, hits, seconds) if hits else nothing_found(services, query)
    return SearchResult(page=page, features=tuple(hit.feature for hit in hits), query=query.strip())


def results_page(services: Services, query: str, hits: Sequence[Hit], seconds: float) -> Markup:
    store = services.store
    cards = [
        hit_card(
            hit,
            store.feature(hit.feature),
            services.pictures(hit.feature, N_PICTURES),
            services.best_outcome(hit.feature),
            services.version,
        )
        for hit in hits
    ]
    told = f"{count(len(hits))} best of {count(len(store))} features, {seconds * 1000:.0f} ms. "
    told += "Searched: the best explanations by meaning, all methods' words, cluster names" + (
        " and the known truth." if services.meta.get("concept_coverage") else "."
    )
    return h(
        "div",
        h(
            "div",
            go_button("Show these on the map", "show", query, addresses.page(tab="map", q=query)),
            class_="ico-actions",
        ),
        h("p", told, class_="ico-why"),
        h("div", *cards, class_="ico-hits"),
        class_="ico-page",
    )


def examples(services: Services) -> list[str]:
    """Queries worth trying here: the families of truth if known, else the names of the largest clusters."""
    groups = services.store.features["truth_group"].to_pylist()
    counts = {group: groups.count(group) for group in set(groups) if group}
    if len(counts) >= N_EXAMPLES // 2:
        return [str(name).replace("_", " ") for name in sorted(counts, key=lambda name: (-counts[name], name))][
            :N_EXAMPLES
        ]
    largest = sorted(services.store.clusters, key=lambda one: (-one.n_features, one.cluster))
    return [one.label for one in largest[:N_EXAMPLES]]


def _example_buttons(services: Services) -> Markup:
    buttons = [go_button(text, "search", text, addresses.page(tab="search", q=text)) for text in examples(services)]
    return h("div", *buttons, class_="ico-examples")


def welcome(services: Services) -> Markup:
    kinds = ", ".join(words for _, words, _ in TRUTH_KINDS)
    told = f"Every hit says why it was found. The badge says whether its explanation is {kinds}, where that is known."
    return h(
        "div",
        h(
            "div",
            h("p", "Type a word or a phrase, or try one of these:"),
            _example_buttons(services),
            h("p", told, class_="ico-why", style="margin-top:16px"),
            class_="ico-empty",
        ),
        class_="ico-page",
    )


def nothing_found(services: Services, query: str) -> Markup:
    return h(
        "div",
        h(
            "div",
            h("p", "No explanation in this atlas is near to ", h("span", query, class_="ico-words"), "."),
            h("p", "Use other words, or fewer. These work here:"),
            _example_buttons(services),
            class_="ico-empty",
        ),
        class_="ico-page",
    )
