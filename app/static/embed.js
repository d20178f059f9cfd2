/* The framed page of one feature: the theme and the overlay that the address asks for. It loads after exemplars.js. */
(() => {
  "use strict";
  const { body } = document;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function follow() {
    if (body.dataset.theme === "auto") body.classList.toggle("dark", dark.matches);
  }
  dark.addEventListener("change", follow);
  follow();

  const exemplars = window.iconoscopeExemplars;
  exemplars.state.mode = body.dataset.overlayFirst;
  document.documentElement.dataset.icoOverlay = exemplars.state.mode;
  document.querySelectorAll("figure.ico-exemplar").forEach(exemplars.paint);
})();
