"""The blind test: two explanations of one feature, methods hidden; which one tells better on which images it fires?

Everything follows from a seed and a round number, so an address reproduces a round. Nothing about the methods is sent
before the visitor has picked. The score of the visitor stays in the visitor's browser (static/blind.js).
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.components import addresses
from app.components.charts import truth_badge
from app.components.exemplars import figure
from app.components.markup import Child, Markup, h
from app.components.numbers import missing, n_equals
from app.services import Services
from backend.feature_store import ExemplarRecord, ExplanationRecord
from backend.types import Score

METRIC = "auroc_per_feature"
"""The referee: whether pictures made from the words excite the feature more than others (docs/log.md tests it)."""
N_IMAGES = 4
"""At most so many pictures of each kind."""
MOST_TRIES = 400
CONTROL_SHARE = 0.2
"""Of so many rounds one of the two is a control: an explanation that knows nothing of the feature."""
SIDES = ("a", "b")
_ROUND = re.compile(r"^([0-9]{1,9})-([0-9]{1,6})\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One question."""

    seed: int
    number: int
    feature: int
    sides: tuple[ExplanationRecord, ExplanationRecord]
    fires: tuple[ExemplarRecord, ...]
    """Scoring images on which the feature fires, the strongest first."""
    silent: tuple[ExemplarRecord, ...]
    """Scoring images on which it does not fire at all."""

    @property
    def key(self) -> str:
        return f"{self.seed}-{self.number}"


def parse_round(text: str) -> tuple[int, int]:
    """Seed and round of an address; the first round of seed 1 where it says nothing that can be understood."""
    found = _ROUND.match(text)
    return (int(found[1]), int(found[2])) if found else (1, 1)


def draw(services: Services, seed: int, number: int) -> Round | None:
    """The round; None if no feature of the atlas makes a fair question."""
    digest = hashlib.sha256(f"{services.version}:{seed}:{number}".encode()).digest()
    rng = random.Random(int.from_bytes(digest[:8], "big"))
    ids = services.store.feature_ids
    # Features that pass the quality filter first: what hardly fires, or always, makes a question of luck.
    for needs_quality in (True, False):
        for _ in range(MOST_TRIES if len(ids) else 0):
            feature = int(ids[rng.randrange(len(ids))])
            if needs_quality and not services.store.feature(feature).quality_kept:
                continue
            sides = _sides(services, feature, rng)
            fires = services.store.exemplars(feature, split="score")[:N_IMAGES]
            silent = services.store.exemplars(feature, pooling="silent", split="score")[:N_IMAGES]
            if sides is not None and fires and silent:
                return Round(seed=seed, number=number, feature=feature, sides=sides, fires=fires, silent=silent)
    return None


def _sides(services: Services, feature: int, rng: random.Random) -> tuple[ExplanationRecord, ExplanationRecord] | None:
    """Two explanations in different words, in an order that says nothing."""
    written = [one for one in services.store.explanations(feature) if one.text]
    methods = [one for one in written if not one.arm.is_control]
    if not methods:
        return None
    first = rng.choice(methods)
    wants_control = rng.random() < CONTROL_SHARE
    others = [one for one in written if one.arm.is_control == wants_control and _differs(one, first)]
    if not others:
        return None
    pair = [first, rng.choice(others)]
    rng.shuffle(pair)
    return pair[0], pair[1]


def _differs(one: ExplanationRecord, other: ExplanationRecord) -> bool:
    return (one.text or "").strip().casefold() != (other.text or "").strip().casefold()


def page(services: Services, argument: str = "") -> Markup:
    """A round to be answered; ``argument`` is ``<seed>-<round>``."""
    asked = draw(services, *parse_round(argument))
    if asked is None:
        return _view(services, _nothing())
    buttons = [_pick_button(asked, place) for place in range(2)]
    return _view(services, _question(services, asked, buttons, None))


def picked(services: Services, value: str) -> Markup:
    """The round with its methods revealed; ``value`` is ``<seed>-<round>-<a or b>``."""
    text, _, side = value.rpartition("-")
    asked = draw(services, *parse_round(text))
    if asked is None:
        return _view(services, _nothing())
    chosen = SIDES.index(side) if side in SIDES else 0
    cards = [_revealed(services, asked, place, chosen) for place in range(2)]
    return _view(services, _question(services, asked, cards, chosen))


def _view(services: Services, body: Markup) -> Markup:
    told = "Two explanations of one feature, by two of the methods. No explanation saw these pictures. "
    told += "Pick the words that tell better which pictures make the feature fire. In about one round of five, one of "
    told += "the two is a control, which knows nothing of the feature."
    score = h("section", class_="ico-blind-score", data_version=services.version, aria_live="polite")
    lede = h("p", told, class_="ico-lede")
    return h("div", h("section", h("h2", "Blind test"), lede, body), score, class_="ico-page ico-blind")


def _nothing() -> Markup:
    told = "This atlas has no feature with two different explanations and held-out images on which it fires and on "
    told += "which it does not. Atlases built since format 4 store such images."
    return h("p", told, class_="ico-empty")


def _question(services: Services, asked: Round, cards: Sequence[Markup], chosen: int | None) -> Markup:
    n_fires, n_silent = len(asked.fires), len(asked.silent)
    record = services.store.feature(asked.feature)
    return h(
        "div",
        h("p", f"Seed {asked.seed}, round {asked.number}", class_="ico-id"),
        h(
            "div",
            _pictures(f"Fires on these (n = {n_fires})", asked.fires, record.maximum, services.version, chosen),
            _pictures(f"Silent on these (n = {n_silent})", asked.silent, record.maximum, services.version, chosen),
            class_="ico-two ico-blind-pictures",
        ),
        h("h3", "Which words tell better on which pictures it fires?" if chosen is None else "Who wrote what"),
        h("div", *cards, class_="ico-two ico-blind-sides"),
        h("div", _next(asked, chosen), class_="ico-actions"),
        class_="ico-blind-round",
        data_round=asked.key,
        attributes=_outcome(services, asked, chosen) if chosen is not None else None,
    )


def _pictures(
    title: str, exemplars: Sequence[ExemplarRecord], maximum: float, version: str, chosen: int | None
) -> Markup:
    """Plain pictures while the question is open, with heatmaps afterwards: heat would point at the answer."""
    if chosen is None:
        shown = [_plain(place, one, version) for place, one in enumerate(exemplars)]
    else:
        shown = [figure(one, maximum, version, caption=False) for one in exemplars]
    return h("div", h("h3", title), h("div", *shown, class_="ico-blind-row"))


def _plain(place: int, exemplar: ExemplarRecord, version: str) -> Markup:
    source = addresses.image(exemplar.image_id, version)
    picture = h("div", h("img", src=source, alt=f"held-out picture {place + 1}"), class_="ico-picture")
    return h("figure", picture, class_="ico-exemplar is-plain")


def _pick_button(asked: Round, place: int) -> Markup:
    side = SIDES[place]
    return h(
        "button",
        h("span", side.upper(), class_="ico-blind-letter"),
        h("span", asked.sides[place].text, class_="ico-words"),
        h("span", "Pick these words", class_="ico-why"),
        class_="ico-blind-side",
        type="button",
        data_go="blind_pick",
        data_value=f"{asked.key}-{side}",
    )


def _revealed(services: Services, asked: Round, place: int, chosen: int) -> Markup:
    """One side with its method, the verdict of truth, and the score that decides."""
    one = asked.sides[place]
    score = _score(services, asked, one)
    yours = h("span", "your pick", class_="ico-badge", data_sign="●") if place == chosen else None
    control = h("span", "control", class_="ico-badge", data_sign="○") if one.arm.is_control else None
    label = str(services.metric_cards.get(METRIC, {}).get("label") or "AUROC")
    return h(
        "article",
        h("div", h("span", one.arm.label, class_="ico-arm-name"), yours, control, class_="ico-eyebrow"),
        h("p", one.text, class_="ico-words"),
        h("p", truth_badge(one.truth_outcome.value)),
        h("p", h("span", f"{label}: ", class_="ico-why"), _score_words(score)),
        class_="ico-panel ico-blind-answer",
        data_arm=one.arm.key,
        data_chosen="yes" if place == chosen else None,
    )


def _score(services: Services, asked: Round, one: ExplanationRecord) -> Score | None:
    rows = services.store.scores(asked.feature).get(one.arm, ())
    return next((row for row in rows if row.metric == METRIC), None)


def _score_words(score: Score | None) -> Markup:
    """Value to three digits, so that what differs also looks different; interval and n."""
    if score is None or score.value is None:
        return missing(score.reason if score else "not computed")
    ends = f" [{score.low:.3f}, {score.high:.3f}]" if score.low is not None and score.high is not None else ""
    value = h("span", f"{score.value:.3f}", class_="ico-value")
    return h("span", value, h("span", f"{ends} {n_equals(score.n)}", class_="ico-n"))


def _outcome(services: Services, asked: Round, chosen: int) -> dict[str, str]:
    """What the browser adds to the visitor's score."""
    scores = [_score(services, asked, one) for one in asked.sides]
    values = [None if score is None else score.value for score in scores]
    better = "unknown"
    if values[0] is not None and values[1] is not None:
        better = "tie" if values[0] == values[1] else SIDES[int(values[1] > values[0])]
    arms = {f"data-arm-{side}": one.arm.key for side, one in zip(SIDES, asked.sides, strict=True)}
    labels = {f"data-label-{side}": one.arm.label for side, one in zip(SIDES, asked.sides, strict=True)}
    return {"data-picked": SIDES[chosen], "data-better": better, **arms, **labels}


def _next(asked: Round, chosen: int | None) -> list[Child]:
    following = f"{asked.seed}-{asked.number + 1}"
    link = h(
        "a",
        "Next round" if chosen is not None else "Skip this round",
        href=addresses.page(tab="compare", compare="blind", blind=following),
        class_="ico-button is-primary" if chosen is not None else "ico-button",
        attributes={"data_go": "compare", "data_value": f"blind:{following}", "data_set": f"blind={following}"},
    )
    opened = None
    if chosen is not None:
        href = addresses.page(tab="feature", feature=asked.feature)
        opened = h(
            "a",
            f"Open feature {asked.feature}",
            href=href,
            class_="ico-button",
            attributes={"data_go": "feature", "data_value": asked.feature},
        )
    return [link, opened]
