"""Which model answers live, at which precision and on which devices: what ``iconoscope serve`` was asked for.

By default an atlas's own subject answers. Another size of the same family may answer for it if it has the same vision
tower: the features are the atlas's then, and the words another model's. torch is imported only where a model is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.atlas import FeatureAtlas
from backend.errors import SubjectError, SubjectMismatch
from backend.model_shapes import ModelShape, shape_of
from backend.settings import resolve_path
from backend.types import Quantization

QUANTIZED = {"int4": "in 4 bits (NF4, computing in bfloat16)", "int8": "in 8 bits (LLM.int8)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How the models behind all atlases are served."""

    subject: str | None = None
    """Folder or repository of the model that answers; None: each atlas's own."""
    quantize: Quantization | None = None
    """Bits of the language model's weights; None: not quantised."""
    devices: tuple[str, ...] = ()
    """torch devices, one replica on each; (): every GPU, else the CPU."""

    @property
    def is_asked(self) -> bool:
        """Whether anything but the default was asked for: then what cannot be had is an error and no notice."""
        return self != Serving()

    def place(self, atlas: FeatureAtlas) -> str | Path:
        """Folder of the model that answers for an atlas, if it is here, else its repository.

        Raises SubjectError if the atlas names no subject and no other was asked for.
        """
        if self.subject is None:
            return own_place(atlas)
        local = resolve_path(self.subject)
        return local if local.exists() else self.subject


DEFAULT = Serving()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """Who answers, as the page says it."""

    other: str = ""
    """Name of a model that is not the atlas's own subject; "" for the own."""
    quantize: Quantization | None = None
    caveat: str = ""
    """What could not be checked, in a sentence."""

    @property
    def is_own(self) -> bool:
        return not self.other and self.quantize is None

    def phrase(self, own: str) -> str:
        """The model and its precision, for a line of a run."""
        return f"{self.other or own}{'' if self.quantize is None else f' in {self.quantize}'}"

    def sentence(self, own: str) -> str:
        """Which model answers at which precision, and which one the atlas was made with."""
        if self.quantize is None:
            bits = "not quantised (bfloat16 on a GPU, float32 on a CPU)"
        else:
            bits = f"its language model {QUANTIZED[self.quantize]}, its vision tower not quantised"
        if not self.other:
            made = " The atlas was made with it unquantised." if self.quantize else ""
            return f"{own} answers here, {bits}.{made}"
        made = f"The features and their explanations were made with {own}; its words may differ."
        return " ".join(one for one in (f"{self.other} answers here, {bits}.", made, self.caveat) if one)


OWN = Answering()


def own_place(atlas: FeatureAtlas) -> str | Path:
    """Folder of the model that the atlas is steered with if it is here, else its repository.

    That is the explainer where it has the subject's tower, else the subject. Raises SubjectError if none is named.
    """
    return _place_of(atlas.store.steered_model)


def _place_of(model: Mapping[str, Any]) -> str | Path:
    """Folder of a model that meta.json names, if it is here, else its repository. SubjectError without either."""
    local = resolve_path(model["path"]) if model.get("path") else None
    place = local if local is not None and local.exists() else model.get("repository") or local
    if place is None:
        raise SubjectError("This atlas names no subject model, so it can be browsed but not steered.")
    return place


def answering(atlas: FeatureAtlas, serving: Serving) -> Answering:
    """Who answers for an atlas, after comparing the towers where another model than its own was named.

    Raises:
        SubjectMissing: the named model is not on this machine.
        SubjectError: it has no language model.
        SubjectMismatch: it has another vision tower than the atlas's models or, where none of them is here to be
            compared, another width, patch grid or too few blocks.
    """
    if serving.subject is None:
        return Answering(quantize=serving.quantize)
    from backend.models import NO_LANGUAGE_MODEL, answers_in_words, locate, model_fingerprint
    from backend.models.sharing import require_same_tower

    folder, steered = locate(serving.place(atlas)), atlas.store.steered_model
    if atlas.store.cannot_steer is None and not answers_in_words(folder):
        raise SubjectError(f"{serving.subject} {NO_LANGUAGE_MODEL}")
    own = _found(steered)
    if own is None:  # then its very files are still known
        is_own = model_fingerprint(folder) == steered.get("fingerprint")
    else:
        is_own = own.resolve() == folder.resolve()
    if is_own:
        return Answering(quantize=serving.quantize)
    # An explainer that is steered was found to have the subject's tower, so the subject's will do for its own.
    known = own or _found(atlas.store.meta.get("subject") or {})
    if known is None:
        return _uncompared(atlas, serving, folder)
    require_same_tower(known, folder)
    return Answering(other=serving.subject, quantize=serving.quantize)


def _found(model: Mapping[str, Any]) -> Path | None:
    """Folder of a model as meta.json names it; None if it is not on this machine."""
    from backend.models import locate

    try:
        return locate(_place_of(model))
    except SubjectError:
        return None


def _uncompared(atlas: FeatureAtlas, serving: Serving, folder: Path) -> Answering:
    """None of the atlas's models is here: only sizes can be compared."""
    require_shape(atlas, shape_of(str(serving.subject), folder), str(serving.subject))
    caveat = (
        "The vision tower could not be compared, since the atlas's own subject is not on this machine; only width, "
        "patch grid and hook point were."
    )
    return Answering(other=serving.subject or folder.name, quantize=serving.quantize, caveat=caveat)


def require_shape(atlas: FeatureAtlas, shape: ModelShape, name: str) -> None:
    """Raise SubjectMismatch if a model has another width, patch grid or fewer blocks than the atlas needs."""
    meta: Any = atlas.store.meta
    grid = meta["grid"]
    needed = {
        "width": (int(meta["sae"]["d_model"]), shape.tower.width),
        "patches": (int(grid["rows"]) * int(grid["cols"]), shape.n_patches),
    }
    for what, (wanted, found) in needed.items():
        if wanted != found:
            raise SubjectMismatch(f"{name} cannot answer for this atlas: {what} {found} where its SAE needs {wanted}.")
    if int(meta["hook_point"]["layer"]) >= shape.tower.n_blocks:
        raise SubjectMismatch(
            f"{name} cannot answer for this atlas: its tower has {shape.tower.n_blocks} blocks, and the hook point "
            f"lies after block {meta['hook_point']['layer']}."
        )
