/* Hands on the map: mouse, touch, pen and keyboard turned into wishes. It knows pixels and keys, not features. */
(() => {
  "use strict";
  if (window.iconoscopeMapGestures) return;
  const STILL_PX = 5;
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

  /* wishes: pan(dx, dy), zoom(factor, px, py), hover(px, py), leave(), click(px, py, byTouch), lasso(path, done),
     key(name, value), focus(isOn). */
  class Gestures {
    constructor(surface, wishes) {
      this.surface = surface;
      this.wishes = wishes;
      this.pointers = new Map();
      this.isLasso = false;
      this.path = null;
      this.still = false;
      this.pinched = false;
      this.hovering = null;
      const listen = (name, handler, options) => surface.addEventListener(name, handler.bind(this), options);
      listen("pointerdown", this.down);
      listen("pointermove", this.move);
      listen("pointerup", this.up);
      listen("pointercancel", this.cancel);
      listen("pointerleave", this.leave);
      listen("wheel", this.wheel, { passive: false });
      listen("keydown", this.key);
      listen("focus", () => wishes.focus(true));
      listen("blur", () => wishes.focus(false));
    }

    at(event) {
      const box = this.surface.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    }

    down(event) {
      if (event.button !== 0) return;
      const at = this.at(event);
      this.surface.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, at);
      this.still = this.pointers.size === 1;
      if (this.still) this.began = at;
      else { this.pinched = true; this.path = null; }
      if (this.isLasso && this.still) this.path = [at];
    }

    move(event) {
      const at = this.at(event);
      const before = this.pointers.get(event.pointerId);
      if (!before) { this.hoverSoon(at, event.pointerType); return; }
      if (this.still && Math.hypot(at[0] - this.began[0], at[1] - this.began[1]) <= STILL_PX) return;
      if (this.still) { this.still = false; this.wishes.leave(); }
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      this.pointers.set(event.pointerId, at);
      if (other) this.pinch(before, at, other);
      else if (this.path) { this.path.push(at); this.wishes.lasso(this.path, false); }
      else this.wishes.pan(at[0] - before[0], at[1] - before[1]);
    }

    pinch(before, after, other) {
      const middle = (place) => [(place[0] + other[0]) / 2, (place[1] + other[1]) / 2];
      const [m0, m1] = [middle(before), middle(after)];
      const apart = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]) || 1;
      this.wishes.pan(m1[0] - m0[0], m1[1] - m0[1]);
      this.wishes.zoom(apart(after) / apart(before), ...m1);
    }

    up(event) {
      if (!this.pointers.delete(event.pointerId)) return;
      const at = this.at(event);
      if (this.path) {
        const path = this.path;
        this.path = null;
        this.wishes.lasso(this.still ? [] : path, true);
      } else if (this.still && !this.pinched) this.wishes.click(...at, event.pointerType === "touch");
      if (!this.pointers.size) this.pinched = false;
      this.still = false;
    }

    cancel(event) {
      this.pointers.delete(event.pointerId);
      if (this.path) { this.path = null; this.wishes.lasso([], true); }
      this.still = false;
      if (!this.pointers.size) this.pinched = false;
    }

    leave() {
      this.hovering = null;
      if (!this.pointers.size) this.wishes.leave();
    }

    /* At most once a frame. */
    hoverSoon(at, kind) {
      if (kind === "touch") return;
      if (!this.hovering) {
        requestAnimationFrame(() => {
          const place = this.hovering;
          this.hovering = null;
          if (place) this.wishes.hover(...place);
        });
      }
      this.hovering = at;
    }

    wheel(event) {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 20 : event.deltaMode === 2 ? 300 : 1;
      const step = Math.max(-240, Math.min(240, event.deltaY * lines));
      this.wishes.zoom(Math.exp(-step * (event.ctrlKey ? 0.01 : 0.0022)), ...this.at(event));
    }

    key(event) {
      if (event.metaKey || event.ctrlKey || event.altKey) return;
      const { key } = event;
      if (ARROWS[key]) this.wishes.key(event.shiftKey ? "pan" : "toward", ARROWS[key]);
      else if (key === "+" || key === "=") this.wishes.key("zoom", 1.5);
      else if (key === "-" || key === "_") this.wishes.key("zoom", 1 / 1.5);
      else if (key === "0" || key === "Home") this.wishes.key("whole");
      else if (key === "Enter" || key === " ") this.wishes.key("open");
      else if (key === "Escape") { if (this.path) { this.path = null; this.pointers.clear(); this.wishes.lasso([], true); } this.wishes.key("close"); }
      else return;
      event.preventDefault();
    }
  }

  window.iconoscopeMapGestures = { Gestures };
})();
