/* A larger view of one exemplar: a dialog with the same overlay, a patch cursor moved by pointer or arrow keys, and the
   activation of the patch in words. Escape closes it, and the focus returns to the picture it was opened from. */
(() => {
  "use strict";
  if (window.iconoscopeDialog) return;
  let dialog = null;
  let shown = null;
  let cursor = { row: 0, col: 0 };

  function button(label, name, act) {
    const node = window.iconoscope.element("button", "ico-button", label);
    node.type = "button";
    node.setAttribute("aria-label", name);
    node.addEventListener("click", act);
    return node;
  }

  function build() {
    const { element } = window.iconoscope;
    dialog = element("dialog", "ico-large");
    dialog.setAttribute("aria-labelledby", "ico-large-title");
    const head = element("div", "ico-large-head");
    const title = element("h2", "", "");
    title.id = "ico-large-title";
    head.append(title, button("←", "Previous picture", () => step(-1)), button("→", "Next picture", () => step(1)), button("Close", "Close the larger view", () => dialog.close()));
    const help = element("p", "ico-why", "Arrow keys go from patch to patch; Home goes to the strongest one. Escape closes.");
    const out = element("p", "ico-large-readout", "");
    out.setAttribute("role", "status");
    dialog.append(head, element("div", "ico-large-stage"), out, help);
    dialog.addEventListener("keydown", onKey);
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    (document.querySelector(".gradio-container") ?? document.body).append(dialog);
  }

  function siblings() { return [...(shown?.parentElement?.querySelectorAll("[data-enlarge]") ?? [])].map((one) => one.closest("figure")); }

  function step(by) {
    const all = siblings();
    if (all.length) show(all[(all.indexOf(shown) + by + all.length) % all.length]);
  }

  function strongest(figure) {
    const { values, cols } = window.iconoscopeExemplars.gridOf(figure);
    let best = 0;
    values.forEach((value, i) => { if (value > values[best]) best = i; });
    return { row: Math.floor(best / cols), col: best % cols };
  }

  /* The same picture again, as a figure of its own that is painted like every other. */
  function show(source) {
    shown = source;
    const { element } = window.iconoscope;
    const figure = element("figure", "ico-exemplar");
    for (const name of ["grid", "rows", "cols", "maximum", "regions"]) {
      if (source.dataset[name] !== undefined) figure.dataset[name] = source.dataset[name];
    }
    const picture = element("div", "ico-picture");
    const img = element("img");
    const original = source.querySelector("img");
    img.src = original.src;
    img.alt = original.alt;
    picture.append(img, element("canvas"), element("span", "ico-patch-cursor"));
    picture.tabIndex = 0;
    picture.setAttribute("role", "application");
    picture.setAttribute("aria-label", `Patches of ${original.alt}`);
    picture.addEventListener("pointermove", (event) => point(event, picture));
    picture.addEventListener("pointerdown", (event) => point(event, picture));
    figure.append(picture, element("div", "ico-region-note"));
    dialog.querySelector("h2").textContent = original.alt;
    dialog.querySelector(".ico-large-stage").replaceChildren(figure);
    window.iconoscopeExemplars.paint(figure);
    window.iconoscopeRegions.draw(figure);
    cursor = strongest(source);
    if (!dialog.open) dialog.showModal();
    place();
    picture.focus({ preventScroll: true });
  }

  function point(event, picture) {
    const area = picture.getBoundingClientRect();
    const { rows, cols } = window.iconoscopeExemplars.gridOf(shown);
    const col = Math.floor((cols * (event.clientX - area.left)) / area.width);
    const row = Math.floor((rows * (event.clientY - area.top)) / area.height);
    if (row < 0 || col < 0 || row >= rows || col >= cols) return;
    cursor = { row, col };
    place();
  }

  function place() {
    const { rows, cols } = window.iconoscopeExemplars.gridOf(shown);
    const mark = dialog.querySelector(".ico-patch-cursor");
    Object.assign(mark.style, { width: `${100 / cols}%`, height: `${100 / rows}%`, left: `${(100 * cursor.col) / cols}%`, top: `${(100 * cursor.row) / rows}%` });
    dialog.querySelector(".ico-large-readout").textContent = window.iconoscopeExemplars.patchWords(shown, cursor.row, cursor.col);
  }

  const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  function onKey(event) {
    if (!(event.target instanceof Element) || !event.target.classList.contains("ico-picture")) return;
    const { rows, cols } = window.iconoscopeExemplars.gridOf(shown);
    if (event.key === "Home") cursor = strongest(shown);
    else if (MOVES[event.key]) {
      const [down, right] = MOVES[event.key];
      cursor = { row: Math.min(rows - 1, Math.max(0, cursor.row + down)), col: Math.min(cols - 1, Math.max(0, cursor.col + right)) };
    } else return;
    event.preventDefault();
    place();
  }

  document.addEventListener("click", (event) => {
    const opener = event.target instanceof Element ? event.target.closest("[data-enlarge]") : null;
    if (!opener) return;
    if (!dialog || !dialog.isConnected) build();
    show(opener.closest("figure"));
  });

  window.iconoscopeDialog = { show };
})();
