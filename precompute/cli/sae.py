"""``iconoscope sae import`` and ``iconoscope sae export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from backend.errors import SAEError
from backend.sae_formats import hook_point_from, import_sae
from backend.settings import resolve_path
from backend.types import Split
from precompute.cli.places import sae_folder
from precompute.recipe import Runtime, load_recipe

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from backend.sae import TopKSAE
    from precompute.sae_evaluation import SAEQuality

N_IMAGES = 16
"""Images on which an imported SAE is compared with its subject."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """Bring an SAE made elsewhere into our form, exactly, or say why that is not possible.

    Read are ae.pt of dictionary_learning, checkpoints of saev, and SAELens folders. Nothing but tensors is unpickled.
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """File or folder that holds the SAE."""
    out: Path
    """Folder for the imported SAE; it must not exist yet, or be empty."""
    format: str | None = None
    """dictionary_learning, saelens or saev; default: recognised from the files."""
    hook_point: str | None = None
    """Where it was trained, like vision.16.residual; needed where the files do not say."""
    scale: float | None = None
    """Residuals were divided by this before the SAE read them; needed where the files do not say."""
    mean: Path | None = None
    """File (.npy, d_model numbers) that was subtracted from the residuals before that."""
    subject: str | None = None
    """Name of the subject model; default: the one in the files."""
    recipe: str | None = None
    """Recipe whose subject it is for: width, hook point and scale are then checked on a few of its images."""

    def __call__(self) -> int:
        _require_empty(self.out)
        sae = import_sae(
            resolve_path(self.source),
            format_name=self.format,
            hook_point=None if self.hook_point is None else hook_point_from(self.hook_point),
            scale=self.scale,
            mean=None if self.mean is None else _read_mean(self.mean),
            subject=self.subject,
        )
        quality = None if self.recipe is None else _checked_against(sae, self.recipe)
        sae.save(self.out)
        print(f"{self.out}: d_model {sae.d_model}, d_sae {sae.d_sae}, k {sae.k}, {sae.config.hook_point}")
        record = sae.config.metadata["imported"]
        assert isinstance(record, dict)  # written by import_sae
        print(f"folded: {'; '.join(record['folded']) or 'nothing, the weights are bit by bit those of the file'}")
        if quality is not None:
            fit = f"explained variance {quality.explained_variance:.3f}, L0 {quality.l0:.1f}"
            print(f"checked with {self.recipe}: {fit} on {quality.n_images} images")
        else:
            print("not checked on images: --recipe RECIPE compares width, hook point and scale with a subject")
        return 0


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write an SAE as a SAELens folder (cfg.json and sae_weights.safetensors), which SAELens 6 loads."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="ARTIFACT")]
    """Folder of an atlas, of a train_sae artifact, of a run, or of an SAE itself."""
    out: Path
    """Folder for the exported SAE; it must not exist yet, or be empty."""

    def __call__(self) -> int:
        from backend.sae import TopKSAE
        from backend.sae_formats.saelens import export_saelens

        sae = TopKSAE.load(sae_folder(self.source))
        export_saelens(sae, self.out)
        print(f"{self.out}: d_in {sae.d_model}, d_sae {sae.d_sae}, k {sae.k}, {sae.config.hook_point}")
        return 0


@dataclass(frozen=True, kw_only=True)
class SAECommand:
    """Bring in SAEs made elsewhere, and take ours out."""

    action: Annotated[
        Annotated[Import, tyro.conf.subcommand("import", prefix_name=False)]
        | Annotated[Export, tyro.conf.subcommand("export", prefix_name=False)],
        tyro.conf.arg(name=""),
    ]

    def __call__(self) -> int:
        return self.action()


def _require_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SAEError(f"{out} exists and is not an empty folder: remove it, or choose another --out")


def _read_mean(path: Path) -> Float[Tensor, " d_model"]:
    """The mean residual in a .npy file. Raises SAEError; the shape is checked where the width is known."""
    import numpy as np
    import torch

    try:
        return torch.from_numpy(np.load(resolve_path(path), allow_pickle=False).astype(np.float64))
    except (OSError, ValueError) as error:
        raise SAEError(f"cannot read the mean in {path} ({error}): save it with numpy.save, as numbers") from error


def _checked_against(sae: TopKSAE, recipe_name: str) -> SAEQuality:
    """The fit to a recipe's subject on its first images for explaining; errors as for ``check_fit``."""
    from precompute.datasets import open_image_set
    from precompute.sae_fit import check_fit
    from precompute.subject import open_tower

    recipe = load_recipe(recipe_name)
    images = open_image_set(recipe, Split.EXPLAIN)
    return check_fit(sae, open_tower(recipe, Runtime()), [images.load(name) for name in images.ids[:N_IMAGES]])
