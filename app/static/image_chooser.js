/* A picture to work on: blank, black, noise, exemplars, any image of the atlas, or one of the visitor's own.
   Mounted by app/components/image_chooser.py on <section class="ico-chooser">. Value: {choices, selected, legend, images,
   upload, limit, stamp}; a choice is {id, label, alt, src, made, grid, rows, cols, maximum}. The stamp is new whenever the
   visitor chooses, and absent from what the server offers. Uploads of this page are offered by every chooser on it.
   window.iconoscopeImageChooser.upload(file, settings) sends a file and resolves to a choice.
   Words are set with textContent; what a file is called never reaches the page. */
(() => {
  "use strict";
  if (window.iconoscopeImageChooser) return;

  const ACCEPT = "image/jpeg,image/png,image/webp,image/gif,image/bmp,image/tiff";
  const SHRINK_BYTES = 4 * 1024 * 1024;
  const SHRINK_SIDE_PX = 1600;
  const recent = [];
  const choosers = new Set();
  let made = 0;
  let nChosen = 0;

  /* Large photographs are made smaller before they travel; what the browser cannot read is sent as it is. */
  async function shrunk(file) {
    if (file.size <= SHRINK_BYTES) return file;
    try {
      const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
      const share = Math.min(1, SHRINK_SIDE_PX / Math.max(bitmap.width, bitmap.height));
      const canvas = document.createElement("canvas");
      canvas.width = Math.max(1, Math.round(bitmap.width * share));
      canvas.height = Math.max(1, Math.round(bitmap.height * share));
      const context = canvas.getContext("2d");
      context.fillStyle = "#fff";
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      bitmap.close();
      return (await new Promise((done) => { canvas.toBlob(done, "image/jpeg", 0.93); })) ?? file;
    } catch {
      return file;
    }
  }

  async function upload(file, { upload: address = "iconoscope/upload", limit = Infinity } = {}) {
    const body = await shrunk(file);
    if (body.size > limit) throw new Error(`The picture is larger than ${Math.floor(limit / 2 ** 20)} MiB. Make it smaller and try again.`);
    let response;
    try {
      response = await fetch(address, { method: "POST", body, headers: { "Content-Type": "application/octet-stream", "X-Iconoscope": "upload" } });
    } catch {
      throw new Error("The picture could not be sent. Check the connection and try again.");
    }
    const answer = await response.json().catch(() => ({}));
    if (!response.ok || typeof answer.id !== "string") throw new Error(answer.error || `The server answered ${response.status}. Try another picture.`);
    const choice = { id: answer.id, label: "Yours", alt: "your uploaded picture", src: `${address}/${answer.id}` };
    if (!recent.some((one) => one.id === choice.id)) recent.unshift(choice);
    choosers.forEach((draw) => draw());
    return choice;
  }

  function option(choice, selected, name) {
    const { element } = window.iconoscope;
    const label = element("label", choice.made ? "is-made" : "");
    const input = element("input");
    Object.assign(input, { type: "radio", name, value: choice.id, checked: choice.id === selected });
    const figure = element("figure", "ico-exemplar");
    const picture = element("div", "ico-picture");
    const img = element("img");
    Object.assign(img, { alt: choice.alt || choice.label, loading: "lazy", decoding: "async" });
    img.addEventListener("error", () => { picture.replaceChildren(element("span", "ico-why", "gone")); });
    img.src = choice.src;
    picture.append(img);
    if (choice.grid) {
      Object.assign(figure.dataset, { grid: choice.grid, rows: choice.rows, cols: choice.cols, maximum: choice.maximum });
      picture.append(element("canvas"));
    }
    figure.append(picture);
    label.append(input, figure, element("span", "", choice.label));
    return label;
  }

  function offered(value) {
    const { choices = [] } = value ?? {};
    const all = [...choices.filter((one) => one.made), ...recent, ...choices.filter((one) => !one.made)];
    return all.filter((one, at) => all.findIndex((other) => other.id === one.id) === at);
  }

  function pictureOf(transfer) {
    const files = [...(transfer?.files ?? [])];
    return files.find((file) => file.type.startsWith("image/")) ?? files[0] ?? null;
  }

  class Chooser {
    constructor(root, props) {
      const { element } = window.iconoscope;
      Object.assign(this, { root, props, name: `ico-chooser-${made++}`, page: 0, total: 0, size: 1 });
      this.fieldset = element("fieldset", "ico-chooser-grid");
      this.file = element("input");
      Object.assign(this.file, { type: "file", accept: ACCEPT, hidden: true });
      this.file.setAttribute("aria-label", "Picture file to upload");
      this.uploading = this.button("Upload a picture", () => this.file.click());
      this.opener = this.button("More images", () => this.toggle());
      this.opener.setAttribute("aria-expanded", "false");
      this.hint = element("span", "ico-why ico-chooser-hint", "or drop or paste one here");
      this.told = element("p", "ico-why ico-chooser-told");
      this.told.setAttribute("role", "status");
      this.more = element("div", "ico-chooser-more");
      this.more.hidden = true;
      const bar = element("div", "ico-chooser-bar");
      bar.append(this.uploading, this.opener, this.hint, this.file);
      root.replaceChildren(this.fieldset, bar, this.told, this.more);
      this.listen();
    }

    button(words, pressed) {
      const button = window.iconoscope.element("button", "ico-button", words);
      button.type = "button";
      button.addEventListener("click", pressed);
      return button;
    }

    listen() {
      this.root.addEventListener("change", (event) => {
        if (event.target === this.file) {
          if (this.file.files[0]) this.send(this.file.files[0]);
          this.file.value = "";
        } else if (event.target instanceof HTMLInputElement) {
          this.choose(event.target.choice ?? offered(this.props.value).find((one) => one.id === event.target.value));
        }
      });
      this.root.addEventListener("dragover", (event) => { event.preventDefault(); this.root.classList.add("is-over"); });
      this.root.addEventListener("dragleave", () => this.root.classList.remove("is-over"));
      this.root.addEventListener("drop", (event) => {
        event.preventDefault();
        this.root.classList.remove("is-over");
        const file = pictureOf(event.dataTransfer);
        if (file) this.send(file);
        else this.say("That was no picture file. Save the picture first, then drop the file here.");
      });
      document.addEventListener("paste", (event) => {
        const file = pictureOf(event.clipboardData);
        // Only the chooser in sight answers, and text pasted into a field stays text.
        if (!file || this.root.offsetParent === null) return;
        event.preventDefault();
        this.send(file);
      });
    }

    say(words, wrong = false) {
      this.told.textContent = words;
      this.told.classList.toggle("is-wrong", wrong);
    }

    async send(file) {
      this.say("Uploading …");
      this.root.setAttribute("aria-busy", "true");
      try {
        this.choose(await upload(file, this.props.value ?? {}));
        this.say("Uploaded. It stays in this server's memory only.");
      } catch (error) {
        this.say(error.message, true);
      }
      this.root.removeAttribute("aria-busy");
    }

    choose(choice) {
      if (!choice) return;
      const { choices = [] } = this.props.value ?? {};
      const known = choices.some((one) => one.id === choice.id);
      this.props.value = { ...this.props.value, choices: known ? choices : [...choices, choice], selected: choice.id, stamp: ++nChosen };
      this.draw();
    }

    /* A message without "selected" brings other choices and leaves the chosen picture as it is, and on offer. */
    settled() {
      const value = this.props.value ?? {};
      if ("selected" in value || !this.kept) return value;
      const { selected, choices } = this.kept;
      const own = (choices ?? []).filter((one) => one.id === selected && !value.choices.some((other) => other.id === selected));
      return { ...value, choices: [...value.choices, ...own], selected };
    }

    draw() {
      const value = this.settled();
      if (value !== this.props.value) this.props.value = value;
      this.kept = value;
      const choices = offered(value);
      const shown = [...this.fieldset.querySelectorAll("input")].map((input) => input.value).join("\n");
      if (shown !== choices.map((one) => one.id).join("\n") || this.legend !== value.legend) {
        const focused = this.fieldset.contains(document.activeElement) ? document.activeElement.value : null;
        this.legend = value.legend;
        const legend = window.iconoscope.element("legend", "", value.legend || "Image");
        this.fieldset.replaceChildren(legend, ...choices.map((one) => option(one, value.selected, this.name)));
        this.fieldset.querySelectorAll("figure[data-grid]").forEach((figure) => window.iconoscopeExemplars.paint(figure));
        if (focused !== null) [...this.fieldset.querySelectorAll("input")].find((input) => input.value === focused)?.focus();
      }
      this.root.querySelectorAll("input[type=radio]").forEach((input) => { input.checked = input.value === (value.selected ?? ""); });
      if (this.images !== value.images) {
        this.images = value.images;
        this.page = 0;
        if (!this.more.hidden) this.turn(0);
      }
      this.opener.hidden = !value.images;
    }

    toggle() {
      this.more.hidden = !this.more.hidden;
      this.opener.setAttribute("aria-expanded", String(!this.more.hidden));
      this.opener.textContent = this.more.hidden ? "More images" : "Fewer images";
      if (!this.more.hidden) this.turn(this.page);
    }

    async turn(page) {
      const { element, fetchJson } = window.iconoscope;
      try {
        const { total, size, images } = await fetchJson(`${this.images}${page}.json`);
        Object.assign(this, { page, total, size });
        const grid = element("fieldset", "ico-chooser-grid");
        grid.append(element("legend", "ico-unseen", "Images of this atlas"));
        images.forEach((one) => {
          const choice = { id: one.id, label: one.id, alt: `image ${one.id}`, src: one.src };
          const label = option(choice, this.props.value?.selected, `${this.name}-more`);
          label.querySelector("input").choice = choice;
          grid.append(label);
        });
        const pager = element("div", "ico-chooser-bar");
        const back = this.button("← Back", () => this.turn(page - 1));
        const on = this.button("Next →", () => this.turn(page + 1));
        back.disabled = page === 0;
        on.disabled = (page + 1) * size >= total;
        pager.append(back, on, element("span", "ico-n", `${page * size + 1}–${Math.min(total, (page + 1) * size)} of ${total}`));
        this.more.replaceChildren(grid, pager);
      } catch {
        this.more.replaceChildren(element("p", "ico-why", "The images of this atlas could not be read. Reload the page."));
      }
    }
  }

  function mount(root, props, watch) {
    const chooser = new Chooser(root, props);
    const draw = () => chooser.draw();
    choosers.add(draw);
    watch("value", draw);
    draw();
  }

  window.iconoscopeImageChooser = { mount, upload };
})();
