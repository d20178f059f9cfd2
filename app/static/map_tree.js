/* The clusters as a tree: works without WebGL, with a keyboard and on a phone. One tab stop; arrows move, right opens a
   cluster, left closes it, Enter opens a feature. Filters apply: counts say how many of a cluster are shown. */
(() => {
  "use strict";
  if (window.iconoscopeMapTree) return;
  const { element } = window.iconoscope;
  const PAGE = 100;

  class Tree {
    /* wishes: zoom(cluster), list(cluster), rows(cluster) -> visible ids in the order to show, words(ids). */
    constructor(root, wishes) {
      this.root = root;
      this.wishes = wishes;
      root.setAttribute("role", "tree");
      root.setAttribute("aria-label", "Clusters of features");
      root.addEventListener("keydown", (event) => this.key(event));
      root.addEventListener("focusin", (event) => this.stop(event.target));
      root.addEventListener("click", (event) => {
        const head = event.target instanceof Element ? event.target.closest(".ico-cluster-head") : null;
        if (head) this.toggle(head.parentElement);
      });
    }

    set(clusters) {
      this.nodes = new Map();
      this.root.replaceChildren();
      for (const cluster of [...clusters].sort((a, b) => b.n_features - a.n_features || a.cluster - b.cluster)) {
        const node = element("div", "ico-cluster");
        node.setAttribute("role", "none");
        node.dataset.cluster = String(cluster.cluster);
        const head = element("div", "ico-cluster-head");
        head.setAttribute("role", "treeitem");
        head.setAttribute("aria-expanded", "false");
        head.tabIndex = -1;
        head.append(window.iconoscopeMapSide.swatch(cluster.colour, cluster.colour_dark), element("span", "ico-legend-name", cluster.label), element("span", "ico-n"));
        node.append(head);
        this.nodes.set(cluster.cluster, { node, head, cluster });
        this.root.append(node);
      }
      this.stop(this.root.querySelector("[role=treeitem]"));
    }

    /* counts: visible features by cluster. */
    show(counts) {
      for (const [key, { node, head, cluster }] of this.nodes) {
        const n = counts.get(key) ?? 0;
        const all = window.iconoscopeMapSide.grouped(cluster.n_features);
        head.lastChild.textContent = n === cluster.n_features ? `n\u00a0=\u00a0${all}` : `${window.iconoscopeMapSide.grouped(n)} of ${all}`;
        node.classList.toggle("is-empty", n === 0);
        if (head.getAttribute("aria-expanded") === "true") this.fill(node, PAGE);
      }
    }

    toggle(node) {
      const head = node.firstChild;
      const isOpen = head.getAttribute("aria-expanded") === "true";
      head.setAttribute("aria-expanded", String(!isOpen));
      if (isOpen) { node.querySelector("[role=group]")?.remove(); return; }
      this.wishes.zoom(Number(node.dataset.cluster));
      this.fill(node, PAGE);
    }

    async fill(node, most) {
      const cluster = Number(node.dataset.cluster);
      let group = node.querySelector("[role=group]");
      if (!group) {
        group = element("div", "ico-cluster-features");
        group.setAttribute("role", "group");
        node.append(group);
      }
      try {
        const ids = await this.wishes.rows(cluster);
        const found = await this.wishes.words(ids.slice(0, most));
        if (!group.isConnected) return;
        const parts = [this.button("ico-cluster-list", `List these ${ids.length === 1 ? "" : window.iconoscopeMapSide.grouped(ids.length)}`.trim(), () => this.wishes.list(cluster))];
        if (!ids.length) parts[0] = element("p", "ico-why", "Every feature of this cluster is hidden by the filters.");
        for (const one of found) {
          const item = window.iconoscopeMapWords.link(one);
          item.setAttribute("role", "treeitem");
          item.tabIndex = -1;
          parts.push(item);
        }
        if (ids.length > most) parts.push(this.button("", `Show ${Math.min(PAGE, ids.length - most)} more of ${window.iconoscopeMapSide.grouped(ids.length)}`, () => this.fill(node, most + PAGE)));
        group.replaceChildren(...parts);
      } catch (error) {
        group.replaceChildren(element("p", "ico-why", `The list could not be read: ${error.message}`));
      }
    }

    button(className, text, onClick) {
      const node = element("button", `ico-cluster-action ${className}`, text);
      node.type = "button";
      node.tabIndex = -1;
      node.setAttribute("role", "treeitem");
      node.addEventListener("click", onClick);
      return node;
    }

    /* Exactly one item is reached by Tab: the last one that was. */
    stop(item) {
      if (!(item instanceof Element) || item.getAttribute("role") !== "treeitem") return;
      this.root.querySelectorAll('[role="treeitem"][tabindex="0"]').forEach((one) => { one.tabIndex = -1; });
      item.tabIndex = 0;
    }

    key(event) {
      const items = [...this.root.querySelectorAll("[role=treeitem]")];
      const at = items.indexOf(document.activeElement);
      if (at < 0 || event.metaKey || event.ctrlKey || event.altKey) return;
      const node = items[at].closest(".ico-cluster");
      const head = node.firstChild;
      const isHead = items[at] === head;
      const isOpen = head.getAttribute("aria-expanded") === "true";
      const moves = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 };
      if (event.key in moves) items[Math.max(0, Math.min(items.length - 1, moves[event.key]))].focus();
      else if (event.key === "ArrowRight" && isHead && !isOpen) this.toggle(node);
      else if (event.key === "ArrowRight" && isHead) items[at + 1]?.focus();
      else if (event.key === "ArrowLeft" && isHead && isOpen) this.toggle(node);
      else if (event.key === "ArrowLeft" && !isHead) head.focus();
      else if ((event.key === "Enter" || event.key === " ") && isHead) this.toggle(node);
      else if (event.key === "Enter" || event.key === " ") items[at].click();
      else return;
      event.preventDefault();
    }
  }

  window.iconoscopeMapTree = { Tree };
})();
