/* Where the words of a method point, outlined over the exemplars, and how well that meets where the feature fires.
   A picture carries data-regions: "<arm>:<bits>" separated by blanks, bits row-major in base64, highest bit first. */
(() => {
  "use strict";
  if (window.iconoscopeRegions) return;
  const SVG = "http://www.w3.org/2000/svg";
  let arm = new URLSearchParams(window.location.search).get("outline") || "";

  function regionOf(figure, key) {
    const packed = (figure.dataset.regions || "").split(" ").find((one) => one.startsWith(key + ":"));
    if (!packed) return null;
    const bytes = Uint8Array.from(atob(packed.slice(key.length + 1)), (c) => c.charCodeAt(0));
    const n = Number(figure.dataset.rows) * Number(figure.dataset.cols);
    if (bytes.length * 8 < n) return null;
    return Array.from({ length: n }, (_, i) => Boolean(bytes[i >> 3] & (128 >> (i & 7))));
  }

  /* The boundary as a path in patch units: every edge between a patch inside and one outside. */
  function outlinePath(region, rows, cols) {
    const inside = (row, col) => row >= 0 && col >= 0 && row < rows && col < cols && region[row * cols + col];
    const parts = [];
    for (let row = 0; row <= rows; row++) {
      for (let col = 0; col <= cols; col++) {
        if (inside(row, col) !== inside(row - 1, col)) parts.push(`M${col} ${row}h1`);
        if (inside(row, col) !== inside(row, col - 1)) parts.push(`M${col} ${row}v1`);
      }
    }
    return parts.join("");
  }

  function counts(figure, region) {
    const { values } = window.iconoscopeExemplars.gridOf(figure);
    let both = 0;
    let either = 0;
    region.forEach((named, i) => {
      const fires = values[i] > 0;
      if (named && fires) both++;
      if (named || fires) either++;
    });
    return { both, either };
  }

  function draw(figure) {
    figure.querySelector(".ico-regions.is-chosen")?.remove();
    const note = figure.querySelector(".ico-region-note");
    if (note) note.textContent = "";
    if (!arm || figure.dataset.regions === undefined) return;
    const region = regionOf(figure, arm);
    if (!region) {
      if (note) note.textContent = "no region stored";
      return;
    }
    const [rows, cols] = [Number(figure.dataset.rows), Number(figure.dataset.cols)];
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${cols} ${rows}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("class", "ico-regions is-chosen");
    svg.setAttribute("aria-hidden", "true");
    for (const role of ["halo", "edge"]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("d", outlinePath(region, rows, cols));
      path.setAttribute("class", role);
      path.setAttribute("vector-effect", "non-scaling-stroke");
      svg.append(path);
    }
    figure.querySelector(".ico-picture")?.append(svg);
    if (note) note.textContent = words(figure, region);
  }

  function words(figure, region) {
    const { both, either } = counts(figure, region);
    const named = region.filter(Boolean).length;
    if (!named) return "not seen here; IoU 0" + (either ? `, n = ${either} patches` : "");
    return `IoU ${(both / either).toFixed(2)}, n = ${either} patches in either`;
  }

  function drawAll() {
    document.querySelectorAll("[data-outline]").forEach((select) => { select.value = arm; if (select.selectedIndex < 0) select.value = ""; });
    document.querySelectorAll("figure[data-regions]").forEach(draw);
    document.documentElement.dataset.icoOutline = arm;
  }

  document.addEventListener("change", (event) => {
    const select = event.target;
    if (!(select instanceof HTMLSelectElement) || select.dataset.outline === undefined) return;
    arm = select.value;
    window.iconoscope?.setField?.("outline", arm);
    drawAll();
  });
  document.addEventListener("iconoscope-exemplars", drawAll);

  if (window.iconoscopeExemplars) drawAll();
  window.iconoscopeRegions = { draw, regionOf, outlinePath };
})();
