"""Does an SAE fit a subject? Width, hook point, and the scale of the residuals, on a few images.

A wrong scale leaves no trace in the weights: the biases alone are too small or too large. It shows on residuals, where
the same SAE with its biases scaled reconstructs them better.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from backend.errors import SAEError, SubjectMismatch
from backend.models.base import VisionTower
from backend.sae import TopKSAE
from precompute.sae_evaluation import SAEQuality, measure

CLEARLY_BETTER = 0.8
"""Another scale is taken for the right one if it brings the NMSE below this share of what it is."""


def check_fit(sae: TopKSAE, subject: VisionTower, images: Sequence[Image.Image]) -> SAEQuality:
    """Reconstruction of the subject's residuals on ``images``, which must be at least two.

    Raises:
        SubjectMismatch: the SAE has another width, or was trained at another hook point.
        SAEError: it fits another scale clearly better, or is worse than the mean residual at every scale.
    """
    check_place(sae, subject)
    return check_scale(sae, subject.residuals(list(images)))


def check_place(sae: TopKSAE, subject: VisionTower) -> None:
    """Raise SubjectMismatch if the SAE has another width than the subject, or was trained at another hook point."""
    if sae.d_model != subject.d_model:
        raise SubjectMismatch(
            f"the SAE reads width {sae.d_model}, but {subject.card.name} has width {subject.d_model} at "
            f"{subject.hook_point}: choose the --recipe of the model it was trained on"
        )
    if sae.config.hook_point != subject.hook_point:
        raise SubjectMismatch(
            f"the SAE was trained at {sae.config.hook_point}, but the recipe cuts {subject.card.name} at "
            f"{subject.hook_point}: set layer under [subject] in the recipe"
        )


def check_scale(sae: TopKSAE, residuals: Float[Tensor, "image patch d_model"]) -> SAEQuality:
    """Reconstruction of ``residuals``, compared with that at the scales in use elsewhere.

    These are the root mean squared norm (dictionary_learning) and that over sqrt(d_model) (SAELens, saev), each either
    forgotten or folded once too often. Raises SAEError as :func:`check_fit`.
    """
    residuals = residuals.to(sae.device)
    quality = measure(sae, [residuals]).quality()
    norm = float(residuals.double().square().sum(dim=-1).mean().sqrt())
    scales = [one for unit in (norm, norm / sae.d_model**0.5) for one in (unit, 1 / unit)]
    tried = {scale: measure(with_scaled_biases(sae, scale), [residuals]).quality().nmse for scale in scales}
    best = min(tried, key=tried.__getitem__)
    folded = _scale_of(sae)
    if tried[best] < CLEARLY_BETTER * quality.nmse and tried[best] < 1:
        raise SAEError(
            f"the SAE does not read residuals at this scale: NMSE {quality.nmse:.3g} with --scale {folded:.6g}, but "
            f"{tried[best]:.3g} with --scale {folded * best:.6g} (the residuals have a root mean squared norm of "
            f"{norm:.4g}). Import it again with --scale {folded * best:.6g}, or the exact factor of its training"
        )
    if quality.nmse >= 1:
        raise SAEError(
            f"the SAE reconstructs the residuals worse than their mean does (NMSE {quality.nmse:.3g}), at every scale "
            "tried: it belongs to another model or layer, or a matrix is transposed. Check --hook-point and --format"
        )
    return quality


def with_scaled_biases(sae: TopKSAE, scale: float) -> TopKSAE:
    """The SAE that reads residual / scale with the weights of ``sae``, in our form."""
    return TopKSAE(sae.config, W_enc=sae.W_enc, b_enc=sae.b_enc * scale, W_dec=sae.W_dec, b_dec=sae.b_dec * scale)


def _scale_of(sae: TopKSAE) -> float:
    record = sae.config.metadata.get("imported")
    scale = record.get("scale") if isinstance(record, dict) else None
    return float(scale) if isinstance(scale, int | float) else 1.0
