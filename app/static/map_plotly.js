/* The painter of the map: Plotly's scattergl, one trace per colour (a colour per point would be slow).
   While the camera moves, the picture drawn last is moved and scaled by the style sheet, and drawn anew as often as this
   machine can: on a graphics card at every frame, on a processor when the hand rests. Plotly neither picks nor drags. */
(() => {
  "use strict";
  if (window.iconoscopeMapPlotly) return;
  const FAST_MS = 34;
  const REST_MS = 130;
  const CROWD = 20000;
  const QUIET = { type: "scattergl", mode: "markers", hoverinfo: "skip" };

  class PlotlyPainter {
    constructor(node, x, y, camera) {
      Object.assign(this, { node, x, y, camera });
      this.traces = [];
      this.size = 0;
      this.drawn = null;
      // Until it is measured: a crowd is slow, because trying would freeze the first move on a plain processor.
      this.isMeasured = false;
      this.cost = x.length > CROWD ? 2 * FAST_MS : 0;
      this.timer = 0;
      this.busy = false;
      this.stale = false;
    }

    /* groups: [{colour, rows, opacity}], drawn in their order. */
    async paint(groups, size) {
      const at = (values, rows) => Float32Array.from(rows, (row) => values[row]);
      this.size = size;
      this.traces = groups.map(({ colour, rows, opacity }) => ({
        ...QUIET, x: at(this.x, rows), y: at(this.y, rows), marker: { size, opacity, color: colour, line: { width: 0 } },
      }));
      if (!this.traces.length) this.traces = [{ ...QUIET, x: [], y: [] }];
      await this.draw(true);
    }

    layout() {
      const [x0, x1, y0, y1] = this.camera.box;
      const axis = { visible: false, zeroline: false, showgrid: false, fixedrange: true };
      return {
        width: this.camera.width, height: this.camera.height, margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, hovermode: false,
        dragmode: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        xaxis: { ...axis, range: [x0, x1] }, yaxis: { ...axis, range: [y0, y1] },
      };
    }

    /* Draw what the camera sees now; all traces anew, or only from another place. */
    async draw(anew) {
      if (!this.camera.usable) { this.stale = true; return; }
      if (this.busy) { this.again = this.again || (anew ? "anew" : "moved"); if (anew) this.again = "anew"; return; }
      this.busy = true;
      const { x, y, scale, width, height } = this.camera;
      const began = performance.now();
      if (anew || this.stale || !this.drawn || this.drawn.width !== width || this.drawn.height !== height) {
        // The ratio of the screen, not Plotly's own 2: on a plain screen that quarters the work.
        const settings = { staticPlot: true, displayModeBar: false, plotGlPixelRatio: Math.min(2, window.devicePixelRatio || 1) };
        await window.Plotly.react(this.node, this.traces, this.layout(), settings);
        this.stale = false;
      } else {
        const [x0, x1, y0, y1] = this.camera.box;
        await window.Plotly.relayout(this.node, { "xaxis.range": [x0, x1], "yaxis.range": [y0, y1] });
      }
      this.drawn = { x, y, scale, width, height };
      this.follow();
      await this.shown();
      const took = performance.now() - began;
      if (!anew) {
        this.cost = this.isMeasured ? 0.6 * this.cost + 0.4 * took : took;
        this.isMeasured = true;
      }
      this.busy = false;
      if (this.again) {
        const wish = this.again;
        this.again = "";
        await this.draw(wish === "anew");
      }
    }

    /* Two frames later the picture is on the screen: how long that took tells how fast this machine draws. */
    shown() {
      return new Promise((done) => {
        const late = window.setTimeout(done, 2000);
        requestAnimationFrame(() => requestAnimationFrame(() => { window.clearTimeout(late); done(); }));
      });
    }

    /* The last picture, moved to where the camera looks now. */
    follow() {
      const { drawn, camera } = this;
      if (!drawn) return;
      const zoom = camera.scale / drawn.scale;
      const dx = camera.px(drawn.x) - (zoom * drawn.width) / 2;
      const dy = camera.py(drawn.y) - (zoom * drawn.height) / 2;
      const still = Math.abs(zoom - 1) < 1e-6 && Math.abs(dx) < 0.01 && Math.abs(dy) < 0.01;
      this.node.style.transform = still ? "" : `translate(${dx}px, ${dy}px) scale(${zoom})`;
      return still;
    }

    moved() {
      if (this.follow() !== false) return;
      if (this.cost <= FAST_MS) { this.draw(false); return; }
      window.clearTimeout(this.timer);
      this.timer = window.setTimeout(() => this.draw(false), REST_MS);
    }

    async resize(size) {
      if (size !== this.size) {
        this.size = size;
        for (const trace of this.traces) if (trace.marker) trace.marker = { ...trace.marker, size };
      }
      if (this.traces.length) await this.draw(true);
    }

    clear() {
      window.clearTimeout(this.timer);
      window.Plotly.purge(this.node);
      this.node.style.transform = "";
      this.drawn = null;
      this.traces = [];
    }
  }

  window.iconoscopeMapPlotly = { PlotlyPainter };
})();
