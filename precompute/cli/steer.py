"""``iconoscope steer``: one feature, one question, and the answers without steering and with a random direction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backend.atlas import FeatureAtlas
from backend.errors import SubjectMissing
from backend.feature_store import FeatureRecord
from backend.settings import load_settings, resolve_path
from backend.types import HookPoint, Intervention, Operation, PatchScope
from precompute.cli.places import atlas_folder
from precompute.cli.run import print_json


@dataclass(frozen=True, kw_only=True)
class Steer:
    """Steer the subject along one feature and print what it says, beside two controls: no steering, random direction.

    Example: iconoscope steer assets/atlas 12 --strength 20
    """

    atlas: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ATLAS")]
    """Folder of an atlas, or of a run."""
    feature: Annotated[tyro.conf.Positional[int], tyro.conf.arg(metavar="FEATURE")]
    """Id of the feature."""
    strength: float | None = None
    """Residual-stream L2 units; default: the strength recommended for the feature."""
    operation: Operation = Operation.ADD
    """add along the direction, set the activation to the strength, or ablate the feature."""
    scope: PatchScope = PatchScope.ALL
    """all patches, the patches on which the feature is active, or the ones given."""
    patches: tuple[int, ...] = ()
    """Flat patch indices (row-major) for --scope given."""
    image: Path | None = None
    """Picture to steer on; default: the blank image."""
    prompt: str | None = None
    """Question; default: the atlas's own prompt for steering."""
    max_new_tokens: int = 50
    """Longest answer."""
    seed: int = 0
    """Seed of the random direction."""
    json: bool = False
    """Print JSON instead of a table."""

    def __call__(self) -> int:
        atlas = FeatureAtlas.open(atlas_folder(self.atlas))
        record = atlas.store.feature(self.feature)
        intervention = Intervention(
            feature=self.feature,
            strength=self._strength(record),
            operation=self.operation,
            scope=PatchScope.GIVEN if self.patches else self.scope,
            patches=self.patches,
        )
        answers = self._answers(atlas, intervention)
        if self.json:
            print_json({"feature": self.feature, "strength": intervention.strength, "answers": answers})
            return 0
        times = f" ({intervention.strength / record.maximum:.1f} x the feature's maximum)" if record.maximum else ""
        console = Console()
        console.print(f"feature {self.feature}, {self.operation} {intervention.strength:g}{times}", highlight=False)
        table = Table("", "answer", "patches edited", box=None, pad_edge=False)
        for name, answer in answers.items():
            table.add_row(name.replace("_", " "), escape(answer["text"]), str(answer["n_patches_edited"]))
        console.print(table)
        return 0

    def _strength(self, record: FeatureRecord) -> float:
        """The given strength, the recommended one, or twice the feature's maximum."""
        if self.strength is not None:
            return self.strength
        return 2 * record.maximum if record.recommended_strength is None else record.recommended_strength

    def _answers(self, atlas: FeatureAtlas, intervention: Intervention) -> dict[str, Any]:
        from backend.directions import Random
        from backend.images import open_image

        session = open_session(atlas)
        prompt = self.prompt or str(atlas.store.meta["prompts"]["steering"])
        image = None if self.image is None else open_image(self.image)
        plain, steered = session.answers([[], [intervention]], prompt, image, max_new_tokens=self.max_new_tokens)
        random = session.answers(
            [[intervention]],
            prompt,
            image,
            max_new_tokens=self.max_new_tokens,
            directions=Random(self.seed),
        )[0]
        named = {"no_steering": plain, "steered": steered, "random_direction": random}
        return {
            name: {"text": answer.text, "n_patches_edited": answer.n_patches_edited} for name, answer in named.items()
        }


def open_session(atlas: FeatureAtlas) -> Any:
    """A SteeringSession over the atlas's subject and SAE. Raises SubjectMissing, SubjectMismatch or SAEError."""
    from backend.models import load_subject
    from backend.sae import TopKSAE
    from backend.steering import SteeringSession

    meta = atlas.store.meta
    point = meta["hook_point"]
    model = atlas.store.steered_model
    place = model.get("path")
    source = resolve_path(place) if place else model.get("repository")
    if not source:
        raise SubjectMissing(f"{atlas.store.artifact.folder}: meta.json names no subject model.")
    hook_point = HookPoint(layer=point["layer"], tower=point["tower"], stream=point["stream"])
    subject = load_subject(source, hook_point, device=chosen_device())
    return SteeringSession(subject, TopKSAE.load(atlas.sae_dir))


def chosen_device() -> str:
    """The device of the settings, with ``auto`` resolved."""
    import torch

    device = load_settings().device
    if device != "auto":
        return device
    return "cuda:0" if torch.cuda.is_available() else "cpu"
