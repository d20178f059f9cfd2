"""Chromium and running explorers for the browser tests. Without a browser they skip, loudly."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import FLAGS, INSTALL, SOFTWARE_GL, executable
from tests.browser.explorer_page import Answering, ExplorerPage
from tests.builders_app import build_steerable_atlas
from tests.builders_atlas import BagEncoder
from tests.builders_hostile import build_hostile_atlas

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

    from app.launching import Explorer

PATIENCE_MS = 60_000
"""For one step; a busy machine is slow, not wrong."""
PAGES = pytest.StashKey[list[ExplorerPage]]()
"""Pages that a test has opened."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its pages showed."""
    report = yield
    if report.when == "call" and report.failed:
        for page in item.stash.get(PAGES, []):
            report.sections.append(("Page when it failed", page.state()))
    return report


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, else Playwright's own."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    found = executable()
    with sync_api.sync_playwright() as playwright:
        if found is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip(INSTALL)
        started = playwright.chromium.launch(executable_path=found, args=[*FLAGS, *SOFTWARE_GL])
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Callable[..., ExplorerPage]]:
    """Opens pages in fresh contexts; afterwards fails on script errors and on requests that left this machine."""
    contexts: list[BrowserContext] = []
    pages = request.node.stash.setdefault(PAGES, [])

    def open_one(explorer: Answering, query: str = "", width: int = 1440, **more: object) -> ExplorerPage:
        context = browser.new_context(viewport={"width": width, "height": 900}, **more)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = ExplorerPage(context.new_page(), explorer)
        pages.append(page)
        page.visit(query)
        return page

    yield open_one
    for context in contexts:
        context.close()
    for page in pages:
        assert page.script_errors == []
        assert page.requests_elsewhere == []


@pytest.fixture(scope="session")
def tiny_subject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.builders_subject import save_tiny_subject  # imports torch: only when a browser test really runs

    return save_tiny_subject(tmp_path_factory.mktemp("subject") / "tiny", patch_px=2)


def _serve(atlas: Path, warm: bool = True) -> Explorer:
    from app.launching import start

    return start([atlas], "127.0.0.1", None, block=False, warm=warm, encoder=BagEncoder())


@pytest.fixture(scope="session")
def explorer(browser: Browser, tiny_subject: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    """The planted atlas with the shrunken subject."""
    del browser  # asked for first, so that nothing is built where no browser is
    running = _serve(build_steerable_atlas(tmp_path_factory.mktemp("planted") / "atlas", tiny_subject))
    yield running
    running.close()


@pytest.fixture(scope="session")
def hostile_explorer(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    """An atlas in which every text tries to run; it has no subject."""
    del browser
    folder = build_hostile_atlas(tmp_path_factory.mktemp("hostile") / "atlas")
    running = _serve(folder, warm=False)
    yield running
    running.close()
