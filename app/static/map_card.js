/* The card that follows the pointer over the map. On touch screens the first tap shows it with an Open button. */
(() => {
  "use strict";
  if (window.iconoscopeMapCard) return;
  const { element, fetchJson } = window.iconoscope;
  const REMEMBERED = 300;

  class Card {
    constructor(map) {
      this.map = map;
      this.node = map.card;
      this.known = new Map();
      this.wanted = null;
      this.touch = window.matchMedia("(hover: none)").matches;
      this.node.addEventListener("click", (event) => {
        if (event.target instanceof Element && event.target.closest("button")) this.open(this.wanted);
      });
    }

    idOf(event) {
      const point = event.points && event.points[0];
      return point && point.curveNumber === 0 ? this.map.points.ids[point.pointNumber] : null;
    }

    picked(event) {
      const id = this.idOf(event);
      if (id === null) return;
      if (this.touch) this.show(id);
      else this.open(id);
    }

    open(id) {
      this.out();
      this.map.onPick(id);
    }

    over(event) {
      const id = this.idOf(event);
      if (id === null || this.touch) return;
      this.show(id);
    }

    out() {
      if (this.touch && this.node.matches(":hover")) return;
      this.wanted = null;
      this.node.hidden = true;
    }

    async show(id) {
      this.wanted = id;
      let words = this.known.get(id);
      if (!words) {
        try {
          words = await fetchJson(`${this.map.value.base}feature/${id}.json`);
        } catch (error) {
          words = { feature: id, text: null, why: `could not be read: ${error.message}` };
        }
        if (this.known.size >= REMEMBERED) this.known.delete(this.known.keys().next().value);
        this.known.set(id, words);
      }
      if (this.wanted === id) this.fill(words);
    }

    fill(words) {
      const head = element("div", "ico-map-card-head");
      head.append(element("span", "ico-id", `feature ${words.feature}`));
      if (words.cluster) head.append(element("span", "ico-n", words.cluster));
      const parts = [head];
      if (words.exemplar) {
        const figure = element("figure", "ico-exemplar");
        Object.assign(figure.dataset, { grid: words.exemplar.grid, rows: words.exemplar.rows, cols: words.exemplar.cols, maximum: words.exemplar.maximum });
        const picture = element("div", "ico-picture");
        const img = element("img");
        img.alt = `strongest exemplar of feature ${words.feature}`;
        img.src = words.exemplar.src;
        picture.append(img, element("canvas"));
        figure.append(picture);
        window.iconoscopeExemplars.paint(figure);
        parts.push(figure);
      }
      parts.push(element("p", words.text ? "ico-words" : "ico-why", words.text ?? words.why));
      for (const line of words.lines ?? []) parts.push(element("p", "ico-n", line));
      if (this.touch) parts.push(element("button", "ico-button", "Open feature"));
      this.node.replaceChildren(...parts);
      this.node.hidden = false;
      this.placeAt(words.feature);
    }

    placeAt(id) {
      const at = this.map.pixelOf(id);
      const stage = this.map.stage.getBoundingClientRect();
      if (!at) return;
      const { offsetWidth: width, offsetHeight: height } = this.node;
      const x = at.x - stage.left;
      const y = at.y - stage.top;
      const left = x + 16 + width < stage.width ? x + 16 : Math.max(4, x - 16 - width);
      const top = Math.min(Math.max(4, y - height / 2), Math.max(4, stage.height - height - 4));
      this.node.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
    }
  }

  window.iconoscopeMapCard = { Card };
})();
