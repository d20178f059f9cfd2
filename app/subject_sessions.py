"""The models of one device: subject and SAE of each atlas, loaded on first use, weights shared where they are the same.

torch is imported here only when a model is loaded.
"""

from __future__ import annotations

import gc
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from app.serving import DEFAULT, Serving
from app.serving_plans import dtype_on, make_room
from backend.atlas import FeatureAtlas
from backend.errors import DependencyMissing, SubjectError
from backend.settings import load_settings
from backend.types import HookPoint

if TYPE_CHECKING:
    from backend.models.base import VisionTower
    from backend.steering import SteeringSession

MAX_SUBJECTS = 2
"""Different subject models that stay in one device's memory; the one used longest ago is let go."""

log = logging.getLogger(__name__)
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

    def __init__(self, serving: Serving = DEFAULT) -> None:
        """Prepare; nothing is loaded. ``serving`` says which models answer, and at which precision."""
        self._serving = serving
        self._subjects: OrderedDict[str, VisionTower] = OrderedDict()
        """By place of the weights; the one used last is last. Cut at one hook point, and re-cut for others."""
        self._rows: dict[str, int] = {}
        """By place: rows of a batch that fits beside the weights; absent where memory could not be planned."""
        self._sessions: dict[str, tuple[str, SteeringSession]] = {}
        """By atlas; each with the place of its subject's weights."""

    def load(self, atlas: FeatureAtlas, device: str) -> SteeringSession:
        """The session of an atlas. Raises SubjectError, SAEError and DependencyMissing, all in words."""
        place = self._serving.place(atlas)
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
        from backend.steering import MAX_ROWS, SteeringSession

        hook = atlas.store.meta["hook_point"]
        point = HookPoint(layer=int(hook["layer"]), tower=hook["tower"], stream=hook["stream"])
        known = self._subjects.get(str(place))
        if known is None:
            plan = make_room(atlas, self._serving, device, self._let_go_of_one)
            log.info("loading %s", plan or place)
            if plan is not None:
                self._rows[str(place)] = plan.rows
            subject = load_tower(place, point, device=device, dtype=dtype_on(device), quantize=self._serving.quantize)
        else:
            subject = known.cut_at(point)
        rows = self._rows.get(str(place), MAX_ROWS)
        session = SteeringSession(subject, TopKSAE.load(atlas.sae_dir), max_rows=rows)
        self._subjects.setdefault(str(place), subject)
        return session

    def _let_go(self) -> None:
        while len(self._subjects) > MAX_SUBJECTS:
            self._let_go_of_one()

    def _let_go_of_one(self) -> bool:
        """Forget the subject that was used longest ago. Whether there was one."""
        if not self._subjects:
            return False
        place, _ = self._subjects.popitem(last=False)
        self._sessions = {key: one for key, one in self._sessions.items() if one[0] != place}
        gc.collect()  # so that its memory is free now, and not when Python next looks
        return True
