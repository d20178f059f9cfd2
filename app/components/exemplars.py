"""Exemplar pictures: a thumbnail and its activation grid, drawn together by static/exemplars.js."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from app.components import addresses
from app.components.markup import Markup, h
from app.components.numbers import number
from backend.feature_store import ExemplarRecord


def pack_grid(grid: Float[np.ndarray, "row col"]) -> str:
    """A grid as base64 of little-endian float16, row-major: the precision in which the atlas stores it."""
    return base64.b64encode(np.ascontiguousarray(grid, dtype="<f2").tobytes()).decode("ascii")


def figure(exemplar: ExemplarRecord, maximum: float, version: str, *, caption: bool = True) -> Markup:
    """One picture with its overlay. ``maximum`` (the feature's) makes colours comparable between pictures."""
    rows, cols = exemplar.grid.shape
    words = f"image {exemplar.image_id}, maximum activation {number(exemplar.activation_max)}"
    picture = h(
        "div",
        h("img", src=addresses.image(exemplar.image_id, version), alt=words, loading="lazy", decoding="async"),
        h("canvas", aria_hidden="true"),
        class_="ico-picture",
    )
    below = h(
        "figcaption",
        h("span", f"#{exemplar.rank + 1}"),
        h("span", f"max {number(exemplar.activation_max)}", title=f"mean {number(exemplar.activation_mean)}"),
    )
    readout = h("div", class_="ico-readout")
    return h(
        "figure",
        picture,
        below if caption else None,
        readout if caption else None,
        class_="ico-exemplar",
        data_grid=pack_grid(exemplar.grid),
        data_rows=rows,
        data_cols=cols,
        data_maximum=float(maximum),
    )


def gallery(exemplars: Iterable[ExemplarRecord], maximum: float, version: str, pooling: str, lede: str) -> Markup:
    """A grid of pictures, shown while the overlay bar asks for this ``pooling``."""
    pictures = h("div", *(figure(exemplar, maximum, version) for exemplar in exemplars), class_="ico-gallery")
    return h("div", h("p", lede, class_="ico-lede"), pictures, class_="ico-pooled", data_pooling=pooling)


POOLINGS = {"mean": "Mean", "max": "Maximum", "decile": "Whole range"}


def overlay_bar(name: str, poolings: Sequence[str]) -> Markup:
    """Raw, heatmap or mask, how strong, and ranked how: for every picture on the page. ``name`` tells bars apart."""
    choices = (("raw", "Image"), ("heat", "Heatmap"), ("mask", "Mask"))
    radios = [
        h("label", h("input", type="radio", name=f"overlay-{name}", data_overlay=mode, checked=mode == "heat"), label)
        for mode, label in choices
    ]
    strength = h(
        "label",
        "Overlay strength ",
        h("input", type="range", min=0, max=100, value=70, data_overlay_opacity="", aria_label="Overlay strength"),
    )
    return h(
        "div",
        h("fieldset", h("legend", "How exemplars are shown"), *radios),
        strength,
        _ranking(name, poolings),
        h("span", "Point at a picture to read the activation of a patch.", class_="ico-why"),
        class_="ico-overlay-bar",
    )


def _ranking(name: str, poolings: Sequence[str]) -> Markup | None:
    if len(poolings) < 2:
        return None
    radios = [
        h(
            "label",
            h("input", type="radio", name=f"ranking-{name}", data_ranking=one, checked=one == poolings[0]),
            POOLINGS[one],
        )
        for one in poolings
    ]
    return h("span", "Ranked by ", h("fieldset", h("legend", "Exemplars ranked by"), *radios), class_="ico-ranking")
