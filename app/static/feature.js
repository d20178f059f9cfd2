/* The Feature page: its place in the list of the address, texts to copy, and addresses completed with where the page is. */
(() => {
  "use strict";
  if (window.iconoscopeFeature) return;

  function listed() {
    return window.iconoscope.getField("list").split(".").filter((one) => /^\d+$/.test(one)).map(Number);
  }

  /* "3 of 17 in the list": which features Previous and Next walk. */
  function showPlace() {
    const place = document.querySelector(".ico-list-place");
    if (!place) return;
    const ids = listed();
    const chosen = Number(document.querySelector("#ico-feature-page article[data-feature]")?.dataset.feature);
    const at = ids.indexOf(chosen);
    let told = "";
    if (ids.length) told = at < 0 ? `not in the list of ${ids.length}` : `${at + 1} of ${ids.length} in the list`;
    if (place.dataset.told === told) return;
    place.dataset.told = told;
    place.textContent = told;
    if (!ids.length) return;
    const leave = window.iconoscope.element("button", "ico-link", "Leave the list");
    leave.type = "button";
    leave.addEventListener("click", () => window.iconoscope.setField("list", ""));
    place.append(" ", leave);
  }

  function completeAddresses() {
    document.querySelectorAll("[data-absolute]").forEach((node) => {
      const relative = node.dataset.absolute || node.textContent;
      node.dataset.absolute = relative;
      const whole = new URL(relative, window.location.href.split("?")[0]).href;
      if (node.textContent !== whole) node.textContent = whole;
    });
  }

  document.addEventListener("click", async (event) => {
    const button = event.target instanceof Element ? event.target.closest("[data-copy-text]") : null;
    if (!button) return;
    const text = button.closest(".ico-cite-form")?.querySelector("pre")?.textContent ?? "";
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      const selection = window.getSelection();
      const range = document.createRange();
      range.selectNodeContents(button.closest(".ico-cite-form").querySelector("pre"));
      selection.removeAllRanges();
      selection.addRange(range);
      button.textContent = "Selected: press Ctrl+C";
    }
    window.setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });

  function refresh() {
    showPlace();
    completeAddresses();
  }
  window.addEventListener("iconoscope-address", showPlace);
  let waiting = false;
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    window.requestAnimationFrame(() => { waiting = false; refresh(); });
  }).observe(document.documentElement, { childList: true, subtree: true });

  refresh();
  window.iconoscopeFeature = { refresh };
})();
