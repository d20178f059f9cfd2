/* The card that follows the pointer or the keyboard over the map. A tap shows it with a button that opens the feature. */
(() => {
  "use strict";
  if (window.iconoscopeMapCard) return;
  const { element, fetchJson } = window.iconoscope;
  const REMEMBERED = 300;
  const REST_MS = 60;

  class Card {
    constructor(node, live, map) {
      Object.assign(this, { node, live, map });
      this.known = new Map();
      this.wanted = null;
      this.timer = 0;
      node.addEventListener("click", (event) => {
        if (event.target instanceof Element && event.target.closest("button")) map.open(this.wanted);
      });
    }

    forget() { this.known.clear(); this.hide(); }

    hide() {
      window.clearTimeout(this.timer);
      this.wanted = null;
      this.node.hidden = true;
    }

    /* Words that are known show at once; others are asked for when the pointer rests, so that a sweep asks for none. */
    show(id, { byTouch = false, rest = true } = {}) {
      if (this.wanted === id && !byTouch) return;
      this.wanted = id;
      this.byTouch = byTouch;
      window.clearTimeout(this.timer);
      const words = this.known.get(id);
      if (words) this.fill(words);
      else if (rest) this.timer = window.setTimeout(() => this.ask(id), REST_MS);
      else this.ask(id);
    }

    async ask(id) {
      let words;
      try {
        words = await fetchJson(`${this.map.value.base}feature/${id}.json`);
        if (this.known.size >= REMEMBERED) this.known.delete(this.known.keys().next().value);
        this.known.set(id, words);
      } catch (error) {
        words = { feature: id, text: null, why: `could not be read: ${error.message}` };
      }
      if (this.wanted === id) this.fill(words);
    }

    fill(words) {
      const cluster = this.map.clusterOf(words.feature);
      const head = element("div", "ico-map-card-head");
      head.append(element("span", "ico-id", `feature ${words.feature}`));
      if (cluster) head.append(window.iconoscopeMapSide.swatch(cluster.colour, cluster.colour_dark), element("span", "ico-n", cluster.label));
      const body = element("div", "ico-map-card-body");
      const said = element("div");
      said.append(element("p", words.text ? "ico-words" : "ico-why", words.text ?? words.why));
      if (words.exemplar) body.append(this.picture(words));
      body.append(said);
      const parts = [head, body, ...this.lines(words)];
      if (this.byTouch) {
        const button = element("button", "ico-button is-primary", "Open feature");
        button.type = "button";
        parts.push(button);
      }
      this.node.replaceChildren(...parts);
      this.node.classList.toggle("is-touched", Boolean(this.byTouch));
      this.node.hidden = false;
      this.live.textContent = `Feature ${words.feature}: ${words.text ?? words.why}${cluster ? ` Cluster ${cluster.label}.` : ""}`;
      this.place();
    }

    lines(words) {
      const parts = [];
      if (words.arm) parts.push(element("p", "ico-n", `best words by ${words.arm.label}`));
      const score = words.scores?.find((one) => one.key === this.map.colouredBy) ?? words.scores?.find((one) => one.key === "auroc_per_feature") ?? words.scores?.[0];
      if (score) parts.push(element("p", "ico-n", score.text));
      if (words.truth) {
        const line = element("p", "ico-n ico-map-truth", words.truth);
        line.dataset.kind = words.verdict;
        parts.push(line);
      }
      if (words.firing) parts.push(element("p", "ico-n", words.firing));
      return parts;
    }

    picture(words) {
      const figure = element("figure", "ico-exemplar");
      const { src, ...grid } = words.exemplar;
      Object.assign(figure.dataset, grid);
      const picture = element("div", "ico-picture");
      const img = element("img");
      img.alt = `strongest exemplar of feature ${words.feature}`;
      img.src = src;
      picture.append(img, element("canvas"));
      figure.append(picture);
      window.iconoscopeExemplars.paint(figure);
      return figure;
    }

    /* Beside its point and inside the stage; where it would hide the point, on the other side. */
    place() {
      if (this.node.hidden || this.wanted === null) return;
      const at = this.map.stagePixelOf(this.wanted);
      if (!at) return;
      const { width, height } = this.map.camera;
      const { offsetWidth, offsetHeight } = this.node;
      const right = at.x + 18 + offsetWidth < width - 4;
      const left = right ? at.x + 18 : at.x - 18 - offsetWidth;
      let top = Math.min(Math.max(4, at.y - offsetHeight / 2), Math.max(4, height - offsetHeight - 4));
      // A narrow stage has no room beside the point: above or below it then.
      if (left < 4) top = at.y > height / 2 ? Math.max(4, at.y - 18 - offsetHeight) : Math.min(at.y + 18, Math.max(4, height - offsetHeight - 4));
      const fitted = left < 4 ? Math.min(Math.max(4, at.x - offsetWidth / 2), Math.max(4, width - offsetWidth - 4)) : left;
      this.node.style.transform = `translate(${Math.round(fitted)}px, ${Math.round(top)}px)`;
    }
  }

  window.iconoscopeMapCard = { Card };
})();
