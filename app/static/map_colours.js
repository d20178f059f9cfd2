/* From a colouring to what is drawn: which rows get which colour, and how many of each there are. */
(() => {
  "use strict";
  if (window.iconoscopeMapColours) return;
  const GREY = { light: "#c9c6bd", dark: "#434a55" };
  const SHADES = 10;

  function palette(field) {
    return window.iconoscope.currentTheme() === "dark" ? field.colours_dark : field.colours;
  }

  /* What a field needs beside its JSON: for clusters, names and colours by place; for every field, the code of a row. */
  async function load(field, info, points, columns) {
    if (field.kind !== "cluster") return { field, codes: await columns.get(field.key) };
    const place = new Map(info.clusters.map((cluster, at) => [cluster.cluster, at]));
    const codes = Uint16Array.from(points.cluster, (cluster) => place.get(cluster) ?? 65535);
    const named = {
      ...field, colours: info.clusters.map((one) => one.colour), colours_dark: info.clusters.map((one) => one.colour_dark),
      names: info.clusters.map((one) => one.label),
    };
    return { field: named, codes };
  }

  /* The place in the palette of a code; -1 for absent. Numbers span their palette from the 1st to the 99th percentile. */
  function shadeOf(field, code) {
    if (field.kind !== "number") return code < field.colours.length ? code : -1;
    if (code === window.iconoscopeMapPoints.ABSENT) return -1;
    const span = field.high_code - field.low_code + 1;
    return Math.min(SHADES - 1, Math.max(0, Math.floor((SHADES * (code - field.low_code)) / span)));
  }

  /* Groups to draw, the absent lowest, the lit highest; and counts by shade over the visible rows. */
  function group({ field, codes }, visible, lit, opacity) {
    const colours = palette(field);
    const counts = new Array(colours.length).fill(0);
    let absent = 0;
    const buckets = new Map();
    const isLit = lit.size > 0;
    for (let row = 0; row < codes.length; row++) {
      if (!visible[row]) continue;
      const shade = shadeOf(field, codes[row]);
      if (shade < 0) absent++; else counts[shade]++;
      const level = isLit && lit.has(row) ? 1 : 0;
      const colour = shade < 0 ? GREY[window.iconoscope.currentTheme()] : colours[shade];
      const key = `${level}${shade < 0 ? 0 : 1}${colour}`;
      let bucket = buckets.get(key);
      if (!bucket) buckets.set(key, (bucket = { colour, rows: [], opacity: level ? 1 : isLit ? 0.16 : opacity }));
      bucket.rows.push(row);
    }
    const groups = [...buckets.keys()].sort().map((key) => buckets.get(key));
    return { groups, counts, absent };
  }

  window.iconoscopeMapColours = { load, group, shadeOf, palette, SHADES };
})();
