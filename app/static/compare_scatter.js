/* Two methods against each other: Plotly scattergl over one binary file, and the same in words and lists.
   paired/<across>/<up>/<metric>.bin: uint32 n, uint32 feature[n], float32 x[n], float32 y[n]; little-endian.
   Texts are set with textContent only. */
(() => {
  "use strict";
  if (window.iconoscopePaired) return;
  const { element, fetchJson, go, setField } = window.iconoscope;
  const MOST_WITHOUT_WEBGL = 20000;
  const PICKERS = ["up", "across", "metric"];

  function read(buffer) {
    const n = new DataView(buffer).getUint32(0, true);
    if (buffer.byteLength !== 4 + 12 * n) throw new Error("the points have an unexpected length");
    return { n, ids: new Uint32Array(buffer, 4, n), x: new Float32Array(buffer, 4 + 4 * n, n), y: new Float32Array(buffer, 4 + 8 * n, n) };
  }

  class Paired {
    constructor(root, value) {
      this.root = root;
      this.value = value;
      this.plot = root.querySelector(".ico-paired-plot");
      this.card = root.querySelector(".ico-paired-card");
      this.loaded = "";
      for (const name of PICKERS) {
        this.picker(name).addEventListener("change", (event) => this.choose({ [name]: event.target.value }));
      }
      root.querySelector("[data-paired-swap]").addEventListener("click", () => this.choose({ up: this.value.across, across: this.value.up }));
      window.addEventListener("iconoscope-theme", () => this.draw());
      window.addEventListener("resize", () => { if (this.drawn && !this.root.hidden) window.Plotly.Plots.resize(this.plot); });
    }

    picker(name) { return this.root.querySelector(`[data-paired="${name}"]`); }

    /* A choice of the visitor: kept in the address, the defaults left out. */
    choose(change) {
      Object.assign(this.value, change);
      for (const name of PICKERS) setField(name, this.value[name], this.value.first?.[name] ?? "");
      this.update({});
    }

    update(message) {
      this.value = { ...this.value, ...message };
      this.root.hidden = !this.value.shown;
      if (!this.value.shown) return;
      this.fill("up", this.value.arms);
      this.fill("across", this.value.arms);
      this.fill("metric", this.value.metrics);
      this.load();
    }

    fill(name, options) {
      const picker = this.picker(name);
      const keys = options.map((one) => one.key).join();
      if (picker.dataset.keys !== keys) {
        picker.replaceChildren(...options.map((one) => { const option = element("option", "", one.label); option.value = one.key; return option; }));
        picker.dataset.keys = keys;
      }
      picker.value = this.value[name];
    }

    async load() {
      const { base, across, up, metric } = this.value;
      const address = `${base}paired/${encodeURIComponent(across)}/${encodeURIComponent(up)}/${encodeURIComponent(metric)}`;
      if (address === this.loaded) { this.draw(); return; }
      this.loaded = address;
      try {
        const [buffer, summary] = await Promise.all([
          fetch(`${address}.bin`).then((answer) => { if (!answer.ok) throw new Error(`answered ${answer.status}`); return answer.arrayBuffer(); }),
          fetchJson(`${address}.json`),
        ]);
        if (this.loaded !== address) return;
        this.points = read(buffer);
        this.summary = summary;
      } catch (error) {
        this.loaded = "";
        this.say(`These scores could not be loaded: ${error.message}. Choose again, or reload the page.`);
        return;
      }
      this.say("");
      this.tell();
      await this.draw();
    }

    say(text) { this.root.querySelector(".ico-paired-message").textContent = text; }

    arm(key) { return this.value.arms.find((one) => one.key === key) ?? { label: key, colour: "#7d828a", colour_dark: "#8f959e" }; }

    tell() {
      const { label, told, lists } = this.summary;
      this.root.querySelector(".ico-paired-title").textContent = label;
      this.root.querySelector(".ico-paired-told").replaceChildren(...told.map((line) => element("li", "", line)));
      this.card.replaceChildren(element("p", "ico-why", "Point at a feature in the plot for both texts."));
      this.root.querySelector(".ico-paired-lists").replaceChildren(...lists.map((list) => this.list(list)));
    }

    list({ title, rows }) {
      const box = element("section");
      box.append(element("h3", "", `${title}: the ${rows.length} furthest apart`));
      const items = rows.map((row) => {
        const link = element("a", "ico-paired-row");
        link.href = `?tab=feature&feature=${row.feature}`;
        link.dataset.go = "feature";
        link.dataset.value = row.feature;
        link.append(element("span", "ico-id", `${row.feature}`));
        for (const text of row.texts) {
          const line = element("span", "ico-paired-text");
          const head = element("span", "ico-why", `${text.label} `);
          head.append(element("span", "ico-value", text.value));
          line.append(head, element("span", "ico-words", text.text ?? "no text"));
          link.append(line);
        }
        const item = element("li");
        item.append(link);
        return item;
      });
      const list = element("ol", "ico-paired-list");
      list.append(...items);
      box.append(rows.length ? list : element("p", "ico-why", "No feature."));
      return box;
    }

    traces() {
      const { n, ids, x, y } = this.points;
      const rows = { up: [], across: [], same: [] };
      for (let i = 0; i < n; i++) rows[y[i] > x[i] ? "up" : y[i] < x[i] ? "across" : "same"].push(i);
      const kind = window.iconoscopeWebgl.isHere || n > MOST_WITHOUT_WEBGL ? "scattergl" : "scatter";
      const shade = window.iconoscope.currentTheme() === "dark" ? "colour_dark" : "colour";
      const colour = { up: this.arm(this.value.up)[shade], across: this.arm(this.value.across)[shade], same: "#8f959e" };
      const symbol = { up: "triangle-up", across: "circle", same: "diamond" };
      return Object.entries(rows).map(([side, list]) => ({
        type: kind, mode: "markers", hoverinfo: "none", showlegend: false,
        x: list.map((i) => x[i]), y: list.map((i) => y[i]), customdata: list.map((i) => ids[i]),
        marker: { color: colour[side], symbol: symbol[side], size: n > 5000 ? 4 : 7, opacity: n > 5000 ? 0.4 : 0.65 },
      }));
    }

    async draw() {
      if (!this.points || this.root.hidden) return;
      let library;
      try { library = await window.iconoscopeWebgl.plotly(); } catch (error) {
        this.say(`The plot cannot be drawn: ${error.message}. The lists below say the same.`);
        return;
      }
      const style = getComputedStyle(document.body);
      const ink = style.getPropertyValue("--ico-soft").trim() || "#555";
      const line = style.getPropertyValue("--ico-line").trim() || "#ddd";
      const all = [...this.points.x, ...this.points.y];
      const low = all.length ? all.reduce((a, b) => Math.min(a, b)) : 0;
      const high = all.length ? all.reduce((a, b) => Math.max(a, b)) : 1;
      const pad = 0.04 * (high - low || 1);
      const axis = (title) => ({ title: { text: title, standoff: 8 }, range: [low - pad, high + pad], gridcolor: line, zerolinecolor: line, linecolor: line, color: ink, fixedrange: false });
      const layout = {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: style.fontFamily, size: 12, color: ink },
        margin: { l: 56, r: 12, t: 12, b: 48 }, hovermode: "closest", dragmode: "pan",
        xaxis: axis(this.arm(this.value.across).label), yaxis: axis(this.arm(this.value.up).label),
        shapes: [{ type: "line", x0: low - pad, y0: low - pad, x1: high + pad, y1: high + pad, line: { color: ink, width: 1, dash: "dot" } }],
      };
      await library.react(this.plot, this.traces(), layout, { responsive: true, displayModeBar: false, scrollZoom: true });
      this.plot.setAttribute("aria-label", `${this.summary.label} of ${this.points.n} features, two methods. The lists below say the same in words.`);
      if (!this.drawn) this.listen();
      this.drawn = true;
      this.root.dataset.drawn = this.loaded;
    }

    listen() {
      this.plot.on("plotly_click", ({ points }) => { if (points.length) go("feature", points[0].customdata); });
      this.plot.on("plotly_hover", ({ points }) => { if (points.length) this.show(points[0].customdata); });
    }

    async show(feature) {
      this.hovered = feature;
      const found = await fetchJson(`${this.value.base}said/${feature}.json`).catch(() => null);
      if (this.hovered !== feature || !found) return;
      const parts = [element("p", "ico-id", `Feature ${feature}`)];
      for (const key of [this.value.up, this.value.across]) {
        const arm = found.arms[key];
        parts.push(
          element("p", "ico-why", `${this.arm(key).label}: ${arm?.scores[this.value.metric] ?? "no score"}`),
          element("p", arm?.text ? "ico-words" : "ico-why", arm?.text ?? `no text: ${arm?.failure ?? "none was written"}`),
        );
      }
      this.card.replaceChildren(...parts);
    }
  }

  function mount(root, props, watch) {
    const paired = new Paired(root, props.value);
    window.iconoscopePaired.open = paired;
    watch("value", () => paired.update(props.value));
    paired.update({});
  }

  window.iconoscopePaired = { mount };
})();
