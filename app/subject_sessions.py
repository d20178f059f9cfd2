"""The models of one device: subject and SAE of each atlas, loaded on first use, weights shared where they are the same.

torch is imported here only when a model is loaded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backend.atlas import FeatureAtlas
from backend.errors import DependencyMissing, SubjectError
from backend.settings import load_settings, resolve_path
from backend.types import HookPoint

if TYPE_CHECKING:
    from backend.models.base import VisionTower
    from backend.steering import SteeringSession

MAX_SUBJECTS = 2
"""Different subject models that stay in one device's memory; the one used longest ago is let go."""

Load = Callable[[FeatureAtlas, str], "SteeringSession"]


def fingerprint_of(atlas: FeatureAtlas) -> str:
    """What names an atlas, and with it its session."""
    return atlas.store.artifact.manifest.fingerprint


def find_devices() -> Sequence[str]:
    """Every CUDA device, else the CPU; or the one the settings name. Imports torch.

    Raises DependencyMissing without torch.
    """
    wish = load_settings().device
    if wish != "auto":
        return [wish]
    try:
        import torch
    except ImportError as error:
        raise DependencyMissing(
            "PyTorch is not installed, so no model can run. Install it: pip install torch"
        ) from error
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{at}" for at in range(n_devices)] or ["cpu"]


class Sessions:
    """Loads and keeps the sessions of one device. One caller at a time."""

    def __init__(self) -> None:
        self._subjects: OrderedDict[str, VisionTower] = OrderedDict()
        """By place of the weights; the one used last is last. Cut at one hook point, and re-cut for others."""
        self._sessions: dict[str, tuple[str, SteeringSession]] = {}
        """By atlas; each with the place of its subject's weights."""

    def load(self, atlas: FeatureAtlas, device: str) -> SteeringSession:
        """The session of an atlas. Raises SubjectError, SAEError and DependencyMissing, all in words."""
        place = _subject_place(atlas)
        key = f"{fingerprint_of(atlas)} {place}"
        if key not in self._sessions:
            try:
                session = self._open(atlas, place, device)
            except (ImportError, OSError) as error:
                raise SubjectError(f"The subject model of this atlas cannot be loaded: {error}") from error
            self._sessions[key] = (str(place), session)
            self._let_go()
        self._subjects.move_to_end(str(place))
        return self._sessions[key][1]

    def _open(self, atlas: FeatureAtlas, place: str | Path, device: str) -> SteeringSession:
        from backend.models import load_tower
        from backend.sae import TopKSAE
        from backend.steering import SteeringSession

        hook = atlas.store.meta["hook_point"]
        point = HookPoint(layer=int(hook["layer"]), tower=hook["tower"], stream=hook["stream"])
        known = self._subjects.get(str(place))
        subject = load_tower(place, point, device=device) if known is None else known.cut_at(point)
        session = SteeringSession(subject, TopKSAE.load(atlas.sae_dir))
        self._subjects.setdefault(str(place), subject)
        return session

    def _let_go(self) -> None:
        while len(self._subjects) > MAX_SUBJECTS:
            place, _ = self._subjects.popitem(last=False)
            self._sessions = {key: one for key, one in self._sessions.items() if one[0] != place}


def _subject_place(atlas: FeatureAtlas) -> str | Path:
    """Folder of the steered model's weights if it is here, else its repository. Raises SubjectError without either."""
    subject = atlas.store.steered_model
    local = resolve_path(subject["path"]) if subject.get("path") else None
    place = local if local is not None and local.exists() else subject.get("repository") or local
    if place is None:
        raise SubjectError("This atlas names no subject model, so it can be browsed but not steered.")
    return place
