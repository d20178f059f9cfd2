/* The painter of the map where WebGL is missing: the same points on a plain canvas, each a copy of a small disc. */
(() => {
  "use strict";
  if (window.iconoscopeMapCanvas) return;

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
      const context = canvas.getContext("2d");
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

    moved() { if (!this.frame) this.frame = requestAnimationFrame(() => this.draw()); }

    async resize(size) {
      this.size = size;
      this.draw();
    }

    clear() { this.groups = []; this.canvas.width = 0; }
  }

  window.iconoscopeMapCanvas = { CanvasPainter };
})();
