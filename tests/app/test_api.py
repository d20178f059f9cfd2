"""The public functions: right answers, clear refusals, and nothing public beside them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from app import publishing
from app.api import PublicApi
from app.catalogue import Catalogue, open_catalogue
from app.publishing import ApiError, published
from app.ui import build_ui
from backend.errors import EmptyQuery, QueryError, UnknownFeature
from tests.builders_atlas import BagEncoder
from tests.hostile import HOSTILE

PUBLIC = {"list_atlases", "search_features", "get_feature", "steer", "inspect_image"}


@pytest.fixture(scope="module")
def catalogue(planted_atlas: Path) -> Catalogue:
    return open_catalogue([planted_atlas], verify=False, encoder=BagEncoder())


@pytest.fixture(scope="module")
def public(catalogue: Catalogue) -> PublicApi:
    return PublicApi(catalogue)


@pytest.fixture(scope="module")
def blocks(catalogue: Catalogue) -> gr.Blocks:
    return build_ui(catalogue)


def test_exactly_these_functions_are_public(blocks: gr.Blocks) -> None:
    info = blocks.get_api_info()
    assert {name.lstrip("/") for name in info["named_endpoints"]} == PUBLIC
    assert info["unnamed_endpoints"] == {}
    public = {fn.api_name: fn for fn in blocks.fns.values() if fn.api_visibility != "private"}
    assert set(public) == PUBLIC
    assert not any(fn.queue for fn in public.values())


def test_types_and_descriptions_reach_the_schema(blocks: gr.Blocks) -> None:
    endpoints = blocks.get_api_info()["named_endpoints"]
    for name in PUBLIC:
        function = getattr(PublicApi, name)
        endpoint = endpoints[f"/{name}"]
        assert endpoint.get("description", "").startswith((inspect.getdoc(function) or "none").splitlines()[0])
        arguments = [one for one in inspect.signature(function).parameters if one not in {"self", "request"}]
        assert [one["parameter_name"] for one in endpoint["parameters"]] == arguments
        assert all(one["type"] for one in endpoint["parameters"])
        properties = endpoint["returns"][0]["type"]["properties"]
        assert "atlas" in properties or "atlases" in properties
        for argument in arguments:
            assert f"{argument}: " in (function.__doc__ or ""), f"{name} does not say what {argument} is"


def test_atlases_are_listed_with_what_they_are(public: PublicApi, catalogue: Catalogue) -> None:
    answer = public.list_atlases()
    assert answer["default"] == catalogue.default.key
    one = answer["atlases"][0]
    assert one["artifact"] == catalogue.default.store.artifact.manifest.fingerprint
    assert one["n_features"] == len(catalogue.default.store)
    assert {method["kind"] for method in one["methods"]} == {"method", "control"}
    coverage: Any = one["concept_coverage"]
    assert {"value", "n", "low", "high"} <= coverage["all"].keys()


def test_search_says_why_and_how_far_to_trust(public: PublicApi, catalogue: Catalogue) -> None:
    answer = public.search_features("crab", n=3)
    assert answer["n"] == len(answer["hits"]) == 3
    assert answer["n_searched"] == len(catalogue.default.store)
    assert answer["atlas"]["artifact"] == catalogue.default.store.artifact.manifest.fingerprint
    for hit in answer["hits"]:
        assert "crab" in hit["text"] + hit["why"]
        measured = [score for score in hit["scores"] if score["value"] is not None]
        assert measured
        assert all(score["n"] and score["low"] is not None and score["high"] is not None for score in measured)
        assert hit["link"].endswith(f"feature={hit['feature']}")


def test_a_feature_is_its_document(public: PublicApi) -> None:
    document = public.get_feature(2, n_exemplars=1)
    assert document["feature"] == 2
    assert len(document["exemplars"]) == 3
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda public: public.search_features(""), EmptyQuery, "no words"),
        (lambda public: public.search_features("crab", n=0), QueryError, "from 1 to 100"),
        (lambda public: public.search_features("crab", n=10**9), QueryError, "from 1 to 100"),
        (lambda public: public.search_features("crab", n="many"), QueryError, "whole number"),
        (lambda public: public.search_features("crab", n=True), QueryError, "whole number"),
        (lambda public: public.search_features(["crab"]), QueryError, "Text was expected"),
        (lambda public: public.search_features("crab", atlas="elsewhere"), QueryError, "Served are: planted-1"),
        (lambda public: public.get_feature(10), UnknownFeature, "no feature 10"),
        (lambda public: public.get_feature(-1), QueryError, "from 0"),
        (lambda public: public.get_feature(2.5), QueryError, "whole number"),
        (lambda public: public.get_feature(float("nan")), QueryError, "whole number"),
        (lambda public: public.get_feature(float("inf")), QueryError, "whole number"),
        (lambda public: public.get_feature(2, n_exemplars=-1), QueryError, "from 0 to 24"),
    ],
)
def test_wrong_arguments_are_told(public: PublicApi, call: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        call(public)


@pytest.mark.parametrize("text", [*HOSTILE, "lone \ud800 surrogate"])
def test_hostile_arguments_get_an_answer_or_a_refusal(public: PublicApi, text: str) -> None:
    try:
        answer = public.search_features(text)
    except EmptyQuery:
        return
    json.dumps(answer, allow_nan=False).encode("utf-8")
    with pytest.raises(QueryError):
        public.get_feature(2, atlas=text)


def test_errors_reach_a_program_as_they_are() -> None:
    def refuse(name: str) -> str:
        raise QueryError(f"no <{name}> here")

    with pytest.raises(ApiError) as caught:
        published(refuse)("b")
    assert str(caught.value) == caught.value.message == "no <b> here"
    assert caught.value.print_exception is False


def test_a_fault_of_ours_stays_one() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        published(fail)()


def test_without_the_mcp_package_nothing_breaks(monkeypatch: pytest.MonkeyPatch, blocks: gr.Blocks) -> None:
    monkeypatch.setattr(publishing, "find_spec", lambda name: None)
    assert not publishing.has_mcp()
    assert blocks.mcp_server_obj is None
    publishing.answer_in_json(blocks)
