/* Pictures as radio buttons: the blank image and a feature's exemplars. Labels are set with textContent. */
(() => {
  "use strict";
  if (window.iconoscopePicker) return;

  function option(choice, selected, name) {
    const { element } = window.iconoscope;
    const label = element("label", choice.id ? "" : "is-blank");
    const input = element("input");
    input.type = "radio";
    input.name = name;
    input.value = choice.id;
    input.checked = choice.id === selected;
    const figure = element("figure", "ico-exemplar");
    const picture = element("div", "ico-picture");
    if (choice.src) {
      Object.assign(figure.dataset, { grid: choice.grid, rows: choice.rows, cols: choice.cols, maximum: choice.maximum });
      const img = element("img");
      img.src = choice.src;
      img.alt = choice.alt;
      picture.append(img, element("canvas"));
    }
    figure.append(picture);
    label.append(input, figure, element("span", "", choice.label));
    return label;
  }

  let made = 0;
  function mount(fieldset, props, watch, changed) {
    const name = `ico-picker-${made++}`;
    function draw() {
      const { choices = [], selected = "" } = props.value ?? {};
      const legend = window.iconoscope.element("legend", "", "Image to steer on");
      fieldset.replaceChildren(legend, ...choices.map((choice) => option(choice, selected, name)));
      fieldset.querySelectorAll("figure[data-grid]").forEach((figure) => window.iconoscopeExemplars.paint(figure));
    }
    fieldset.addEventListener("change", (event) => {
      if (!(event.target instanceof HTMLInputElement)) return;
      props.value = { ...props.value, selected: event.target.value };
      changed();
    });
    watch("value", () => {
      const chosen = fieldset.querySelector("input:checked");
      const shown = [...fieldset.querySelectorAll("input")].map((input) => input.value).join("\n");
      const wanted = (props.value?.choices ?? []).map((choice) => choice.id).join("\n");
      if (shown !== wanted || !chosen || chosen.value !== props.value?.selected) draw();
    });
    draw();
  }

  window.iconoscopePicker = { mount };
})();
