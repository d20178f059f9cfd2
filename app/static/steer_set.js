/* The set of features to steer: one row each, with operation and strength (in L2 units and in multiples of the feature's maximum).
   Words come from the atlas and are set with textContent. The address field "steer" is written here. */
(() => {
  "use strict";
  if (window.iconoscopeSteerSet) return;

  const OPERATIONS = [
    ["add", "Add", "h + s·d: push the patches along the feature's direction"],
    ["set", "Set", "s·d: replace the patches by the scaled direction"],
    ["ablate", "Ablate", "h − a·d: take out what the feature itself adds; it has no strength"],
  ];
  let made = 0;

  function element(...parts) { return window.iconoscope.element(...parts); }
  function six(value) { return Number(Number(value).toPrecision(6)); }

  /* As the server writes it: 12:add:34.5,97:ablate */
  function text(rows) {
    return (rows ?? []).map((row) => row.operation === "ablate" ? `${row.feature}:ablate` : `${row.feature}:${row.operation}:${six(row.strength)}`).join(",");
  }

  function picture(row) {
    const figure = element("figure", "ico-exemplar");
    const frame = element("div", "ico-picture");
    if (row.picture) {
      const { src, grid, rows, cols } = row.picture;
      Object.assign(figure.dataset, { grid, rows, cols, maximum: row.maximum });
      const img = element("img");
      img.src = src;
      img.alt = `where feature ${row.feature} is strongest`;
      frame.append(img, element("canvas"));
    }
    figure.append(frame);
    return figure;
  }

  function operations(row, name, changed) {
    const group = element("fieldset", "ico-steer-operations");
    group.append(element("legend", "", `Operation on feature ${row.feature}`));
    for (const [value, label, told] of OPERATIONS) {
      const box = element("label");
      box.title = told;
      const input = element("input");
      Object.assign(input, { type: "radio", name, value, checked: row.operation === value });
      input.addEventListener("change", () => { row.operation = value; changed(); });
      box.append(input, element("span", "", label));
      group.append(box);
    }
    return group;
  }

  function numberInput(label, step) {
    const input = element("input");
    Object.assign(input, { type: "number", step: String(step) });
    input.setAttribute("aria-label", label);
    return input;
  }

  /* Slider, L2 and multiple of the maximum are three views of one number. */
  function strength(row, changed) {
    const box = element("div", "ico-steer-strength");
    const slider = element("input");
    slider.type = "range";
    slider.setAttribute("aria-label", `Strength of feature ${row.feature} in L2 units`);
    const inL2 = numberInput(`Strength of feature ${row.feature}, residual-stream L2`, "any");
    const times = numberInput(`Strength of feature ${row.feature}, times its maximum`, "any");
    const back = element("button", "ico-steer-recommended");
    back.type = "button";
    const said = row.selected ? "recommended" : "4 × maximum";
    function show(but) {
      const reach = Math.max(row.top, Math.abs(row.strength));
      Object.assign(slider, { min: row.strength < 0 ? -reach : 0, max: reach, step: reach / 400 });
      if (but !== slider) slider.value = row.strength;
      if (but !== inL2) inL2.value = six(row.strength);
      if (but !== times) times.value = row.maximum ? Number((row.strength / row.maximum).toPrecision(3)) : "";
      times.disabled = !row.maximum;
      back.textContent = six(row.strength) === six(row.recommended) ? `${said} strength` : `back to ${said} ${six(row.recommended)}`;
      back.disabled = six(row.strength) === six(row.recommended);
    }
    function take(value, from, done) {
      if (!Number.isFinite(value)) return;
      row.strength = value;
      show(from);
      changed(done);
    }
    slider.addEventListener("input", () => take(Math.round(Number(slider.value) * 10) / 10, slider, false));
    slider.addEventListener("change", () => changed());
    inL2.addEventListener("change", () => take(inL2.value === "" ? NaN : Number(inL2.value), inL2));
    times.addEventListener("change", () => take(times.value === "" ? NaN : six(Number(times.value) * row.maximum), times));
    back.addEventListener("click", () => take(row.recommended, back));
    const numbers = element("div", "ico-steer-numbers");
    const one = element("label");
    one.append(inL2, element("span", "", "L2"));
    const other = element("label");
    other.title = `the feature's maximum activation is ${six(row.maximum)}`;
    other.append(times, element("span", "", "× its maximum"));
    numbers.append(one, other);
    box.append(slider, numbers, back);
    show();
    return box;
  }

  function card(row, name, changed, remove) {
    const box = element("article", "ico-steer-row");
    box.dataset.feature = row.feature;
    box.dataset.operation = row.operation;
    const head = element("div", "ico-steer-head");
    const words = element("div");
    const link = element("a", "ico-id", `Feature ${row.feature}`);
    link.href = `?tab=feature&feature=${row.feature}`;
    Object.assign(link.dataset, { go: "feature", value: String(row.feature) });
    words.append(link, element("p", row.words ? "ico-words" : "ico-why", row.words || "No method found words for it."));
    head.append(picture(row), words);
    if (remove) {
      const button = element("button", "ico-steer-remove", "×");
      button.type = "button";
      button.setAttribute("aria-label", `Remove feature ${row.feature} from the set`);
      button.addEventListener("click", remove);
      head.append(button);
    }
    box.append(head, operations(row, name, changed), strength(row, changed));
    return box;
  }

  function adder(value, add, replace) {
    const form = element("form", "ico-steer-add");
    const input = numberInput("Number of a feature to add", 1);
    Object.assign(input, { min: 0, placeholder: "feature number", required: true });
    const button = element("button", "ico-button", value.rows.length ? "Add a feature" : "Choose a feature");
    const find = element("button", "ico-steer-recommended", "or find one by words");
    find.type = "button";
    Object.assign(find.dataset, { go: "tab", value: "search" });
    form.append(input, button, find);
    form.addEventListener("submit", (event) => { event.preventDefault(); add(input.value); });
    if (value.rows.length >= value.most) {
      input.disabled = button.disabled = true;
      form.append(element("span", "ico-why", `at most ${value.most} at once`));
    }
    const offered = value.offered;
    if (offered && !value.rows.some((row) => row.feature === offered.feature)) {
      const line = element("p", "ico-steer-offer", `Open feature: ${offered.feature}. `);
      const also = element("button", "ico-steer-recommended", "Add it");
      const instead = element("button", "ico-steer-recommended", "Steer only it");
      also.type = instead.type = "button";
      also.disabled = value.rows.length >= value.most;
      also.addEventListener("click", () => add(String(offered.feature)));
      instead.addEventListener("click", replace);
      line.append(also, element("span", "", " · "), instead);
      form.append(line);
    }
    return form;
  }

  function mount(section, props, watch, trigger) {
    const own = `ico-steer-${made++}`;
    let shown = "";
    let edited = false;
    let kept = props.value?.rows;
    let offeredShown = props.value?.offered?.feature;

    /* The value goes to the server only when a change is complete; while a slider moves, just the address waits too. */
    function publish(rows, complete = true) {
      edited = true;
      props.value = { ...props.value, rows, gentle: false };
      shown = text(rows);
      kept = rows;
      if (!complete) return;
      keepAddress();
      trigger("change");
    }
    function keepAddress() {
      const said = text(props.value?.rows);
      window.iconoscope.setField("steer", said === props.value?.initial ? "" : said);
    }
    function draw() {
      const value = { rows: [], most: 8, ...props.value };
      const rows = value.rows.map((row) => ({ ...row }));
      shown = text(rows);
      const cards = rows.map((row, at) => {
        const changed = (complete = true) => {
          node.dataset.operation = row.operation;
          publish(rows.map((one) => ({ ...one })), complete);
        };
        const remove = () => { publish(rows.filter((_, other) => other !== at)); draw(); };
        const node = card(row, `${own}-${at}`, changed, rows.length > 1 ? remove : null);
        return node;
      });
      const add = (number) => trigger("select", { index: 0, value: String(number) });
      const replace = () => { publish([{ ...value.offered }]); edited = false; draw(); };
      const title = element("h3", "", rows.length > 1 ? `${rows.length} features, applied in this order` : "Feature");
      section.replaceChildren(title, ...cards, adder(value, add, replace));
      section.querySelectorAll("figure[data-grid]").forEach((figure) => window.iconoscopeExemplars.paint(figure));
    }
    watch("value", () => {
      const value = props.value ?? {};
      if (value.gentle && edited && kept?.length) {
        /* Another feature was opened elsewhere: the visitor's own set stays, and the feature is offered. */
        props.value = { ...value, rows: kept, gentle: false };
        draw();
      } else if (value.gentle || text(value.rows) !== shown || value.offered?.feature !== offeredShown) {
        edited = edited && !value.gentle;
        draw();
      }
      offeredShown = props.value?.offered?.feature;
      kept = props.value?.rows;
      keepAddress();
    });
    window.iconoscopeSteerSet.take = (wanted) => {
      const strengths = wanted.split(",").map((one) => Number(one.split(":")[2]));
      const rows = (props.value?.rows ?? []).map((row, at) => Number.isFinite(strengths[at]) ? { ...row, strength: strengths[at] } : row);
      publish(rows);
      draw();
    };
    draw();
    // The set may be older than this component, whose tab was not open yet.
    if (kept?.length) keepAddress();
  }

  /* A strength of the dose-response strip is taken over where it is pressed. */
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("[data-steer-take]") : null;
    if (button) window.iconoscopeSteerSet.take?.(button.dataset.steerTake);
  });

  /* The address field "patches": all, active, or the painted ones with runs joined. */
  function writtenPatches(patches) {
    const runs = [];
    for (const patch of [...new Set(patches)].sort((a, b) => a - b)) {
      const last = runs.at(-1);
      if (last && patch === last[1] + 1) last[1] = patch;
      else runs.push([patch, patch]);
    }
    return runs.map(([first, last]) => first === last ? `${first}` : `${first}-${last}`).join(".");
  }
  function keepPatches(scope, painted) {
    const said = scope === "given" ? writtenPatches(painted?.patches ?? []) : scope;
    window.iconoscope.setField("patches", said, "all");
  }

  window.iconoscopeSteerSet = { mount, text, writtenPatches, keepPatches };
})();
