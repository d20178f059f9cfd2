/* The camera of the map: which part of it is seen. One scale for both axes; y points up. Sizes in CSS pixels. */
(() => {
  "use strict";
  if (window.iconoscopeMapCamera) return;
  const ROOM = 0.07;
  const DEEPEST = 4000;

  class Camera {
    constructor(x, y) {
      const [x0, x1] = window.iconoscopeMapLayout.bounds(x);
      const [y0, y1] = window.iconoscopeMapLayout.bounds(y);
      this.whole = [x0, x1, y0, y1];
      this.width = this.height = 0;
      this.x = this.y = 0;
      this.scale = 1;
      this.isHome = true;
      this.asked = null;
    }

    get usable() { return this.width > 0 && this.height > 0; }
    get home() { return this.scaleOf(this.padded(this.whole)); }
    px(x) { return this.width / 2 + (x - this.x) * this.scale; }
    py(y) { return this.height / 2 - (y - this.y) * this.scale; }
    mapX(px) { return this.x + (px - this.width / 2) / this.scale; }
    mapY(py) { return this.y - (py - this.height / 2) / this.scale; }
    sees(px, py) { return px >= 0 && py >= 0 && px <= this.width && py <= this.height; }

    padded([x0, x1, y0, y1]) {
      const pad = ROOM * Math.max(x1 - x0, y1 - y0) || 1;
      return [x0 - pad, x1 + pad, y0 - pad, y1 + pad];
    }

    scaleOf([x0, x1, y0, y1]) { return Math.min(this.width / (x1 - x0), this.height / (y1 - y0)); }

    /* A new size of the stage keeps what is looked at; the whole map stays whole. */
    resize(width, height) {
      const before = this.usable ? this.scale / this.home : null;
      [this.width, this.height] = [width, height];
      if (!this.usable) return;
      if (this.asked) this.show(this.asked);
      else if (this.isHome || before === null) this.showWhole();
      else this.scale = before * this.home;
    }

    /* Look at a box of map units, all of it. */
    show(box) {
      this.asked = box;
      this.isHome = false;
      this.x = (box[0] + box[1]) / 2;
      this.y = (box[2] + box[3]) / 2;
      if (this.usable) this.scale = Math.min(this.scaleOf(box), DEEPEST * this.home);
    }

    showWhole() {
      this.show(this.padded(this.whole));
      this.asked = null;
      this.isHome = true;
    }

    pan(dx, dy) {
      this.x -= dx / this.scale;
      this.y += dy / this.scale;
      this.moved();
    }

    /* Zoom so that the place under a pixel stays there. */
    zoom(factor, px = this.width / 2, py = this.height / 2) {
      const [x, y] = [this.mapX(px), this.mapY(py)];
      this.scale = Math.min(DEEPEST * this.home, Math.max(0.5 * this.home, this.scale * factor));
      this.x = x - (px - this.width / 2) / this.scale;
      this.y = y + (py - this.height / 2) / this.scale;
      this.moved();
    }

    /* The middle of the view never leaves the map. */
    moved() {
      const [x0, x1, y0, y1] = this.whole;
      this.x = Math.min(x1, Math.max(x0, this.x));
      this.y = Math.min(y1, Math.max(y0, this.y));
      this.asked = null;
      this.isHome = false;
    }

    get box() {
      const [w, h] = [this.width / 2 / this.scale, this.height / 2 / this.scale];
      return [this.x - w, this.x + w, this.y - h, this.y + h];
    }

    /* For the address: "" is the whole map. Digits enough to stay within a pixel. */
    get text() {
      if (this.isHome) return "";
      if (this.asked) return this.asked.join(",");
      const digits = Math.max(0, Math.ceil(Math.log10(this.scale)) + 1);
      return this.box.map((value) => String(Number(value.toFixed(Math.min(12, digits))))).join(",");
    }

    /* Returns whether the text was understood. */
    read(text) {
      const box = text.split(",").map(Number);
      if (box.length !== 4 || !box.every(Number.isFinite) || box[0] >= box[1] || box[2] >= box[3]) return false;
      this.show(box);
      return true;
    }
  }

  window.iconoscopeMapCamera = { Camera };
})();
