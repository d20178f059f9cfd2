/* A picture under its patch grid, where a visitor chooses patches with a finger, a mouse or the keyboard.
   Mounted by app/components/patch_picker.py on <section class="ico-patches">. Value: {image, src, alt, rows, cols, patches,
   heat, stamp}; patches are flat, row-major and sorted; heat is {grid, maximum, label} or null, grid as in exemplars.js;
   the stamp is new whenever the visitor chooses, and absent from what the server sets.
   Tap or click turns a patch on or off, a drag adds a box (or paints), Shift or "Remove" takes away.
   window.iconoscopePatchPicker.heat(id, heat) lays a heatmap over the picture of the component with this element id. */
(() => {
  "use strict";
  if (window.iconoscopePatchPicker) return;

  const pickers = new Map();
  let nChosen = 0;
  const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

  class Picker {
    constructor(root, props) {
      Object.assign(this, { root, props, tool: "box", removing: false, drag: null, cursor: null, heatShown: null, laid: null });
      this.chosen = new Set();
      this.build();
      this.listen();
      new ResizeObserver(() => this.paint()).observe(this.stage);
      this.update();
    }

    get rows() { return Math.max(1, this.props.value?.rows || 1); }
    get cols() { return Math.max(1, this.props.value?.cols || 1); }

    build() {
      const { element } = window.iconoscope;
      this.stage = element("div", "ico-patches-stage");
      this.img = element("img");
      this.img.draggable = false;
      this.heat = element("canvas", "ico-patches-heat");
      this.grid = element("canvas", "ico-patches-grid");
      this.grid.tabIndex = 0;
      this.grid.setAttribute("role", "application");
      this.grid.setAttribute("aria-roledescription", "patch grid");
      this.told = element("p", "ico-patches-told");
      this.told.setAttribute("role", "status");
      this.spoken = element("span", "ico-unseen");
      this.spoken.setAttribute("aria-live", "polite");
      this.message = element("p", "ico-patches-message");
      this.message.hidden = true;
      this.stage.append(this.img, this.heat, this.grid, this.message);
      const tools = element("div", "ico-patches-tools");
      tools.setAttribute("role", "group");
      tools.setAttribute("aria-label", "Choosing patches");
      this.buttons = {
        box: this.button("Box", () => this.useTool("box"), "Drag to choose a box of patches"),
        brush: this.button("Brush", () => this.useTool("brush"), "Drag to paint patches"),
        remove: this.button("Remove", () => { this.removing = !this.removing; this.showTools(); }, "Dragging takes patches away, as with Shift"),
        all: this.button("All", () => this.commit(this.everything()), "Choose every patch"),
        clear: this.button("Clear", () => this.commit(new Set()), "Choose no patch"),
      };
      tools.append(...Object.values(this.buttons));
      this.root.replaceChildren(this.stage, tools, this.told, this.spoken);
      this.showTools();
    }

    button(words, pressed, title) {
      const button = window.iconoscope.element("button", "ico-button", words);
      Object.assign(button, { type: "button", title });
      button.addEventListener("click", pressed);
      return button;
    }

    useTool(tool) { this.tool = tool; this.showTools(); }

    showTools() {
      this.buttons.box.setAttribute("aria-pressed", String(this.tool === "box"));
      this.buttons.brush.setAttribute("aria-pressed", String(this.tool === "brush"));
      this.buttons.remove.setAttribute("aria-pressed", String(this.removing));
    }

    listen() {
      const grid = this.grid;
      this.img.addEventListener("load", () => {
        const shape = Math.min(2.2, Math.max(0.6, this.img.naturalWidth / Math.max(1, this.img.naturalHeight)));
        this.stage.style.aspectRatio = String(shape);
        this.message.hidden = true;
        this.paint();
      });
      this.img.addEventListener("error", () => {
        this.message.textContent = "This picture is no longer here. Choose another, or upload it again.";
        this.message.hidden = false;
      });
      grid.addEventListener("pointerdown", (event) => this.start(event));
      grid.addEventListener("pointermove", (event) => this.move(event));
      grid.addEventListener("pointerup", () => this.end());
      grid.addEventListener("pointercancel", () => { this.drag = null; this.paint(); });
      grid.addEventListener("pointerleave", () => { if (!this.drag) { this.cursor = null; this.paint(); } });
      grid.addEventListener("blur", () => { this.cursor = null; this.paint(); });
      grid.addEventListener("keydown", (event) => this.key(event));
    }

    at(event) {
      const area = this.grid.getBoundingClientRect();
      const cell = (offset, length, n) => Math.min(n - 1, Math.max(0, Math.floor((n * offset) / length)));
      return { row: cell(event.clientY - area.top, area.height, this.rows), col: cell(event.clientX - area.left, area.width, this.cols) };
    }

    start(event) {
      if (event.button !== 0 || !this.props.value?.src) return;
      event.preventDefault();
      this.grid.focus({ preventScroll: true });
      try { this.grid.setPointerCapture(event.pointerId); } catch { /* a pointer that is already gone draws one patch */ }
      const at = this.at(event);
      const remove = this.removing || event.shiftKey;
      this.drag = { from: at, last: at, moved: false, remove, painted: new Set([this.index(at)]) };
      this.cursor = at;
      this.paint();
    }

    move(event) {
      const at = this.at(event);
      this.cursor = at;
      const drag = this.drag;
      if (drag && (at.row !== drag.last.row || at.col !== drag.last.col)) {
        drag.moved = true;
        this.stroke(drag.last, at).forEach((one) => drag.painted.add(one));
        drag.last = at;
      }
      this.paint();
    }

    end() {
      const drag = this.drag;
      if (!drag) return;
      this.drag = null;
      const only = this.index(drag.from);
      if (!drag.moved && this.chosen.has(only)) drag.remove = true;
      this.commit(this.applied(drag));
    }

    /* The chosen patches as they would be if the drag ended here. */
    applied(drag) {
      const next = new Set(this.chosen);
      const touched = this.tool === "brush" ? drag.painted : this.box(drag.from, drag.last);
      touched.forEach((one) => { if (drag.remove) next.delete(one); else next.add(one); });
      return next;
    }

    box(a, b) {
      const found = [];
      for (let row = Math.min(a.row, b.row); row <= Math.max(a.row, b.row); row++) {
        for (let col = Math.min(a.col, b.col); col <= Math.max(a.col, b.col); col++) found.push(this.index({ row, col }));
      }
      return found;
    }

    /* Every patch between two, so that a fast finger leaves no gaps. */
    stroke(a, b) {
      const n = Math.max(Math.abs(a.row - b.row), Math.abs(a.col - b.col), 1);
      return Array.from({ length: n + 1 }, (_, i) => this.index({
        row: Math.round(a.row + ((b.row - a.row) * i) / n), col: Math.round(a.col + ((b.col - a.col) * i) / n),
      }));
    }

    index({ row, col }) { return row * this.cols + col; }
    everything() { return new Set(Array.from({ length: this.rows * this.cols }, (_, i) => i)); }

    key(event) {
      const step = ARROWS[event.key];
      const at = this.cursor ?? { row: Math.floor(this.rows / 2), col: Math.floor(this.cols / 2) };
      if (step) {
        this.cursor = {
          row: Math.min(this.rows - 1, Math.max(0, at.row + step[0])), col: Math.min(this.cols - 1, Math.max(0, at.col + step[1])),
        };
        if (event.shiftKey) this.commit(new Set([...this.chosen, this.index(at), this.index(this.cursor)]));
      } else if (event.key === " " || event.key === "Enter") {
        const next = new Set(this.chosen);
        if (!next.delete(this.index(at))) next.add(this.index(at));
        this.cursor = at;
        this.commit(next);
      } else if (event.key === "Escape" || event.key === "Delete" || event.key === "Backspace") {
        this.drag = null;
        this.commit(new Set());
      } else if (event.key === "a" && (event.ctrlKey || event.metaKey)) this.commit(this.everything());
      else return;
      event.preventDefault();
      this.speak();
      this.paint();
    }

    speak() {
      if (!this.cursor) return;
      const { row, col } = this.cursor;
      this.spoken.textContent = `row ${row + 1}, column ${col + 1}, ${this.chosen.has(this.index(this.cursor)) ? "chosen" : "not chosen"}`;
    }

    commit(chosen) {
      const patches = [...chosen].sort((a, b) => a - b);
      const same = patches.length === this.chosen.size && patches.every((one) => this.chosen.has(one));
      this.chosen = chosen;
      this.paint();
      this.tell();
      if (same) return;
      this.props.value = { ...this.props.value, patches, stamp: ++nChosen };
    }

    /* The server's value may be new: another picture, other patches, another heatmap. */
    update() {
      const value = this.props.value ?? {};
      if (value.src && this.img.getAttribute("src") !== value.src) {
        this.img.src = value.src;
        this.img.alt = value.alt ?? "";
        this.drag = null;
      }
      const n = this.rows * this.cols;
      this.chosen = new Set((value.patches ?? []).filter((one) => Number.isInteger(one) && one >= 0 && one < n));
      this.grid.setAttribute("aria-label", `${this.rows} by ${this.cols} patches over ${value.alt || "the picture"}. Arrow keys move, Space chooses, Shift with arrows extends, Escape clears.`);
      this.showHeat(this.laid ?? value.heat ?? null);
      this.tell();
      this.paint();
    }

    tell() {
      const n = this.rows * this.cols;
      this.told.textContent = this.chosen.size ? `${this.chosen.size} of ${n} patches chosen` : "Drag over the picture to choose patches.";
    }

    showHeat(heat) {
      this.heatShown = heat;
      this.heat.hidden = !heat;
      this.stage.classList.toggle("has-heat", Boolean(heat));
      if (heat) window.iconoscopeExemplars.drawGrid(this.heat, heat.grid, this.rows, this.cols, heat.maximum);
      this.paint();
    }

    paint() {
      const patches = this.drag ? this.applied(this.drag) : this.chosen;
      window.iconoscopePatchDrawing.draw(this.grid, { rows: this.rows, cols: this.cols, patches, cursor: this.cursor, veiled: !this.heatShown });
    }
  }

  function mount(root, props, watch) {
    const picker = new Picker(root, props);
    pickers.set(root, picker);
    watch("value", () => picker.update());
  }

  function heat(id, shown) {
    const root = document.getElementById(id)?.querySelector(".ico-patches");
    const picker = root ? pickers.get(root) : null;
    if (!picker) return;
    // What is laid over the picture stays there when the value changes, until it is taken off.
    picker.laid = shown ?? null;
    picker.showHeat(picker.laid ?? picker.props.value?.heat ?? null);
  }

  window.iconoscopePatchPicker = { mount, heat };
})();
