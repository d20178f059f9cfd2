/* The map of features: joins data, painter, camera, hands, filters and lists. It knows ids, coordinates and colours; words
   come on demand by id and are set with textContent. */
(() => {
  "use strict";
  if (window.iconoscopeMap) return;
  const { element, fetchJson, getField, setField } = window.iconoscope;
  const { grouped } = window.iconoscopeMapSide;
  const SAVE_MS = 350;
  const NOTHING = new Set();

  class FeatureMap extends window.iconoscopeMapPlaces.Places {
    constructor(root, value, onPick) {
      super();
      Object.assign(this, { root, value, onPick });
      const find = (name) => root.querySelector(`.ico-map-${name}`);
      this.find = find;
      this.stage = find("stage");
      this.painting = new window.iconoscopeMapPainting.Painting(find("plot"), (text) => this.say(text));
      this.chooser = root.querySelector(".ico-map-bar select");
      this.ready = false;
      this.loaded = null;
      this.listed = [];
      this.lit = NOTHING;
      this.cursor = -1;
      this.card = new window.iconoscopeMapCard.Card(find("card"), find("live"), this);
      this.labels = new window.iconoscopeMapLabels.Labels(find("labels"));
      this.overlay = new window.iconoscopeMapOverlay.Overlay(find("overlay"), this);
      this.filters = new window.iconoscopeMapFilters.Filters(find("filter-fields"), () => this.refilter());
      this.tree = new window.iconoscopeMapTree.Tree(find("clusters"), {
        zoom: (cluster) => { if (this.root.clientWidth >= 900) this.zoomTo(cluster); },
        list: async (cluster) => this.list.set(await this.idsOf(cluster), this.cluster(cluster)?.label ?? ""),
        rows: (cluster) => this.idsOf(cluster),
        words: (ids) => this.words.of(ids),
      });
      this.list = new window.iconoscopeMapList.List(find("list"), this);
      this.found = new window.iconoscopeMapHits.Hits(find("search"), find("hits"), this);
      this.hands = window.iconoscopeMapHands.attach(this);
      window.addEventListener("iconoscope-theme", () => this.recolour());
      new ResizeObserver(() => this.resized()).observe(this.stage);
    }

    say(text) {
      this.find("message").textContent = text;
      this.find("message").hidden = !text;
    }

    progress(text) {
      this.find("progress").textContent = text;
      this.find("progress").hidden = !text;
    }

    /* Load an atlas. Fields of the address belong to the first one; the places of another are its own. */
    async load() {
      const { base } = this.value;
      const isFirst = this.loaded === null;
      this.loaded = base;
      this.ready = false;
      this.progress("Loading the points…");
      try {
        const [buffer, info] = await Promise.all([window.iconoscopeMapPoints.bytes(`${base}points.bin`), fetchJson(`${base}map.json`)]);
        if (this.loaded !== base) return;
        this.points = window.iconoscopeMapPoints.decode(buffer);
        this.info = info;
      } catch (error) {
        this.progress("");
        this.say(`The map could not be loaded: ${error.message}. Reload the page; search works without it.`);
        return;
      }
      if (!isFirst) for (const name of ["camera", "list", ...window.iconoscopeMapFilters.NAMES]) setField(name, "");
      await this.prepare(isFirst);
    }

    async prepare(isFirst) {
      const { base } = this.value;
      this.say("");
      this.card.forget();
      this.cursor = -1;
      this.columns = new window.iconoscopeMapPoints.Columns(base, this.points.n);
      this.words = new window.iconoscopeMapWords.Words(base);
      this.drawn = window.iconoscopeMapLayout.spread(this.points.x, this.points.y);
      this.index = new window.iconoscopeMapIndex.PointIndex(this.drawn.x, this.drawn.y);
      this.camera = new window.iconoscopeMapCamera.Camera(this.drawn.x, this.drawn.y);
      this.painting.start(this.drawn.x, this.drawn.y, this.camera);
      this.visible = new Uint8Array(this.points.n).fill(1);
      this.labels.set(window.iconoscopeMapLayout.anchors(this.drawn, this.points.cluster, this.info.clusters));
      this.tree.set(this.info.clusters);
      this.filters.set(this.info, this.points, this.columns);
      this.buildChooser();
      this.camera.resize(this.stage.clientWidth, this.stage.clientHeight);
      if (!isFirst || !this.camera.read(getField("camera"))) this.camera.showWhole();
      await this.refilter();
      if (isFirst) this.list.restore(); else { this.list.set([], ""); this.found.show([], ""); }
      this.progress("");
      this.ready = true;
      window.performance.mark("iconoscope-map-ready");
      this.update(this.value);
      await this.painting.improve();
    }

    buildChooser() {
      this.chooser.replaceChildren(...this.info.fields.map((field) => {
        const option = element("option", "", field.label);
        option.value = field.key;
        return option;
      }));
      const known = (key) => this.info.fields.some((field) => field.key === key);
      const asked = getField("colour") || this.value.colour;
      this.chooser.value = known(asked) ? asked : this.info.fields[0].key;
    }

    // what is drawn --------------------------------------------------------------------------------------------------

    /* Points shrink in a crowd and grow when looked at closely. */
    get size() {
      const { n } = this.points;
      const least = n > 50000 ? 2.4 : n > 15000 ? 3.2 : n > 3000 || this.camera.width < 600 ? 4.4 : 6.5;
      const near = this.camera.usable ? Math.min(2.2, Math.max(1, (this.camera.scale / this.camera.home) ** 0.3)) : 1;
      return Math.round(4 * Math.min(least * near, Math.max(least, 9))) / 4;
    }

    async refilter() {
      try {
        const { visible, words } = await this.filters.mask();
        this.visible = visible;
        this.hiddenWords = words;
      } catch (error) {
        this.say(`The filter could not be applied: ${error.message}`);
        return;
      }
      this.counts = new Map();
      this.visibleCount = 0;
      for (let row = 0; row < this.points.n; row++) {
        if (!this.visible[row]) continue;
        this.visibleCount++;
        const cluster = this.points.cluster[row];
        this.counts.set(cluster, (this.counts.get(cluster) ?? 0) + 1);
      }
      const badge = this.find("filter-badge");
      badge.textContent = this.filters.active ? String(this.filters.active) : "";
      badge.hidden = !this.filters.active;
      if (this.cursor >= 0 && !this.visible[this.cursor]) { this.cursor = -1; this.card.hide(); }
      this.tree.show(this.counts);
      this.list.show();
      this.showList();
      this.tell();
      await this.recolour();
    }

    async recolour() {
      if (!this.points || !this.painting.painter) return;
      // Nobody sees it: a hundred thousand points are not drawn anew for every search beside the map.
      this.isStale = !this.stage.clientWidth;
      if (this.isStale) return;
      const key = this.chooser.value;
      try {
        const chosen = await window.iconoscopeMapColours.load(this.info.fields.find((one) => one.key === key), this.info, this.points, this.columns);
        if (key !== this.chooser.value) return;
        const { groups, counts, absent } = window.iconoscopeMapColours.group(chosen, this.visible, this.lit, this.points.n > 15000 ? 0.75 : 0.88);
        window.iconoscopeMapSide.legend(this.find("legend"), { field: chosen.field, counts, absent, total: this.visibleCount, nMoved: this.drawn.n_moved });
        this.colouredBy = key;
        this.root.dataset.colour = key;
        await this.painting.paint(groups, this.size);
      } catch (error) {
        this.say(`The map could not be coloured: ${error.message}`);
      }
      this.placed();
    }

    /* After any move of the camera. */
    moved() {
      this.painting.moved();
      this.overlay.ask();
      this.placeSoon();
      this.card.place();
      window.clearTimeout(this.saving);
      this.saving = window.setTimeout(() => { setField("camera", this.camera.text); if (this.painting.size !== this.size) this.painting.resize(this.size); }, SAVE_MS);
    }

    placeSoon() {
      if (this.placing) return;
      this.placing = requestAnimationFrame(() => { this.placing = 0; this.placed(); });
    }

    placed() {
      if (!this.camera?.usable) return;
      const { offsetLeft: left, offsetTop: top, offsetWidth, offsetHeight } = this.find("tools");
      this.labels.update(this.camera, this.drawn, this.visible, this.counts ?? new Map(), { left, top, right: left + offsetWidth, bottom: top + offsetHeight });
      this.labels.fade(this.lit.size > 0);
      this.overlay.ask();
    }

    resized() {
      if (!this.camera) return;
      const { clientWidth: width, clientHeight: height } = this.stage;
      if (width && this.isStale) this.recolour();
      if (!width || (width === this.camera.width && height === this.camera.height)) return;
      this.camera.resize(width, height);
      this.painting.resize(this.size);
      this.placed();
      this.card.place();
    }

    tell() {
      const total = grouped(this.points.n);
      const searched = this.found.told(this.value.query ?? "", total);
      const words = [];
      if (searched) words.push(searched);
      else if (this.visibleCount < this.points.n) words.push(`${grouped(this.visibleCount)} of ${total} features.`);
      else words.push(`${total} features. Choose one to open it.`);
      if (this.hiddenWords) words.push(this.hiddenWords);
      this.find("count").textContent = words.join(" ");
      this.find("clear").hidden = !searched;
    }

    showList() {
      this.listed = this.list.ids.map((id) => this.points.rows.get(id)).filter((row) => this.visible[row]);
      this.overlay.ask();
    }

    // wishes of the server ---------------------------------------------------------------------------------------------

    /* Which atlas, which feature is chosen, which hits are lit, which list is shown, which colouring is asked for. */
    update(value) {
      if (!value) return;
      const before = this.value;
      this.value = value;
      // The address names another atlas than the page was built with: wait until the server has read it.
      if (!this.loaded && getField("atlas") && !value.restored) return;
      if (this.loaded !== value.base) { this.load(); return; }
      if (!this.ready) return;
      if (value.colour && value.colour !== before.colour && value.colour !== this.chooser.value) this.colourBy(value.colour, false);
      const lit = new Set((value.hits ?? []).map((id) => this.points.rows.get(id)).filter((row) => row !== undefined));
      const relit = lit.size !== this.lit.size || [...lit].some((row) => !this.lit.has(row));
      this.lit = lit;
      if (relit) this.recolour();
      this.found.show([...lit].map((row) => this.points.ids[row]), value.query ?? "");
      if (value.list && value.list !== before.list && value.asked !== this.asked) {
        this.asked = value.asked;
        this.list.set(value.list, value.list_name ?? "");
      }
      const row = this.points.rows.get(value.selected);
      if (value.selected !== before.selected && row !== undefined) this.bring(row);
      this.tell();
      this.overlay.ask();
    }

    colourBy(key, write = true) {
      if (!this.info.fields.some((field) => field.key === key)) return;
      this.chooser.value = key;
      if (write) setField("colour", key, "cluster");
      this.recolour();
    }

    open(id) {
      if (id === null || id === undefined) return;
      this.card.hide();
      this.onPick(id);
    }
  }

  let map = null;
  function mount(root, value, onPick) {
    map = new FeatureMap(root, value, onPick);
    map.update(value);
    return map;
  }

  window.iconoscopeMap = {
    mount,
    get ready() { return Boolean(map?.ready); },
    /* What draws: "canvas" first, "webgl" once Plotly has. */
    get drawnBy() { return map?.painting.painter ? map.painting.by : null; },
    get count() { return map?.points?.n ?? 0; },
    get visibleCount() { return map?.visibleCount ?? 0; },
    get ids() { return Array.from(map?.points?.ids ?? []); },
    get root() { return map?.root ?? null; },
    get selected() { return map?.value?.selected ?? null; },
    get hits() { return map?.value?.hits ?? []; },
    get colouredBy() { return map?.colouredBy ?? null; },
    get camera() { return map?.camera?.box ?? null; },
    get list() { return map?.list?.ids ?? []; },
    get cursor() { return map && map.cursor >= 0 ? map.points.ids[map.cursor] : null; },
    pixelOf: (id) => map?.pixelOf(id) ?? null,
  };
})();
