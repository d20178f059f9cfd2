"""A stopwatch inside the page: from a visitor's press to the frame in which something is on screen.

Times are taken by the browser itself, once per animation frame, so that neither the wire to the benchmark nor its
polling is part of them. What cannot be drawn within a frame shows up as time.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Pressed: the last pointer or key press. Each mark is a test that is asked once a frame until it holds.
SCRIPT = """
(() => {
  if (window.__watch) return;
  const watch = { pressed: 0, marks: new Map(), frames: 0 };
  window.__watch = watch;
  const press = () => { watch.pressed ||= performance.now(); };
  for (const name of ['pointerup', 'keydown', 'change']) addEventListener(name, press, true);
  watch.arm = (tests) => {
    watch.pressed = 0;
    const mark = (body) => ({ test: new Function('return ' + body), at: 0 });
    watch.marks = new Map(Object.entries(tests).map(([name, body]) => [name, mark(body)]));
  };
  const since = (at) => at ? at - watch.pressed : null;
  watch.times = () => Object.fromEntries([...watch.marks].map(([name, one]) => [name, since(one.at)]));
  watch.done = () => [...watch.marks.values()].every((one) => one.at);
  const look = () => {
    watch.frames++;
    if (watch.pressed) for (const one of watch.marks.values()) {
      if (!one.at) { try { if (one.test()) one.at = performance.now(); } catch { /* not there yet */ } }
    }
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})()
"""
SHOWN = "(selector => { const e = document.querySelector(selector); return e && e.getClientRects().length > 0; })"


class Stopwatch:
    """Measures one press after another on one page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        page.evaluate(SCRIPT)

    def arm(self, **tests: str) -> None:
        """Before the press: named JavaScript expressions that are true once their thing is on screen."""
        self._page.evaluate("tests => window.__watch.arm(tests)", tests)

    def mark_old(self, selector: str) -> None:
        """Give what is there now the attribute ``data-old``: a test can then ask for what comes instead."""
        script = "selector => document.querySelectorAll(selector).forEach(one => one.setAttribute('data-old', ''))"
        self._page.evaluate(script, selector)

    def seconds(self, patience_s: float = 30.0) -> dict[str, float | None]:
        """After the press: seconds from the press to each mark; None for what did not come in time."""
        from playwright.sync_api import TimeoutError as TookTooLong

        # What does not come in time is told by its None.
        with suppress(TookTooLong):
            self._page.wait_for_function("window.__watch.done()", timeout=1000 * patience_s)
        found: dict[str, Any] = self._page.evaluate("window.__watch.times()")
        return {name: None if value is None else value / 1000 for name, value in found.items()}

    def frames(self) -> int:
        """Animation frames since the page was opened."""
        return int(self._page.evaluate("window.__watch.frames"))


def shown(selector: str) -> str:
    """The test that an element is in the page and takes room."""
    return f"{SHOWN}({selector!r})"
