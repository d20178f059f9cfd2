/* The map of features: Plotly scattergl over points fetched as one binary file.
   points.bin: uint32 n, then uint32 feature[n], float32 x[n], float32 y[n], uint8 cluster[n]; little-endian.
   It knows ids, coordinates and colours; words come on demand by id and are set with textContent. */
(() => {
  "use strict";
  if (window.iconoscopeMap) return;
  const { element, fetchJson } = window.iconoscope;
  const ABSENT = { light: "#c9c6bd", dark: "#434a55" };

  function readPoints(buffer) {
    const n = new DataView(buffer).getUint32(0, true);
    if (buffer.byteLength !== 4 + 13 * n) throw new Error("the points file has an unexpected length");
    return {
      n,
      ids: new Uint32Array(buffer, 4, n),
      x: new Float32Array(buffer, 4 + 4 * n, n),
      y: new Float32Array(buffer, 4 + 8 * n, n),
      cluster: new Uint8Array(buffer, 4 + 12 * n, n),
    };
  }

  function hasWebgl() {
    if (new URLSearchParams(window.location.search).get("webgl") === "off") return false;
    try {
      const canvas = document.createElement("canvas");
      return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
    } catch { return false; }
  }

  class FeatureMap {
    constructor(root, value, onPick) {
      this.root = root;
      this.value = value;
      this.onPick = onPick;
      this.stage = root.querySelector(".ico-map-stage");
      this.plot = root.querySelector(".ico-map-plot");
      this.card = root.querySelector(".ico-map-card");
      this.chooser = root.querySelector("select");
      this.columns = new Map();
      this.rows = new Map();
      this.ready = false;
      this.webgl = hasWebgl();
    }

    async start() {
      const { base, version } = this.value;
      try {
        const [buffer, info] = await Promise.all([
          fetch(`${base}points.bin?v=${version}`).then((r) => { if (!r.ok) throw new Error(`points.bin answered ${r.status}`); return r.arrayBuffer(); }),
          fetchJson(`${base}map.json?v=${version}`),
        ]);
        this.points = readPoints(buffer);
        this.drawn = window.iconoscopeMapLayout.spread(this.points.x, this.points.y);
        this.info = info;
        for (let i = 0; i < this.points.n; i++) this.rows.set(this.points.ids[i], i);
      } catch (error) {
        this.say(`The map could not be loaded: ${error.message}. Reload the page; search works without it.`);
        return;
      }
      this.buildSide();
      if (!this.webgl) {
        this.root.classList.add("no-webgl");
        this.say("This browser offers no WebGL, so the map cannot be drawn. Every feature is in the list of clusters, and search works as usual.");
        this.ready = true;
        await this.colour();
        return;
      }
      this.hover = new window.iconoscopeMapCard.Card(this);
      this.labels = new window.iconoscopeMapLabels.Labels(this.root.querySelector(".ico-map-labels"));
      this.labels.set(this.info.clusters.map((cluster) => window.iconoscopeMapLayout.anchor(this.drawn, this.points.cluster, cluster)));
      await this.draw();
      this.ready = true;
      this.update(this.value);
    }

    say(text) {
      const box = this.root.querySelector(".ico-map-message");
      box.textContent = text;
      box.hidden = !text;
    }

    buildSide() {
      this.chooser.replaceChildren(...this.info.fields.map((field) => {
        const option = element("option", "", field.label);
        option.value = field.key;
        return option;
      }));
      this.chooser.value = this.info.fields.some((field) => field.key === this.value.colour) ? this.value.colour : this.info.fields[0].key;
      this.chooser.addEventListener("change", () => { this.colour(); window.iconoscope.setField("colour", this.chooser.value, "cluster"); });
      this.root.querySelector(".ico-map-clear").addEventListener("click", () => window.iconoscope.go("clear", ""));
      this.root.querySelector(".ico-map-home").addEventListener("click", () => this.home());
      this.root.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => this.zoomBy(Number(button.dataset.zoom))));
      window.iconoscopeMapSide.clusterList(this.root.querySelector(".ico-map-clusters"), this.info.clusters, this.value.base, (cluster) => { if (this.webgl && this.wide()) this.zoomTo(cluster); });
    }

    wide() { return this.root.clientWidth >= 900; }

    async codes(field) {
      if (!this.columns.has(field.key)) {
        const response = await fetch(`${this.value.base}column/${field.key}.bin?v=${this.value.version}`);
        if (!response.ok) throw new Error(`column ${field.key} answered ${response.status}`);
        this.columns.set(field.key, new Float32Array(await response.arrayBuffer()));
      }
      return this.columns.get(field.key);
    }

    async colour() {
      const field = this.info.fields.find((one) => one.key === this.chooser.value);
      const codes = await this.codes(field);
      const counts = { absent: 0 };
      for (const code of codes) {
        if (Number.isNaN(code)) counts.absent++;
        else if (field.kind !== "number") counts[code] = (counts[code] ?? 0) + 1;
      }
      window.iconoscopeMapSide.legend(this.root.querySelector(".ico-map-legend"), field, counts, this.drawn.n_moved);
      this.field = field;
      if (!this.webgl || !this.plot.data) return;
      const absent = ABSENT[window.iconoscope.currentTheme()];
      const ramp = window.iconoscopeMapSide.palette(field);
      const colours = Array.from(codes, (code) => {
        if (Number.isNaN(code)) return absent;
        if (field.kind !== "number") return ramp[code] ?? absent;
        return ramp[Math.min(ramp.length - 1, Math.max(0, Math.floor(code * ramp.length)))];
      });
      await window.Plotly.restyle(this.plot, { "marker.color": [colours] }, [0]);
    }

    async draw() {
      const { x, y } = this.drawn;
      const { n } = this.points;
      const size = n > 20000 ? 3 : n > 3000 || this.stage.clientWidth < 600 ? 5 : 7;
      const quiet = { hoverinfo: "none", type: "scattergl", mode: "markers" };
      const traces = [
        { ...quiet, x, y, marker: { size, opacity: 0.85, color: ABSENT.light, line: { width: 0 } } },
        { ...quiet, x: [], y: [], hoverinfo: "skip", marker: { size: size + 5, color: "rgba(0,0,0,0)", line: { width: 2 } } },
        { ...quiet, x: [], y: [], hoverinfo: "skip", marker: { size: size + 13, symbol: "circle-open", line: { width: 3 } } },
      ];
      const axis = { visible: false, zeroline: false, showgrid: false };
      const layout = {
        margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, hovermode: "closest", hoverdistance: 12, dragmode: "pan",
        xaxis: { ...axis }, yaxis: { ...axis, scaleanchor: "x" }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      };
      await window.Plotly.newPlot(this.plot, traces, layout, { displayModeBar: false, scrollZoom: true, responsive: true, doubleClick: "reset" });
      this.plot.on("plotly_click", (event) => this.hover.picked(event));
      this.plot.on("plotly_hover", (event) => this.hover.over(event));
      this.plot.on("plotly_unhover", () => this.hover.out());
      for (const name of ["plotly_relayout", "plotly_relayouting", "plotly_afterplot"]) this.plot.on(name, () => this.placeLabels());
      window.addEventListener("iconoscope-theme", () => { this.colour(); this.rings(); });
      new ResizeObserver(() => { if (this.stage.clientWidth) window.Plotly.Plots.resize(this.plot).then(() => this.placeLabels()); }).observe(this.stage);
      await this.colour();
      this.placeLabels();
    }

    project(x, y) {
      const layout = this.plot._fullLayout;
      if (!layout) return null;
      const px = layout.xaxis.l2p(x) + layout.xaxis._offset;
      const py = layout.yaxis.l2p(y) + layout.yaxis._offset;
      if (px < 0 || py < 0 || px > layout.width || py > layout.height) return null;
      return { x: px, y: py };
    }

    placeLabels() {
      this.labels?.update((x, y) => this.project(x, y), (this.value.hits ?? []).length > 0);
    }

    rings() {
      if (!this.plot.data) return;
      const style = getComputedStyle(this.root);
      const hits = (this.value.hits ?? []).map((id) => this.rows.get(id)).filter((row) => row !== undefined);
      const chosen = this.rows.get(this.value.selected);
      const at = (rows, axis) => rows.map((row) => this.drawn[axis][row]);
      const one = chosen === undefined ? [] : [chosen];
      window.Plotly.restyle(this.plot, {
        x: [at(hits, "x"), at(one, "x")], y: [at(hits, "y"), at(one, "y")],
        "marker.line.color": [style.getPropertyValue("--ico-ink").trim(), style.getPropertyValue("--ico-accent").trim()],
        "marker.color": ["rgba(0,0,0,0)", style.getPropertyValue("--ico-accent").trim()],
      }, [1, 2]);
      window.Plotly.restyle(this.plot, { "marker.opacity": [hits.length ? 0.22 : 0.85] }, [0]);
      this.placeLabels();
    }

    /* The server's wishes: which feature is chosen, which hits are lit, which colouring the address asks for. */
    update(value) {
      if (!value) return;
      const chosen = value.selected !== this.value.selected;
      const recolour = value.colour && value.colour !== this.value.colour && value.colour !== this.chooser.value;
      this.value = value;
      if (!this.ready) return;
      if (recolour && this.info.fields.some((field) => field.key === value.colour)) {
        this.chooser.value = value.colour;
        this.colour();
      }
      const n = (value.hits ?? []).length;
      const total = this.points.n.toLocaleString("en");
      this.root.querySelector(".ico-map-count").textContent = n
        ? `${n} of ${total} features match “${value.query ?? ""}”`
        : `${total} features. Click one to open it, scroll to zoom, drag to move.`;
      this.root.querySelector(".ico-map-clear").hidden = n === 0;
      if (!this.webgl) return;
      if (chosen && value.selected !== null && !this.pixelOf(value.selected)) this.home();
      this.rings();
    }

    home() { if (this.plot.data) window.Plotly.relayout(this.plot, { "xaxis.autorange": true, "yaxis.autorange": true }); }

    zoomBy(factor) {
      if (!this.plot.data) return;
      const span = (axis) => {
        const [low, high] = this.plot._fullLayout[axis].range;
        const middle = (low + high) / 2;
        return [middle + (low - middle) * factor, middle + (high - middle) * factor];
      };
      window.Plotly.relayout(this.plot, { "xaxis.range": span("xaxis"), "yaxis.range": span("yaxis") });
    }

    zoomTo(cluster) {
      const rows = [];
      for (let i = 0; i < this.points.n; i++) if (this.points.cluster[i] === cluster) rows.push(i);
      if (!rows.length || !this.plot.data) return;
      const span = (axis) => {
        const values = rows.map((row) => this.drawn[axis][row]).sort((a, b) => a - b);
        const low = values[Math.floor(0.02 * (values.length - 1))];
        const high = values[Math.ceil(0.98 * (values.length - 1))];
        const pad = Math.max(0.5, 0.35 * (high - low));
        return [low - pad, high + pad];
      };
      window.Plotly.relayout(this.plot, { "xaxis.range": span("x"), "yaxis.range": span("y") });
    }

    /* Where a feature is drawn, in viewport pixels; null when it is unknown or out of view. */
    pixelOf(id) {
      const row = this.rows.get(id);
      if (row === undefined || !this.plot.data) return null;
      const at = this.project(this.drawn.x[row], this.drawn.y[row]);
      if (!at) return null;
      const box = this.plot.getBoundingClientRect();
      return { x: box.left + at.x, y: box.top + at.y };
    }
  }

  let map = null;
  function mount(root, value, onPick) {
    map = new FeatureMap(root, value, onPick);
    map.start();
    return map;
  }

  window.iconoscopeMap = {
    mount,
    get ready() { return Boolean(map && map.ready); },
    get webgl() { return Boolean(map && map.webgl); },
    get count() { return map?.points?.n ?? 0; },
    get ids() { return Array.from(map?.points?.ids ?? []); },
    get selected() { return map?.value?.selected ?? null; },
    get hits() { return map?.value?.hits ?? []; },
    get colouredBy() { return map?.field?.key ?? null; },
    pixelOf: (id) => map?.pixelOf(id) ?? null,
  };
})();
