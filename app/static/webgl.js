/* WebGL and Plotly: whether the first is here, and the second fetched once, when something wants to draw with it. */
(() => {
  "use strict";
  if (window.iconoscopeWebgl) return;
  // Beside this very script, with the same version.
  const ADDRESS = document.currentScript.src.replace(/[^/]+\.js(?=\?|$)/, "plotly.min.js");
  let has = null;
  let coming = null;

  function probe() {
    if (window.iconoscope.getField("webgl") === "off") return false;
    try {
      const canvas = document.createElement("canvas");
      return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
    } catch { return false; }
  }

  /* Rejects when the script cannot be had; the next call tries again. */
  function plotly() {
    coming ??= new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = ADDRESS;
      script.onload = () => done(window.Plotly);
      script.onerror = () => { coming = null; failed(new Error("Plotly could not be loaded")); };
      document.head.append(script);
    });
    return coming;
  }

  window.iconoscopeWebgl = { plotly, get isHere() { return (has ??= probe()); } };
})();
