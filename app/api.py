"""The five functions that programs may call: over HTTP, through gradio_client, and as MCP tools.

Everything else on the page is private. The docstrings below are what MCP clients read, so each argument has one line.
Every answer is plain JSON, names its atlas with the artifact's fingerprint, and gives n and intervals with its numbers.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, ParamSpec, TypedDict, TypeVar

import gradio as gr
from gradio.events import api as offer

from app.catalogue import Catalogue
from app.feature_document import (
    AtlasStamp,
    FeatureDocument,
    ScoreDocument,
    feature_document,
    link,
    score_documents,
    stamp,
)
from app.services import Services
from backend.errors import IconoscopeError, QueryError

MOST_HITS = 100
MOST_EXEMPLARS = 24
P = ParamSpec("P")
R = TypeVar("R")


class ApiError(gr.Error):
    """An error of ours as programs read it: the message itself, nothing escaped, no traceback on the server."""

    def __init__(self, message: str) -> None:
        super().__init__(message, title="That did not work", print_exception=False)

    def __str__(self) -> str:
        return str(self.message)


class AtlasAnswer(AtlasStamp):
    """One atlas that is served here."""

    subject: dict[str, Any]
    hook_point: dict[str, Any]
    sae: dict[str, Any]
    methods: list[dict[str, str]]
    metrics: list[dict[str, Any]]
    prompts: dict[str, str]
    concept_coverage: dict[str, Any] | None
    recipe: str | None
    link: str


class AtlasesAnswer(TypedDict):
    """The atlases of this explorer; ``default`` is used where no key is given."""

    default: str
    atlases: list[AtlasAnswer]


class HitAnswer(TypedDict):
    """One feature that answers a query, why, and how far its words can be trusted."""

    feature: int
    text: str
    written_by: str | None
    why: str
    score: float
    similarity: float | None
    truth: str
    firing_fraction: float
    n_images_active: int
    scores: list[ScoreDocument]
    link: str


class SearchAnswer(TypedDict):
    """Hits, best first; ``n_searched`` features were considered."""

    atlas: AtlasStamp
    query: str
    n: int
    n_searched: int
    hits: list[HitAnswer]


class PublicApi:
    """The public functions over the atlases of one explorer."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def list_atlases(self) -> AtlasesAnswer:
        """List the feature atlases this explorer serves: subject model, layer, SAE quality, methods, metrics, prompts.

        An atlas holds the features of one sparse autoencoder (SAE) inside the vision tower of a vision-language model,
        each explained in words by several methods and scored. Use an atlas's key as the argument of the other tools.
        """
        return {"default": self._catalogue.default.key, "atlases": [_atlas(one) for one in self._catalogue]}

    def search_features(self, query: str, n: int = 20, atlas: str = "") -> SearchAnswer:
        """Find the features of a vision encoder that fit a description, by meaning and by words.

        Searches what every method said about each feature, the known concepts and the cluster labels. Each hit says why
        it was found and carries the scores of the words shown, with n and 95 % intervals: read them before trusting.

        Args:
            query: what the feature should show, in plain words, e.g. "striped pattern" or "depth"
            n: how many hits at most, 1 to 100
            atlas: key of the atlas (see list_atlases); empty for the default one
        """
        services = self._services(atlas)
        wanted = whole("n", n, 1, MOST_HITS)
        text = clean(query)
        hits = services.search.query(text, wanted)
        return {
            "atlas": stamp(services),
            "query": text,
            "n": len(hits),
            "n_searched": len(services.store),
            "hits": [_hit(services, one) for one in hits],
        }

    def get_feature(self, feature: int, n_exemplars: int = 6, atlas: str = "") -> FeatureDocument:
        """Everything known about one feature: explanations of all methods and controls with scores, exemplar images.

        Scores come with n, a 95 % interval and what chance gives. Controls (no steering, random and permuted direction)
        show what the same procedure says without the feature. Addresses of images are relative to the explorer's.

        Args:
            feature: number of the feature, as search_features gives it
            n_exemplars: how many exemplars of each ranking (mean, max, decile), 0 to 24
            atlas: key of the atlas (see list_atlases); empty for the default one
        """
        services = self._services(atlas)
        number = whole("feature", feature, 0, 2**31 - 1)
        return feature_document(services, number, whole("n_exemplars", n_exemplars, 0, MOST_EXEMPLARS))

    def _services(self, key: str) -> Services:
        """The atlas of a key. Raises QueryError for keys nobody knows: a program must not get another's data."""
        if key and key not in self._catalogue:
            known = ", ".join(one.key for one in self._catalogue)
            raise QueryError(f"There is no atlas {clean(key)[:80]!r} here. Served are: {known}.")
        return self._catalogue.get(key)

    def functions(self) -> Sequence[Callable[..., Any]]:
        """What is public."""
        return (self.list_atlases, self.search_features, self.get_feature)


def register(catalogue: Catalogue) -> None:
    """Offer the public functions. Call inside the Blocks context."""
    for function in PublicApi(catalogue).functions():
        # Not queued: reads answer at once, and the model has its own fair line (app/subject_worker.py).
        offer(published(function), queue=False)


def published(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` with our errors made readable, and with its signature as Gradio needs it: types, not their names."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except IconoscopeError as error:
            raise ApiError(str(error)) from error

    called.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    return called


def answer_in_json(blocks: gr.Blocks) -> None:
    """Let MCP tools answer in JSON; Gradio's own text of a dictionary is Python's. Call once the server runs."""
    server = blocks.mcp_server_obj
    if server is None:
        return
    text_content = server.types.TextContent

    def as_json(data: Sequence[Any], root_url: str) -> list[Any]:
        del root_url
        return [text_content(type="text", text=json.dumps(one, ensure_ascii=False, allow_nan=False)) for one in data]

    server.postprocess_output_data = as_json


def has_mcp() -> bool:
    """Whether the ``mcp`` package is installed."""
    return find_spec("mcp") is not None


def clean(text: object) -> str:
    """A string that can be encoded: lone surrogates, which JSON may bring, become replacement signs."""
    if not isinstance(text, str):
        raise QueryError(f"Text was expected, not {type(text).__name__}.")
    return text.encode("utf-8", "replace").decode("utf-8")


def whole(name: str, value: object, low: int, high: int) -> int:
    """A whole number within limits. Raises QueryError with the limits."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value % 1:
        raise QueryError(f"{name} must be a whole number, not {str(value)[:40]!r}.")
    if not low <= value <= high:
        raise QueryError(f"{name} is {value:g}; it must be from {low} to {high}.")
    return int(value)


def _atlas(services: Services) -> AtlasAnswer:
    meta = services.meta
    subject = meta.get("subject") or {}
    return {
        **stamp(services),
        "subject": {name: subject.get(name) for name in ("name", "repository", "fingerprint")},
        "hook_point": dict(meta.get("hook_point") or {}),
        "sae": dict(meta.get("sae") or {}),
        "methods": [
            {"arm": arm.key, "label": arm.label, "kind": "control" if arm.is_control else "method"}
            for arm in services.store.arms
        ],
        "metrics": [dict(card) for card in services.metric_cards.values()],
        "prompts": dict(meta.get("prompts") or {}),
        "concept_coverage": meta.get("concept_coverage"),
        "recipe": meta.get("recipe"),
        "link": f"?atlas={services.key}",
    }


def _hit(services: Services, hit: Any) -> HitAnswer:
    record = services.store.feature(hit.feature)
    scores = services.store.scores(hit.feature)
    return {
        "feature": hit.feature,
        "text": hit.text,
        "written_by": hit.arm.label if hit.arm is not None else None,
        "why": hit.why,
        "score": hit.score,
        "similarity": hit.similarity,
        "truth": services.best_outcome(hit.feature),
        "firing_fraction": record.firing_fraction,
        "n_images_active": record.n_images_active,
        "scores": score_documents(services, scores.get(hit.arm, ())) if hit.arm is not None else [],
        "link": link(services, hit.feature),
    }
