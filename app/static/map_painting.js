/* What draws the map: a plain canvas at once, and Plotly's WebGL as soon as that is fetched and the page has a quiet moment.
   Plotly is by far the largest script of the page; a map that answers must not wait for it. */
(() => {
  "use strict";
  if (window.iconoscopeMapPainting) return;
  const QUIET_MS = 1500;

  function quiet() {
    return new Promise((done) => {
      if (window.requestIdleCallback) window.requestIdleCallback(done, { timeout: QUIET_MS });
      else window.setTimeout(done, 200);
    });
  }

  class Painting {
    /* say(text): tells why the map stays plain. */
    constructor(node, say) {
      Object.assign(this, { node, say });
      this.painter = null;
      this.groups = [];
      this.size = 0;
    }

    start(x, y, camera) {
      this.painter?.clear();
      this.scene = { x, y, camera };
      this.groups = [];
      this.painter = new window.iconoscopeMapCanvas.CanvasPainter(this.layer(), x, y, camera);
      this.node.replaceChildren(this.painter.node);
    }

    layer() {
      const layer = document.createElement("div");
      layer.className = "ico-map-layer";
      return layer;
    }

    async paint(groups, size) {
      this.groups = groups;
      this.size = size;
      await this.painter.paint(groups, size);
    }

    moved() { this.painter.moved(); }

    async resize(size) {
      this.size = size;
      await this.painter.resize(size);
    }

    /* From the canvas to WebGL. What is painted or moved meanwhile is not lost. */
    async improve() {
      const { scene } = this;
      await quiet();
      if (!window.iconoscopeWebgl.isHere) {
        this.say("This browser offers no WebGL, so the map is drawn plainly and may move slowly. Everything else works as usual.");
        return;
      }
      try {
        await window.iconoscopeWebgl.plotly();
      } catch (error) {
        this.say(`${error.message}, so the map is drawn plainly. Reload the page to try again.`);
        return;
      }
      await quiet();
      if (scene !== this.scene) return;
      const painter = new window.iconoscopeMapPlotly.PlotlyPainter(this.layer(), scene.x, scene.y, scene.camera);
      painter.node.style.visibility = "hidden";
      this.node.append(painter.node);
      const { groups } = this;
      try {
        await painter.paint(groups, this.size);
      } catch (error) {
        painter.node.remove();
        console.warn("the map stays plain:", error);
        this.say("This browser's WebGL could not draw the map, so it is drawn plainly and may move slowly. Everything else works as usual.");
        return;
      }
      if (scene !== this.scene) { painter.clear(); return; }
      if (groups !== this.groups) await painter.paint(this.groups, this.size);
      painter.node.style.visibility = "";
      painter.moved();
      this.painter.clear();
      this.painter.node.remove();
      this.painter = painter;
      if (painter.size !== this.size) await painter.resize(this.size);
    }

    /* "canvas" or "webgl": what draws now. */
    get by() { return this.painter instanceof window.iconoscopeMapCanvas.CanvasPainter ? "canvas" : "webgl"; }
  }

  window.iconoscopeMapPainting = { Painting };
})();
