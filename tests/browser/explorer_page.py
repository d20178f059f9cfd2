"""The explorer as a visitor uses it: what the browser tests press and read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


class Answering(Protocol):
    """An explorer that answers somewhere: in this process or in another one."""

    @property
    def url(self) -> str: ...


class ExplorerPage:
    """One open page, with everything that went wrong in it."""

    def __init__(self, page: Page, explorer: Answering) -> None:
        self.page = page
        self.explorer = explorer
        self.script_errors: list[str] = []
        self.requests_elsewhere: list[str] = []
        self.console: list[str] = []
        page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.script_errors.append(str(error)))
        page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        if not url.startswith((self.explorer.url, "data:", "blob:")):
            self.requests_elsewhere.append(url)

    def visit(self, query: str = "") -> None:
        self.page.goto(self.explorer.url + query)
        self.page.wait_for_selector(".ico-header")
        # For one frame what is out of view is not laid out (place() in iconoscope.js), and innerText would miss it.
        self.page.add_style_tag(content=".gradio-container .is-new * { content-visibility: visible !important; }")
        # The tab of the address is drawn before its fields are: what is typed in between would be lost.
        self.page.wait_for_function("window.iconoscope?.isReady")

    def state(self) -> str:
        """What a failed test wants to know: the address, the fields, the words on the screen, and the console."""
        if self.page.is_closed():
            return "closed by the test"
        fields = self.page.evaluate(
            "() => [...document.querySelectorAll('input, textarea')].filter(one => one.value && one.type !== 'radio')"
            ".map(one => `${one.closest('[id]')?.id}: ${one.value.slice(0, 200)}`)"
        )
        focus = self.page.evaluate("document.activeElement?.outerHTML.slice(0, 200)")
        words = self.page.locator("body").inner_text()[:2000]
        parts = (self.page.url, f"focus: {focus}", *fields, "", words, "", *self.console[-20:])
        return "\n".join(str(part) for part in parts)

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def wait_for_tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True, selected=True).wait_for()
        self.wait_for_frame()

    def wait_for_frame(self) -> None:
        """Until what is in the page has been drawn once.

        The scripts complete new parts of a page just before they are first drawn; a test can read earlier, a person
        cannot.
        """
        self.page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")

    def wait_for_map(self) -> None:
        self.page.wait_for_function("window.iconoscopeMap && window.iconoscopeMap.ready")

    def map(self, expression: str) -> Any:
        return self.page.evaluate(f"window.iconoscopeMap.{expression}")

    def places_on_map(self) -> dict[int, dict[str, float]]:
        """Viewport pixels of every feature in view."""
        script = "() => iconoscopeMap.ids.map(id => [id, iconoscopeMap.pixelOf(id)]).filter(([, at]) => at)"
        return dict(self.page.evaluate(script))

    def isolated_features(self, n: int, distance_px: float = 16) -> list[int]:
        """Features in view with no other point near, so that a click cannot mean another."""
        places = self.places_on_map()

        def alone(one: int) -> bool:
            at = places[one]
            others = (other for name, other in places.items() if name != one)
            return all((at["x"] - b["x"]) ** 2 + (at["y"] - b["y"]) ** 2 > distance_px**2 for b in others)

        return [one for one in places if alone(one)][:n]

    def click_feature_on_map(self, feature: int) -> None:
        at = self.map(f"pixelOf({feature})")
        self.page.mouse.move(at["x"] + 1, at["y"] + 1)
        self.page.mouse.click(at["x"], at["y"])

    def wait_for_feature(self, feature: int) -> Locator:
        page = self.page.locator(f'article[data-feature="{feature}"]')
        page.wait_for(state="visible")
        self.wait_for_frame()
        return page

    def type_query(self, query: str) -> None:
        """Type into the search field until the text stays.

        A tab that was drawn this instant may set its field once more; people do not type that fast.
        """
        box = self.page.locator("#ico-query input, #ico-query textarea").first
        for _ in range(20):
            box.fill(query)
            self.page.wait_for_timeout(150)
            if box.input_value() == query:
                return

    def search(self, query: str) -> None:
        self.type_query(query)
        self.page.locator("#ico-search").click()

    def answer(self, column: str) -> str:
        return self.page.locator(f'[data-column="{column}"] .ico-words').inner_text()

    def start_steering(self) -> None:
        self.page.locator("#ico-start").click()

    def wait_until_answered(self) -> str:
        """The line below the answers, once they are whole."""
        line = self.page.locator("#ico-answers .ico-line")
        self.page.wait_for_function(
            "/^(Done|Stopped) in/.test(document.querySelector('#ico-answers .ico-line')?.textContent)"
        )
        return line.inner_text()

    def sideways_scroll_px(self) -> int:
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
