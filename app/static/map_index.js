/* Finding points: the nearest to the pointer, the next in a direction, those inside a lasso.
   A grid of cells over the drawn coordinates; `visible` holds 1 for every row that may be found. */
(() => {
  "use strict";
  if (window.iconoscopeMapIndex) return;
  const PER_CELL = 2;
  const MOST_SIDE = 512;

  class PointIndex {
    constructor(x, y) {
      this.x = x;
      this.y = y;
      const [lowX, highX] = window.iconoscopeMapLayout.bounds(x);
      const [lowY, highY] = window.iconoscopeMapLayout.bounds(y);
      const extent = Math.max(highX - lowX, highY - lowY) || 1;
      this.side = Math.max(1, Math.min(MOST_SIDE, Math.round(Math.sqrt(x.length / PER_CELL))));
      this.size = extent / this.side;
      this.lowX = lowX;
      this.lowY = lowY;
      this.sort();
    }

    cell(value, low) { return Math.max(0, Math.min(this.side - 1, Math.floor((value - low) / this.size))); }

    /* Rows in the order of their cells, and where each cell starts. */
    sort() {
      const { x, y, side } = this;
      const cells = new Int32Array(x.length);
      this.start = new Int32Array(side * side + 1);
      for (let i = 0; i < x.length; i++) {
        cells[i] = this.cell(y[i], this.lowY) * side + this.cell(x[i], this.lowX);
        this.start[cells[i] + 1]++;
      }
      for (let c = 0; c < side * side; c++) this.start[c + 1] += this.start[c];
      const free = this.start.slice();
      this.order = new Int32Array(x.length);
      for (let i = 0; i < x.length; i++) this.order[free[cells[i]]++] = i;
    }

    /* Calls found(row) for every visible row in a rectangle of map units. */
    within(x0, x1, y0, y1, visible, found) {
      const { x, y, side, start, order } = this;
      const [left, right] = [this.cell(x0, this.lowX), this.cell(x1, this.lowX)];
      for (let cy = this.cell(y0, this.lowY); cy <= this.cell(y1, this.lowY); cy++) {
        for (let at = start[cy * side + left]; at < start[cy * side + right + 1]; at++) {
          const row = order[at];
          if (visible[row] && x[row] >= x0 && x[row] <= x1 && y[row] >= y0 && y[row] <= y1) found(row);
        }
      }
    }

    /* The nearest visible row within `reach` map units of a place; -1 if there is none. */
    nearest(px, py, reach, visible) {
      let best = -1;
      let least = reach * reach;
      this.within(px - reach, px + reach, py - reach, py + reach, visible, (row) => {
        const far = (this.x[row] - px) ** 2 + (this.y[row] - py) ** 2;
        if (far <= least) [best, least] = [row, far];
      });
      return best;
    }

    /* The next visible row in a direction (a unit step along one axis): near, and more ahead than aside. */
    toward(px, py, dx, dy, from, visible) {
      let best = -1;
      let least = Infinity;
      for (let row = 0; row < this.x.length; row++) {
        if (!visible[row] || row === from) continue;
        const ahead = (this.x[row] - px) * dx + (this.y[row] - py) * dy;
        const aside = Math.abs((this.x[row] - px) * dy) + Math.abs((this.y[row] - py) * dx);
        if (ahead <= 0 || aside > ahead) continue;
        const far = ahead + 2 * aside;
        if (far < least) [best, least] = [row, far];
      }
      return best;
    }

    /* Visible rows inside a polygon of [x, y] in map units, in row order. */
    inside(polygon, visible) {
      const xs = polygon.map((corner) => corner[0]);
      const ys = polygon.map((corner) => corner[1]);
      const found = [];
      this.within(Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys), visible, (row) => {
        let odd = false;
        for (let i = 0, j = xs.length - 1; i < xs.length; j = i++) {
          if (ys[i] > this.y[row] === ys[j] > this.y[row]) continue;
          if (this.x[row] < ((xs[j] - xs[i]) * (this.y[row] - ys[i])) / (ys[j] - ys[i]) + xs[i]) odd = !odd;
        }
        if (odd) found.push(row);
      });
      return found.sort((a, b) => a - b);
    }
  }

  window.iconoscopeMapIndex = { PointIndex };
})();
