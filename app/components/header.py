"""The head of the page: mark, name, what it is for, what is being explored, and the theme switch."""

from __future__ import annotations

from app.catalogue import Catalogue
from app.components import addresses
from app.components.markup import Child, Markup, h
from app.services import Services

PURPOSE = "What the features of a vision model mean, in words that you can check by steering it."
# A patch grid with a feature firing on it: opacity of the accent per cell, row-major.
_CELLS = ((0.10, 0.16, 0.10, 0.10), (0.16, 0.55, 0.80, 0.16), (0.10, 0.90, 1.00, 0.30), (0.10, 0.22, 0.35, 0.10))


def mark() -> Markup:
    cells = [
        h("rect", x=9 * col, y=9 * row, width=7.5, height=7.5, rx=1.5, fill="var(--ico-accent)", fill_opacity=shade)
        for row, shades in enumerate(_CELLS)
        for col, shade in enumerate(shades)
    ]
    return h("svg", *cells, attributes={"viewBox": "0 0 34.5 34.5"}, class_="ico-mark", aria_hidden="true")


def _atlases(services: Services, catalogue: Catalogue) -> Child:
    """Links to the other atlases; each opens its own page, since every state belongs to one atlas."""
    if len(catalogue) < 2:
        return None
    links = [
        h(
            "a",
            one.key,
            href=addresses.page(tab="map", atlas=one.key),
            class_="ico-atlas-link",
            aria_current="page" if one.key == services.key else None,
        )
        for one in catalogue
    ]
    return h("nav", h("span", "Atlas", class_="ico-why"), *links, class_="ico-atlases", aria_label="Atlases")


def _theme() -> Markup:
    """The switch of the theme; the style sheet shows the name of the other one."""
    names = (h("span", "Dark", class_="ico-to-dark"), h("span", "Light", class_="ico-to-light"))
    return h("button", *names, class_="ico-button ico-theme", type="button", title="Switch between light and dark")


def header(services: Services, catalogue: Catalogue) -> Markup:
    hook = services.meta.get("hook_point") or {}
    told = (
        services.subject_name,
        f"{hook.get('tower')} tower, block {hook.get('layer')}",
    )
    return h(
        "header",
        mark(),
        h(
            "div",
            h("h1", "Iconoscope", class_="ico-title"),
            h("p", PURPOSE, class_="ico-subtitle"),
            class_="ico-name",
        ),
        h("p", " · ".join(told), class_="ico-explored"),
        _atlases(services, catalogue),
        h("div", _theme(), class_="ico-header-end"),
        class_="ico-header",
    )
