"""What programs send to the public functions, checked: every refusal says which argument is wrong and what would do."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any, TypedDict

from app import uploads
from app.components.steer_set import default_strength
from app.services import Services
from app.steer_setup import Patches, SteerRow, Where, read_strength
from app.url_fields import BadField
from backend.errors import ImageTooLarge, ImageUnreadable, QueryError
from backend.types import Operation


class SteeredFeature(TypedDict):
    """One more feature of a set, with its own operation and strength (null: the recommended one)."""

    feature: int
    operation: str
    strength: float | None


def visitor_of(request: Any) -> str:
    """Who asks, for the line before the model: the session, else the address. MCP calls bring no session."""
    session = getattr(request, "session_hash", None)
    client = getattr(request, "client", None)
    return str(session or getattr(client, "host", "") or "a program")


def of_set(one: object) -> tuple[Any, Any, Any]:
    """Number, operation and strength of one more feature. Raises QueryError."""
    if not isinstance(one, Mapping) or "feature" not in one:
        raise QueryError("Each of more must be an object with feature, operation and strength.")
    return one["feature"], one.get("operation", "add"), one.get("strength")


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


def steer_row(services: Services, feature: int, operation: str, strength: float | None) -> SteerRow:
    """One feature of a set; no strength means the recommended one. Raises UnknownFeature and QueryError."""
    record = services.store.feature(feature)
    if operation not in set(Operation):
        raise QueryError(f"operation is {str(operation)[:40]!r}; it must be one of {', '.join(Operation)}.")
    if Operation(operation) is Operation.ABLATE:
        return SteerRow(feature=feature, operation=Operation.ABLATE)
    amount = default_strength(record) if strength is None else strength
    try:
        return SteerRow(feature=record.feature, operation=Operation(operation), strength=read_strength(amount))
    except BadField as error:
        raise QueryError(f"strength {str(strength)[:40]!r} {error}.") from error


def where_of(patches: str) -> Where:
    """All, active or listed patches. Raises QueryError."""
    try:
        return Patches("patches").parse(patches or "all")
    except BadField as error:
        raise QueryError(f"patches={patches[:40]!r} {error}.") from error


def uploaded(data: str, owner: str) -> str:
    """The image id of bytes in base64, alone or in a data address. Raises ImageUnreadable and its kinds."""
    packed = data.partition(",")[2] if data.startswith("data:") else data
    if len(packed) > 4 * (uploads.MAX_UPLOAD_BYTES // 3 + 1):
        raise ImageTooLarge(f"the picture is larger than {uploads.MAX_UPLOAD_BYTES // 2**20} MiB.")
    try:
        content = base64.b64decode("".join(packed.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageUnreadable(f"image_base64 is not base64: {error}.") from error
    return uploads.SHELF.add(content, owner).image_id
