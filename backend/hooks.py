"""The plain path: capture or edit one hook point of an untouched model through PyTorch's forward hooks.

Slower than a cached prefix, and independent of it: it is the reference the cached path is tested against, and a way to
steer through the model's own ``generate``. A hook that did not fire as often as it should raises; text that was not
steered never looks steered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from backend.errors import InterventionNotApplied

Residual = Float[Tensor, "image patch d_model"]
Order = Int[Tensor, " patch"] | None


@dataclass(slots=True)
class HookRecord:
    """What happened at the hook point while the context was open."""

    n_firings: int = 0
    captured: list[Residual] = field(default_factory=list)
    """One residual per firing, as it left the hook point; filled by :func:`capture_hook_point` only."""


@contextmanager
def edit_hook_point(
    module: nn.Module,
    edit: Callable[[Residual], Residual],
    *,
    expected_firings: int = 1,
    n_prefix_tokens: int = 0,
    patch_order: Order = None,
) -> Iterator[HookRecord]:
    """Replace what ``module`` puts into the residual stream by ``edit`` of it, while the context is open.

    Args:
        module: the block whose output is the hook point (``VisionTower.hook_module``).
        edit: pure function; must return a tensor of the same shape.
        expected_firings: how often the block runs in the body (once per generation: later tokens reuse the cache).
        n_prefix_tokens: tokens before the first patch (``VisionTower.grid``); the edit neither sees nor changes them.

    Raises:
        InterventionNotApplied: on leaving, if the count differs; at once, if the edit changes the shape.
    """
    record = HookRecord()

    def hook(_module: nn.Module, _inputs: object, output: Any) -> Any:
        record.n_firings += 1
        whole = _by_image(_residual_of(output), patch_order)
        residual = whole[:, n_prefix_tokens:] if n_prefix_tokens else whole
        edited = edit(residual)
        if edited.shape != residual.shape:
            raise InterventionNotApplied(
                f"the edit turned a residual of shape {tuple(residual.shape)} into {tuple(edited.shape)}"
            )
        edited = edited.to(residual.dtype)
        if n_prefix_tokens:
            edited = torch.cat([whole[:, :n_prefix_tokens], edited], dim=1)
        if patch_order is not None:
            edited = edited[:, patch_order].flatten(0, 1)
        return edited if isinstance(output, Tensor) else (edited, *output[1:])

    yield from _hooked(module, hook, record, expected_firings)


@contextmanager
def capture_hook_point(
    module: nn.Module, *, expected_firings: int = 1, n_prefix_tokens: int = 0, patch_order: Order = None
) -> Iterator[HookRecord]:
    """Keep a copy of what ``module`` puts into the residual stream on the patches, while the context is open.

    Arguments as for :func:`edit_hook_point`.

    Raises:
        InterventionNotApplied: on leaving, if the block did not run exactly ``expected_firings`` times.
    """
    record = HookRecord()

    def hook(_module: nn.Module, _inputs: object, output: Any) -> None:
        record.n_firings += 1
        residual = _by_image(_residual_of(output), patch_order)
        record.captured.append((residual[:, n_prefix_tokens:] if n_prefix_tokens else residual).detach().clone())

    yield from _hooked(module, hook, record, expected_firings)


def _hooked(
    module: nn.Module, hook: Callable[..., Any], record: HookRecord, expected_firings: int
) -> Iterator[HookRecord]:
    handle = module.register_forward_hook(hook)
    try:
        yield record
    finally:
        handle.remove()
    # Not reached when the body raised: its own error says more.
    if record.n_firings != expected_firings:
        raise InterventionNotApplied(
            f"the hook point ran {record.n_firings} times instead of {expected_firings}: the result is withheld"
        )


def _residual_of(output: Any) -> Residual:
    """Blocks return the residual stream itself, or a tuple that starts with it."""
    return output if isinstance(output, Tensor) else output[0]


def _by_image(tokens: Tensor, patch_order: Order) -> Residual:
    """Patches row-major, image by image."""
    return tokens if patch_order is None else tokens.unflatten(0, (-1, len(patch_order)))[:, patch_order.argsort()]
