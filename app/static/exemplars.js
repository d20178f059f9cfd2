/* Exemplar pictures: an activation grid drawn over a thumbnail as a heatmap or as a mask, on the visitor's side.
   A picture is <figure class="ico-exemplar" data-grid data-rows data-cols data-maximum> with an <img> and a <canvas>.
   data-grid holds the stored float16 activations, row-major, little-endian, in base64; data-maximum the feature's maximum. */
(() => {
  "use strict";
  if (window.iconoscopeExemplars) return;

  /* What the address says of the pictures; defaults are left out of it. */
  const asked = new URLSearchParams(window.location.search);
  const MODES = ["heat", "raw", "mask"];
  const FIRST = { mode: "heat", opacity: 0.7, ranking: "mean" };
  const strength = Number(asked.get("opacity") || NaN);
  const state = {
    mode: MODES.includes(asked.get("overlay")) ? asked.get("overlay") : FIRST.mode,
    opacity: strength >= 0 && strength <= 100 ? strength / 100 : FIRST.opacity,
    ranking: asked.get("ranking") || FIRST.ranking,
  };
  function keep(name, value, first) { window.iconoscope?.setField?.(name, value, first); }
  const grids = new WeakMap();

  function half(bits) {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const sign = bits & 32768 ? -1 : 1;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }

  function gridOf(figure) {
    const packed = figure.dataset.grid || "";
    const known = grids.get(figure);
    if (known && known.packed === packed) return known;
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const values = new Float32Array(bytes.length / 2);
    for (let i = 0; i < values.length; i++) values[i] = half(view.getUint16(2 * i, true));
    const grid = {
      packed, values, rows: Number(figure.dataset.rows), cols: Number(figure.dataset.cols),
      maximum: Number(figure.dataset.maximum) || 1,
    };
    grids.set(figure, grid);
    return grid;
  }

  /* A dark-to-light ramp (plasma's anchors), legible to every kind of colour vision. Alpha rises with the activation: the many faint ones must not veil the picture. */
  const RAMP = [[46, 4, 120], [126, 3, 168], [204, 71, 120], [248, 149, 64], [252, 228, 60]];
  function colour(share) {
    const at = Math.min(0.9999, Math.max(0, share)) * (RAMP.length - 1);
    const i = Math.floor(at);
    return RAMP[i].map((low, c) => Math.round(low + (RAMP[i + 1][c] - low) * (at - i)));
  }

  function paint(figure) {
    const canvas = figure.querySelector("canvas");
    if (!canvas || !figure.dataset.grid) return;
    const { values, rows, cols, maximum } = gridOf(figure);
    figure.dataset.painted = state.mode;
    if (values.length !== rows * cols) return;
    canvas.width = cols;
    canvas.height = rows;
    const context = canvas.getContext("2d");
    const picture = context.createImageData(cols, rows);
    for (let i = 0; i < values.length; i++) {
      const active = values[i] > 0;
      let rgba = [0, 0, 0, 0];
      if (state.mode === "heat" && active) {
        const share = values[i] / maximum;
        rgba = [...colour(share), Math.round(255 * state.opacity * Math.min(1, 1.3 * share))];
      } else if (state.mode === "mask" && !active) {
        rgba = [18, 20, 24, Math.round(255 * (0.25 + 0.75 * state.opacity))];
      }
      picture.data.set(rgba, 4 * i);
    }
    context.putImageData(picture, 0, 0);
  }

  function paintAll(root) {
    root.querySelectorAll("figure.ico-exemplar").forEach(paint);
  }

  function showState() {
    document.querySelectorAll("[data-overlay]").forEach((input) => { input.checked = input.dataset.overlay === state.mode; });
    document.querySelectorAll("[data-overlay-opacity]").forEach((input) => { input.value = String(Math.round(100 * state.opacity)); });
    document.documentElement.dataset.icoOverlay = state.mode;
    /* A ranking that this feature has no pictures for must not leave the page empty. */
    const offered = [...document.querySelectorAll("#ico-feature-page [data-ranking]")].map((input) => input.dataset.ranking);
    const shown = offered.length && !offered.includes(state.ranking) ? offered[0] : state.ranking;
    document.querySelectorAll("[data-ranking]").forEach((input) => { input.checked = input.dataset.ranking === shown; });
    document.documentElement.dataset.icoRanking = shown;
  }

  document.addEventListener("input", (event) => {
    const input = event.target;
    if (!(input instanceof HTMLInputElement)) return;
    if (input.dataset.overlay) {
      state.mode = input.dataset.overlay;
      keep("overlay", state.mode, FIRST.mode);
    } else if (input.dataset.ranking) {
      state.ranking = input.dataset.ranking;
      keep("ranking", state.ranking, FIRST.ranking);
    } else if (input.dataset.overlayOpacity !== undefined) {
      state.opacity = Number(input.value) / 100;
      keep("opacity", String(Math.round(100 * state.opacity)), String(100 * FIRST.opacity));
    } else return;
    showState();
    paintAll(document);
  });

  /* A patch that does not fire says so; 0.00 would look like a rounded number. */
  function patchWords(figure, row, col) {
    const { values, cols } = gridOf(figure);
    const value = values[row * cols + col];
    return `row ${row + 1}, column ${col + 1}: ${value > 0 ? value.toPrecision(3) : "silent"}`;
  }

  function readout(event) {
    const figure = event.target instanceof Element ? event.target.closest("figure.ico-exemplar") : null;
    if (!figure || !figure.dataset.grid) return;
    const box = figure.querySelector(".ico-picture");
    const out = figure.querySelector(".ico-readout");
    if (!box || !out) return;
    if (event.type === "pointerout") { out.textContent = ""; return; }
    const area = box.getBoundingClientRect();
    const { values, rows, cols } = gridOf(figure);
    const col = Math.floor((cols * (event.clientX - area.left)) / area.width);
    const row = Math.floor((rows * (event.clientY - area.top)) / area.height);
    if (row < 0 || col < 0 || row >= rows || col >= cols) { out.textContent = ""; return; }
    out.textContent = patchWords(figure, row, col);
  }
  document.addEventListener("pointermove", readout);
  document.addEventListener("pointerdown", readout);
  document.addEventListener("pointerout", readout);

  /* Pictures of a ranking that is not shown are painted when it is. */
  function isShown(figure) {
    const pooled = figure.closest(".ico-pooled");
    return !pooled || pooled.dataset.pooling === document.documentElement.dataset.icoRanking;
  }

  /* Server-built pages bring new pictures at any time. */
  function paintFresh() {
    showState();
    const fresh = [...document.querySelectorAll("figure.ico-exemplar[data-grid]:not([data-painted])")].filter(isShown);
    fresh.forEach(paint);
    if (fresh.length) document.dispatchEvent(new CustomEvent("iconoscope-exemplars"));
  }
  paintFresh();
  // Once a frame and before it is shown, however many changes it holds: a page that starts makes hundreds.
  let isAsked = false;
  new MutationObserver(() => {
    if (isAsked) return;
    isAsked = true;
    window.requestAnimationFrame(() => { isAsked = false; paintFresh(); });
  }).observe(document.documentElement, { childList: true, subtree: true });

  /* A heatmap alone, for a canvas that is no exemplar's: packed grid in, one pixel a patch out. */
  function drawGrid(canvas, packed, rows, cols, maximum) {
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    if (bytes.length !== 2 * rows * cols) return;
    canvas.width = cols;
    canvas.height = rows;
    const context = canvas.getContext("2d");
    const picture = context.createImageData(cols, rows);
    for (let i = 0; i < rows * cols; i++) {
      const share = half(view.getUint16(2 * i, true)) / (maximum || 1);
      if (share > 0) picture.data.set([...colour(share), Math.round(255 * Math.min(0.92, 0.25 + share))], 4 * i);
    }
    context.putImageData(picture, 0, 0);
  }

  window.iconoscopeExemplars = { paint, state, drawGrid, gridOf, patchWords };
})();
