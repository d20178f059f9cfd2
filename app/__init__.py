"""The explorer: a local web page over one atlas or several. ``launch`` is all that the command line needs.

gradio is imported when the explorer starts, not when this package is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import DependencyMissing

if TYPE_CHECKING:
    from app.launching import Explorer
    from backend.types import Quantization

__all__ = ["launch"]


def launch(
    atlas_paths: str | Path | Sequence[str | Path],
    host: str = "127.0.0.1",
    port: int | None = 7860,
    *,
    open_browser: bool = False,
    block: bool = True,
    warm: bool = True,
    subject: str | None = None,
    quantize: Quantization | None = None,
    devices: Sequence[str] = (),
    tell: Callable[[str], None] | None = None,
) -> Explorer:
    """Serve one atlas or several and, with ``block``, stay until interrupted.

    Args:
        atlas_paths: folders of atlas artifacts; the first is the one that opens.
        host: address to listen on. The default answers this machine only.
        port: TCP port; None takes a free one.
        open_browser: open the page in the default browser.
        block: wait until Ctrl-C; otherwise return at once with a running explorer (its ``wait`` blocks later).
        warm: load search and subject model in the background, so that first answers come quickly.
        subject: folder or repository of another model that answers, around the same vision tower; None: each atlas's
            own subject.
        quantize: bits of the language model's weights; None: not quantised.
        devices: torch devices, one replica of the model on each; (): every GPU, else the CPU.
        tell: takes each line of the memory plan, if subject, quantize or devices are given; None: to the log.

    Raises:
        SubjectMissing, SubjectMismatch: ``subject`` is not here, or has another vision tower than the atlas.
        SubjectError: the model does not fit a device.
        ArtifactMissing, ArtifactDamaged, ArtifactStale: the atlas cannot be used.
        DependencyMissing: gradio or plotly is not installed.
        AddressUnusable: the port is taken, or nothing can listen at ``host``.
    """
    try:
        from app.launching import log, start
        from app.serving import Serving
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            f"The explorer cannot be imported ({error}). Install the project with its packages: pip install -e ."
        ) from error
    paths = [atlas_paths] if isinstance(atlas_paths, str | Path) else list(atlas_paths)
    serving = Serving(subject=subject, quantize=quantize, devices=tuple(devices))
    return start(
        paths,
        host,
        port,
        open_browser=open_browser,
        block=block,
        warm=warm,
        serving=serving,
        tell=tell or log.info,
    )
