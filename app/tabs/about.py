"""About: where everything comes from, under which licences, and what it does not show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components import addresses
from app.components.cards import go_button
from app.components.markup import Child, Markup, h
from app.components.numbers import count, estimate, number
from app.hub import Hub, Updates
from app.services import Services
from app.url_fields import Field, UrlState
from backend.feature_store import FeatureRecord

TITLE = "About"
FIELDS: tuple[Field, ...] = ()
PAPER = "https://arxiv.org/abs/2603.22593"
GUIDE = {
    "map": ("Map", "Browse all features by what they mean. Point at one to read it, click to open it."),
    "search": ("Search", "Find features for a concept, for a picture, or like another feature."),
    "feature": ("Feature", "Read one: where it fires, how each method explains it, and how well each does."),
    "inspect": ("Inspect", "Ask why the model says what it says about your own picture."),
    "steer": ("Steer", "Push the model along a feature and see what it then says, beside controls."),
    "compare": ("Compare", "Which method explains best, by how much, and where they disagree."),
}
"""Tab to its name and what it answers."""
WORDS: dict[str, Child] = {
    "feature": "A direction that a sparse autoencoder found in the vision model; it fires on patches of some images.",
    "activation": "How strongly a feature fires on a patch; 0 where it does not.",
    "exemplar": "An image on which the feature fires strongly.",
    "explanation": "What a method says the feature stands for. Steering reads it off a blank image to which the "
    "feature is added (cause); Top-k reads it off the exemplars (correlation); Steering-informed Top-k does both.",
    "control": "The same procedure without the feature: no steering, a random direction, or another feature's.",
    "strength": "How much of the feature is added, in the length (L2) of the change to the residual stream.",
    "interval": "[low, high]: a range with the true value in 95 of 100 such experiments; n: how many were seen.",
}
"""The few words without which no page can be read (docs/glossary.md has them all)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AboutTab:
    """Components of the tab."""

    page: gr.HTML


def build(services: Services) -> AboutTab:
    return AboutTab(page=gr.HTML(str(page(services)), elem_id="ico-about-page", apply_default_css=False))


def wire(hub: Hub, tab: AboutTab) -> None:
    """This tab has no events."""
    del hub, tab


def restore(hub: Hub, services: Services, tab: AboutTab, state: UrlState) -> Updates:
    del hub, state
    return {tab.page: str(page(services))}


def opened(services: Services, tab: AboutTab, record: FeatureRecord, state: UrlState | None) -> Updates:
    """The tab is about the whole atlas."""
    del services, tab, record, state
    return {}


def page(services: Services) -> Markup:
    meta = services.meta
    return h(
        "div",
        h("h2", "About this atlas"),
        h(
            "p",
            "Iconoscope trains sparse autoencoders inside the vision tower of a vision-language model, explains every "
            "feature in words by several methods, scores the explanations, and lets you check them with your own "
            "hands. The method is that of ",
            h("a", "Language Models Can Explain Visual Features via Steering", href=PAPER, rel="noreferrer"),
            ".",
            class_="ico-lede",
        ),
        h(
            "div",
            _section("What you can do here", _guide()),
            _section("Words", _listing(WORDS)),
            _section("Limits", _limits(services)),
            _section("Subject model", _listing(_subject(services))),
            _section("Sparse autoencoder", _listing(_sae(meta.get("sae") or {}))),
            _section("Concepts with a feature", _coverage(meta.get("concept_coverage"))),
            _section("Provenance", _listing(_provenance(services))),
            _section("Prompts", _listing(dict(meta.get("prompts") or {}))),
            _section("Licences", _listing(_flat(meta.get("licences")))),
            class_="ico-about",
        ),
        class_="ico-page",
    )


def _guide() -> Markup:
    """Where each question is answered."""
    items = [
        h("li", go_button(label, "tab", tab, addresses.page(tab=tab)), " ", told)
        for tab, (label, told) in GUIDE.items()
    ]
    return h("ul", *items, class_="ico-guide")


def _section(title: str, body: Child) -> Markup:
    return h("section", h("h3", title), body)


def _listing(items: Mapping[str, Child]) -> Markup:
    pairs = []
    for name, value in items.items():
        shown = value if isinstance(value, Markup) else "not recorded" if value in (None, "") else value
        pairs.append(join_pair(str(name).replace("_", " "), shown))
    return h("dl", *pairs) if pairs else h("p", "Nothing was recorded.", class_="ico-why")


def join_pair(name: str, value: Child) -> list[Child]:
    return [h("dt", name), h("dd", value)]


def _limits(services: Services) -> Markup:
    world = services.meta.get("recipe") == "world"
    items = [
        "An explanation is a hypothesis in words. Read it beside its scores and its controls.",
        "Steering shows what a direction makes the model say, not everything the feature does.",
        "Exemplars are extremes: the histogram on a feature's page shows how often it fires weakly.",
        "Truth is decided for features that detect a known concept well on held-out images, and for no others.",
    ]
    if world:
        items.insert(
            0,
            "This is a model organism: a small vision-language model trained on drawn scenes in which the truth is "
            "known. It verifies mechanism and ordering of methods, not quality on photographs.",
        )
    return h("ul", *(h("li", item) for item in items))


def _subject(services: Services) -> dict[str, Child]:
    subject = services.meta.get("subject") or {}
    hook = services.meta.get("hook_point") or {}
    grid = services.meta.get("grid") or {}
    return {
        "Name": services.subject_name,
        "Repository": subject.get("repository") or "none: it ships with this project",
        "Hook point": f"{hook.get('tower')} tower, {hook.get('stream')} stream after block {hook.get('layer')}",
        "Attention over images": _images_read(services.meta.get("images_read") or {}),
        "Patch grid": f"{grid.get('rows')} × {grid.get('cols')} patches of a {services.meta.get('image_px')} px image",
        "Answer to the blank image": h("span", services.meta.get("blank_answer"), class_="ico-words"),
        "Fingerprint": _fingerprint(subject.get("fingerprint")),
        **({"Note": str(subject["note"])} if subject.get("note") else {}),
        **_explainer(services.meta.get("explainer")),
        "Live answers": services.live_answers,
    }


def _explainer(explainer: Mapping[str, Any] | None) -> dict[str, Child]:
    """The model that put the features into words, where it is not the subject."""
    if not explainer:
        return {}
    steered = "steered along the features: it has the same vision tower"
    how = steered if explainer.get("steers") else "shown pictures only: it has another vision tower"
    return {
        "Explained by": f"{explainer.get('repository') or explainer.get('name')}, {how}",
        "Fingerprint of the explainer": _fingerprint(explainer.get("fingerprint")),
    }


def _images_read(read: Mapping[str, Any]) -> Child:
    """Which tokens an image's token saw while the explanations were written."""
    return f"{read['mask_mode']} (transformers {read.get('transformers')})" if read.get("mask_mode") else None


def _fingerprint(value: object) -> Child:
    return h("span", str(value), class_="ico-mono") if value else None


def _sae(sae: Mapping[str, Any]) -> dict[str, Child]:
    def told(name: str, show: Any) -> Child:
        return show(sae[name]) if sae.get(name) is not None else "not recorded"

    n = sae.get("n_held_out_tokens")
    held_out = f", n = {count(int(n))} held-out patches" if n is not None else ""

    def measured(name: str, digits: int) -> Child:
        return told(name, lambda value: f"{number(value, digits)}{held_out}")

    return {
        "Features": told("d_sae", count),
        "Alive": told("alive", count),
        "Dead": told("dead", count),
        "k (active per patch)": told("k", count),
        "Width": told("d_model", count),
        "Explained variance": measured("explained_variance", 3),
        "NMSE (error over variance)": measured("nmse", 3),
        "L0 (mean features per patch)": measured("l0", 1),
        "Trained on": f"{told('n_tokens', count)} patches",
    }


def _coverage(coverage: Mapping[str, Any] | None) -> Child:
    if not coverage:
        return h("p", "Not known: these images carry no exact masks.", class_="ico-why")

    def share(entry: Mapping[str, Any]) -> Markup:
        return estimate(entry.get("value"), entry.get("n"), entry.get("low"), entry.get("high"), entry.get("reason"))

    items: dict[str, Child] = {"All concepts": share(coverage.get("all") or {})}
    items |= {kind: share(entry) for kind, entry in (coverage.get("by_kind") or {}).items()}
    lede = "Share of the known concepts that some feature detects with enough average precision on held-out images."
    absent = coverage.get("without_feature")
    if absent:
        items["Without a feature"] = ", ".join(str(name).replace("_", " ") for name in absent)
    return [h("p", lede, class_="ico-why"), _listing(items)]


def _provenance(services: Services) -> dict[str, Child]:
    manifest = services.store.artifact.manifest
    quality = services.meta.get("quality_filter") or {}
    kept = f"{count(int(quality['kept']))} features kept, {count(int(quality['dropped']))} below it; none deleted"
    items: dict[str, Child] = {
        "Atlas": services.meta.get("title"),
        "Recipe": services.meta.get("recipe"),
        "Fingerprint": _fingerprint(manifest.fingerprint),
        "Stage version": str(manifest.stage_version),
        "Features": count(len(services.store)),
        "Text embeddings": services.meta.get("text_encoder"),
    }
    if "kept" in quality and "dropped" in quality:
        items["Quality filter"] = kept
    for stage, fingerprint in (manifest.inputs.get("upstream") or {}).items():
        items[f"From {stage}"] = _fingerprint(fingerprint)
    return items


def _flat(value: Any, prefix: str = "") -> dict[str, Child]:
    """Nested licence notes as one list of name and text."""
    if isinstance(value, Mapping):
        found: dict[str, Child] = {}
        for name, item in value.items():
            found |= _flat(item, f"{prefix} {name}".strip())
        return found
    if isinstance(value, list | tuple):
        return {prefix or "licences": ", ".join(str(item) for item in value)}
    return {prefix or "licence": str(value)} if value else {}
