/* The points file of the map, decoded (backend/map_points.py says how it is laid out), and the colour columns.
   It knows numbers only; words come from elsewhere. */
(() => {
  "use strict";
  if (window.iconoscopeMapPoints) return;
  const MAGIC = 0x314d4349;
  const HEADER = 28;
  const FULL = 65535;
  const ABSENT = 255;

  function decode(buffer) {
    const head = new DataView(buffer);
    const n = buffer.byteLength >= HEADER ? head.getUint32(4, true) : -1;
    const idBytes = n >= 0 ? head.getUint8(24) : 0;
    if (n < 0 || head.getUint32(0, true) !== MAGIC || buffer.byteLength !== HEADER + n * (idBytes + 7)) {
      throw new Error("the points file is not in the form this page reads");
    }
    // Read through the view: the columns lie at any byte.
    let at = HEADER;
    const ids = new Uint32Array(n);
    let last = 0;
    for (let i = 0; i < n; i++) {
      last = idBytes === 2 ? last + head.getUint16(at + 2 * i, true) : head.getUint32(at + 4 * i, true);
      ids[i] = last;
    }
    at += n * idBytes;
    const axis = (place, low, high) => {
      const values = new Float32Array(n);
      const scale = (high - low) / FULL;
      for (let i = 0; i < n; i++) values[i] = low + scale * head.getUint16(at + 2 * (place * n + i), true);
      return values;
    };
    const x = axis(0, head.getFloat32(8, true), head.getFloat32(12, true));
    const y = axis(1, head.getFloat32(16, true), head.getFloat32(20, true));
    const cluster = new Uint16Array(n);
    for (let i = 0; i < n; i++) cluster[i] = head.getUint16(at + 2 * (2 * n + i), true);
    const kept = new Uint8Array(n);
    for (let i = 0; i < n; i++) kept[i] = head.getUint8(at + 6 * n + i) & 1;
    const rows = new Map();
    for (let i = 0; i < n; i++) rows.set(ids[i], i);
    return { n, ids, x, y, cluster, kept, rows };
  }

  async function bytes(address) {
    const response = await fetch(address);
    if (!response.ok) throw new Error(`${address.split("/").pop()} answered ${response.status}`);
    return response.arrayBuffer();
  }

  /* Columns of one atlas, each fetched once and only when something is coloured or filtered by it. */
  class Columns {
    constructor(base, n) {
      this.base = base;
      this.n = n;
      this.asked = new Map();
    }

    get(key) {
      if (!this.asked.has(key)) {
        const coming = bytes(`${this.base}column/${encodeURIComponent(key)}.bin`).then((buffer) => {
          if (buffer.byteLength !== this.n) throw new Error(`the colouring ${key} does not fit the map`);
          return new Uint8Array(buffer);
        });
        coming.catch(() => this.asked.delete(key));
        this.asked.set(key, coming);
      }
      return this.asked.get(key);
    }
  }

  window.iconoscopeMapPoints = { decode, bytes, Columns, ABSENT, NO_CLUSTER: FULL };
})();
