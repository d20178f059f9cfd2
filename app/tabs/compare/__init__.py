"""Compare: the methods over the whole atlas, against each other, blind, and between atlases. One view at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.catalogue import Catalogue
from app.components import addresses
from app.components.markup import Markup, h
from app.hub import Hub, Updates
from app.services import Services
from app.tabs.compare import beside, bias, blind, scatter, tables
from app.tabs.compare.tables import page as tables_page
from app.url_fields import Choice, Field, Text, UrlState
from backend.feature_store import FeatureRecord

TITLE = "Compare"
VIEWS: Mapping[str, str] = {
    "tables": "Tables",
    "scatter": "Two methods",
    "bias": "Contextual bias",
    "blind": "Blind test",
    "beside": "Two atlases",
}
"""The views in the order of their switch."""
ARGUMENTS: Mapping[str, str] = {"bias": "cell", "blind": "blind", "beside": "beside"}
"""View to the field of the address that says more about it."""
FIELDS: tuple[Field, ...] = (
    Choice("compare", tuple(VIEWS)),
    *scatter.FIELDS,
    *(Text(field, most=120) for field in ARGUMENTS.values()),
)
OPENED = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareTab:
    """Components of the tab."""

    switch: gr.HTML
    page: gr.HTML
    scatter: gr.HTML


def build(services: Services) -> CompareTab:
    switch = gr.HTML(str(view_switch("tables")), elem_id="ico-compare-views", apply_default_css=False)
    page = gr.HTML(str(tables_page(services)), elem_id="ico-compare-page", apply_default_css=False)
    return CompareTab(switch=switch, page=page, scatter=scatter.component(services))


def wire(hub: Hub, tab: CompareTab) -> None:
    def compare(services: Services, value: str) -> Updates:
        view, _, argument = value.partition(":")
        return show(hub.catalogue, services, tab, view if view in VIEWS else "tables", argument)

    def picked(services: Services, value: str) -> Updates:
        return {tab.page: str(blind.picked(services, value))}

    hub.action("compare", compare)
    hub.action("blind_pick", picked)


def restore(hub: Hub, services: Services, tab: CompareTab, state: UrlState) -> Updates:
    view = state["compare"]
    argument = state[ARGUMENTS[view]] if view in ARGUMENTS else ""
    updates = show(hub.catalogue, services, tab, view, argument)
    updates[tab.scatter] = scatter.message(services, state["across"], state["up"], state["metric"], view == "scatter")
    return updates


def opened(services: Services, tab: CompareTab, record: FeatureRecord, state: UrlState | None) -> Updates:
    """The tab is about the whole atlas."""
    del services, tab, record, state
    return {}


def show(catalogue: Catalogue, services: Services, tab: CompareTab, view: str, argument: str) -> Updates:
    """One view of the tab; ``argument`` is the text of its field."""
    pages: dict[str, Callable[[], Markup]] = {
        "tables": lambda: tables_page(services),
        "scatter": scatter.lede,
        "bias": lambda: bias.page(services, argument),
        "blind": lambda: blind.page(services, argument),
        "beside": lambda: beside.page(catalogue, services, argument),
    }
    message: dict[str, Any] = {"shown": view == "scatter"}
    return {tab.switch: str(view_switch(view)), tab.page: str(pages[view]()), tab.scatter: message}


def view_switch(chosen: str) -> Markup:
    """Links that look like one control; each is an address of its own."""
    links = [
        h(
            "a",
            label,
            href=addresses.page(tab="compare", compare=None if view == "tables" else view),
            data_go="compare",
            data_value=view,
            data_set=f"compare={'' if view == 'tables' else view}&cell=&beside=&blind=",
            aria_current="page" if view == chosen else None,
        )
        for view, label in VIEWS.items()
    ]
    return h("nav", *links, class_="ico-views", aria_label="What to compare")


__all__ = ["FIELDS", "TITLE", "VIEWS", "CompareTab", "build", "opened", "restore", "show", "tables", "wire"]
