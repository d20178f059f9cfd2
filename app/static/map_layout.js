/* Where points are drawn. Features with the same words have the same coordinates, and a heap of points can be neither
   seen nor clicked; so points that (nearly) coincide are spread in a small sunflower spiral around their place.
   The more points a map has, the less room each gets: in a map of 100,000 only true heaps are spread. */
(() => {
  "use strict";
  if (window.iconoscopeMapLayout) return;

  const NEAR = 0.006;
  const STEP = 0.0062;
  const SPARSE = 1000;
  const ROUNDS = 60;
  const MOST_DISCS = 500;
  const MOST_CELLS = 2048;
  const GOLDEN = Math.PI * (3 - Math.sqrt(5));

  function bounds(values) {
    let low = Infinity;
    let high = -Infinity;
    for (let i = 0; i < values.length; i++) {
      if (values[i] < low) low = values[i];
      if (values[i] > high) high = values[i];
    }
    return values.length ? [low, high] : [0, 1];
  }

  /* The first point of its group for every point: groups gather what lies within reach of their first point. */
  function leaders(x, y, reach, lowX, lowY, extent) {
    const side = Math.min(MOST_CELLS, Math.ceil(extent / reach) + 1);
    const size = Math.max(reach, extent / (side - 1 || 1));
    const first = new Int32Array(side * side).fill(-1);
    const next = new Int32Array(x.length).fill(-1);
    const leader = new Int32Array(x.length);
    for (let i = 0; i < x.length; i++) {
      const cx = Math.min(side - 1, Math.floor((x[i] - lowX) / size));
      const cy = Math.min(side - 1, Math.floor((y[i] - lowY) / size));
      let found = -1;
      for (let gy = Math.max(0, cy - 1); gy <= Math.min(side - 1, cy + 1) && found < 0; gy++) {
        for (let gx = Math.max(0, cx - 1); gx <= Math.min(side - 1, cx + 1) && found < 0; gx++) {
          for (let other = first[gy * side + gx]; other >= 0; other = next[other]) {
            if ((x[other] - x[i]) ** 2 + (y[other] - y[i]) ** 2 < reach * reach) { found = other; break; }
          }
        }
      }
      if (found < 0) {
        found = i;
        next[i] = first[cy * side + cx];
        first[cy * side + cx] = i;
      }
      leader[i] = found;
    }
    return leader;
  }

  /* Members of every group of at least two, with their middle. */
  function gather(x, y, leader) {
    const groups = new Map();
    const heads = new Int32Array(x.length);
    for (let i = 0; i < x.length; i++) heads[leader[i]]++;
    for (let i = 0; i < x.length; i++) {
      if (heads[leader[i]] < 2) continue;
      let group = groups.get(leader[i]);
      if (!group) groups.set(leader[i], (group = { members: [], x: 0, y: 0, radius: 0 }));
      group.members.push(i);
      group.x += x[i];
      group.y += y[i];
    }
    const found = [...groups.values()];
    for (const group of found) {
      group.x /= group.members.length;
      group.y /= group.members.length;
    }
    return found;
  }

  /* Push bouquets apart until none lies on another; pairs stay where they are. The larger bouquet moves less. */
  function separate(discs, margin) {
    for (let round = 0; round < ROUNDS; round++) {
      let moved = false;
      for (let a = 0; a < discs.length; a++) {
        const p = discs[a];
        for (let b = a + 1; b < discs.length; b++) {
          const q = discs[b];
          const room = p.radius + q.radius + margin;
          const dx = q.x - p.x;
          const dy = q.y - p.y;
          if (dx > room || dx < -room || dy > room || dy < -room) continue;
          const apart = Math.sqrt(dx * dx + dy * dy) || 1e-9;
          const missing = room - apart;
          if (missing <= 0) continue;
          moved = true;
          const share = q.radius ** 2 / (p.radius ** 2 + q.radius ** 2);
          p.x -= (dx / apart) * missing * share;
          p.y -= (dy / apart) * missing * share;
          q.x += (dx / apart) * missing * (1 - share);
          q.y += (dy / apart) * missing * (1 - share);
        }
      }
      if (!moved) return;
    }
  }

  /* Returns coordinates to draw (the given ones are left alone), the bouquets, and how many points were moved. */
  function spread(x, y) {
    const [lowX, highX] = bounds(x);
    const [lowY, highY] = bounds(y);
    const extent = Math.max(highX - lowX, highY - lowY) || 1;
    const room = Math.min(1, Math.sqrt(SPARSE / Math.max(1, x.length)));
    const step = STEP * room * extent;
    const drawn = { x: Float32Array.from(x), y: Float32Array.from(y), n_moved: 0, groups: [], extent };
    drawn.groups = gather(x, y, leaders(x, y, NEAR * room * extent, lowX, lowY, extent));
    for (const group of drawn.groups) group.radius = step * Math.sqrt(group.members.length);
    const large = drawn.groups.filter((group) => group.members.length > 2).sort((a, b) => b.radius - a.radius);
    separate(large.slice(0, MOST_DISCS), step);
    for (const group of drawn.groups) {
      group.members.forEach((i, place) => {
        const radius = step * Math.sqrt(place + 0.35);
        drawn.x[i] = group.x + radius * Math.cos(place * GOLDEN);
        drawn.y[i] = group.y + radius * Math.sin(place * GOLDEN);
      });
      drawn.n_moved += group.members.length;
    }
    return drawn;
  }

  /* Where cluster names belong: above the largest bouquet if that holds a fair part of the cluster, else where the atlas says. */
  function anchors(drawn, clusterOf, clusters) {
    const best = new Map();
    for (const group of drawn.groups) {
      if (group.members.length < 3) continue;
      const counts = new Map();
      for (const i of group.members) counts.set(clusterOf[i], (counts.get(clusterOf[i]) ?? 0) + 1);
      for (const [cluster, n] of counts) if (n > (best.get(cluster)?.n ?? 2)) best.set(cluster, { n, group });
    }
    return clusters.map((cluster) => {
      const found = best.get(cluster.cluster);
      const fair = found && found.n >= 0.1 * cluster.n_features;
      return fair ? { ...cluster, x: found.group.x, y: found.group.y, radius: found.group.radius } : { ...cluster, radius: 0 };
    });
  }

  window.iconoscopeMapLayout = { spread, anchors, bounds };
})();
