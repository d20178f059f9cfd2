/* Where things are on the map: the camera brought to them, the point under a pixel, the pixel of a feature. */
(() => {
  "use strict";
  if (window.iconoscopeMapPlaces) return;
  const PICK_PX = 8;
  const HOVER_PX = 12;

  /* The half of the map that needs its points, camera and index but none of its wishes. */
  class Places {
    /* Move the camera only if a point is out of view. */
    bring(row) {
      const { camera } = this;
      if (!camera.usable) return;
      const margin = 24;
      const px = camera.px(this.drawn.x[row]);
      const py = camera.py(this.drawn.y[row]);
      if (px >= margin && py >= margin && px <= camera.width - margin && py <= camera.height - margin) return;
      camera.pan(camera.width / 2 - px, camera.height / 2 - py);
      this.moved();
    }

    zoomTo(cluster) {
      const rows = [];
      for (let row = 0; row < this.points.n; row++) if (this.points.cluster[row] === cluster && this.visible[row]) rows.push(row);
      if (!rows.length || !this.camera.usable) return;
      const span = (values) => {
        const sorted = rows.map((row) => values[row]).sort((a, b) => a - b);
        return [sorted[Math.floor(0.03 * (rows.length - 1))], sorted[Math.ceil(0.97 * (rows.length - 1))]];
      };
      const [x0, x1] = span(this.drawn.x);
      const [y0, y1] = span(this.drawn.y);
      const pad = Math.max(0.01 * this.drawn.extent, 0.15 * Math.max(x1 - x0, y1 - y0));
      this.camera.show([x0 - pad, x1 + pad, y0 - pad, y1 + pad]);
      this.camera.asked = null;
      this.moved();
    }

    whole() { this.camera.showWhole(); this.moved(); }
    cluster(number) { return this.info.clusters.find((one) => one.cluster === number); }
    clusterOf(id) { return this.cluster(this.points.cluster[this.points.rows.get(id)]); }
    pick(px, py, reach = PICK_PX) { return this.index.nearest(this.camera.mapX(px), this.camera.mapY(py), reach / this.camera.scale, this.visible); }
    hover(px, py) { return this.pick(px, py, HOVER_PX); }

    /* Visible features of a cluster, the most frequently firing first. */
    async idsOf(cluster) {
      const rows = [];
      for (let row = 0; row < this.points.n; row++) if (this.points.cluster[row] === cluster && this.visible[row]) rows.push(row);
      const codes = this.info.fields.some((field) => field.key === "firing_fraction") ? await this.columns.get("firing_fraction") : null;
      if (codes) rows.sort((a, b) => codes[b] - codes[a] || a - b);
      return rows.map((row) => this.points.ids[row]);
    }

    stagePixelOf(id) {
      const row = this.points?.rows.get(id);
      if (row === undefined || !this.camera?.usable) return null;
      const at = { x: this.camera.px(this.drawn.x[row]), y: this.camera.py(this.drawn.y[row]) };
      return this.camera.sees(at.x, at.y) ? at : null;
    }

    /* Where a feature is drawn, in viewport pixels; null when it is unknown, hidden or out of view. */
    pixelOf(id) {
      const at = this.stagePixelOf(id);
      if (!at || !this.visible[this.points.rows.get(id)]) return null;
      const box = this.stage.getBoundingClientRect();
      return { x: box.left + this.stage.clientLeft + at.x, y: box.top + this.stage.clientTop + at.y };
    }
  }

  window.iconoscopeMapPlaces = { Places };
})();
