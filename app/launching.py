"""Starting the explorer's server: our routes in front, Gradio behind, models warming up in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import gradio as gr

from app import bundle, publishing, server
from app.catalogue import Catalogue, open_catalogue
from app.components.addresses import static
from app.resources import keep_memory_small, return_freed_memory, share_processors
from app.services import Services
from app.serving import DEFAULT, Serving
from app.serving_plans import foresee
from app.subject_sessions import find_devices
from app.theme import build_theme
from app.ui import build_ui
from backend.errors import DependencyMissing, IconoscopeError
from backend.listening import free_port, require_address
from backend.text_encoders import TextEncoder

MAX_WAITING = 64
"""Queued events that may wait in Gradio's own line; the model's line is shorter and has its own words for it."""
MAX_THREADS = 96

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explorer:
    """A running explorer."""

    url: str
    catalogue: Catalogue
    blocks: gr.Blocks

    @property
    def services(self) -> Services:
        """The default atlas."""
        return self.catalogue.default

    def wait(self) -> None:
        """Stay until Ctrl-C, then stop serving."""
        try:
            threading.Event().wait()
        except KeyboardInterrupt:  # which is how a person stops it
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Stop serving; what the model is still saying is cut off."""
        self.services.worker.workers.close()
        self.blocks.close(verbose=False)


def start(
    atlas_paths: Sequence[str | Path],
    host: str,
    port: int | None,
    *,
    open_browser: bool = False,
    block: bool = True,
    warm: bool = True,
    verify: bool = True,
    encoder: TextEncoder | None = None,
    serving: Serving = DEFAULT,
    tell: Callable[[str], None] = log.info,
) -> Explorer:
    """Open the atlases and serve them. See :func:`app.launch`."""
    if not server.plotly_path().is_file():
        raise DependencyMissing("plotly is installed without its plotly.min.js. Install it again: pip install plotly")
    if port is not None:
        require_address(host, port)
    share_processors()
    keep_memory_small()
    catalogue = open_catalogue(atlas_paths, verify=verify, encoder=encoder, serving=serving)
    tell_plans(catalogue, serving, tell)
    blocks = build_ui(catalogue)
    blocks.queue(max_size=MAX_WAITING)
    with redirect_stdout(StringIO()):  # Gradio prints where agents ask; docs/api.md says it, and stdout is for results
        url = launched(blocks, catalogue, host, port, open_browser=open_browser)
    publishing.answer_in_json(blocks)
    explorer = Explorer(url=url, catalogue=catalogue, blocks=blocks)
    if warm:
        threading.Thread(target=warm_up, args=(catalogue,), name="warm-up", daemon=True).start()
    if block:
        explorer.wait()
    return explorer


def launched(blocks: gr.Blocks, catalogue: Catalogue, host: str, port: int | None, *, open_browser: bool) -> str:
    """Start Gradio's server with our routes in front; its address. Raises AddressUnusable."""
    _, url, _ = blocks.launch(
        server_name=host,
        server_port=port or free_port(host),
        inbrowser=open_browser,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        footer_links=[],
        theme=build_theme(),
        head=page_head(),
        favicon_path=bundle.STATIC_DIR / server.ICON,
        app_kwargs={"routes": server.routes(catalogue), "middleware": server.middleware(catalogue)},
        max_file_size="1mb",
        mcp_server=publishing.has_mcp(),
        # Everyone who waits for the model holds a thread; reads must find free ones beside them.
        max_threads=MAX_THREADS,
    )
    return url


def tell_plans(catalogue: Catalogue, serving: Serving, tell: Callable[[str], None]) -> None:
    """Say who will answer and what it will take, unless it is the default: then it is told when the model is loaded.

    Raises what the plan finds: a model that is missing or does not fit was asked for, so it is an error at once.
    """
    if not serving.is_asked:
        return
    for services in catalogue:
        tell(f"{services.key}: {services.live_answers}")
    for line in foresee((one.atlas for one in catalogue), serving, serving.devices or find_devices()):
        tell(f"Memory on {line}")


def page_head() -> str:
    """Styles as a link and not through Gradio's ``css``: that would rewrite the selectors, in media queries wrongly."""
    return f'<link rel="stylesheet" href="{static(bundle.STYLE)}"><script src="{static(bundle.SCRIPT)}"></script>'


def warm_up(catalogue: Catalogue) -> None:
    """Load what the first search and the first steered answer would otherwise wait for."""
    for services in catalogue:
        try:
            services.search.warm_up()
        except (IconoscopeError, ImportError, OSError) as error:
            # The Search tab repeats it to whoever searches; browsing goes on.
            log.warning("search by meaning is not available: %s", error)
    catalogue.default.worker.warm().join()
    return_freed_memory()
