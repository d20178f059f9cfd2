/* What buttons, pointer and keys do to the map. */
(() => {
  "use strict";
  if (window.iconoscopeMapHands) return;
  const TOWARD_PX = 40;

  function attach(map) {
    const surface = map.find("surface");
    const gestures = new window.iconoscopeMapGestures.Gestures(surface, {
      pan: (dx, dy) => { if (map.ready) { map.camera.pan(dx, dy); map.moved(); } },
      zoom: (factor, px, py) => { if (map.ready) { map.camera.zoom(factor, px, py); map.moved(); } },
      hover: (px, py) => { if (map.ready) hover(map, surface, gestures, px, py); },
      leave: () => leave(map, surface),
      click: (px, py, byTouch) => { if (map.ready) click(map, px, py, byTouch); },
      lasso: (path, done) => { if (map.ready) lasso(map, gestures, path, done); },
      key: (name, value) => { if (map.ready) key(map, name, value); },
      focus: (isOn) => { if (!isOn) leave(map, surface); },
    });
    buttons(map, gestures);
    return gestures;
  }

  function hover(map, surface, gestures, px, py) {
    const row = gestures.isLasso ? -1 : map.hover(px, py);
    const cluster = row < 0 ? map.labels.at(px, py) : null;
    surface.style.cursor = gestures.isLasso ? "crosshair" : row >= 0 || cluster !== null ? "pointer" : "grab";
    if (row === map.cursor) return;
    map.cursor = row;
    map.overlay.ask();
    if (row < 0) map.card.hide(); else map.card.show(map.points.ids[row]);
  }

  function leave(map, surface) {
    surface.style.cursor = "";
    if (map.cursor < 0 || map.card.byTouch) return;
    map.cursor = -1;
    map.card.hide();
    map.overlay.ask();
  }

  /* A point first, then a name; a tap shows the card, a click opens the feature. */
  function click(map, px, py, byTouch) {
    const row = map.pick(px, py, byTouch ? 20 : undefined);
    const cluster = row < 0 ? map.labels.at(px, py) : null;
    if (row >= 0 && byTouch) {
      map.cursor = row;
      map.card.show(map.points.ids[row], { byTouch: true, rest: false });
    } else if (row >= 0) map.open(map.points.ids[row]);
    else {
      map.cursor = -1;
      map.card.hide();
      if (cluster !== null) map.zoomTo(cluster);
    }
    map.overlay.ask();
  }

  function lasso(map, gestures, path, done) {
    map.overlay.lasso = done ? null : path;
    map.overlay.ask();
    if (!done) return;
    setLasso(map, gestures, false);
    if (path.length < 3) return;
    const { camera } = map;
    const rows = map.index.inside(path.map(([px, py]) => [camera.mapX(px), camera.mapY(py)]), map.visible);
    map.list.set(rows.map((row) => map.points.ids[row]), "Lasso");
    if (!rows.length) map.find("live").textContent = "The lasso holds no features.";
  }

  function key(map, name, value) {
    const { camera } = map;
    if (name === "toward") toward(map, value);
    else if (name === "open" && map.cursor >= 0) map.open(map.points.ids[map.cursor]);
    else if (name === "zoom") { camera.zoom(value, ...cursorPlace(map)); map.moved(); }
    else if (name === "pan") { camera.pan(-value[0] * 80, value[1] * 80); map.moved(); }
    else if (name === "whole") map.whole();
    else if (name === "close") { map.cursor = -1; map.card.hide(); map.overlay.ask(); }
  }

  function cursorPlace(map) {
    const at = map.cursor >= 0 ? map.stagePixelOf(map.points.ids[map.cursor]) : null;
    return at ? [at.x, at.y] : [];
  }

  /* From the point under the cursor, else from the chosen feature, else from the middle of the view. */
  function toward(map, [dx, dy]) {
    const { camera, drawn } = map;
    const chosen = map.points.rows.get(map.value.selected);
    const from = map.cursor >= 0 ? map.cursor : chosen !== undefined && map.visible[chosen] ? chosen : -1;
    let row;
    if (from >= 0) row = map.index.toward(drawn.x[from], drawn.y[from], dx, dy, from, map.visible);
    else row = nearMiddle(map);
    if (row < 0) { map.find("live").textContent = "There is no further feature in this direction."; return; }
    map.cursor = row;
    map.bring(row);
    map.card.show(map.points.ids[row], { rest: false });
    map.overlay.ask();
    if (!camera.usable) return;
    map.card.place();
  }

  function nearMiddle(map) {
    const { camera } = map;
    for (let reach = TOWARD_PX; reach < 40 * (camera.width + camera.height); reach *= 2) {
      const row = map.index.nearest(camera.x, camera.y, reach / camera.scale, map.visible);
      if (row >= 0) return row;
    }
    return -1;
  }

  function setLasso(map, gestures, isOn) {
    gestures.isLasso = isOn;
    const button = map.root.querySelector("[data-map=lasso]");
    button.setAttribute("aria-pressed", String(isOn));
    map.stage.classList.toggle("is-lasso", isOn);
    map.find("hint").textContent = isOn ? "Draw around the features you want listed." : "";
  }

  function buttons(map, gestures) {
    const act = {
      in: () => { map.camera.zoom(1.6); map.moved(); },
      out: () => { map.camera.zoom(1 / 1.6); map.moved(); },
      whole: () => map.whole(),
      lasso: () => setLasso(map, gestures, !gestures.isLasso),
      full: () => fullScreen(map),
      clear: () => window.iconoscope.go("clear", ""),
    };
    map.root.querySelectorAll("[data-map]").forEach((button) => {
      button.addEventListener("click", () => { if (map.ready) act[button.dataset.map](); });
    });
    map.chooser.addEventListener("change", () => map.colourBy(map.chooser.value));
    if (!document.fullscreenEnabled) map.root.querySelector("[data-map=full]").hidden = true;
    document.addEventListener("fullscreenchange", () => {
      const isFull = document.fullscreenElement === map.root;
      map.root.querySelector("[data-map=full]").setAttribute("aria-pressed", String(isFull));
    });
  }

  async function fullScreen(map) {
    try {
      if (document.fullscreenElement) await document.exitFullscreen();
      else await map.root.requestFullscreen();
    } catch (error) {
      map.find("live").textContent = `Full screen is not allowed here: ${error.message}`;
    }
  }

  window.iconoscopeMapHands = { attach };
})();
