"""One feature as a small page of its own, made to stand in a frame on another site: our markup, no Gradio.

The query holds the switches (:data:`SWITCHES`). What a switch cannot be is its default; nothing here raises for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.components import addresses
from app.components.cards import score_rows, words
from app.components.charts import truth_badge
from app.components.exemplars import figure
from app.components.markup import Markup, h, join
from app.components.numbers import fact, facts, firing_words, missing, n_equals, number, percent
from app.feature_document import link
from app.ranking import written_by
from app.services import Services
from app.url_fields import Choice, Field, Flag, UrlState, Whole
from backend.feature_store import ExplanationRecord, FeatureRecord
from backend.types import Score

MOST_EXEMPLARS = 12
SWITCHES: tuple[Field, ...] = (
    Choice("overlay", ("heat", "raw", "mask")),
    Choice("ranking", ("mean", "max", "decile")),
    Whole("n", high=MOST_EXEMPLARS),
    Choice("explanations", ("all", "best", "none")),
    Flag("scores", initial=True),
    Choice("theme", ("auto", "light", "dark")),
)
DEFAULT_EXEMPLARS = 6
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'self'; form-action 'none'; "
    "frame-ancestors *"
)
"""This page may stand in anybody's frame, because it has nothing to click but links; all other pages may not."""
STYLES = ("tokens.css", "base.css", "pages.css", "embed.css")
SCRIPTS = ("exemplars.js", "embed.js")
# Below iconoscope/embed/<key>/<feature>, three steps lead to the root that every address starts from.
_HEAD = '<!doctype html><html lang="en"><head><meta charset="utf-8"><base href="../../../">'
_VIEWPORT = '<meta name="viewport" content="width=device-width, initial-scale=1">'


def document(services: Services, feature: int, switches: UrlState) -> str:
    """The whole HTML document. Raises UnknownFeature."""
    record = services.store.feature(feature)
    styles = "".join(f'<link rel="stylesheet" href="{addresses.static(name)}">' for name in STYLES)
    scripts = "".join(f'<script src="{addresses.static(name)}" defer></script>' for name in SCRIPTS)
    title = h("title", f"Feature {feature} · Iconoscope")
    body = h(
        "body",
        h("main", _head(services, record), _exemplars(services, record, switches), class_="ico-page")
        if switches["explanations"] == "none"
        else h(
            "main",
            _head(services, record),
            _exemplars(services, record, switches),
            _explanations(services, record, switches),
            class_="ico-page",
        ),
        class_="gradio-container ico-embed dark" if switches["theme"] == "dark" else "gradio-container ico-embed",
        data_theme=switches["theme"],
        data_overlay_first=switches["overlay"],
    )
    return f"{_HEAD}{_VIEWPORT}{title}{styles}{scripts}</head>{body}</html>"


def _head(services: Services, record: FeatureRecord) -> Markup:
    title = str(services.meta.get("title") or services.subject_name)
    fired = f"{n_equals(sum(record.histogram))} patches"
    return h(
        "header",
        h(
            "div",
            h("h1", f"Feature {record.feature}", class_="ico-id"),
            truth_badge(services.best_outcome(record.feature)),
            class_="ico-eyebrow",
        ),
        words(record.best_text, class_="ico-words is-large"),
        h("p", written_by(services, record), class_="ico-why"),
        facts(
            fact("Fires on", percent(record.firing_fraction), firing_words(record)),
            fact("Maximum activation", number(record.maximum), f"residual-stream L2, {fired}"),
        ),
        h(
            "p",
            h("a", "Open in Iconoscope", href=link(services, record.feature), target="_blank", rel="noopener"),
            h("span", f"{title}, artifact {services.version}", class_="ico-why"),
            class_="ico-embed-source",
        ),
    )


def _exemplars(services: Services, record: FeatureRecord, switches: UrlState) -> Markup | None:
    n = DEFAULT_EXEMPLARS if switches["n"] is None else switches["n"]
    if n == 0:
        return None
    ranking = switches["ranking"]
    found = services.store.exemplars(record.feature, pooling=ranking)[:n]
    if not found:
        return h("section", h("h2", "Exemplars"), missing("none were stored"))
    told = {
        "mean": "with the highest mean activation",
        "max": "with the highest activation of one patch",
        "decile": "from strong to weak",
    }
    return h(
        "section",
        h("h2", "Exemplars"),
        h("p", f"Images {told[ranking]} ({n_equals(len(found))}); colours share one scale.", class_="ico-lede"),
        h("div", *(figure(one, record.maximum, services.version) for one in found), class_="ico-gallery"),
    )


def _explanations(services: Services, record: FeatureRecord, switches: UrlState) -> Markup:
    store = services.store
    scores = store.scores(record.feature)
    shown = [one for one in store.explanations(record.feature) if switches["explanations"] == "all" or one.is_best]
    cards = [_card(services, one, scores.get(one.arm, ()) if switches["scores"] else None) for one in shown]
    methods = [card for one, card in zip(shown, cards, strict=True) if not one.arm.is_control]
    controls = [card for one, card in zip(shown, cards, strict=True) if one.arm.is_control]
    parts = [h("h2", "Explanations"), h("div", *methods, class_="ico-embed-arms")]
    if controls:
        parts += [
            h("h2", "Controls"),
            h("p", "The same procedure without the feature: what chance looks like.", class_="ico-lede"),
            h("div", *controls, class_="ico-embed-arms"),
        ]
    return h("section", join(parts))


def _card(services: Services, record: ExplanationRecord, scores: Sequence[Score] | None) -> Markup:
    winner = h("span", "best", class_="ico-badge", data_kind="winner", data_sign="★") if record.is_best else None
    return h(
        "article",
        h("div", h("h3", record.arm.label, class_="ico-arm-name"), winner, class_="ico-arm-head"),
        words(record.text, fallback=f"No text: {record.failure or 'the model gave none'}"),
        h("div", truth_badge(record.truth_outcome.value)),
        None if scores is None else score_rows(scores, services.metric_cards),
        class_="ico-arm",
        data_arm=record.arm.key,
        data_control="yes" if record.arm.is_control else None,
    )
