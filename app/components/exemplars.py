"""Exemplar pictures: a thumbnail and its activation grid, drawn together by static/exemplars.js."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from app.components import addresses
from app.components.markup import Child, Markup, h
from app.components.numbers import number
from app.components.regions import pack_region
from backend.feature_store import ExemplarRecord
from backend.types import Arm

Regions = Mapping[str, Bool[np.ndarray, "row col"]]
"""Arm key to the patches that its words speak about."""
RANKINGS = {
    "mean": "Strongest overall",
    "max": "Strongest patch",
    "decile": "Whole range",
    "held_out": "Held out",
    "silent": "Silent",
}
"""How the pictures of a feature are chosen; the words stand on the switch."""
BY_MEAN = ("mean", "decile", "held_out")
"""Rankings whose order is that of the mean activation; their captions say it."""
N_BANDS = 10


def pack_grid(grid: Float[np.ndarray, "row col"]) -> str:
    """A grid as base64 of little-endian float16, row-major: the precision in which the atlas stores it."""
    return base64.b64encode(np.ascontiguousarray(grid, dtype="<f2").tobytes()).decode("ascii")


def figure(
    exemplar: ExemplarRecord,
    maximum: float,
    version: str,
    *,
    caption: bool = True,
    large: bool = False,
    label: str | None = None,
    by_mean: bool = False,
    regions: Regions | None = None,
) -> Markup:
    """One picture with its overlay. ``maximum`` (the feature's) makes colours comparable between pictures.

    With ``large`` it is a button that opens the larger view; ``label`` replaces the rank in the caption, which gives
    the maximum of the picture, or with ``by_mean`` its mean; ``regions`` can be outlined over it.
    """
    rows, cols = exemplar.grid.shape
    words = f"image {exemplar.image_id}, maximum activation {number(exemplar.activation_max)}"
    layers = (
        h("img", src=addresses.image(exemplar.image_id, version), alt=words, loading="lazy", decoding="async"),
        h("canvas", aria_hidden="true"),
    )
    if large:
        named = f"Enlarge {words}"
        picture = h("button", *layers, class_="ico-picture", type="button", data_enlarge="", aria_label=named)
    else:
        picture = h("div", *layers, class_="ico-picture")
    told = [f"max {number(exemplar.activation_max)}", f"mean {number(exemplar.activation_mean)}"]
    below = h(
        "figcaption",
        h("span", label or f"#{exemplar.rank + 1}"),
        h("span", *(told[::-1] if by_mean else told)[:1], title=", ".join(told)),
    )
    packed = None
    if regions is not None:
        packed = " ".join(f"{arm}:{pack_region(region)}" for arm, region in regions.items())
    return h(
        "figure",
        picture,
        below if caption else None,
        h("div", class_="ico-region-note") if regions is not None else None,
        h("div", class_="ico-readout") if caption else None,
        class_="ico-exemplar",
        data_grid=pack_grid(exemplar.grid),
        data_rows=rows,
        data_cols=cols,
        data_maximum=float(maximum),
        data_regions=packed,
    )


def gallery(
    exemplars: Sequence[ExemplarRecord],
    maximum: float,
    version: str,
    ranking: str,
    lede: str,
    regions: Mapping[str, Regions] | None = None,
) -> Markup:
    """A grid of pictures, shown while the overlay bar asks for this ``ranking``; ``regions`` by image id."""
    known = regions or {}
    pictures = [
        figure(
            one,
            maximum,
            version,
            large=True,
            label=band(place, len(exemplars)) if ranking == "decile" else None,
            by_mean=ranking in BY_MEAN,
            regions=known.get(one.image_id, {}),
        )
        for place, one in enumerate(exemplars)
    ]
    grid = h("div", *pictures, class_="ico-gallery is-bands" if ranking == "decile" else "ico-gallery")
    return h("div", h("p", lede, class_="ico-lede"), grid, class_="ico-pooled", data_pooling=ranking)


def band(place: int, n: int) -> str:
    """Where in the range of activations a decile exemplar stands: the words of its band."""
    ends = {0: "strongest", n - 1: "weakest"}
    if place in ends:
        return ends[place]
    if n != N_BANDS:
        return f"{place + 1} of {n}"
    return f"{100 * place // N_BANDS}\N{EN DASH}{100 * (place + 1) // N_BANDS} %"


def overlay_bar(name: str, rankings: Sequence[str], arms: Sequence[Arm] = ()) -> Markup:
    """Raw, heatmap or mask, how strong, ranked how, and whose words to outline: for every picture on the page.

    ``name`` tells bars apart; ``arms`` are those whose words can be outlined.
    """
    choices = (("raw", "Image"), ("heat", "Heatmap"), ("mask", "Mask"))
    radios = [
        h("label", h("input", type="radio", name=f"overlay-{name}", data_overlay=mode, checked=mode == "heat"), label)
        for mode, label in choices
    ]
    strength = h(
        "label",
        "Opacity ",
        h("input", type="range", min=0, max=100, value=70, data_overlay_opacity="", aria_label="Overlay opacity"),
    )
    told = "Point at or tap a picture for the activation of a patch; open it to go through the patches by arrow keys."
    return h(
        "div",
        h("fieldset", h("legend", "How exemplars are shown"), *radios),
        strength,
        _ranking(name, rankings),
        _outlines(arms),
        h("p", told, class_="ico-why"),
        class_="ico-overlay-bar",
    )


def _ranking(name: str, rankings: Sequence[str]) -> Child:
    if len(rankings) < 2:
        return None
    radios = [
        h(
            "label",
            h("input", type="radio", name=f"ranking-{name}", data_ranking=one, checked=one == rankings[0]),
            RANKINGS[one],
        )
        for one in rankings
    ]
    return h("div", h("fieldset", h("legend", "Which exemplars"), *radios), class_="ico-ranking")


def _outlines(arms: Iterable[Arm]) -> Child:
    options = [h("option", arm.label, value=arm.key) for arm in arms]
    if not options:
        return None
    none = h("option", "no method", value="")
    choice = h("select", none, *options, data_outline="", aria_label="Outline the words of")
    return h("label", "Outline the words of ", choice, class_="ico-outline-choice")
