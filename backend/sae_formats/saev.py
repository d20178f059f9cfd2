"""Checkpoints of saev (MIT): one line of JSON, then a torch state dict.

The line is ``{"schema": n, "cfg": {...}, ...}``; the state dict has W_enc [d_model, d_sae], b_enc, W_dec [d_sae,
d_model] and b_dec, in our orientation. Three things differ from our form:

- b_dec is not subtracted from the input (schema 2 to 5). Schema 1 was written by versions with and without the
  subtraction, and nothing in the file tells which: refused.
- The k largest pre-activations are kept even below 0. Ours are 0 there, and the two agree on every patch on which at
  least k pre-activations are positive.
- Its data loader could subtract a mean and scale the norm, and wrote neither into the file: the scale must be given.

The file says nothing about the hook point or the model either.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

from backend.errors import SAEError
from backend.sae_formats._tensor_files import read_torch_state, take_tensors
from backend.sae_formats.base import SAEFormat, SourceSAE, Weights, json_object, optional_text, table, whole_number

FILE_NAME = "sae.pt"
TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")
SCHEMAS = (2, 3, 4, 5)
_HEADER_BYTES = 1 << 20
"""A longer first line is not a header."""


class Saev(SAEFormat):
    name = "saev"
    looks_like = "a file with a JSON line before the weights (sae.pt), or its folder"

    def recognises(self, source: Path) -> bool:
        path = source / FILE_NAME if source.is_dir() else source
        if not path.is_file():
            return False
        with path.open("rb") as handle:
            line = handle.readline(_HEADER_BYTES)
            rest = handle.read(1)
        try:
            return bool(rest) and isinstance(json.loads(line), dict)  # a whole JSON file has nothing after it
        except ValueError:
            return False

    def read(self, source: Path) -> SourceSAE:
        path = source / FILE_NAME if source.is_dir() else source
        try:
            with path.open("rb") as handle:
                header = json_object(handle.readline(_HEADER_BYTES).decode("utf-8", "replace"), path)
                cfg = _cfg(header, path)
                k = _k(cfg, path)
                state = read_torch_state(io.BytesIO(handle.read()), path)  # offsets count from the pickle's start
        except OSError as error:
            raise SAEError(f"cannot read {path}: {error}") from error
        tensors = take_tensors(state, TENSORS, path)
        d_model = whole_number(cfg.get("d_model", cfg.get("d_vit")), "d_model", path)
        d_sae = cfg.get("d_sae")
        if d_sae is None:
            d_sae = d_model * whole_number(cfg.get("exp_factor"), "d_sae or exp_factor", path)
        d_sae = whole_number(d_sae, "d_sae", path)
        return SourceSAE(
            weights_file=path,
            weights=Weights(**tensors),
            d_model=d_model,
            d_sae=d_sae,
            k=min(k, d_sae),
            subtracts_b_dec=False,
            scale_question=f"{path} does not record whether its data loader centred and scaled the residuals",
            metadata={name: header[name] for name in ("commit", "lib") if optional_text(header.get(name))},
        )


def _cfg(header: dict[str, object], path: Path) -> dict[str, object]:
    schema = header.get("schema")
    if schema == 1:
        raise SAEError(
            f"{path} has schema 1, which was written by versions that subtract b_dec from the input and by versions "
            "that do not, and does not tell which. Load it with the version that wrote it, and save it with schema 5"
        )
    if schema not in SCHEMAS:
        known = ", ".join(map(str, SCHEMAS))
        raise SAEError(f"{path} has schema {schema!r}; {known} are known. Save it with a version that writes these")
    return table(header.get("cfg"), "cfg", path)


def _k(cfg: dict[str, object], path: Path) -> int:
    activation = table(cfg.get("activation"), "cfg.activation", path)
    kind = activation.get("cls")
    if kind != "TopK":
        why = "keeps a different number of features on each patch" if kind in ("Relu", "BatchTopK") else "is unknown"
        raise SAEError(f"{path} has the activation {kind!r}, which {why}: only TopK can be expressed as a TopK SAE")
    parameters = table(activation.get("params"), "cfg.activation.params", path)
    return whole_number(parameters.get("top_k"), "cfg.activation.params.top_k", path)


FORMAT = Saev()
