"""The set of features to steer: rows of feature, operation and strength; drawn by static/steer_set.js.

The value is plain data; words are set by the script with textContent. Emits ``change`` when the visitor changes a row
and ``select`` with a feature number when one is to be added, since only the server knows its words and its maximum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gradio as gr

from app.components import addresses
from app.components.exemplars import pack_grid
from app.services import Services
from app.steer_setup import MAX_ROWS, SteerRow, read_strength, written_rows
from app.url_fields import BadField
from backend.errors import SubjectError
from backend.feature_store import FeatureRecord
from backend.types import Operation

TEMPLATE = '<section class="ico-steer-set"></section>'
SCRIPT = """
window.iconoscopeSteerSet.mount(element.querySelector('section'), props, watch, trigger);
"""


def steer_set(elem_id: str) -> gr.HTML:
    """Value: see :func:`set_value`. Emits ``change`` and ``select``."""
    return gr.HTML(
        value={"rows": [], "most": MAX_ROWS, "initial": "", "gentle": False, "offered": None},
        html_template=TEMPLATE,
        js_on_load=SCRIPT,
        apply_default_css=False,
        elem_id=elem_id,
    )


def set_value(
    services: Services, rows: Sequence[SteerRow], record: FeatureRecord | None = None, *, gentle: bool = False
) -> dict[str, Any]:
    """A set for the browser. Raises UnknownFeature.

    Args:
        services: the open atlas.
        rows: the set; empty for the open feature at its recommended strength.
        record: the open feature, whose own row counts as the default that the address need not say.
        gentle: a set that the visitor changed stays, and the open feature is only offered.
    """
    initial = () if record is None else (default_row(record),)
    chosen = tuple(rows) or initial
    return {
        "rows": [row_value(services, row) for row in chosen],
        "most": MAX_ROWS,
        "initial": written_rows(initial),
        "gentle": gentle,
        "offered": row_value(services, initial[0]) if initial else None,
    }


def row_value(services: Services, row: SteerRow) -> dict[str, Any]:
    """One row with all that the browser shows of it. Raises UnknownFeature."""
    record = services.store.feature(row.feature)
    value: dict[str, Any] = {
        "feature": row.feature,
        "operation": row.operation.value,
        # An ablated feature gets one too, for when the visitor turns to another operation.
        "strength": default_strength(record) if row.operation is Operation.ABLATE else row.strength,
        "recommended": default_strength(record),
        "selected": record.recommended_strength is not None,
        "maximum": record.maximum,
        "top": slider_maximum(record),
        "words": record.best_text or "",
    }
    exemplars = services.pictures(row.feature, 1)
    if exemplars:
        grid_rows, cols = exemplars[0].grid.shape
        value["picture"] = {
            "src": addresses.image(exemplars[0].image_id, services.version),
            "grid": pack_grid(exemplars[0].grid),
            "rows": grid_rows,
            "cols": cols,
        }
    return value


def rows_of(value: Any) -> tuple[SteerRow, ...]:
    """The rows a browser sent; their features are unchecked. Raises SubjectError for what is no row."""
    sent = value.get("rows") if isinstance(value, dict) else None
    rows: list[SteerRow] = []
    for one in _dicts(sent):
        feature, word = one.get("feature"), one.get("operation")
        if not isinstance(feature, int) or isinstance(feature, bool) or feature < 0 or word not in set(Operation):
            raise SubjectError("The set holds a row that is no feature with an operation. Remove it and add it again.")
        operation = Operation(str(word))
        try:
            strength = 0.0 if operation is Operation.ABLATE else read_strength(one.get("strength"))
        except BadField as error:
            raise SubjectError(f"The strength of feature {feature} is not a usable number.") from error
        rows.append(SteerRow(feature=feature, operation=operation, strength=strength))
    return tuple(rows)


def _dicts(sent: Any) -> Iterable[dict[str, Any]]:
    return [one for one in sent if isinstance(one, dict)] if isinstance(sent, list) else []


def default_row(record: FeatureRecord) -> SteerRow:
    """A feature added at the recommended strength."""
    return SteerRow(feature=record.feature, strength=default_strength(record))


def default_strength(record: FeatureRecord) -> float:
    """The recommended strength, or four times the feature's maximum where none was selected; L2 units."""
    value = record.recommended_strength if record.recommended_strength is not None else 4 * record.maximum
    return round(float(value), 1) or 1.0


def slider_maximum(record: FeatureRecord) -> float:
    """Far enough to see a feature overshoot: three times what is recommended, or eight times its maximum."""
    wanted = 3 * record.recommended_strength if record.recommended_strength else 8 * record.maximum
    return max(10.0, round(wanted / 10 + 0.5) * 10.0)
