/* Filters: which features are shown, and in words how many are hidden and by what. Every filter is a field of the address.
   A feature that several filters would hide counts for the first of them. */
(() => {
  "use strict";
  if (window.iconoscopeMapFilters) return;
  const { element, getField, setField } = window.iconoscope;
  const { number, grouped } = window.iconoscopeMapSide;
  const CATEGORY = [
    { name: "winner", key: "best_arm", label: "Winning method", by: "method" },
    { name: "verdict", key: "verdict", label: "Truth verdict", by: "truth verdict" },
  ];
  const LEAST = [
    { name: "min_firing", key: "firing_fraction", label: "Firing fraction at least", by: "firing fraction" },
    { name: "min_agreement", key: "agreement", label: "Agreement at least", by: "agreement" },
    { name: "min_auroc", key: "auroc_per_feature", label: "AUROC at least", by: "AUROC" },
  ];
  const NAMES = ["quality", "winner", "verdict", "cluster", ...LEAST.map((one) => one.name)];

  class Filters {
    constructor(root, onChange) {
      this.root = root;
      this.onChange = onChange;
      this.values = {};
    }

    /* The address speaks first; what this atlas cannot mean is left out. */
    set(info, points, columns) {
      Object.assign(this, { info, points, columns });
      this.field = (key) => info.fields.find((one) => one.key === key);
      this.nKept = points.kept.reduce((sum, one) => sum + one, 0);
      this.values = Object.fromEntries(NAMES.map((name) => [name, getField(name)]));
      this.values.quality = this.values.quality === "1" ? "1" : "";
      for (const { name, key } of CATEGORY) if (!this.field(key)?.keys.includes(this.values[name])) this.values[name] = "";
      for (const { name, key } of LEAST) if (!this.field(key) || !Number.isFinite(Number(this.values[name]))) this.values[name] = "";
      if (!info.clusters.some((one) => String(one.cluster) === this.values.cluster)) this.values.cluster = "";
      this.build();
    }

    get active() { return NAMES.filter((name) => this.values[name]).length; }

    change(name, text) {
      this.values[name] = text;
      setField(name, text);
      this.show();
      this.onChange();
    }

    reset() {
      for (const name of NAMES) { this.values[name] = ""; setField(name, ""); }
      this.build();
      this.onChange();
    }

    build() {
      const parts = [this.quality()];
      for (const one of CATEGORY) {
        const field = this.field(one.key);
        if (field) parts.push(this.choice(one.name, one.label, field.keys.map((key, at) => [key, field.names[at]])));
      }
      const clusters = [...this.info.clusters].sort((a, b) => b.n_features - a.n_features || a.cluster - b.cluster);
      parts.push(this.choice("cluster", "Cluster", clusters.map((one) => [String(one.cluster), one.label])));
      for (const one of LEAST) if (this.field(one.key)) parts.push(this.least(one));
      const reset = element("button", "ico-button ico-map-reset", "Show all features");
      reset.type = "button";
      reset.addEventListener("click", () => this.reset());
      this.root.replaceChildren(...parts, reset);
      this.show();
    }

    quality() {
      const label = element("label", "ico-switch");
      const box = element("input");
      box.type = "checkbox";
      box.setAttribute("role", "switch");
      box.dataset.filter = "quality";
      box.addEventListener("change", () => this.change("quality", box.checked ? "1" : ""));
      const words = element("span", "", "Quality filter");
      const note = element("span", "ico-n", `drops ${grouped(this.points.n - this.nKept)} of ${grouped(this.points.n)}`);
      label.append(box, words, note);
      label.title = "The paper's rule for which explanations to trust; a stored flag, nothing is deleted.";
      return label;
    }

    choice(name, label, options) {
      const row = element("label", "ico-filter", label);
      const select = element("select");
      select.dataset.filter = name;
      for (const [value, words] of [["", "any"], ...options]) {
        const option = element("option", "", words);
        option.value = value;
        select.append(option);
      }
      select.addEventListener("change", () => this.change(name, select.value));
      row.append(select);
      return row;
    }

    /* A slider over the edges of the column: its first step is "off", so that features without the number stay. */
    least({ name, key, label }) {
      const field = this.field(key);
      const row = element("label", "ico-filter", label);
      const out = element("output", "ico-n");
      const slider = element("input");
      slider.type = "range";
      slider.min = "0";
      slider.max = String(field.edges.length - 1);
      slider.step = "1";
      slider.dataset.filter = name;
      slider.setAttribute("aria-label", label);
      slider.addEventListener("input", () => { const at = Number(slider.value); this.change(name, at ? String(field.edges[at]) : ""); });
      row.append(out, slider);
      return row;
    }

    show() {
      for (const input of this.root.querySelectorAll("[data-filter]")) {
        const name = input.dataset.filter;
        const value = this.values[name];
        if (input.type === "checkbox") input.checked = value === "1";
        else if (input.type !== "range") input.value = value;
        else {
          const field = this.field(LEAST.find((one) => one.name === name).key);
          const text = value ? number(Number(value), field.unit) : "off";
          input.value = String(value ? firstAtLeast(field.edges, Number(value)) : 0);
          input.setAttribute("aria-valuetext", text);
          input.parentElement.querySelector("output").textContent = text;
        }
      }
      this.root.querySelector(".ico-map-reset").hidden = !this.active;
    }

    /* Returns which rows are shown (1) and the words for those that are not. */
    async mask() {
      const { n, kept, cluster } = this.points;
      const visible = new Uint8Array(n).fill(1);
      const told = [];
      const hide = (by, keeps) => {
        let hidden = 0;
        for (let row = 0; row < n; row++) if (visible[row] && !keeps(row)) { visible[row] = 0; hidden++; }
        told.push(`${grouped(hidden)} by ${by}`);
      };
      const { values } = this;
      if (values.quality) hide("the quality filter", (row) => kept[row] === 1);
      for (const { name, key, by } of CATEGORY) {
        if (!values[name]) continue;
        const [codes, wanted] = [await this.columns.get(key), this.field(key).keys.indexOf(values[name])];
        hide(by, (row) => codes[row] === wanted);
      }
      if (values.cluster) hide("cluster", (row) => cluster[row] === Number(values.cluster));
      for (const { name, key, by } of LEAST) {
        if (!values[name]) continue;
        const [codes, least] = [await this.columns.get(key), firstAtLeast(this.field(key).edges, Number(values[name]))];
        hide(by, (row) => codes[row] !== 255 && codes[row] >= least);
      }
      return { visible, words: told.length ? `Hidden: ${told.join(", ")}.` : "" };
    }
  }

  /* A value between two edges means the higher one; one beyond all edges means none. */
  function firstAtLeast(edges, value) {
    const found = edges.findIndex((edge) => edge >= value - 1e-9 * Math.abs(value));
    return found < 0 ? edges.length : found;
  }

  window.iconoscopeMapFilters = { Filters, NAMES, firstAtLeast };
})();
