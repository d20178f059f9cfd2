/* A list of features, from a lasso, a cluster or another tab: their words, a copyable address, JSON and CSV. */
(() => {
  "use strict";
  if (window.iconoscopeMapList) return;
  const { element, getField, setField } = window.iconoscope;
  const { grouped } = window.iconoscopeMapSide;
  const MOST = 500;

  /* A cell of a CSV file. A leading sign would be a formula in a spreadsheet, so such words get an apostrophe. */
  function cell(value) {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = /^[=+\-@\t\r]/.test(text) && typeof value === "string" ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  function csv(rows) {
    const lines = [["feature", "cluster", "explanation"], ...rows.map((row) => [row.feature, row.cluster, row.text])];
    return lines.map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
  }

  class List {
    /* map: points, info, words, and showList() when the list changes. */
    constructor(root, map) {
      this.root = root;
      this.map = map;
      this.ids = [];
      this.name = "";
      this.nFound = 0;
    }

    /* What the address holds, of features that exist. */
    restore() {
      const asked = getField("list").split(".").filter((part) => /^\d{1,10}$/.test(part)).map(Number);
      this.set(asked, "From the address", false);
    }

    set(ids, name, write = true) {
      const { rows } = this.map.points;
      const known = [...new Set(ids)].filter((id) => rows.has(id));
      this.nFound = known.length;
      this.ids = known.slice(0, MOST);
      this.name = name;
      if (write) setField("list", this.ids.join("."));
      this.show();
      this.map.showList();
    }

    clear() { this.set([], ""); }

    /* Filters apply: hidden features are counted, not listed. */
    async show() {
      this.root.hidden = !this.ids.length;
      if (!this.ids.length) { this.root.replaceChildren(); return; }
      const { rows } = this.map.points;
      const shown = this.ids.filter((id) => this.map.visible[rows.get(id)]);
      const asked = this.ids;
      const head = element("div", "ico-list-head");
      head.append(element("h3", "", "List"), element("span", "ico-n", this.count(shown.length)));
      const body = element("div", "ico-list-features", "Reading the words…");
      this.root.replaceChildren(head, this.actions(shown), body);
      try {
        const found = await this.map.words.of(shown);
        if (this.ids === asked) body.replaceChildren(...found.map((one) => window.iconoscopeMapWords.link(one)));
      } catch (error) {
        body.textContent = `The words could not be read: ${error.message}`;
      }
    }

    count(nShown) {
      const parts = [`n\u00a0=\u00a0${grouped(nShown)}`, this.name];
      if (nShown < this.ids.length) parts.push(`${grouped(this.ids.length - nShown)} hidden by filters`);
      if (this.nFound > this.ids.length) parts.push(`the first ${grouped(this.ids.length)} of ${grouped(this.nFound)}`);
      return parts.filter(Boolean).join(" · ");
    }

    actions(shown) {
      const bar = element("div", "ico-list-actions");
      const button = (text, label, onClick) => {
        const node = element("button", "ico-button", text);
        node.type = "button";
        node.setAttribute("aria-label", label);
        node.addEventListener("click", () => onClick(node));
        bar.append(node);
      };
      button("Copy link", "Copy a link to this list", (node) => this.copy(node));
      button("JSON", "Download the list as JSON", () => this.save("json", shown));
      button("CSV", "Download the list as CSV", () => this.save("csv", shown));
      button("Clear", "Clear the list", () => this.clear());
      return bar;
    }

    async copy(node) {
      try {
        await navigator.clipboard.writeText(window.location.href);
        node.textContent = "Copied";
        window.setTimeout(() => { node.textContent = "Copy link"; }, 1500);
      } catch { window.prompt("Copy this address", window.location.href); }
    }

    async save(kind, shown) {
      const { points, info } = this.map;
      const labels = new Map(info.clusters.map((one) => [one.cluster, one.label]));
      const found = (await this.map.words.of(shown)).map(({ feature, text }) => ({
        feature, cluster: labels.get(points.cluster[points.rows.get(feature)]) ?? null, text,
      }));
      const document_ = { atlas: info.fingerprint, n: found.length, list: this.name, features: found };
      const text = kind === "csv" ? csv(found) : JSON.stringify(document_, null, 2);
      const address = URL.createObjectURL(new Blob([text], { type: kind === "csv" ? "text/csv" : "application/json" }));
      const link = element("a");
      link.href = address;
      link.download = `iconoscope-features.${kind}`;
      link.click();
      window.setTimeout(() => URL.revokeObjectURL(address), 10000);
    }
  }

  window.iconoscopeMapList = { List, csv, MOST };
})();
