"""The public functions that need the model, on the shrunken subject: never an answer without its controls."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from app import uploads
from app.api import PublicApi
from app.api_arguments import visitor_of
from app.catalogue import Catalogue, open_catalogue
from app.steer_answers import COLUMNS
from backend.errors import (
    ImageFormatUnknown,
    ImageMissing,
    ImageTooLarge,
    ImageUnreadable,
    QueryError,
    SubjectError,
    SubjectMissing,
    UnknownFeature,
)
from tests.builders_app import SUBJECT_PROMPT, build_steerable_atlas
from tests.builders_atlas import BagEncoder
from tests.builders_subject import save_tiny_subject

pytestmark = pytest.mark.slow  # a real model, however small


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    folder = tmp_path_factory.mktemp("api")
    subject = save_tiny_subject(folder / "subject")
    return open_catalogue([build_steerable_atlas(folder / "atlas", subject, n_features=14)], encoder=BagEncoder())


@pytest.fixture(scope="module")
def public(catalogue: Catalogue) -> PublicApi:
    return PublicApi(catalogue)


def picture(colour: str = "red") -> str:
    stream = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def by(session: str) -> Any:
    """A request of a session of its own, so that no test uses up the allowance of another."""
    return SimpleNamespace(session_hash=session)


def test_an_answer_comes_with_its_controls(public: PublicApi, catalogue: Catalogue) -> None:
    answer = public.steer(2, 30.0, request=by("a"))
    assert tuple(answer["answers"]) == COLUMNS
    assert [one["is_control"] for one in answer["answers"].values()] == [True, False, True, True]
    assert [one["n_patches_edited"] for one in answer["answers"].values()] == [0, 16, 16, 16]
    assert all(one["n"] == 1 for one in answer["answers"].values())
    texts = [one["text"] for one in answer["answers"].values()]
    assert texts[1] not in (texts[0], texts[2])
    assert answer["prompt"] == SUBJECT_PROMPT
    assert answer["sampling"] == "greedy"
    assert answer["image_id"] == "blank"
    assert answer["atlas"]["artifact"] == catalogue.default.store.artifact.manifest.fingerprint
    assert answer["answered_by"] == catalogue.default.subject_name
    assert not answer["stopped"]
    assert "".join(one["token"] for one in answer["tokens"]).strip() == texts[1].strip()
    for token in answer["tokens"]:
        assert set(token["probability"]) == set(COLUMNS)
        assert all(0 <= value <= 1 for value in token["probability"].values())
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer


def test_the_same_question_gets_the_same_answer(public: PublicApi) -> None:
    asked = [public.steer(2, 30.0, temperature=1.0, seed=7, request=by("b")) for _ in range(2)]
    assert asked[0]["answers"] == asked[1]["answers"]
    assert asked[0]["sampling"] == "temperature 1, top-p 0.95, seed 7"


def test_no_strength_means_the_recommended_one(public: PublicApi, catalogue: Catalogue) -> None:
    record = catalogue.default.store.feature(2)
    told = public.steer(2, request=by("c"))["features"][0]
    assert told["strength"] == pytest.approx(record.recommended_strength, abs=0.1)
    assert told["multiple_of_maximum"] == pytest.approx(told["strength"] / record.maximum)
    assert told["text"] == record.best_text


def test_a_weighted_set_on_painted_patches_of_an_image(public: PublicApi, catalogue: Catalogue) -> None:
    image = catalogue.default.store.exemplars(2)[0].image_id
    more: Any = [{"feature": 3, "operation": "set", "strength": 12.0}, {"feature": 4}]
    answer = public.steer(2, 30.0, more=more, patches="0-2.5", image=image, prompt="why?", request=by("d"))
    assert [one["operation"] for one in answer["features"]] == ["add", "set", "add"]
    assert answer["patches"] == "0-2.5"
    assert answer["image_id"] == image
    assert [one["n_patches_edited"] for one in answer["answers"].values()] == [0, 4, 4, 4]


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"feature": 10}, UnknownFeature, "no feature 10"),
        ({"feature": 2.5}, QueryError, "whole number"),
        ({"feature": 2, "operation": "explode"}, QueryError, "add, set, ablate"),
        ({"feature": 2, "strength": float("nan")}, QueryError, "strength"),
        ({"feature": 2, "strength": 0.0}, SubjectError, "strength of 0"),
        ({"feature": 2, "patches": "5-3"}, QueryError, "patches"),
        ({"feature": 2, "patches": "everywhere"}, QueryError, "patches"),
        ({"feature": 2, "patches": "4000"}, SubjectError, "outside"),
        ({"feature": 2, "image": "no-such-image"}, ImageMissing, "no image"),
        ({"feature": 2, "prompt": "x" * 601}, SubjectError, "at most 600"),
        ({"feature": 2, "temperature": 99.0}, SubjectError, "temperature"),
        ({"feature": 2, "seed": -1}, QueryError, "seed"),
        ({"feature": 2, "more": [3]}, QueryError, "Each of more"),
        ({"feature": 2, "more": [{"feature": 3}] * 8}, SubjectError, "at most 8"),
        ({"feature": 2, "atlas": "elsewhere"}, QueryError, "no atlas"),
    ],
)
def test_wrong_questions_are_refused_in_words(
    public: PublicApi, arguments: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        public.steer(**arguments, request=by("e"))


def test_an_image_is_told_in_features_with_their_reliability(public: PublicApi, catalogue: Catalogue) -> None:
    store = catalogue.default.store
    image = store.exemplars(2)[0].image_id
    answer = public.inspect_image(image, n=5, with_grids=True, request=by("f"))
    assert answer["image_id"] == image
    assert answer["n_patches"] == store.grid.n_patches
    assert answer["atlas"]["artifact"] == store.artifact.manifest.fingerprint
    assert 0 < len(answer["features"]) <= 5
    assert 2 in {one["feature"] for one in answer["features"]}
    for one in answer["features"]:
        reliability = one["reliability"]
        assert reliability
        assert reliability["n"] > 0
        assert reliability["low"] is not None
        assert one["grid"]
        assert (len(one["grid"]), len(one["grid"][0])) == (store.grid.rows, store.grid.cols)
        assert sum(value > 0 for row in one["grid"] for value in row) == one["n_patches_active_image"]
    assert public.inspect_image(image, n=1, request=by("f"))["features"][0]["grid"] is None
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer


def test_patches_narrow_it_down(public: PublicApi, catalogue: Catalogue) -> None:
    exemplar = catalogue.default.store.exemplars(2)[0]
    silent = [int(one) for one in (exemplar.grid.ravel() == 0).nonzero()[0][:3]]
    answer = public.inspect_image(exemplar.image_id, patches=[*silent, silent[0]], request=by("g"))
    assert answer["patches"] == silent
    assert answer["n_patches"] == 3
    assert 2 not in {one["feature"] for one in answer["features"] if one["source"] == "stored in the atlas"}


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_bytes_of_a_picture_are_looked_at_and_can_be_steered(
    shipped_atlas: Path, shipped_subject: Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the shipped atlas: the planted one has other patches than its shrunken subject, which is refused."""
    del shipped_subject
    monkeypatch.setattr(uploads, "SHELF", uploads.Shelf())
    live = PublicApi(open_catalogue([shipped_atlas]))
    answer = live.inspect_image(image_base64=prefix + picture(), request=by("h"))
    assert uploads.is_upload(answer["image_id"])
    assert answer["by_model"]
    steered = live.steer(2, 30.0, image=answer["image_id"], request=by("h"))
    assert steered["image"] == "the uploaded picture"


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({}, QueryError, "either image"),
        ({"image": "black", "image_base64": "x"}, QueryError, "either image"),
        ({"image_base64": "not base64!"}, ImageUnreadable, "base64"),
        ({"image_base64": base64.b64encode(b"no picture at all").decode()}, ImageFormatUnknown, "format"),
        ({"image_base64": "A" * (28 * 2**20)}, ImageTooLarge, "20 MiB"),
        ({"image": "upload-0123456789abcdef"}, ImageMissing, "uploaded"),
        ({"image": "../../manifest.json"}, ImageMissing, "no image"),
        ({"image": "black", "patches": [-1]}, QueryError, "from 0 to 255"),
        ({"image": "black", "patches": [256]}, QueryError, "from 0 to 255"),
        ({"image": "black", "rank_by": "beauty"}, QueryError, "unusual, strongest"),
        ({"image": "black", "n": 0}, QueryError, "from 1 to 100"),
    ],
)
def test_wrong_pictures_are_refused_in_words(
    public: PublicApi, arguments: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        public.inspect_image(**arguments, request=by("i"))


def test_without_the_subject_stored_features_are_told_and_steering_says_why(planted_atlas: Any, tmp_path: Any) -> None:
    public = PublicApi(open_catalogue([planted_atlas], verify=False, encoder=BagEncoder()))
    image = public.get_feature(2, 1)["exemplars"][0]["image_id"]
    answer = public.inspect_image(image, request=by("j"))
    assert not answer["by_model"]
    assert answer["missing"]
    assert {one["source"] for one in answer["features"]} == {"stored in the atlas"}
    with pytest.raises(SubjectMissing):
        public.steer(2, 30.0, request=by("j"))


def test_who_asks() -> None:
    client = SimpleNamespace(host="192.0.2.1")
    assert visitor_of(SimpleNamespace(session_hash="s", client=client)) == "s"
    assert visitor_of(SimpleNamespace(session_hash=None, client=client)) == "192.0.2.1"
    assert visitor_of(SimpleNamespace(client=client)) == "192.0.2.1"
    assert visitor_of(None)
