"""How the Inspect tab shows which features fire on a picture."""

from __future__ import annotations

from collections.abc import Iterator

from app import pictures
from app.components import addresses
from app.components.cards import AUROC_TOLD, go_button, words
from app.components.charts import truth_badge
from app.components.exemplars import pack_grid
from app.components.markup import Child, Markup, h
from app.components.numbers import count, estimate, number, percent
from app.inspecting import STRONGEST, FeatureOnImage, Inspection
from app.services import Services
from app.steer_setup import written_patches
from app.subject_worker import Waiting

UNUSUAL_TOLD = (
    "Bits: the mean activation over the chosen patches as a share of the feature's maximum, times "
    "log2(1 / usual rate). Features that fire everywhere, or far below their maximum, get few."
)
STORED_TOLD = "These activations were stored by the harvest; the others the model gave just now."
WELCOME = "Choose a picture or upload one. Then tap the patches you wonder about."


def status(text: str) -> Markup:
    """A line while nothing can be shown yet."""
    return frame(h("p", text, class_="ico-empty ico-status", role="status"))


def waiting(frame: Waiting) -> str:
    """A place in the line, in words."""
    if frame.loading:
        return "Loading the subject model …"
    if frame.ahead == 0:
        return "The model is looking at the picture …"
    return f"Waiting for the model: {count(frame.ahead)} {'request' if frame.ahead == 1 else 'requests'} before yours."


def problem(text: str) -> Markup:
    """Why the picture cannot be inspected, and what to do."""
    return frame(h("p", text, class_="ico-empty is-wrong", role="alert"))


def frame(*children: Child) -> Markup:
    return h("div", *children, class_="ico-page ico-inspected")


# the features --------------------------------------------------------------------------------------------------------


def found(services: Services, seen: Inspection, by: str, pinned: int | None) -> Markup:
    """The features that fire on the chosen patches, best first. ``pinned``: whose heatmap stays on the picture."""
    if not seen.features:
        return frame(_head(services, seen, by), h("p", _nothing(seen), class_="ico-empty"))
    src = pictures.address(services, seen.image_id)
    rows = [_row(services, seen, one, src, pinned == one.record.feature) for one in seen.features]
    return frame(_head(services, seen, by), h("ol", *rows, class_="ico-found-list"))


def _nothing(seen: Inspection) -> str:
    where = "these patches" if seen.patches else "this picture"
    if not seen.live:
        return f"The atlas stored no activation on {where}. Choose other patches."
    return f"No feature of the atlas fires on {where}. Choose more patches, or clear them to see the whole picture."


def _head(services: Services, seen: Inspection, by: str) -> Markup:
    n_all = services.store.grid.n_patches
    where = f"{count(seen.n_patches)} of {count(n_all)} patches" if seen.patches else f"the {count(n_all)} patches"
    title = "What fires on these patches" if seen.patches else "What fires on this picture"
    ranked = "the strongest on average first" if by == STRONGEST else "the most unusually strong first"
    shown = len(seen.features)
    told = f"{count(seen.n_firing)} {'feature fires' if seen.n_firing == 1 else 'features fire'} somewhere on {where} "
    told += f"of {pictures.name(seen.image_id)}"
    told += f"; here are the first {shown}, {ranked}." if shown < seen.n_firing else f", {ranked}."
    hits = ".".join(str(one.record.feature) for one in seen.features)
    on_map = None
    if hits:
        on_map = h(
            "button", "Show all on map", type="button", class_="ico-button", data_go="inspect-map", data_value=hits
        )
    return h(
        "header",
        h("div", h("h2", title), on_map, class_="ico-found-title"),
        h("p", told, class_="ico-lede", role="status"),
        *(h("p", note, class_="ico-why") for note in _notes(seen)),
        class_="ico-found-head",
    )


def _notes(seen: Inspection) -> Iterator[str]:
    if seen.missing is not None:
        yield (
            f"The subject model did not look at it: {seen.missing.rstrip('.')}. Shown are only the "
            f"{count(seen.n_stored)} features whose activations on it the atlas stored."
        )
    elif seen.n_stored:
        yield (
            f"Activations of {count(seen.n_stored)} features on it were stored by the harvest, from the full picture. "
            "The others were computed just now from the atlas's own copy, which may be smaller or lossy."
        )
    if seen.n_unlisted:
        yield f"{count(seen.n_unlisted)} more fire here that never fired on the explaining images: they have no page."


def _row(services: Services, seen: Inspection, one: FeatureOnImage, src: str, pinned: bool) -> Markup:
    feature = one.record.feature
    heat = h(
        "button",
        h("img", src=src, alt="", loading="lazy", decoding="async"),
        h("canvas", aria_hidden="true"),
        type="button",
        class_="ico-found-heat",
        aria_pressed="true" if pinned else "false",
        aria_label=f"Keep the heatmap of feature {feature} on the picture",
        title="Keep this heatmap on the picture",
    )
    return h(
        "li",
        heat,
        h(
            "div",
            h("div", _named(one), _actions(seen, one), class_="ico-found-top"),
            _badges(one),
            _numbers(seen, one),
            class_="ico-found-body",
        ),
        class_="ico-found",
        data_feature=feature,
        data_grid=pack_grid(one.grid),
        data_rows=services.store.grid.rows,
        data_cols=services.store.grid.cols,
        # What an upload does to a feature may exceed everything seen before; the scale then ends at what it does.
        data_maximum=max(float(one.record.maximum or 0.0), float(one.grid.max())),
    )


def _named(one: FeatureOnImage) -> Markup:
    record = one.record
    by = f"by {record.best_arm.label}" if record.best_arm else "no explanation won"
    return h(
        "a",
        words(record.best_text, class_="ico-words ico-found-words"),
        h("span", f"feature {record.feature}", class_="ico-id"),
        h("span", f" · {by}", class_="ico-why"),
        href=addresses.page(tab="feature", feature=record.feature),
        class_="ico-found-name",
        data_go="feature",
        data_value=record.feature,
    )


def _badges(one: FeatureOnImage) -> Markup:
    kept = one.record.quality_kept
    score = one.auroc
    if score is None:
        reliability = estimate(None, None, reason="was not computed")
    else:
        reliability = estimate(score.value, score.n, score.low, score.high, score.reason)
    return h(
        "div",
        truth_badge(one.outcome.value),
        h("span", "AUROC ", reliability, class_="ico-badge ico-found-auroc", data_sign="↗", title=AUROC_TOLD),
        h(
            "span",
            "passes the quality filter" if kept else "below the quality filter",
            class_="ico-badge",
            data_sign="✓" if kept else "–",
        ),
        h("span", "stored", class_="ico-badge", data_sign="◼", title=STORED_TOLD) if one.stored else None,
        class_="ico-found-badges",
    )


def _numbers(seen: Inspection, one: FeatureOnImage) -> Markup:
    share = min(1.0, one.relative)
    of_maximum = f"{percent(one.relative)} of its maximum {number(one.record.maximum)}" if one.record.maximum else ""
    if seen.patches:
        where, all_over = (
            f"{count(one.n_active)} of {count(seen.n_patches)}",
            f"chosen; {count(one.n_active_image)} in all",
        )
    else:
        where, all_over = f"{count(one.n_active)} of {count(seen.n_patches)}", "patches"
    items = (
        ("Strongest", number(one.maximum), of_maximum),
        ("Mean", number(one.mean), f"over {count(seen.n_patches)} patches"),
        ("Fires on", where, all_over),
        ("Unusual", f"{number(one.unusual)} bits a patch", f"usual rate {percent(one.record.firing_fraction)}"),
    )
    facts = [
        h(
            "div",
            h("dt", label, title=UNUSUAL_TOLD if label == "Unusual" else None),
            h("dd", h("span", value, class_="ico-value"), " ", h("span", note, class_="ico-n") if note else None),
        )
        for label, value, note in items
    ]
    bar = h("span", h("span", style=f"width:{100 * share:.1f}%"), class_="ico-found-bar", aria_hidden="true")
    return h("div", bar, h("dl", *facts, class_="ico-found-numbers"), class_="ico-found-measure")


def _actions(seen: Inspection, one: FeatureOnImage) -> Markup:
    feature, image = one.record.feature, pictures.normal(seen.image_id)
    given = written_patches(seen.patches) if seen.patches else "all"
    strength = one.record.recommended_strength or 4 * one.record.maximum
    steer = {"steer": f"{feature}:add:{strength:.6g}", "patches": given, "image": image, "feature": feature}
    ablate = {"steer": f"{feature}:ablate", "patches": "active", "image": image, "feature": feature}
    without = h(
        "button",
        "Answer without it",
        type="button",
        class_="ico-button ico-found-without",
        data_without=feature,
        title="Take this feature out of the picture and ask the model again, beside a random control",
    )
    return h(
        "div",
        without,
        go_button("Steer it here", "steer", addresses.page(**steer)[1:], addresses.page(tab="steer", **steer)),
        go_button("Ablate in Steer", "steer", addresses.page(**ablate)[1:], addresses.page(tab="steer", **ablate)),
        class_="ico-actions ico-found-actions",
    )
