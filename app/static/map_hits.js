/* Searching from the map: the field above it, and the words of what was found beside it. */
(() => {
  "use strict";
  if (window.iconoscopeMapHits) return;
  const { element, getField, go } = window.iconoscope;
  const { grouped } = window.iconoscopeMapSide;

  class Hits {
    /* map: words, of the open atlas. */
    constructor(form, root, map) {
      Object.assign(this, { form, root, map });
      this.box = form.querySelector("input");
      this.ids = [];
      this.box.value = getField("q");
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        const text = this.box.value.trim();
        go(text ? "show" : "clear", text);
      });
      // Words that were searched on another tab stand here too, but never under the visitor's fingers.
      window.addEventListener("iconoscope-address", ({ detail: { name, text } }) => {
        if (name === "q" && document.activeElement !== this.box) this.box.value = text;
      });
    }

    /* What stands above the map; "" where nothing was searched. */
    told(query, total) {
      if (this.ids.length) return `The ${grouped(this.ids.length)} best of ${total} features for “${query}”, ringed and listed.`;
      return query ? `No feature fits “${query}”. Try other words, or fewer.` : "";
    }

    /* The words of the hits, best first. */
    async show(ids, query) {
      if (ids.join() === this.ids.join()) return;
      this.ids = ids;
      this.root.hidden = !ids.length;
      if (!ids.length) { this.root.replaceChildren(); return; }
      const head = element("div", "ico-list-head");
      head.append(element("h3", "", "Found"), element("span", "ico-n", `n\u00a0=\u00a0${grouped(ids.length)}, best first`));
      const body = element("div", "ico-list-features", "Reading the words…");
      this.root.replaceChildren(head, body);
      if (query === getField("q")) {
        const why = element("button", "ico-button", "Pictures and reasons");
        why.type = "button";
        Object.assign(why.dataset, { go: "tab", value: "search" });
        const bar = element("div", "ico-list-actions");
        bar.append(why);
        head.after(bar);
      }
      try {
        const found = await this.map.words.of(ids);
        if (this.ids === ids) body.replaceChildren(...found.map((one) => window.iconoscopeMapWords.link(one)));
      } catch (error) {
        body.textContent = `The words could not be read: ${error.message}`;
      }
    }
  }

  window.iconoscopeMapHits = { Hits };
})();
