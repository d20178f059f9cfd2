"""``ae.pt`` of the dictionary_learning library (MIT): what the authors of arXiv 2603.22593 publish.

A torch state dict with ``encoder.weight`` [d_sae, d_model], ``encoder.bias``, ``decoder.weight`` [d_model, d_sae],
``b_dec``, ``k`` and ``threshold``, and a config.json beside it. Both matrices are those of linear layers, so both are
transposed here.

``AutoEncoderTopK`` computes relu((x - b_dec) @ W_enc + b_enc) and keeps the k largest, as we do; its threshold is never
used. ``BatchTopKSAE`` has the same six keys, but keeps everything above the threshold: how many varies from patch to
patch. Only config.json tells the two apart, so it is needed.

Scale: training divides residuals by the root of their mean squared norm, and multiplies both biases by it before it
saves. The file therefore reads the raw residual stream, whatever the config says; folding once more would be wrong.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from backend.errors import SAEError, SAEShapeMismatch
from backend.sae_formats._hook_names import RecordedHook, parse_hook_name
from backend.sae_formats._tensor_files import read_torch_state, take_tensors
from backend.sae_formats.base import SAEFormat, SourceSAE, Weights, optional_text, read_json, table, whole_number

FILE_NAME = "ae.pt"
CONFIG_NAME = "config.json"
TENSORS = ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec")
PLACES = ("", "trainer_0")
"""Where ae.pt lies below a run's folder."""


class DictionaryLearning(SAEFormat):
    name = "dictionary_learning"
    looks_like = "a folder with ae.pt and config.json"

    def recognises(self, source: Path) -> bool:
        return source.name == FILE_NAME or any((source / below / FILE_NAME).is_file() for below in PLACES)

    def read(self, source: Path) -> SourceSAE:
        path = _weights_file(source)
        if not (path.parent / CONFIG_NAME).is_file():
            raise SAEError(
                f"there is no {CONFIG_NAME} beside {path}: without it a TopK SAE cannot be told from a BatchTopK SAE, "
                f"which has the same tensors. Copy {CONFIG_NAME} from where {FILE_NAME} was published"
            )
        place = path.parent / CONFIG_NAME
        trainer = table(read_json(place).get("trainer"), "trainer", place)
        _require_topk(trainer, place)
        state = read_torch_state(path, path)
        tensors = take_tensors(state, TENSORS, path, allowed=("k", "threshold"))
        k = whole_number(_number(state.get("k", trainer.get("k"))), "k", path)
        if whole_number(trainer.get("k", k), "trainer.k", place) != k:
            raise SAEShapeMismatch(f"{path} says k={k}, but {place} says k={trainer['k']}: they are of different SAEs")
        return SourceSAE(
            weights_file=path,
            weights=Weights(
                W_enc=tensors["encoder.weight"].T,
                b_enc=tensors["encoder.bias"],
                W_dec=tensors["decoder.weight"].T,
                b_dec=tensors["b_dec"],
            ),
            d_model=whole_number(trainer.get("activation_dim"), "trainer.activation_dim", place),
            d_sae=whole_number(trainer.get("dict_size"), "trainer.dict_size", place),
            k=k,
            hook=_hook(trainer, place),
            subject=optional_text(trainer.get("lm_name")),
            metadata=_kept(trainer, state),
        )


def _weights_file(source: Path) -> Path:
    candidates = [source] if source.is_file() else [source / below / FILE_NAME for below in PLACES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise SAEError(f"there is no {FILE_NAME} in {source} or in {source / PLACES[-1]}: give the folder that holds it")


def _require_topk(trainer: dict[str, object], place: Path) -> None:
    kind = trainer.get("dict_class")
    if kind == "AutoEncoderTopK":
        return
    if isinstance(kind, str) and "BatchTopK" in kind:
        raise SAEError(
            f"{place} says dict_class={kind!r}: such an SAE keeps every feature above a threshold, a different number "
            "on each patch, which k features per patch cannot express. Train or take an AutoEncoderTopK"
        )
    raise SAEError(f"{place} says dict_class={kind!r}: only AutoEncoderTopK can be expressed as a TopK SAE")


def _hook(trainer: dict[str, object], place: Path) -> RecordedHook:
    hook = parse_hook_name(optional_text(trainer.get("submodule_name")))
    if trainer.get("layer") is None:
        return hook
    layer = whole_number(trainer["layer"], "trainer.layer", place)
    if hook.layer is not None and hook.layer != layer:
        raise SAEShapeMismatch(f"{place} contradicts itself: layer {layer}, but submodule_name {hook.name!r}")
    return RecordedHook(name=hook.name, point=hook.point, layer=layer)


def _kept(trainer: dict[str, object], state: dict[str, object]) -> dict[str, object]:
    kept: dict[str, object] = {name: trainer[name] for name in ("steps", "lr", "seed") if name in trainer}
    if "threshold" in state:
        kept["threshold"] = _number(state["threshold"])  # of no use at inference; kept for the record
    return kept


def _number(value: object) -> object:
    """A number out of a tensor with one element; anything else as it is."""
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


FORMAT = DictionaryLearning()
