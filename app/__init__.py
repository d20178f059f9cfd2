"""The explorer: a local web page over one atlas or several. ``launch`` is all that the command line needs.

gradio is imported when the explorer starts, not when this package is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import DependencyMissing

if TYPE_CHECKING:
    from app.launching import Explorer

__all__ = ["launch"]


def launch(
    atlas_paths: str | Path | Sequence[str | Path],
    host: str = "127.0.0.1",
    port: int | None = 7860,
    *,
    open_browser: bool = False,
    block: bool = True,
    warm: bool = True,
) -> Explorer:
    """Serve one atlas or several and, with ``block``, stay until interrupted.

    Args:
        atlas_paths: folders of atlas artifacts; the first is the one that opens.
        host: address to listen on. The default answers this machine only.
        port: TCP port; None takes a free one.
        open_browser: open the page in the default browser.
        block: wait until Ctrl-C; otherwise return at once with a running explorer (its ``wait`` blocks later).
        warm: load search and subject model in the background, so that first answers come quickly.

    Raises:
        ArtifactMissing, ArtifactDamaged, ArtifactStale: the atlas cannot be used.
        DependencyMissing: gradio or plotly is not installed.
        OSError: the port is taken.
    """
    try:
        from app.launching import start
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            f"The explorer cannot be imported ({error}). Install the project with its packages: pip install -e ."
        ) from error
    paths = [atlas_paths] if isinstance(atlas_paths, str | Path) else list(atlas_paths)
    return start(paths, host, port, open_browser=open_browser, block=block, warm=warm)
