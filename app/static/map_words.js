/* Words of many features at once, asked from the server in one go and remembered. */
(() => {
  "use strict";
  if (window.iconoscopeMapWords) return;
  const { element, fetchJson } = window.iconoscope;
  const AT_ONCE = 500;

  class Words {
    constructor(base) {
      this.base = base;
      this.known = new Map();
    }

    /* [{feature, text}] in the order of the ids; text is null where no method found words. */
    async of(ids) {
      const unknown = ids.filter((id) => !this.known.has(id));
      for (let at = 0; at < unknown.length; at += AT_ONCE) {
        const { features } = await fetchJson(`${this.base}words.json?ids=${unknown.slice(at, at + AT_ONCE).join(".")}`);
        for (const one of features) this.known.set(one.feature, one.text);
      }
      return ids.map((feature) => ({ feature, text: this.known.get(feature) ?? null }));
    }
  }

  /* A link to a feature: a real address, opened in the page by a plain click. */
  function link({ feature, text }) {
    const node = element("a", "ico-feature-link");
    node.href = `?tab=feature&feature=${feature}`;
    node.dataset.go = "feature";
    node.dataset.value = String(feature);
    node.append(element("span", "ico-id", String(feature)), element("span", text ? "ico-words" : "ico-why", text || "no words"));
    return node;
  }

  window.iconoscopeMapWords = { Words, link };
})();
