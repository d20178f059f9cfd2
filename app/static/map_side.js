/* The legend: what the colours mean and how many features each stands for. */
(() => {
  "use strict";
  if (window.iconoscopeMapSide) return;
  const { element } = window.iconoscope;
  const grouped = (n) => n.toLocaleString("en");

  /* Both colours go into the node and the style sheet chooses, so that a theme switch needs no redrawing. */
  function swatch(colour, dark) {
    const node = element("span", "ico-swatch ico-themed");
    node.style.setProperty("--light", colour);
    node.style.setProperty("--dark", dark ?? colour);
    node.setAttribute("aria-hidden", "true");
    return node;
  }

  /* A number as the server writes it: about three significant figures. */
  function number(value, unit) {
    if (unit === "percent") {
      const share = 100 * value;
      const text = share > 0 && share < 1 ? String(Number(share.toPrecision(2))) : share >= 9.95 ? share.toFixed(0) : share.toFixed(1);
      return `${text}\u00a0%`;
    }
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size < 0.1) return String(Number(value.toPrecision(2)));
    return size >= 100 ? grouped(Math.round(value)) : value.toFixed(size >= 10 ? 1 : 2);
  }

  /* field, counts by shade, absent, n of visible features, how many points share their place. */
  function legend(root, { field, counts, absent, total, nMoved }) {
    const known = total - absent;
    const parts = [element("p", "ico-map-note", field.note)];
    if (field.kind === "number") parts.push(histogram(field, counts, known));
    if (field.kind === "category") parts.push(names(field, counts));
    if (absent) parts.push(element("p", "ico-map-note", `Grey: ${grouped(absent)} of ${grouped(total)} without this value.`));
    if (field.kind === "cluster" && nMoved) {
      parts.push(element("p", "ico-map-note", `${grouped(nMoved)} features are explained in the same words as others; they are spread around one place.`));
    }
    root.replaceChildren(...parts);
  }

  function names(field, counts) {
    const list = element("ul", "ico-legend");
    field.names.forEach((name, code) => {
      const item = element("li");
      item.append(swatch(field.colours[code], field.colours_dark[code]), element("span", "ico-legend-name", name), element("span", "ico-n", `n\u00a0=\u00a0${grouped(counts[code])}`));
      list.append(item);
    });
    return list;
  }

  /* Ten bars in the colours of the map: the legend is the distribution. */
  function histogram(field, counts, known) {
    const box = element("div", "ico-ramp-box");
    const bars = element("div", "ico-ramp");
    const most = Math.max(1, ...counts);
    const edge = (shade) => {
      const span = field.high_code - field.low_code + 1;
      const code = Math.ceil(field.low_code + (shade * span) / window.iconoscopeMapColours.SHADES);
      return field.edges[Math.min(code, field.edges.length - 1)];
    };
    const told = [];
    counts.forEach((n, shade) => {
      const bar = element("span", "ico-ramp-bar ico-themed");
      bar.style.setProperty("--light", field.colours[shade]);
      bar.style.setProperty("--dark", field.colours_dark[shade]);
      bar.style.setProperty("--share", String(n / most));
      const from = shade === 0 ? "lowest" : `from ${number(edge(shade), field.unit)}`;
      bar.title = `${from}: n = ${grouped(n)}`;
      told.push(bar.title);
      bars.append(bar);
    });
    bars.setAttribute("role", "img");
    bars.setAttribute("aria-label", `Distribution. ${told.join("; ")}`);
    const ends = element("div", "ico-ramp-ends");
    ends.append(element("span", "", field.low_text), element("span", "ico-n", `n\u00a0=\u00a0${grouped(known)}`), element("span", "", field.high_text));
    box.append(bars, ends);
    return box;
  }

  window.iconoscopeMapSide = { legend, swatch, number, grouped };
})();
