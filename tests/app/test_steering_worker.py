"""Live steering on the shrunken subject: three columns in one batch, counted, stoppable, and never stuck."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from app.services import Services, open_services
from app.steering_worker import MAX_PROMPT_CHARACTERS, SteerFrame, SteerRequest
from app.tabs import steer
from backend.errors import InterventionNotApplied, SubjectError, SubjectMissing, UnknownFeature
from backend.types import Operation
from tests.builders_app import SUBJECT_PROMPT, build_steerable_atlas
from tests.builders_atlas import BagEncoder
from tests.builders_subject import save_tiny_subject


@pytest.fixture(scope="module")
def steerable(tmp_path_factory: pytest.TempPathFactory) -> Services:
    folder = tmp_path_factory.mktemp("steerable")
    subject = save_tiny_subject(folder / "subject")
    return open_services(build_steerable_atlas(folder / "atlas", subject, n_features=14), encoder=BagEncoder())


def ask(**more: object) -> SteerRequest:
    settings: dict[str, object] = {"feature": 2, "strength": 30.0, "prompt": SUBJECT_PROMPT}
    return SteerRequest(**{**settings, **more})  # type: ignore[arg-type]


def last(frames: Iterator[SteerFrame]) -> SteerFrame:
    return list(frames)[-1]


def test_three_columns_stream_with_their_counts_of_edited_patches(steerable: Services) -> None:
    frames = list(steerable.worker.run("visitor", ask()))
    assert len(frames) > 2
    assert [frame.done for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert all(frame.n_patches_edited == (0, 16, 16) for frame in frames)
    unsteered, steered, random = frames[-1].texts
    assert steered not in (unsteered, random)
    # Each frame goes on from the one before.
    assert all(b.texts[1].startswith(a.texts[1].rstrip()) for a, b in pairwise(frames))


def test_the_same_request_gives_the_same_answers(steerable: Services) -> None:
    assert last(steerable.worker.run("a", ask())).texts == last(steerable.worker.run("b", ask())).texts


def test_stop_ends_after_the_token_at_hand_and_says_so(steerable: Services) -> None:
    frames = steerable.worker.run("visitor", ask())
    next(frames)
    assert steerable.worker.stop("visitor")
    rest = list(frames)
    assert rest[-1].stopped
    whole = last(steerable.worker.run("visitor", ask()))
    assert len(rest[-1].texts[0]) < len(whole.texts[0])
    assert not steerable.worker.stop("visitor")


def test_a_reader_who_leaves_does_not_block_the_next(steerable: Services) -> None:
    left = steerable.worker.run("gone", ask())
    next(left)
    left.close()
    assert last(steerable.worker.run("next", ask())).done


def test_a_new_request_of_the_same_visitor_replaces_the_old(steerable: Services) -> None:
    old = steerable.worker.run("visitor", ask())
    next(old)
    new = steerable.worker.run("visitor", ask(feature=3))
    assert last(new).done
    assert list(old)[-1].stopped


def test_two_visitors_take_turns(steerable: Services) -> None:
    found: dict[str, SteerFrame] = {}
    threads = [
        threading.Thread(target=lambda name=name: found.update({name: last(steerable.worker.run(name, ask()))}))
        for name in ("a", "b")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found["a"].texts == found["b"].texts


def test_an_exemplar_image_can_be_steered(steerable: Services) -> None:
    image = steerable.store.exemplars(2)[0].image_id
    on_image, on_blank = (last(steerable.worker.run("v", ask(image_id=one))) for one in (image, None))
    assert on_image.texts[0] != on_blank.texts[0]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"feature": 10}, UnknownFeature),
        ({"image_id": "no-such-image"}, SubjectError),
        ({"operation": Operation.ABLATE}, InterventionNotApplied),
    ],
)
def test_impossible_requests_raise_and_free_the_model(
    steerable: Services, more: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        list(steerable.worker.run("visitor", ask(**more)))
    assert last(steerable.worker.run("visitor", ask())).done


@pytest.mark.parametrize("more", [{"prompt": "  "}, {"prompt": "x" * (MAX_PROMPT_CHARACTERS + 1)}, {"strength": 0.0}])
def test_requests_are_checked_before_the_model_sees_them(more: dict[str, object]) -> None:
    with pytest.raises(SubjectError):
        ask(**more)


def test_columns_are_labelled_and_the_line_below_says_what_was_done(steerable: Services) -> None:
    pages = list(steer.answers(steerable, "visitor", ask()))
    html = pages[-1]
    for title in ("Unsteered", "Steered", "Random direction"):
        assert f"<h3>{title}</h3>" in html
    assert "16 patches edited" in html
    assert "0 patches edited" in html
    assert "add feature 2 at strength 30.0 L2 on all patches of the blank image" in html
    assert "is-streaming" in pages[0]
    assert "is-streaming" not in html


def test_a_missing_subject_is_said_in_words_and_browsing_goes_on(services: Services, planted_atlas: Path) -> None:
    services.worker.warm().join(timeout=60)
    assert services.worker.failure
    assert not services.worker.ready
    with pytest.raises(SubjectMissing):
        list(services.worker.run("visitor", ask()))
    assert services.store.feature(2).feature == 2
    assert planted_atlas.exists()
