"""Whether a subject fits a device, before it is loaded: the demand of the explorer against the model's shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from app.serving import Serving
from app.steer_setup import ANSWER_TOKENS, DOSE_TOKENS, DOSES, MAX_PROMPT_CHARACTERS
from backend.atlas import FeatureAtlas
from backend.errors import SizesUnknown
from backend.memory_plan import Demand, MemoryPlan, Precision, free_bytes, memory_plan, require_fit
from backend.model_shapes import ModelShape, shape_of

ROWS = 1 + 2 * len(DOSES)
"""Answers of the largest batch: every strength along the feature and along a random direction, and one unsteered."""
LEAST_ROWS = 4
"""Answers that must fit at once: the four columns, which are read beside each other while they are written. Whatever
has more rows comes in batches of as many as fit."""
CHARACTERS_PER_TOKEN = 4
TEMPLATE_TOKENS = 20
"""What a chat template puts around a question."""


def dtype_on(device: str) -> str:
    """What a model computes in on a device: bfloat16 on a GPU, float32 elsewhere."""
    return "bfloat16" if device.startswith("cuda") else "float32"


def demand_of(atlas: FeatureAtlas, rows: int = ROWS) -> Demand:
    """What the explorer asks of a subject at once with the longest question, in batches of ``rows``. Imports torch.

    Of an image encoder it asks for one picture at a time.
    """
    from backend.steering import MAX_CACHED_IMAGES

    rows = rows if atlas.store.cannot_steer is None else 1
    # All ten strengths have short answers; a smaller batch may be of long ones.
    answer = DOSE_TOKENS if rows == ROWS else ANSWER_TOKENS
    tokens = TEMPLATE_TOKENS + MAX_PROMPT_CHARACTERS // CHARACTERS_PER_TOKEN + answer
    sae = sum(file.stat().st_size for file in atlas.sae_dir.glob("*.safetensors"))
    return Demand(rows=rows, text_tokens=tokens, kept_images=MAX_CACHED_IMAGES, sae_bytes=sae)


def plan_for(atlas: FeatureAtlas, serving: Serving, device: str) -> tuple[MemoryPlan, ModelShape]:
    """The memory plan of the model that answers for an atlas, against what is free now, and the model's sizes.

    It is that of the largest batch which fits, or of the least that is needed, if that does not fit either. Raises:
        SubjectMissing: the model is not on this machine.
        SubjectError: its description tells no sizes, or there is no such device.
    """
    from backend.models import locate

    place = serving.place(atlas)
    named = serving.subject or atlas.store.steered_model.get("repository") or place
    shape = shape_of(str(place), locate(place))
    quantize = serving.quantize if shape.language else None
    plan_of = partial(
        memory_plan,
        shape,
        subject=str(named),
        device=device,
        precision=Precision(dtype=dtype_on(device), quantize=quantize),
        free=free_bytes(device),
    )
    plans = (plan_of(demand=demand_of(atlas, rows)) for rows in range(ROWS, LEAST_ROWS, -1))
    fitting = next((plan for plan in plans if plan.fits), None)
    return fitting or plan_of(demand=demand_of(atlas, LEAST_ROWS)), shape


def make_room(atlas: FeatureAtlas, serving: Serving, device: str, let_go: Callable[[], bool]) -> MemoryPlan | None:
    """Plan the model of an atlas on a device; while it does not fit, other models are let go of.

    Args:
        atlas: whose model is to be loaded.
        serving: how.
        device: where.
        let_go: drops one loaded model and says whether there was one.

    Returns:
        The plan, whose ``rows`` is the batch that fits, or None where the model's sizes are unknown: loading shows then
        whether it fits.

    Raises:
        SubjectMissing: the model is not on this machine.
        SubjectError: it does not fit; the message says what takes how much, and what would fit.
    """
    try:
        plan, shape = plan_for(atlas, serving, device)
        while not plan.fits and let_go():
            plan, shape = plan_for(atlas, serving, device)
    except SizesUnknown:
        return None
    require_fit(plan, shape, demand_of(atlas, plan.rows))
    return plan


def foresee(atlases: Iterable[FeatureAtlas], serving: Serving, devices: Sequence[str]) -> Iterator[str]:
    """One line for each model and device, before anything is loaded. Errors as for :func:`make_room`."""
    if serving.quantize is not None:
        from backend.models import require_quantization

        require_quantization(serving.quantize)
    planned: set[str] = set()
    for atlas in atlases:
        place = str(serving.place(atlas))
        if place in planned:
            continue
        planned.add(place)
        for device in devices:
            plan = make_room(atlas, serving, device, lambda: False)
            yield (
                _line(plan) if plan else f"{device}: {place}: its description tells no sizes, so memory is not planned"
            )


def _line(plan: MemoryPlan) -> str:
    """A plan, and what does not fit into one batch."""
    whole = plan.rows == ROWS or not plan.language
    return str(plan) if whole else f"{plan}; the {ROWS} answers of all strengths come {plan.rows} at a time"
