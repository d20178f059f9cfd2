"""The Inspect tab without a browser: what the page asks is read safely, and what is shown carries its n and control."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import ablation_views, inspect_views, uploads
from app.ablation import MAX_PROMPT_CHARACTERS, N_RANDOM, AblationAnswers, answers_without
from app.inspecting import RANKINGS, Inspection, inspect
from app.services import Services, open_services
from app.subject_worker import Waiting
from app.tabs import inspect as tab
from backend.errors import ImageMissing, InterventionNotApplied, SubjectError, UnknownFeature
from tests.builders_atlas import BagEncoder
from tests.hostile import HOSTILE


class Worker:
    """Runs jobs at once, on a session that answers what it is told to."""

    def __init__(self, answers: list[str] | None) -> None:
        self.answers = answers

    def run(self, visitor: str, job: Callable[..., Iterator[Any]]) -> Iterator[Any]:
        del visitor
        yield Waiting(ahead=0)
        yield from job(self, lambda: False)

    def stream(self, rows: list[Any], question: str, image: object, **more: Any) -> Iterator[list[Any]]:
        del question, image
        if self.answers is None:
            raise InterventionNotApplied("it touched no patch")
        assert len(rows) == len(more["directions"]) == 2 + N_RANDOM
        assert rows[0] == [] and all(row == rows[1] for row in rows[1:])

        class Text:
            def __init__(self, text: str, n: int) -> None:
                self.text, self.n_patches_edited = text, n

        texts = self.answers + [self.answers[0]] * (2 + N_RANDOM - len(self.answers))
        for cut in (2, None):
            yield [Text(text[:cut], 0 if at == 0 else 7) for at, text in enumerate(texts)]


def answering(services: Services, *answers: str) -> Services:
    return replace(services, worker=Worker(list(answers) or None))


def ended(steps: Iterator[Waiting | AblationAnswers]) -> AblationAnswers:
    *_, last = steps
    assert isinstance(last, AblationAnswers)
    return last


# what is asked -------------------------------------------------------------------------------------------------------


@given(
    image=st.sampled_from(["", "black", "noise-5", "upload-0123456789abcdef", "explain-00-01", *HOSTILE[:20]]),
    patches=st.sets(st.integers(0, 255)),
    ranked=st.sampled_from(RANKINGS),
    heat=st.none() | st.integers(0, 10**6),
)
def test_what_is_asked_is_read_back(
    services: Services, image: str, patches: set[int], ranked: str, heat: int | None
) -> None:
    chosen = tuple(sorted(patches))
    read = tab.read_asked(services, tab.asked_of(image, chosen, ranked, heat))
    assert (read.image_id, read.patches, read.ranked, read.heat) == (image[:200], chosen, ranked, heat)


@pytest.mark.parametrize(
    "text", [None, "", "inspect=", "spot=9-1", "spot=1e9", "ranked=best&heat=-1&heat=x", 3, *HOSTILE]
)
def test_whatever_a_browser_asks_means_something(services: Services, text: object) -> None:
    read = tab.read_asked(services, text)
    assert read.ranked in RANKINGS
    assert read.heat is None
    assert all(0 <= one < services.store.grid.n_patches for one in read.patches)


def test_only_listed_numbers_light_the_map() -> None:
    assert tab.on_map("3.5.x.-1.7")["hits"] == [3, 5, 7]
    assert tab.on_map("")["hits"] == []
    assert len(tab.on_map(".".join(["1"] * 1000))["hits"]) <= tab.N_LISTED


# what is shown -------------------------------------------------------------------------------------------------------


def stored_only(services: Services) -> Inspection:
    image = services.store.exemplars(2)[0].image_id
    *_, last = inspect(services, "v", image)
    assert isinstance(last, Inspection)
    return last


def test_every_listed_feature_has_words_reliability_numbers_and_ways_on(services: Services) -> None:
    seen = stored_only(services)
    html = inspect_views.found(services, seen, "unusual", pinned=2)
    assert html.count('class="ico-found"') == len(seen.features) > 0
    row = html[html.index('data-feature="2"') :].split("</li>")[0]
    record = services.store.feature(2)
    assert record.best_text is not None and record.best_text in row
    assert re.search(r"AUROC .*0\.\d+.*\[0\.\d+, .*\].*n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}20", row)
    assert "truth: " in row and "quality filter" in row and "stored" in row
    assert 'aria-pressed="true"' in row
    assert 'data-without="2"' in row and f"image={seen.image_id}" in row and "steer=2%3Aablate" in row
    assert "The subject model did not look at it" in html


def test_where_nothing_fires_the_page_says_what_to_do(services: Services) -> None:
    nothing = replace(stored_only(services), features=(), n_firing=0, patches=(1,), live=True, missing=None)
    assert "Choose more patches" in inspect_views.found(services, nothing, "unusual", None)


@pytest.mark.parametrize("text", HOSTILE)
def test_words_of_strangers_stay_words(services: Services, text: str) -> None:
    frame = AblationAnswers(given="a b", without=text, random=(text,) * N_RANDOM, n_edited=3, done=True)
    for html in (ablation_views.ablation(services, 2, frame, text, ""), inspect_views.problem(text)):
        assert set(re.findall(r"<([a-z0-9]+)", html)) <= {
            *("div", "h3", "h4", "article", "span", "p", "mark", "del", "details", "summary", "ol", "li")
        }


def test_differences_mark_what_came_and_strike_what_went() -> None:
    html = ablation_views.differences("a crab on sand", "a red tower on sand")
    assert html == "a <del>crab</del> <mark>red tower</mark> on sand"
    assert ablation_views.differences("a b", "a b") == "a b"


# with and without ----------------------------------------------------------------------------------------------------


def test_answers_come_with_the_share_of_random_directions_that_change_them(services: Services) -> None:
    image = services.store.image_ids[0]
    frame = ended(answers_without(answering(services, "a crab", "sand", "sky", "sky"), "v", image, 2))
    assert (frame.given, frame.without, frame.random[:3]) == ("a crab", "sand", ("sky", "sky", "a crab"))
    assert (frame.n_edited, frame.changed, frame.random_changes.value) == (7, True, 2 / N_RANDOM)
    html = ablation_views.ablation(services, 2, frame, "what ?", "")
    for column in ("given", "without", "random"):
        assert f'data-column="{column}"' in html
    assert f"Of {N_RANDOM} random directions of the same size, 2 do" in html
    assert "95 % interval" in html and "n = 1" in html
    assert "any edit" not in html


def test_a_change_that_any_edit_would_make_is_called_one(services: Services) -> None:
    texts = ["a crab", "sand", *["sky"] * N_RANDOM]
    frame = ended(answers_without(answering(services, *texts), "v", "black", 2))
    assert "any edit of this size would do" in ablation_views.ablation(services, 2, frame, "what ?", "")


def test_what_cannot_be_asked_is_refused_at_once(services: Services) -> None:
    some = answering(services, "x")
    with pytest.raises(UnknownFeature):
        answers_without(some, "v", "black", 10)
    with pytest.raises(ImageMissing):
        answers_without(some, "v", "upload-0123456789abcdef", 2)
    for question in ("  ", "x" * (MAX_PROMPT_CHARACTERS + 1)):
        with pytest.raises(SubjectError):
            answers_without(some, "v", "black", 2, question)


def test_a_silent_feature_is_said_to_be_silent(services: Services) -> None:
    with pytest.raises(InterventionNotApplied, match=r"a black image.*Choose a feature that fires"):
        list(answers_without(answering(services), "v", "black", 2))
    with pytest.raises(InterventionNotApplied, match="lossy copy"):
        list(answers_without(answering(services), "v", services.store.image_ids[0], 2))


@pytest.mark.slow
def test_the_shipped_subject_answers_with_and_without(shipped_atlas: Path, repository: Path) -> None:
    import pyarrow.parquet as pq

    del repository
    services = open_services(shipped_atlas, verify=False, encoder=BagEncoder())
    images = pq.read_table(shipped_atlas / "images.parquet", columns=["image_id", "webp"]).slice(0, 1).to_pylist()
    name = uploads.SHELF.add(images[0]["webp"]).image_id
    *_, seen = inspect(services, "v", name, by="strongest")
    assert isinstance(seen, Inspection)
    frames = [ended(answers_without(services, "v", name, one.record.feature)) for one in seen.features[:3]]
    assert all(frame.given == frames[0].given and len(frame.given) > 5 for frame in frames)
    assert [frame.n_edited for frame in frames] == [one.n_active_image for one in seen.features[:3]]
