/* Above the points: rings around hits, the listed and the chosen, and the line of a lasso. A canvas, because it follows the
   camera at every frame, whatever the points cost. */
(() => {
  "use strict";
  if (window.iconoscopeMapOverlay) return;

  class Overlay {
    constructor(canvas, map) {
      this.canvas = canvas;
      this.map = map;
      this.lasso = null;
      this.isClear = false;
      this.frame = 0;
    }

    ask() { if (!this.frame) this.frame = requestAnimationFrame(() => this.draw()); }

    draw() {
      this.frame = 0;
      const { camera, drawn } = this.map;
      if (!camera?.usable) return;
      const ratio = Math.min(2, window.devicePixelRatio || 1);
      const { canvas } = this;
      const marked = this.marked();
      const isEmpty = !this.lasso && !this.map.listed.length && !this.map.lit.size && !marked.length && this.map.cursor < 0;
      // Mostly there is nothing to mark, and a canvas that is left alone costs nothing while the map moves.
      if (isEmpty && this.isClear) return;
      this.isClear = isEmpty;
      if (canvas.width !== Math.round(camera.width * ratio)) canvas.width = Math.round(camera.width * ratio);
      if (canvas.height !== Math.round(camera.height * ratio)) canvas.height = Math.round(camera.height * ratio);
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, camera.width, camera.height);
      const style = getComputedStyle(this.map.root);
      const [ink, accent, panel] = ["--ico-ink", "--ico-accent", "--ico-panel"].map((name) => style.getPropertyValue(name).trim());
      const size = this.map.size;
      const ring = (row, radius, colour, width) => {
        const px = camera.px(drawn.x[row]);
        const py = camera.py(drawn.y[row]);
        if (!camera.sees(px, py)) return;
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.beginPath();
        context.arc(px, py, radius, 0, 2 * Math.PI);
        context.stroke();
      };
      for (const row of this.map.listed) ring(row, size / 2 + 2, accent, 1);
      for (const row of this.map.lit) ring(row, size / 2 + 2, ink, 1.25);
      for (const row of marked) {
        ring(row, size / 2 + 5.5, panel, 5);
        ring(row, size / 2 + 5.5, accent, 2.5);
      }
      if (this.map.cursor >= 0) ring(this.map.cursor, size / 2 + 3, ink, 2);
      if (this.lasso) this.drawLasso(context, accent);
    }

    marked() {
      const row = this.map.points.rows.get(this.map.value.selected);
      return row === undefined ? [] : [row];
    }

    drawLasso(context, colour) {
      context.beginPath();
      this.lasso.forEach(([px, py], place) => (place ? context.lineTo(px, py) : context.moveTo(px, py)));
      context.closePath();
      context.globalAlpha = 0.14;
      context.fillStyle = colour;
      context.fill();
      context.globalAlpha = 1;
      context.strokeStyle = colour;
      context.lineWidth = 1.5;
      context.setLineDash([5, 4]);
      context.stroke();
      context.setLineDash([]);
    }
  }

  window.iconoscopeMapOverlay = { Overlay };
})();
