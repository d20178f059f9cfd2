/* Beside the map: what the colours mean, and the clusters as a list that works without WebGL, with a keyboard, on a phone. */
(() => {
  "use strict";
  if (window.iconoscopeMapSide) return;
  const { element } = window.iconoscope;

  /* Both colours go into the node and the style sheet chooses, so that a theme switch needs no redrawing. */
  function swatch(colour, dark) {
    const node = element("span", "ico-swatch ico-themed");
    node.style.setProperty("--light", colour);
    node.style.setProperty("--dark", dark ?? colour);
    node.setAttribute("aria-hidden", "true");
    return node;
  }

  function palette(field) {
    return window.iconoscope.currentTheme() === "dark" ? field.colours_dark : field.colours;
  }

  function legend(root, field, counts, nMoved) {
    root.replaceChildren();
    root.append(element("p", "ico-map-note", field.note));
    if (field.kind === "number") {
      const bar = element("div", "ico-ramp");
      bar.style.background = `linear-gradient(90deg, ${palette(field).join(", ")})`;
      const ends = element("div", "ico-ramp-ends");
      ends.append(element("span", "", field.low_text), element("span", "", field.high_text));
      root.append(bar, ends);
    } else if (field.show_names) {
      const list = element("ul", "ico-legend");
      field.names.forEach((name, code) => {
        const item = element("li");
        item.append(swatch(field.colours[code], field.colours_dark[code]), element("span", "ico-legend-name", name), element("span", "ico-n", `n = ${(counts[code] ?? 0).toLocaleString("en")}`));
        list.append(item);
      });
      root.append(list);
    }
    const absent = counts.absent ?? 0;
    if (absent) root.append(element("p", "ico-map-note", `Grey: ${absent.toLocaleString("en")} without this value.`));
    if (nMoved) root.append(element("p", "ico-map-note", `${nMoved.toLocaleString("en")} features share their place with others (the same words) and are spread in spirals around it.`));
  }

  /* One <details> per cluster; its features are fetched when it opens. */
  function clusterList(root, clusters, base, onShow) {
    root.replaceChildren();
    for (const cluster of [...clusters].sort((a, b) => b.n_features - a.n_features || a.cluster - b.cluster)) {
      const details = element("details", "ico-cluster");
      details.dataset.cluster = String(cluster.cluster);
      const summary = element("summary");
      summary.append(swatch(cluster.colour, cluster.colour_dark), element("span", "ico-legend-name", cluster.label), element("span", "ico-n", `n = ${cluster.n_features.toLocaleString("en")}`));
      details.append(summary);
      details.addEventListener("toggle", () => {
        if (details.open) {
          onShow(cluster.cluster);
          fill(details, cluster, base);
        }
      });
      root.append(details);
    }
  }

  async function fill(details, cluster, base) {
    if (details.dataset.filled) return;
    details.dataset.filled = "1";
    const list = element("ul", "ico-cluster-features");
    details.append(list);
    try {
      const { features } = await window.iconoscope.fetchJson(`${base}cluster/${cluster.cluster}.json`);
      for (const feature of features) {
        const item = element("li");
        const link = element("a", "ico-feature-link");
        link.href = `?tab=feature&feature=${Number(feature.feature)}`;
        link.dataset.go = "feature";
        link.dataset.value = String(Number(feature.feature));
        link.append(element("span", "ico-id", String(feature.feature)), element("span", "ico-words", feature.text || feature.why));
        item.append(link);
        list.append(item);
      }
    } catch (error) {
      delete details.dataset.filled;
      list.replaceChildren(element("li", "ico-why", `The list could not be read: ${error.message}`));
    }
  }

  window.iconoscopeMapSide = { palette, legend, clusterList };
})();
