"""The Search tab: what is found, how it is told, and what an address brings back."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app import inspecting, search_views, searching
from app.catalogue import Catalogue
from app.hub import Hub
from app.services import Services
from app.subject_worker import Waiting
from app.tabs import search
from app.ui import layout
from app.url_state import parse
from app.wiring import Loading, wire
from backend.errors import EmptyQuery, QueryError, SubjectMissing, UnknownFeature
from backend.search import LIKE_KINDS
from backend.types import ARM_BY_KEY
from tests.hostile import HOSTILE


@pytest.fixture(scope="module")
def hub(services: Services) -> Hub:
    catalogue = Catalogue([services])
    with gr.Blocks(analytics_enabled=False) as blocks:
        return wire(blocks, catalogue, layout(catalogue))


@pytest.fixture
def tab(hub: Hub) -> search.SearchTab:
    return hub.page.parts["search"]


def restored(hub: Hub, services: Services, tab: search.SearchTab, query: str) -> dict[Any, Any]:
    fields = dict(pair.split("=") for pair in query.split("&"))
    return search.restore(hub, services, tab, parse(fields))


# ----------------------------------------------------------------------------------------------------------- words


def test_hits_say_why_and_lead_to_their_features(hub: Hub, services: Services, tab: search.SearchTab) -> None:
    updates = search.on_words(hub, services, tab, "red crab", "")
    html, lit = updates[tab.results], updates[hub.page.parts["map"].map]
    assert lit["hits"][0] in {2, 16, 30} and lit["query"] == "red crab"
    assert html.count('class="ico-hit"') == len(lit["hits"]) > 5
    for feature in lit["hits"]:
        assert f'href="?tab=feature&amp;feature={feature}"' in html
        for kind in LIKE_KINDS:
            assert f'data-value="{kind}:{feature}"' in html
    assert "says it" in html and "written by" in html
    assert f"{len(lit['hits'])} best of {len(services.store)} features" in html
    assert updates[tab.shown_query] == "red crab" and updates[tab.shown_like] == updates[tab.shown_image] == ""


def test_the_words_of_the_query_are_marked_in_every_form() -> None:
    stems = {"strip", "car"}
    shown = search_views.marked("Striped cars, <b>the</b> car; a scar", stems)
    assert shown == ("<mark>Striped</mark> <mark>cars</mark>, &lt;b&gt;the&lt;/b&gt; <mark>car</mark>; a scar")
    assert search_views.marked("the cat", {"the"}) == "the cat", "stop words match nothing"


@pytest.mark.parametrize("text", HOSTILE)
def test_marking_never_makes_markup(text: str) -> None:
    words = set(search_views.terms(text)) | {"script", "alert"}
    shown = str(search_views.marked(text, words)).replace("<mark>", "").replace("</mark>", "")
    assert "<" not in shown


def test_every_score_on_a_card_has_its_n_and_interval_or_its_reason(services: Services) -> None:
    found = searching.by_words(services, "red crab")
    scores = [searching.reliability(services, hit) for hit in found.hits]
    html = search_views.by_words(services, "red crab", "", found)
    measured = [score for score in scores if score is not None and score.value is not None]
    assert measured and html.count('class="ico-value"') == html.count('class="ico-interval"') == len(measured)
    assert html.count("AUROC") == len(found.hits)


def test_the_badge_is_that_of_the_text_shown(services: Services) -> None:
    for hit in searching.by_words(services, "a red crab").hits:
        assert hit.arm is not None
        told = {one.arm: one.truth_outcome.value for one in services.store.explanations(hit.feature)}
        assert searching.outcome(services, hit) == told[hit.arm]


def test_one_method_may_be_searched_alone(hub: Hub, services: Services, tab: search.SearchTab) -> None:
    arm = ARM_BY_KEY["steering"]
    html = search.on_words(hub, services, tab, "zebra", "steering")[tab.results]
    assert f"the words of {arm.label} only" in html
    for hit in searching.by_words(services, "kitten", "steering").hits:
        assert hit.arm == arm
    assert searching.by_words(services, "kitten", "no_steering").hits == searching.by_words(services, "kitten").hits


def test_an_empty_query_shows_what_to_try(hub: Hub, services: Services, tab: search.SearchTab) -> None:
    updates = search.on_words(hub, services, tab, "   ", "")
    assert updates[hub.page.parts["map"].map] == {"hits": [], "query": ""}
    assert 'data-go="search"' in updates[tab.results] and updates[tab.shown_query] == ""
    with pytest.raises(EmptyQuery):
        search.on_words(hub, services, tab, "?!", "")


def test_nothing_found_says_so_and_repeats_the_query_as_text(
    hub: Hub, services: Services, tab: search.SearchTab
) -> None:
    html = search.on_words(hub, services, tab, "<b>qwertzuiop</b>", "top_k_masks")[tab.results]
    assert "&lt;b&gt;qwertzuiop&lt;/b&gt;" in html and "<b>" not in html
    assert "Search all methods" in html and ARM_BY_KEY["top_k_masks"].label in html


def test_examples_find_something(services: Services) -> None:
    words = search_views.examples(services)
    assert len(words) > 2 and all(searching.by_words(services, one).hits for one in words)


# -------------------------------------------------------------------------------------------------------- likeness


@pytest.mark.parametrize("kind", LIKE_KINDS)
def test_more_like_this_says_the_kind_and_offers_the_others(
    hub: Hub, services: Services, tab: search.SearchTab, kind: str
) -> None:
    updates = search.on_like(hub, services, tab, f"{kind}:2")
    html, lit = updates[tab.results], updates[hub.page.parts["map"].map]
    assert lit["hits"] and 2 not in lit["hits"] and searching.LIKE_WORDS[kind] in lit["query"]
    assert searching.LIKE_WORDS[kind] in html and f"of {len(services.store) - 1} features" in html
    for other in LIKE_KINDS:
        assert (f'data-value="{other}:2"' in html) == (other != kind)
    assert updates[tab.shown_like] == f"{kind}:2" and updates[tab.query] == "" == updates[tab.shown_query]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("meaning:10", UnknownFeature),
        ("meaning:", QueryError),
        ("taste:2", QueryError),
        ("", QueryError),
        ("meaning:-2", QueryError),
        ("meaning:" + "9" * 30, QueryError),
        ("<script>:2", QueryError),
    ],
)
def test_a_likeness_to_nothing_is_refused_in_words(services: Services, value: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        searching.read_like(services, value)


# -------------------------------------------------------------------------------------------------------- pictures


def frames(
    hub: Hub, services: Services, tab: search.SearchTab, image: str, visitor: str = "v"
) -> Iterator[dict[Any, Any]]:
    return search.on_picture(hub, tab)(services, image, SimpleNamespace(session_hash=visitor))


def test_a_picture_finds_the_features_that_fire_on_it(hub: Hub, services: Services, tab: search.SearchTab) -> None:
    """Without a subject only what the atlas stored counts, and that is said."""
    image = services.store.exemplars(2)[0].image_id
    last = list(frames(hub, services, tab, image))[-1]
    lit = last[hub.page.parts["map"].map]
    stored = inspecting.stored_grids(services, image)
    firing = {feature for feature, grid in stored.items() if grid.max() > 0}
    assert 2 in lit["hits"] and set(lit["hits"]) <= firing
    assert last[tab.shown_image] == image and last[tab.query] == last[tab.shown_query] == ""
    assert "fires on 16 of 256 patches" in last[tab.results] and "Only activations stored" in last[tab.results]


def test_a_picture_nobody_knows_is_said_in_words(hub: Hub, services: Services, tab: search.SearchTab) -> None:
    for image in ("upload-0123456789abcdef", "elsewhere.png", "../../etc/passwd"):
        last = list(frames(hub, services, tab, image))[-1]
        assert 'role="alert"' in last[tab.results] and 'class="ico-hit"' not in last[tab.results]
        assert last[tab.shown_image] == "", "the same picture, uploaded again, is a new wish"
    made = list(frames(hub, services, tab, "black"))[-1]
    assert "cannot be searched by" in made[tab.results], "an atlas without its model knows only its own pictures"
    assert list(frames(hub, services, tab, "")) == []


def test_an_older_picture_says_nothing_once_a_newer_was_chosen(
    hub: Hub, services: Services, tab: search.SearchTab, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (services.store.exemplars(feature)[0].image_id for feature in (2, 3))

    def slow(_services: Services, visitor: str, image: str) -> Iterator[Any]:
        yield Waiting(ahead=0)
        found = searching.by_likeness(services, "meaning", 2 if image == first else 3)
        yield found

    monkeypatch.setattr(searching, "by_picture", slow)
    older = frames(hub, services, tab, first)
    assert "looking at the picture" in next(older)[tab.results]
    newer = list(frames(hub, services, tab, second))
    assert newer[-1][tab.shown_image] == second
    assert list(older) == []


# ----------------------------------------------------------------------------------------------------- the address


def test_an_address_brings_back_words_and_method(hub: Hub, services: Services, tab: search.SearchTab) -> None:
    updates = restored(hub, services, tab, "q=crab&arm=top_k_masks")
    assert updates[tab.arm] == "top_k_masks" and updates[tab.query] == updates[tab.shown_query] == "crab"
    assert "only" in updates[tab.results]


def test_an_address_brings_back_a_likeness_and_a_picture(hub: Hub, services: Services, tab: search.SearchTab) -> None:
    like = restored(hub, services, tab, "like=direction:2")
    assert like[tab.shown_like] == "direction:2" and "decoder direction" in like[tab.results]
    image = services.store.exemplars(2)[0].image_id
    picture = restored(hub, services, tab, f"qimage={image}&q=crab")
    assert picture[tab.shown_image] == image and picture[tab.shown_query] == ""
    assert picture[tab.chooser]["selected"] == image
    assert "" not in {choice["id"] for choice in picture[tab.chooser]["choices"]}, "blank would mean no picture"


def test_an_address_with_nonsense_is_told_and_the_rest_is_shown(hub: Hub) -> None:
    updates, notices = Loading(hub).restored({"tab": "search", "like": "taste:2", "feature": "2"})
    assert len(notices) == 1 and "taste:2" in notices[0]
    assert updates[hub.page.parts["feature"].number] == 2


def test_actions_show_light_and_clear(hub: Hub, services: Services, tab: search.SearchTab) -> None:
    def go(action: str, value: str) -> dict[Any, Any]:
        return hub.act(services, SimpleNamespace(value={"action": action, "value": value}))  # type: ignore[arg-type]

    the_map = hub.page.parts["map"].map
    assert go("like", "meaning:2")[hub.page.tabs].selected == "search"
    assert go("show", "crab")[hub.page.tabs].selected == "map" and go("show", "crab")[the_map]["hits"]
    assert go("search", "crab")[hub.page.tabs].selected == "search"
    assert go("lit", "")[hub.page.tabs].selected == "map"
    assert go("clear", "")[the_map]["hits"] == []


def test_the_first_pictures_offered_are_of_different_clusters(services: Services) -> None:
    offered = search.offered(services)
    clusters = [services.store.feature(one.feature).cluster for one in offered]
    assert 1 < len(offered) <= search.N_OFFERED and len(set(clusters)) == len(clusters)


def test_an_error_of_the_model_is_shown_where_the_hits_would_be(
    hub: Hub, services: Services, tab: search.SearchTab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> Iterator[Any]:
        raise SubjectMissing("no weights here")
        yield

    monkeypatch.setattr(inspecting, "features_of_image", missing)
    last = list(frames(hub, services, tab, services.store.image_ids[0]))[-1]
    assert "no weights here" in last[tab.results]
