/* Cluster names over the map: the largest first, each where it covers the fewest points, left out rather than drawn over
   another name. Names are data (a language model may have written them), so they are set with textContent. */
(() => {
  "use strict";
  if (window.iconoscopeMapLabels) return;

  const HEIGHT = 20;
  const GAP = 5;
  const CELL = 10;
  const SAMPLE = 10000;
  const MOVES = [[0, 0], [0, -16], [0, 16], [-34, -4], [34, -4], [0, -32], [0, 32], [-60, 10], [60, 10], [-40, -30], [40, -30], [-40, 30], [40, 30]];

  function overlaps(a, b) {
    return a.left < b.right + GAP && b.left < a.right + GAP && a.top < b.bottom + GAP && b.top < a.bottom + GAP;
  }

  /* Points per cell of the stage, summed from the corner, so that the number below any box is four look-ups. */
  class Crowd {
    constructor(width, height) {
      this.cols = Math.ceil(width / CELL) + 1;
      this.rows = Math.ceil(height / CELL) + 1;
      this.sums = new Float32Array((this.cols + 1) * (this.rows + 1));
    }

    add(px, py) {
      const col = Math.floor(px / CELL);
      const row = Math.floor(py / CELL);
      if (col >= 0 && row >= 0 && col < this.cols && row < this.rows) this.sums[(row + 1) * (this.cols + 1) + col + 1]++;
    }

    sum() {
      const wide = this.cols + 1;
      for (let row = 1; row <= this.rows; row++) {
        for (let col = 1; col <= this.cols; col++) {
          this.sums[row * wide + col] += this.sums[row * wide + col - 1] + this.sums[(row - 1) * wide + col] - this.sums[(row - 1) * wide + col - 1];
        }
      }
    }

    below(box) {
      const clamp = (value, most) => Math.max(0, Math.min(most, Math.floor(value / CELL)));
      const [left, right] = [clamp(box.left, this.cols), clamp(box.right + CELL, this.cols)];
      const [top, bottom] = [clamp(box.top, this.rows), clamp(box.bottom + CELL, this.rows)];
      const at = (row, col) => this.sums[row * (this.cols + 1) + col];
      return at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left);
    }
  }

  function boxAt(label, x, y) {
    return { left: x - label.width / 2, right: x + label.width / 2, top: y - HEIGHT / 2, bottom: y + HEIGHT / 2 };
  }

  /* Returns boxes in pixels for the labels that fit beside one another and beside what is taken already. */
  function place(labels, width, height, crowd, taken = []) {
    const placed = [];
    for (const label of [...labels].sort((a, b) => b.weight - a.weight || a.key - b.key)) {
      let best = null;
      for (const [dx, dy] of MOVES) {
        // A name at the rim moves inside.
        const x = Math.min(width - 4 - label.width / 2, Math.max(4 + label.width / 2, label.x + dx));
        const y = Math.min(height - 4 - HEIGHT / 2, Math.max(4 + HEIGHT / 2, label.y + dy));
        if (Math.hypot(x - label.x, y - label.y) > 90) continue;
        const box = boxAt(label, x, y);
        if (taken.some((other) => overlaps(box, other)) || placed.some((other) => overlaps(box, other.box))) continue;
        const cost = (crowd ? crowd.below(box) : 0) + 0.05 * Math.hypot(x - label.x, y - label.y);
        if (!best || cost < best.cost) best = { key: label.key, box, cost };
        if (best.cost < 0.01) break;
      }
      if (best) placed.push(best);
    }
    return placed;
  }

  class Labels {
    constructor(layer) {
      this.layer = layer;
      this.nodes = new Map();
      this.placed = [];
    }

    set(clusters) {
      this.layer.replaceChildren();
      this.nodes.clear();
      for (const cluster of clusters) {
        // Hidden from screen readers: the list beside the map says and does the same.
        const node = window.iconoscope.element("span", "ico-map-label is-out", cluster.label);
        node.setAttribute("aria-hidden", "true");
        this.layer.append(node);
        this.nodes.set(cluster.cluster, { node, cluster, width: 0 });
      }
    }

    /* camera: map units to pixels. shown: clusters with a visible point. drawn, visible: the points not to be covered.
       tools: a box of pixels that no name may enter. */
    update(camera, drawn, visible, shown, tools) {
      const { width, height } = camera;
      if (!camera.usable) return;
      const wanted = [];
      for (const [key, entry] of this.nodes) {
        const { cluster } = entry;
        const x = camera.px(cluster.x);
        const y = camera.py(cluster.y + cluster.radius) - (cluster.radius ? HEIGHT / 2 : 0);
        if (!shown.has(key) || x < 0 || y < -HEIGHT || x > width || y > height) continue;
        if (!entry.width) entry.width = entry.node.offsetWidth;
        wanted.push({ key, x, y, width: entry.width, weight: cluster.n_features });
      }
      const most = Math.max(6, Math.round((width * height) / 22000));
      wanted.sort((a, b) => b.weight - a.weight || a.key - b.key);
      this.placed = place(wanted.slice(0, most), width, height, this.crowd(camera, drawn, visible), [tools]);
      const boxes = new Map(this.placed.map((label) => [label.key, label.box]));
      for (const [key, entry] of this.nodes) {
        const box = boxes.get(key);
        entry.node.classList.toggle("is-out", !box);
        if (box) entry.node.style.transform = `translate(${Math.round(box.left)}px, ${Math.round(box.top)}px)`;
      }
    }

    crowd(camera, drawn, visible) {
      const crowd = new Crowd(camera.width, camera.height);
      // Ten thousand points tell where it is crowded as well as a hundred thousand do.
      const step = Math.max(1, Math.floor(visible.length / SAMPLE));
      for (let row = 0; row < visible.length; row += step) if (visible[row]) crowd.add(camera.px(drawn.x[row]), camera.py(drawn.y[row]));
      crowd.sum();
      return crowd;
    }

    /* The cluster whose name lies at a place of the stage; null if none does. */
    at(px, py) {
      const found = this.placed.find(({ box }) => px >= box.left && px <= box.right && py >= box.top && py <= box.bottom);
      return found ? found.key : null;
    }

    fade(isFaded) { this.layer.classList.toggle("is-faded", isFaded); }
  }

  window.iconoscopeMapLabels = { Labels, Crowd, place };
})();
