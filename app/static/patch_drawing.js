/* A patch grid drawn over a picture: thin lines, the chosen patches framed, the rest veiled, the patch at hand in yellow.
   Everything is legible on any picture, since it is drawn in white on black or in grey. Knows nothing of events. */
(() => {
  "use strict";
  if (window.iconoscopePatchDrawing) return;

  const FINEST_LINES_PX = 5;

  /* Draws into a canvas as large as the box it fills. patches: a Set of flat row-major patches; cursor: {row, col} or null. */
  function draw(canvas, { rows, cols, patches, cursor, veiled }) {
    const width = canvas.clientWidth, height = canvas.clientHeight, scale = window.devicePixelRatio || 1;
    if (!width || !height) return;
    const wide = Math.round(width * scale), tall = Math.round(height * scale);
    if (canvas.width !== wide) canvas.width = wide;
    if (canvas.height !== tall) canvas.height = tall;
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const grid = { rows, cols, w: width / cols, h: height / rows, width, height };
    if (Math.min(grid.w, grid.h) >= FINEST_LINES_PX) lines(context, grid);
    if (patches.size && veiled) veil(context, patches, grid);
    outline(context, patches, grid);
    if (cursor) {
      context.lineWidth = 2;
      context.strokeStyle = "#ffd23f";
      context.strokeRect(cursor.col * grid.w + 1, cursor.row * grid.h + 1, grid.w - 2, grid.h - 2);
    }
  }

  function lines(context, { rows, cols, w, h, width, height }) {
    context.strokeStyle = "rgb(128 128 128 / 32%)";
    context.lineWidth = 1;
    context.beginPath();
    for (let col = 1; col < cols; col++) { context.moveTo(Math.round(col * w) + 0.5, 0); context.lineTo(Math.round(col * w) + 0.5, height); }
    for (let row = 1; row < rows; row++) { context.moveTo(0, Math.round(row * h) + 0.5); context.lineTo(width, Math.round(row * h) + 0.5); }
    context.stroke();
  }

  function veil(context, patches, { rows, cols, w, h }) {
    context.fillStyle = "rgb(12 14 18 / 48%)";
    for (let one = 0; one < rows * cols; one++) {
      if (patches.has(one)) continue;
      const row = Math.floor(one / cols), col = one % cols;
      // Corners are rounded to whole pixels, so that no hair of light stays between two veiled patches.
      const left = Math.round(col * w), top = Math.round(row * h);
      context.fillRect(left, top, Math.round((col + 1) * w) - left, Math.round((row + 1) * h) - top);
    }
  }

  function outline(context, patches, { rows, cols, w, h }) {
    const path = new Path2D();
    const edge = (x, y, dx, dy) => { path.moveTo(x, y); path.lineTo(x + dx, y + dy); };
    patches.forEach((one) => {
      const row = Math.floor(one / cols), col = one % cols, x = col * w, y = row * h;
      if (row === 0 || !patches.has(one - cols)) edge(x, y, w, 0);
      if (row === rows - 1 || !patches.has(one + cols)) edge(x, y + h, w, 0);
      if (col === 0 || !patches.has(one - 1)) edge(x, y, 0, h);
      if (col === cols - 1 || !patches.has(one + 1)) edge(x + w, y, 0, h);
    });
    context.lineCap = "square";
    [["rgb(0 0 0 / 75%)", 4], ["#fff", 2]].forEach(([colour, thick]) => {
      context.strokeStyle = colour;
      context.lineWidth = thick;
      context.stroke(path);
    });
  }

  window.iconoscopePatchDrawing = { draw };
})();
