"""The five functions that programs may call: over HTTP, through gradio_client, and as MCP tools.

Everything else on the page is private. The docstrings below are what MCP clients read, so each argument has one line.
Every answer is plain JSON, names its atlas with the artifact's fingerprint, and gives n and intervals with its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.events import api as offer

from app import pictures
from app.api_arguments import SteeredFeature, clean, of_set, steer_row, uploaded, visitor_of, where_of, whole
from app.api_model import InspectAnswer, SteerAnswer, inspect_answer, steer_answer
from app.api_reads import AtlasesAnswer, SearchAnswer, atlas_answer, hit_answer
from app.catalogue import Catalogue
from app.feature_document import FeatureDocument, feature_document, stamp
from app.inspecting import RANKINGS, UNUSUAL
from app.inspecting import inspect as inspect_picture
from app.publishing import published
from app.services import Services
from app.steer_setup import SteerSetup
from backend.errors import QueryError

MOST_HITS = 100
MOST_EXEMPLARS = 24
MOST_ON_IMAGE = 100


class PublicApi:
    """The public functions over the atlases of one explorer."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def list_atlases(self) -> AtlasesAnswer:
        """List the feature atlases this explorer serves: subject model, layer, SAE quality, methods, metrics, prompts.

        An atlas holds the features of one sparse autoencoder (SAE) inside the vision tower of a vision-language model,
        each explained in words by several methods and scored. Use an atlas's key as the argument of the other tools.
        """
        return {"default": self._catalogue.default.key, "atlases": [atlas_answer(one) for one in self._catalogue]}

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
            "hits": [hit_answer(services, one) for one in hits],
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

    def steer(
        self,
        feature: int,
        strength: float | None = None,
        operation: str = "add",
        more: list[SteeredFeature] | None = None,
        patches: str = "all",
        image: str = "blank",
        prompt: str = "",
        temperature: float | None = None,
        seed: int = 0,
        atlas: str = "",
        request: gr.Request | None = None,
    ) -> SteerAnswer:
        """Push a vision-language model along a feature of its vision tower, and read what it then says of an image.

        Always answers four times at once: unsteered, steered, and two controls (random directions, and the directions
        of other features, with the same strengths on the same patches). Trust only what differs from every control.

        Args:
            feature: number of the feature
            strength: residual-stream L2 units, may be negative; null for the feature's recommended strength
            operation: "add" the direction, "set" the patches to it, or "ablate" the feature's own activation
            more: further features of a weighted set, each with feature, operation and strength; at most 7
            patches: "all", "active" (where the feature fires), or flat row-major numbers like "3-5.9"
            image: image id: "blank", "black", "noise-7", one of get_feature, or one that inspect_image answered
            prompt: question about the image, up to 600 characters; empty for the paper's steering prompt
            temperature: null for greedy answers, else 0.05 to 5; all four answers then share their random numbers
            seed: of the sampling
            atlas: key of the atlas (see list_atlases); empty for the default one
        """
        services = self._services(atlas)
        wanted = [(feature, operation, strength), *(of_set(one) for one in more or ())]
        setup = SteerSetup(
            rows=tuple(steer_row(services, whole("feature", number, 0, 2**31 - 1), *how) for number, *how in wanted),
            where=where_of(clean(patches)),
            image_id=pictures.normal(clean(image)),
            prompt=clean(prompt) or next(iter(services.meta["prompts"].values())),
            temperature=temperature,
            seed=whole("seed", seed, 0, 10**9),
        )
        return steer_answer(services, visitor_of(request), setup)

    def inspect_image(
        self,
        image: str = "",
        image_base64: str = "",
        patches: list[int] | None = None,
        rank_by: str = UNUSUAL,
        n: int = 20,
        with_grids: bool = False,
        atlas: str = "",
        request: gr.Request | None = None,
    ) -> InspectAnswer:
        """Look at an image through a vision encoder's features: which fire on it, where, and what they mean in words.

        Each feature comes with the truth verdict on its words where known, and with their reliability: how well the
        words predict the feature (AUROC, 0.5 is chance) with n and a 95 % interval. A picture given in base64 is kept
        in memory under the image id of the answer, so that steer can use it.

        Args:
            image: image id: one of get_feature, "black", "noise-7", or one that this function answered before
            image_base64: instead of an id, a picture's bytes in base64 (JPEG, PNG, WebP, GIF, BMP, TIFF; up to 20 MiB)
            patches: flat row-major numbers of the patches to look at; null for the whole image
            rank_by: "unusual" (strong for the feature, and rare) or "strongest" (mean activation)
            n: how many features at most, 1 to 100
            with_grids: also give each feature's activation on every patch
            atlas: key of the atlas (see list_atlases); empty for the default one
        """
        services = self._services(atlas)
        if bool(image) == bool(image_base64):
            raise QueryError("Give either image (an id) or image_base64 (a picture's bytes).")
        if rank_by not in RANKINGS:
            raise QueryError(f"rank_by must be one of {', '.join(RANKINGS)}.")
        most = services.store.grid.n_patches - 1
        chosen = sorted({whole("a patch", one, 0, most) for one in patches or ()})
        who = visitor_of(request)
        image_id = uploaded(image_base64, who) if image_base64 else clean(image)
        wanted = whole("n", n, 1, MOST_ON_IMAGE)
        steps = inspect_picture(services, who, image_id, chosen, by=rank_by, most=wanted)
        return inspect_answer(services, steps, with_grids)

    def _services(self, key: str) -> Services:
        """The atlas of a key. Raises QueryError for keys nobody knows: a program must not get another's data."""
        if key and key not in self._catalogue:
            known = ", ".join(one.key for one in self._catalogue)
            raise QueryError(f"There is no atlas {clean(key)[:80]!r} here. Served are: {known}.")
        return self._catalogue.get(key)

    def functions(self) -> Sequence[Callable[..., Any]]:
        """What is public."""
        return (self.list_atlases, self.search_features, self.get_feature, self.steer, self.inspect_image)


def register(catalogue: Catalogue) -> None:
    """Offer the public functions. Call inside the Blocks context."""
    for function in PublicApi(catalogue).functions():
        # Not queued: reads answer at once, and the model has its own fair line (app/subject_worker.py).
        offer(published(function), queue=False)
