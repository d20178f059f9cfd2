/* The painter of the map at first, and for good where WebGL is missing: the points on a plain canvas, each a copy of a small
   disc; a crowd is written pixel by pixel, which is coarser and many times faster. */
(() => {
  "use strict";
  if (window.iconoscopeMapCanvas) return;

  const CROWD = 10000;

  /* #rrggbb and an opacity as one pixel. */
  function pixel(colour, opacity) {
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    return ((Math.round(255 * opacity) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  }

  function disc(colour, size, ratio) {
    const side = Math.ceil(size * ratio) + 2;
    const sprite = document.createElement("canvas");
    sprite.width = sprite.height = side;
    const context = sprite.getContext("2d");
    context.fillStyle = colour;
    context.beginPath();
    context.arc(side / 2, side / 2, (size * ratio) / 2, 0, 2 * Math.PI);
    context.fill();
    return sprite;
  }

  class CanvasPainter {
    constructor(node, x, y, camera) {
      Object.assign(this, { node, x, y, camera });
      this.canvas = document.createElement("canvas");
      this.canvas.setAttribute("aria-hidden", "true");
      node.replaceChildren(this.canvas);
      this.groups = [];
      this.size = 0;
      this.frame = 0;
    }

    async paint(groups, size) {
      this.groups = groups;
      this.size = size;
      this.draw();
    }

    draw() {
      this.frame = 0;
      const { camera, canvas, x, y } = this;
      if (!camera.usable) return;
      const ratio = Math.min(2, window.devicePixelRatio || 1);
      canvas.width = Math.round(camera.width * ratio);
      canvas.height = Math.round(camera.height * ratio);
      // Kept in plain memory: without WebGL a canvas on the graphics card would be emulated, point by point.
      const context = canvas.getContext("2d", { willReadFrequently: true });
      if (this.groups.reduce((sum, group) => sum + group.rows.length, 0) > CROWD) this.stamp(context, ratio);
      else this.copy(context, ratio);
    }

    copy(context, ratio) {
      const { camera, canvas, x, y } = this;
      for (const { colour, rows, opacity } of this.groups) {
        const sprite = disc(colour, this.size, ratio);
        const half = sprite.width / 2;
        context.globalAlpha = opacity;
        for (const row of rows) {
          const px = camera.px(x[row]) * ratio;
          const py = camera.py(y[row]) * ratio;
          if (px > -half && py > -half && px < canvas.width + half && py < canvas.height + half) context.drawImage(sprite, px - half, py - half);
        }
      }
    }

    stamp(context, ratio) {
      const { camera, x, y } = this;
      const { width, height } = this.canvas;
      const picture = context.createImageData(width, height);
      const pixels = new Uint32Array(picture.data.buffer);
      const radius = (this.size * ratio) / 2;
      const reach = Math.floor(radius);
      const offsets = [];
      for (let dy = -reach; dy <= reach; dy++) for (let dx = -reach; dx <= reach; dx++) if (dx * dx + dy * dy <= radius * radius) offsets.push(dy * width + dx);
      for (const { colour, rows, opacity } of this.groups) {
        const value = pixel(colour, opacity);
        for (const row of rows) {
          const px = Math.round(camera.px(x[row]) * ratio);
          const py = Math.round(camera.py(y[row]) * ratio);
          if (px < reach || py < reach || px >= width - reach || py >= height - reach) continue;
          const at = py * width + px;
          for (const offset of offsets) pixels[at + offset] = value;
        }
      }
      context.putImageData(picture, 0, 0);
    }

    moved() { if (!this.frame) this.frame = requestAnimationFrame(() => this.draw()); }

    async resize(size) {
      this.size = size;
      this.draw();
    }

    clear() { this.groups = []; this.canvas.width = 0; }
  }

  window.iconoscopeMapCanvas = { CanvasPainter };
})();
