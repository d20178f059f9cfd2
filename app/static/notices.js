/* What did not work, in words, at the corner of the page. Gradio shows the errors of queued events itself; those of quick
   ones (a search, a feature's number) it keeps to itself, and they come here. Text is set with textContent. */
(() => {
  "use strict";
  if (window.iconoscopeNotices) return;
  const SHOWN_MS = 10000;
  const UNTOLD = "The server could not do this and did not say why. Its log does.";
  const LOST = "The server does not answer. Is it still running, and are you still connected?";

  let corner = null;

  function show(text, title = "That did not work") {
    const { element } = window.iconoscope;
    if (!corner) {
      corner = element("div", "ico-notices");
      corner.setAttribute("role", "alert");
      document.body.append(corner);
    }
    const notice = element("div", "ico-notice");
    const close = element("button", "ico-notice-close", "×");
    close.type = "button";
    close.setAttribute("aria-label", "Close this notice");
    close.addEventListener("click", () => notice.remove());
    notice.append(element("strong", "", title), close, element("p", "", text));
    for (const other of corner.querySelectorAll(".ico-notice")) if (other.textContent === notice.textContent) other.remove();
    corner.append(notice);
    window.setTimeout(() => notice.remove(), SHOWN_MS);
  }

  /* Messages are escaped for Gradio, which renders them; a parsed document that is never shown gives the words back. */
  function words(message) {
    return new DOMParser().parseFromString(message, "text/html").documentElement.textContent;
  }

  async function refused(answer) {
    const said = await answer.json().catch(() => ({}));
    show(typeof said.error === "string" && said.error ? words(said.error) : UNTOLD);
  }

  function lost(error) { if (error?.name !== "AbortError") show(LOST, "No answer"); }

  window.iconoscopeNotices = { show, refused, lost };
})();
