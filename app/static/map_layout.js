/* Where points are drawn. Features with the same words have the same coordinates, and a heap of points can be neither
   seen nor clicked; so points that (nearly) coincide are spread in a small sunflower spiral around their place. */
(() => {
  "use strict";
  if (window.iconoscopeMapLayout) return;

  const NEAR = 0.006;
  const STEP = 0.0062;
  const ROUNDS = 60;
  const MOST_DISCS = 800;
  const GOLDEN = Math.PI * (3 - Math.sqrt(5));

  function range(values) {
    let low = Infinity;
    let high = -Infinity;
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return high - low;
  }

  /* Group points within NEAR (a share of the map's extent) of the first of their group; one pass over a grid of cells. */
  function groups(x, y, reach) {
    const cells = new Map();
    const found = [];
    for (let i = 0; i < x.length; i++) {
      const cx = Math.floor(x[i] / reach);
      const cy = Math.floor(y[i] / reach);
      let home = null;
      for (let dx = -1; dx <= 1 && !home; dx++) {
        for (let dy = -1; dy <= 1 && !home; dy++) {
          for (const group of cells.get(`${cx + dx},${cy + dy}`) ?? []) {
            if (Math.hypot(x[group[0]] - x[i], y[group[0]] - y[i]) < reach) { home = group; break; }
          }
        }
      }
      if (home) {
        home.push(i);
        continue;
      }
      const group = [i];
      found.push(group);
      const key = `${cx},${cy}`;
      if (cells.has(key)) cells.get(key).push(group);
      else cells.set(key, [group]);
    }
    return found;
  }

  /* Push bouquets apart until none lies on another; singles and pairs stay where they are. */
  function separate(discs, margin) {
    if (discs.length > MOST_DISCS) return;
    for (let round = 0; round < ROUNDS; round++) {
      let moved = false;
      for (let a = 0; a < discs.length; a++) {
        for (let b = a + 1; b < discs.length; b++) {
          const [p, q] = [discs[a], discs[b]];
          const dx = q.x - p.x;
          const dy = q.y - p.y;
          const apart = Math.hypot(dx, dy) || 1e-9;
          const missing = p.radius + q.radius + margin - apart;
          if (missing <= 0) continue;
          moved = true;
          // The larger bouquet moves less.
          const share = (q.radius ** 2) / (p.radius ** 2 + q.radius ** 2);
          p.x -= (dx / apart) * missing * share;
          p.y -= (dy / apart) * missing * share;
          q.x += (dx / apart) * missing * (1 - share);
          q.y += (dy / apart) * missing * (1 - share);
        }
      }
      if (!moved) return;
    }
  }

  /* Returns coordinates to draw (the given ones are left alone), the groups, and how many points were moved. */
  function spread(x, y) {
    const extent = Math.max(range(x), range(y)) || 1;
    const drawn = { x: Float32Array.from(x), y: Float32Array.from(y), n_moved: 0, groups: [] };
    const mean = (axis, members) => members.reduce((sum, i) => sum + axis[i], 0) / members.length;
    drawn.groups = groups(x, y, NEAR * extent).map((members) => ({
      members, x: mean(x, members), y: mean(y, members), radius: STEP * extent * Math.sqrt(members.length),
    }));
    separate(drawn.groups.filter((group) => group.members.length > 2), STEP * extent);
    for (const group of drawn.groups) {
      if (group.members.length === 1) continue;
      group.members.forEach((i, place) => {
        const radius = STEP * extent * Math.sqrt(place + 0.35);
        drawn.x[i] = group.x + radius * Math.cos(place * GOLDEN);
        drawn.y[i] = group.y + radius * Math.sin(place * GOLDEN);
      });
      drawn.n_moved += group.members.length;
    }
    return drawn;
  }

  /* Where a cluster's name belongs: above its largest bouquet if that holds a fair part of it, else where the atlas says. */
  function anchor(drawn, clusterOf, cluster) {
    let best = null;
    let most = 0;
    for (const group of drawn.groups) {
      const n = group.members.reduce((sum, i) => sum + (clusterOf[i] === cluster.cluster ? 1 : 0), 0);
      if (n > most) [best, most] = [group, n];
    }
    const fair = best && most >= 3 && most >= 0.1 * cluster.n_features;
    return fair ? { ...cluster, x: best.x, y: best.y, radius: best.radius } : cluster;
  }

  window.iconoscopeMapLayout = { spread, anchor };
})();
