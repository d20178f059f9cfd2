/* The Inspect tab: what is asked of the server, heatmaps of listed features over the picture, "answer without it".
   A listed feature is <li class="ico-found" data-feature data-grid data-rows data-cols data-maximum> with a button
   .ico-found-heat that holds a canvas. Pointing at it shows its heatmap on the picture; pressing the button keeps it. */
(() => {
  "use strict";
  if (window.iconoscopeInspect) return;

  const PICKER = "ico-inspect-patches";
  const CHOOSER = "ico-inspect-image";
  let pinned = window.iconoscope.getField("heat");
  let seen = {};
  // As in app/hub.py: what Gradio calls an update without any change.
  const NOTHING = { __type__: "update" };

  function writtenPatches(patches) {
    const runs = [];
    for (const one of patches) {
      if (runs.length && one === runs[runs.length - 1][1] + 1) runs[runs.length - 1][1] = one;
      else runs.push([one, one]);
    }
    return runs.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(".");
  }

  /* The wish as the hidden field carries it, and the address as it is kept. A new picture starts without patches.
     Values also change when the server fills the page; only what the visitor does is a new wish. */
  function ask(picker, chooser, ranked, before) {
    const wished = Boolean(chooser?.stamp) && chooser.stamp !== seen.chooser;
    const pointed = Boolean(picker?.stamp) && picker.stamp !== seen.picker;
    const sorted = Boolean(before) && new URLSearchParams(before).get("ranked") !== ranked;
    seen = { chooser: chooser?.stamp ?? seen.chooser, picker: picker?.stamp ?? seen.picker };
    if (!wished && !pointed && !sorted) return NOTHING;
    const image = chooser?.selected ?? "";
    const spot = picker?.image === image ? writtenPatches(picker?.patches ?? []) : "";
    const { setField } = window.iconoscope;
    setField("inspect", image || "blank");
    setField("spot", spot);
    setField("ranked", ranked, "unusual");
    if (wished) { keep(""); setField("without", ""); }
    const fields = new URLSearchParams({ inspect: image || "blank", spot, ranked, heat: pinned });
    // A picture that is uploaded again after the server forgot it is a new wish, though it has the same name.
    if (wished) fields.set("stamp", chooser.stamp);
    return fields.toString();
  }

  function heatOf(row) {
    return row ? { grid: row.dataset.grid, maximum: Number(row.dataset.maximum), label: row.dataset.feature } : null;
  }
  function rowOf(feature) {
    return feature ? document.querySelector(`#ico-inspect-list .ico-found[data-feature="${CSS.escape(feature)}"]`) : null;
  }
  function show(row) {
    document.querySelectorAll("#ico-inspect-list .ico-found.is-shown").forEach((one) => one.classList.toggle("is-shown", one === row));
    row?.classList.add("is-shown");
    window.iconoscopePatchPicker.heat(PICKER, heatOf(row));
  }

  function keep(feature) {
    pinned = feature;
    window.iconoscope.setField("heat", feature);
    document.querySelectorAll("#ico-inspect-list .ico-found-heat").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.closest(".ico-found").dataset.feature === feature));
    });
    show(rowOf(feature));
  }

  function paint(root) {
    root.querySelectorAll(".ico-found").forEach((row) => {
      const canvas = row.querySelector("canvas");
      if (canvas) window.iconoscopeExemplars.drawGrid(canvas, row.dataset.grid, Number(row.dataset.rows), Number(row.dataset.cols), Number(row.dataset.maximum));
    });
    root.querySelectorAll(".ico-found-heat").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.closest(".ico-found").dataset.feature === pinned));
    });
    show(rowOf(pinned));
  }

  function mount(root, without) {
    const row = (event) => (event.target instanceof Element ? event.target.closest(".ico-found") : null);
    root.addEventListener("pointerover", (event) => { if (event.pointerType === "mouse" && row(event)) show(row(event)); });
    root.addEventListener("pointerout", (event) => {
      const to = event.relatedTarget instanceof Element ? event.relatedTarget.closest(".ico-found") : null;
      if (event.pointerType === "mouse" && !to) show(rowOf(pinned));
    });
    root.addEventListener("focusin", (event) => { if (row(event)?.matches(":focus-within")) show(row(event)); });
    root.addEventListener("focusout", (event) => {
      if (!(event.relatedTarget instanceof Element && event.relatedTarget.closest(".ico-found"))) show(rowOf(pinned));
    });
    root.addEventListener("click", (event) => {
      const button = event.target instanceof Element ? event.target.closest(".ico-found-heat") : null;
      if (!button) return;
      const { feature } = button.closest(".ico-found").dataset;
      keep(feature === pinned ? "" : feature);
    });
    // The same button also stands among the answers, outside this component.
    document.addEventListener("click", (event) => {
      const button = event.target instanceof Element ? event.target.closest("[data-without]") : null;
      if (!button) return;
      window.iconoscope.setField("without", button.dataset.without);
      without(Number(button.dataset.without));
      const answers = document.getElementById("ico-inspect-answers");
      const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
      answers?.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
    });
    new MutationObserver((changes) => {
      if (changes.some((change) => [...change.addedNodes].some((node) => node instanceof Element))) paint(root);
    }).observe(root, { childList: true, subtree: true });
    paint(root);
  }

  window.iconoscopeInspect = { mount, ask };
})();
