/* Cluster names over the map: placed by size, moved aside or left out rather than drawn over one another.
   Names are data (a language model may have written them), so they are set with textContent. */
(() => {
  "use strict";
  if (window.iconoscopeMapLabels) return;

  const HEIGHT = 20;
  const GAP = 4;
  const MOVES = [[0, 0], [0, -14], [0, 14], [-30, 0], [30, 0], [0, 26]];

  function overlaps(a, b) {
    return a.left < b.right + GAP && b.left < a.right + GAP && a.top < b.bottom + GAP && b.top < a.bottom + GAP;
  }

  /* Greedy: the largest cluster first. Returns boxes in pixels for the labels that fit. */
  function place(labels, width, height) {
    const placed = [];
    for (const label of [...labels].sort((a, b) => b.weight - a.weight || a.key - b.key)) {
      for (const [dx, dy] of MOVES) {
        const x = label.x + dx;
        const y = label.y + dy;
        const box = { left: x - label.width / 2, right: x + label.width / 2, top: y - HEIGHT / 2, bottom: y + HEIGHT / 2 };
        if (box.left < 2 || box.right > width - 2 || box.top < 2 || box.bottom > height - 2) continue;
        if (placed.some((other) => overlaps(box, other.box))) continue;
        placed.push({ key: label.key, x, y, box });
        break;
      }
    }
    return placed;
  }

  class Labels {
    constructor(layer) {
      this.layer = layer;
      this.nodes = new Map();
    }

    set(clusters) {
      this.layer.replaceChildren();
      this.nodes.clear();
      for (const cluster of clusters) {
        // Never in the way of a point: the list beside the map is what leads to a cluster.
        const node = document.createElement("span");
        node.className = "ico-map-label";
        node.setAttribute("aria-hidden", "true");
        node.textContent = cluster.label;
        this.layer.append(node);
        this.nodes.set(cluster.cluster, { node, cluster, width: 0 });
      }
    }

    /* project: (x, y) in map units -> pixels inside the layer, or null when outside. */
    update(project, faded) {
      const width = this.layer.clientWidth;
      const height = this.layer.clientHeight;
      if (!width) return;
      const wanted = [];
      for (const [key, entry] of this.nodes) {
        if (!entry.width) entry.width = entry.node.offsetWidth;
        const at = project(entry.cluster.x, entry.cluster.y + (entry.cluster.radius ?? 0));
        if (at) wanted.push({ key, x: at.x, y: at.y - (entry.cluster.radius ? HEIGHT / 2 : 0), width: entry.width, weight: entry.cluster.n_features });
      }
      const placed = new Map(place(wanted, width, height).map((label) => [label.key, label]));
      for (const [key, entry] of this.nodes) {
        const label = placed.get(key);
        entry.node.classList.toggle("is-out", !label);
        if (label) entry.node.style.transform = `translate(${Math.round(label.box.left)}px, ${Math.round(label.box.top)}px)`;
      }
      this.layer.classList.toggle("is-faded", faded);
    }
  }

  window.iconoscopeMapLabels = { Labels, place };
})();
