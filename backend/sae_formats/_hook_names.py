"""Names that other libraries give to a place in a model, read as our hook points.

A hook point of ours is the residual stream after a block. ``resid_pre`` of block L is the stream after block L - 1.
Names without a tower (``blocks.8.hook_resid_post``) fix the layer; which tower is meant must then be said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from backend.errors import SAEError, SubjectMismatch
from backend.types import HookPoint

OURS = re.compile(r"(?P<tower>[a-z_]+)\.(?P<layer>\d+)\.residual")
AUTHORS = re.compile(r"enc_res_out_layer_(?P<layer>\d+)")
RESID = re.compile(r"blocks\.(?P<layer>\d+)\.hook_resid_(?P<side>pre|post)")
MODULE = re.compile(r"(?P<path>[\w.]+)\.(layers|layer|blocks|resblocks|h)\.(?P<layer>\d+)")
NOT_RESIDUAL = re.compile(r"hook_(mlp|attn|z|q|k|v|resid_mid)|(^|[._])(mlp|attn|attention|self_attn)([._]|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedHook:
    """What a file says about where its SAE was trained."""

    name: str | None = None
    """As the file has it."""
    point: HookPoint | None = None
    """Set if the name fixes tower and layer."""
    layer: int | None = None
    """Block whose output is read, counted from 0; set if the file fixes it."""


NOT_RECORDED = RecordedHook()


def parse_hook_name(name: str | None) -> RecordedHook:
    """Read a recorded name; an unknown one fixes nothing.

    Raises:
        SAEError: the name is not a place in the residual stream, where our directions can be added.
    """
    if name is None:
        return NOT_RECORDED
    if NOT_RESIDUAL.search(name):
        raise SAEError(
            f"this SAE was trained on {name!r}, which is inside a block: Iconoscope reads and steers the residual "
            "stream between blocks, so take an SAE that was trained there"
        )
    if match := OURS.fullmatch(name):
        return _at(name, int(match["layer"]), match["tower"])
    if match := AUTHORS.fullmatch(name):
        return _at(name, int(match["layer"]), "vision")
    if match := RESID.fullmatch(name):
        layer = int(match["layer"]) - (match["side"] == "pre")
        if layer < 0:
            raise SAEError(f"this SAE was trained on {name!r}, before the first block: there is no hook point there")
        return _at(name, layer, None)
    if match := MODULE.fullmatch(name):
        return _at(name, int(match["layer"]), "vision" if "vision" in match["path"] else None)
    return RecordedHook(name=name)


def _at(name: str, layer: int, tower: str | None) -> RecordedHook:
    point = None if tower is None else HookPoint(tower=tower, layer=layer)
    return RecordedHook(name=name, point=point, layer=layer)


def settle(recorded: RecordedHook, asked: HookPoint | None) -> HookPoint:
    """The hook point that file and user agree on.

    Raises:
        SubjectMismatch: the user names another place than the file.
        SAEError: the file does not say, and neither does the user.
    """
    said = f"the SAE says it was trained at {recorded.name or f'layer {recorded.layer}'!r}"
    if asked is None:
        if recorded.point is not None:
            return recorded.point
        layer = "LAYER" if recorded.layer is None else recorded.layer
        what = said if recorded.layer is not None or recorded.name else "the SAE does not say where it was trained"
        raise SAEError(f"{what}, which does not fix tower and layer: add --hook-point vision.{layer}.residual")
    wrong_point = recorded.point is not None and recorded.point != asked
    if wrong_point or (recorded.layer is not None and recorded.layer != asked.layer):
        right = recorded.point or HookPoint(tower=asked.tower, layer=recorded.layer or 0)
        raise SubjectMismatch(f"{said}, which is {right} and not {asked}: use --hook-point {right}, or another SAE")
    return asked


def hook_point_from(text: str) -> HookPoint:
    """The hook point written ``tower.layer.residual``. Raises SAEError."""
    match = OURS.fullmatch(text)
    if match is None:
        raise SAEError(f"{text!r} is not a hook point: write it like vision.16.residual (layers count from 0)")
    return HookPoint(tower=match["tower"], layer=int(match["layer"]))
