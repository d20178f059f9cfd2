"""Live steering on the shrunken subject: four columns in one batch, doses, probabilities, and Stop."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import exp
from typing import Any

import pytest

from app.services import Services, open_services
from app.steer_answers import COLUMNS, OWN_DOSE, AnswerFrame, DoseFrame, answers, doses
from app.steer_runs import shown_answers, shown_doses
from app.steer_setup import DOSES, SteerRow, SteerSetup, Where
from app.steer_views import described, probability, recorded
from app.subject_worker import Limits, SubjectWorkers, Waiting
from backend.errors import ImageMissing, InterventionNotApplied, SubjectBusy, SubjectError, UnknownFeature
from backend.types import Operation, PatchScope
from tests.builders_app import SUBJECT_PROMPT, build_steerable_atlas
from tests.builders_atlas import BagEncoder
from tests.builders_subject import save_tiny_subject

PATIENT = Limits(burst=10_000)


@pytest.fixture(scope="module")
def steerable(tmp_path_factory: pytest.TempPathFactory) -> Services:
    folder = tmp_path_factory.mktemp("steerable")
    subject = save_tiny_subject(folder / "subject")
    atlas = build_steerable_atlas(folder / "atlas", subject, n_features=14)
    return open_services(atlas, encoder=BagEncoder(), workers=SubjectWorkers(limits=PATIENT))


SILENT = 4
"""A feature that fires on no patch of the blank image."""


def setup(**more: Any) -> SteerSetup:
    return SteerSetup(**{"rows": (SteerRow(feature=2, strength=30.0),), "prompt": SUBJECT_PROMPT, **more})


def frames_of(run: Iterator[Waiting | AnswerFrame]) -> list[AnswerFrame]:
    return [one for one in run if isinstance(one, AnswerFrame)]


def test_four_columns_stream_with_their_counts_and_end_with_probabilities(steerable: Services) -> None:
    frames = frames_of(answers(steerable, "visitor", setup()))
    assert len(frames) > 3
    assert [frame.done for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert all(frame.n_patches_edited == (0, 16, 16, 16) for frame in frames)
    last = frames[-1]
    unsteered, steered, random, permuted = last.texts
    assert len({unsteered, steered, random, permuted}) >= 3
    assert all(b.texts[1].startswith(a.texts[1].rstrip()) for a, b in pairwise(frames))
    assert [len(row) for row in last.tokens] == [len(last.tokens[1])] * len(COLUMNS)
    # The steered column said it, greedily: nothing was likelier there.
    assert all(one.log_probability == one.likeliest_log_probability for one in last.tokens[1])
    assert "".join(one.text for one in last.tokens[1]).strip() == steered
    assert any(one.likeliest_log_probability > one.log_probability for one in last.tokens[0])


def test_the_permuted_column_is_the_other_features_own_answer(steerable: Services) -> None:
    from backend.directions import permuted_feature

    partner = permuted_feature(2, steerable.store.feature_ids.tolist())
    whole = frames_of(answers(steerable, "a", setup()))[-1]
    other = frames_of(answers(steerable, "a", setup(rows=(SteerRow(feature=partner, strength=30.0),))))[-1]
    assert whole.texts[3] == other.texts[1]


def test_the_same_setup_gives_the_same_answers_greedy_or_with_the_same_seed(steerable: Services) -> None:
    for more in ({}, {"temperature": 2.0, "seed": 3}):
        first, again = (frames_of(answers(steerable, name, setup(**more)))[-1] for name in "ab")
        assert first.texts == again.texts
    other = frames_of(answers(steerable, "a", setup(temperature=2.0, seed=4)))[-1]
    assert other.texts != first.texts


def test_several_features_painted_patches_and_an_exemplar(steerable: Services) -> None:
    image = steerable.store.exemplars(2)[0].image_id
    rows = (SteerRow(feature=2, strength=30.0), SteerRow(feature=3, strength=-9.0, operation=Operation.SET))
    one = setup(rows=rows, where=Where(PatchScope.GIVEN, (1, 2, 7)), image_id=image)
    last = frames_of(answers(steerable, "a", one))[-1]
    assert last.n_patches_edited == (0, 3, 3, 3)
    blank = frames_of(answers(steerable, "a", setup(rows=rows)))[-1]
    assert blank.texts[0] != last.texts[0]


def test_stop_ends_after_the_token_at_hand_and_says_so(steerable: Services) -> None:
    run = answers(steerable, "visitor", setup())
    seen = [next(run), next(run)]
    assert isinstance(seen[0], Waiting) and isinstance(seen[1], AnswerFrame)
    assert steerable.worker.stop("visitor") == 1
    last = frames_of(run)[-1]
    assert last.stopped and last.done and not last.tokens
    whole = frames_of(answers(steerable, "visitor", setup()))[-1]
    assert len(last.texts[0]) < len(whole.texts[0])
    assert steerable.worker.workers.n_taken == 0


def test_doses_stream_in_one_batch_beside_a_random_direction(steerable: Services) -> None:
    frames = [one for one in doses(steerable, "a", setup()) if isinstance(one, DoseFrame)]
    last = frames[-1]
    assert len(frames) > 3 and last.done
    assert len(last.steered) == len(last.random) == len(last.p_own) == len(last.p_unsteered) == len(DOSES)
    own = frames_of(answers(steerable, "a", setup()))[-1]
    # The strip's answers are the beginnings of the long ones: same edit, same words.
    assert own.texts[1].startswith(last.steered[OWN_DOSE])
    assert own.texts[0].startswith(last.unsteered)
    assert own.texts[2].startswith(last.random[OWN_DOSE])
    assert all(0 <= one <= 1 for one in (*last.p_own, *last.p_unsteered))
    # A twentieth of the strength all but leaves the unsteered answer; eight times it does not.
    assert last.p_unsteered[0] > last.p_unsteered[-1]


def test_the_curves_of_the_strip_are_mean_probabilities_of_whole_answers(steerable: Services) -> None:
    last = [one for one in doses(steerable, "a", setup()) if isinstance(one, DoseFrame)][-1]

    def alone(session: Any, should_stop: Any) -> Iterator[float]:
        for answer in (last.steered[OWN_DOSE], last.unsteered):
            for factor in DOSES:
                tokens = session.answer_probabilities([setup().scaled(factor).interventions], SUBJECT_PROMPT, answer)[0]
                yield exp(sum(one.log_probability for one in tokens) / len(tokens))

    values = [one for one in steerable.worker.run("a", alone) if isinstance(one, float)]
    assert [*last.p_own, *last.p_unsteered] == pytest.approx(values, rel=1e-3)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"rows": (SteerRow(feature=10, strength=3.0),)}, UnknownFeature),
        ({"image_id": "no-such-image"}, ImageMissing),
        ({"rows": (SteerRow(feature=SILENT, operation=Operation.ABLATE),)}, InterventionNotApplied),
        ({"where": Where(PatchScope.GIVEN, (16,))}, SubjectError),
    ],
)
def test_impossible_setups_raise_and_free_the_model(
    steerable: Services, more: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        list(answers(steerable, "visitor", setup(**more)))
    assert frames_of(answers(steerable, "visitor", setup()))[-1].done


def test_what_is_not_active_is_told_with_what_to_do(steerable: Services) -> None:
    ablate = setup(rows=(SteerRow(feature=SILENT, operation=Operation.ABLATE),))
    with pytest.raises(InterventionNotApplied, match=rf"feature {SILENT} .* exemplars as the image"):
        list(answers(steerable, "a", ablate))
    with pytest.raises(SubjectError, match="no strength to vary"):
        list(doses(steerable, "a", ablate))


# ------------------------------------------------------------------------------------------------- as it is shown


def test_columns_are_labelled_and_the_line_says_what_was_done(steerable: Services) -> None:
    rows = (SteerRow(feature=2, strength=30.0), SteerRow(feature=3, strength=5.0, operation=Operation.SET))
    pages = list(shown_answers(steerable, "visitor", setup(rows=rows, where=Where(PatchScope.GIVEN, (1, 2, 3)))))
    html = pages[-1]
    for title in ("Unsteered", "Steered", "Random direction", "Permuted direction"):
        assert f"<h3>{title}</h3>" in html
        assert f"<h3>{title}</h3>" in pages[0], "controls are visible from the first moment"
    assert html.count("3 patches edited") == 3
    assert html.count("0 patches edited") == 1
    done = "add feature 2 at strength 30.0 L2, then set feature 3 at strength 5.0 L2 on 3 of 256 patches (1-3) of"
    assert done in html
    assert "(n = 1)" in html
    assert "is-streaming" in pages[1] and "is-streaming" not in html


def test_every_token_has_its_probability_in_all_columns_as_a_table_too(steerable: Services) -> None:
    frame = frames_of(answers(steerable, "a", setup()))[-1]
    html = list(shown_answers(steerable, "a", setup()))[-1]
    n = len(frame.tokens[1])
    assert html.count('class="ico-token-text"') == n
    assert html.count("<tr>") == n + 1
    assert html.count('data-row="unsteered" style') == n
    for row in frame.tokens:
        assert f"--p:{exp(row[0].log_probability):.3f}" in html
    assert f"The steered answer has {n} tokens" in html


def test_small_probabilities_are_not_called_zero() -> None:
    assert probability(0.0) == "1.00"
    assert probability(-0.5) == "0.61"
    assert probability(-20.0) == "<\N{NO-BREAK SPACE}0.01"


def test_the_strip_shows_each_strength_with_its_control_and_what_a_press_takes_over(steerable: Services) -> None:
    html = list(shown_doses(steerable, "a", setup()))[-1]
    assert html.count("data-steer-take=") == html.count('class="ico-dose-control"') == len(DOSES)
    for factor in DOSES:
        assert f'data-steer-take="2:add:{30.0 * factor:.6g}"' in html
    assert html.count("is-own") == 1
    assert "at most 16 tokens, n = 1 answer each" in html
    several = (SteerRow(feature=2, strength=30.0), SteerRow(feature=3, operation=Operation.ABLATE))
    assert "2:add:3,3:ablate" in "".join(_strip_of(steerable, several))


def _strip_of(services: Services, rows: tuple[SteerRow, ...]) -> list[str]:
    from app.steer_views import dose_strip

    return [dose_strip(services, setup(rows=rows), None, "Starting …", streaming=True)]


def test_the_line_names_the_draw(services: Services) -> None:
    told = described(services, setup(temperature=0.8, top_p=0.9, seed=5, image_id="noise-3"))
    assert told.endswith("sampled at temperature 0.8, top-p 0.9, seed 5")
    assert "on all 256 patches of noise" in told
    assert described(services, setup()).endswith("; greedy")


def test_a_newer_run_of_the_same_visitor_ends_the_older_one_without_a_word(steerable: Services) -> None:
    old = shown_answers(steerable, "visitor", setup())
    for _ in range(3):
        next(old)
    new = list(shown_answers(steerable, "visitor", setup(rows=(SteerRow(feature=3, strength=20.0),))))
    assert "Done in" in new[-1]
    assert not any("Stopped" in page or "Done" in page for page in old)


def test_the_strip_does_not_silence_the_columns_it_interrupts(steerable: Services) -> None:
    old = shown_answers(steerable, "visitor", setup())
    for _ in range(3):
        next(old)
    list(shown_doses(steerable, "visitor", setup()))
    assert "Stopped in" in list(old)[-1]


def test_too_much_is_refused_in_words_on_the_page_too(steerable: Services) -> None:
    workers = SubjectWorkers(limits=Limits(burst=1))
    one = Services(atlas=steerable.atlas, worker=workers.of(steerable.atlas))
    assert "Done in" in list(shown_answers(one, "a", setup()))[-1]
    run = shown_answers(one, "a", setup())
    assert "is-streaming" in next(run)
    assert "No answer: That was 1 request" in next(run)
    with pytest.raises(SubjectBusy, match="Try again in"):
        next(run)


def test_recorded_answers_stand_beside_the_live_ones(services: Services) -> None:
    html = recorded(services, services.store.feature(2))
    for label in ("Recorded in the atlas", "Steering", "No steering", "Random direction", "Permuted direction"):
        assert label in html
    assert "n = 1" in html
