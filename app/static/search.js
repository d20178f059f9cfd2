/* Search while typing: asks once the visitor pauses. Enter and the button do not wait for this. */
(() => {
  "use strict";
  if (window.iconoscopeSearch) return;
  const PAUSE_MS = 120;

  let newest = "";
  let timer = 0;
  let waiting = [];

  /* Resolves for every key pressed with the newest text, once nothing was typed for a moment. */
  function settled(query) {
    newest = String(query ?? "");
    window.clearTimeout(timer);
    timer = window.setTimeout(() => {
      const answered = waiting;
      waiting = [];
      answered.forEach((answer) => answer(newest));
    }, PAUSE_MS);
    return new Promise((resolve) => { waiting.push(resolve); });
  }

  window.iconoscopeSearch = { settled };
})();
