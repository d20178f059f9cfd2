/* Shared by every tab: following links inside the page, the address bar, the theme switch.
   It knows nothing of maps or pictures. Text reaches the page through textContent only. */
(() => {
  "use strict";
  if (window.iconoscope) return;

  let navigator_ = null;
  const waiting = [];

  /* The Gradio component that carries a wish of the page to the server registers itself here. */
  function register(send) {
    navigator_ = send;
    while (waiting.length) send(...waiting.shift());
  }

  function go(action, value) {
    if (navigator_) navigator_(action, value);
    else waiting.push([action, value]);
  }

  /* Links are real addresses, so they can be copied and opened in a new tab; a plain click stays in the page. */
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const target = event.target instanceof Element ? event.target.closest("[data-go]") : null;
    if (!target) return;
    event.preventDefault();
    const { go: action, value } = target.dataset;
    // Fields of the address that go with the action: data-set="name=text&name=text"; no text removes a field.
    for (const [name, text] of new URLSearchParams(target.dataset.set ?? "")) setField(name, text);
    if (action === "copy") copyAddress(target);
    else go(action, value ?? "");
  });

  async function copyAddress(button) {
    const address = new URL(button.getAttribute("href") || "", window.location.href).href;
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(address);
      button.textContent = "Copied";
    } catch {
      window.prompt("Copy this address", address);
    }
    window.setTimeout(() => { button.textContent = before; }, 1500);
  }

  /* The address bar is the state: written here, read by the server when the page loads. A field without text, or with
     its default, is left out. Until the server has read the address, nothing is written: it must not be lost. */
  let ready = false;
  const early = new Map();
  function setField(name, value, initial = "") {
    const text = value === null || value === undefined || value === initial ? "" : value === true ? "1" : value === false ? "0" : String(value);
    if (!ready) { early.set(name, text); return; }
    const query = new URLSearchParams(window.location.search);
    if (text === (query.get(name) ?? "")) return;
    if (text) query.set(name, text); else query.delete(name);
    const rest = query.toString();
    window.history.replaceState(null, "", window.location.pathname + (rest ? "?" + rest : "") + window.location.hash);
    window.dispatchEvent(new CustomEvent("iconoscope-address", { detail: { name, text } }));
  }
  function getField(name) { return new URLSearchParams(window.location.search).get(name) ?? ""; }
  function urlReady() {
    ready = true;
    for (const [name, text] of early) setField(name, text);
    early.clear();
  }

  /* Links name a state, not an atlas: one that is opened elsewhere or copied stays in the atlas of this page. */
  function stayInAtlas(link) {
    const atlas = getField("atlas");
    const address = link.getAttribute("href") ?? "";
    if (!atlas || !address.startsWith("?")) return;
    const query = new URLSearchParams(address);
    if (query.has("atlas")) return;
    query.set("atlas", atlas);
    link.setAttribute("href", "?" + query.toString());
  }
  for (const name of ["pointerdown", "focusin"]) {
    document.addEventListener(name, (event) => {
      const link = event.target instanceof Element ? event.target.closest("a[href^='?']") : null;
      if (link) stayInAtlas(link);
    });
  }

  function readTheme() {
    try { return window.localStorage.getItem("iconoscope-theme"); } catch { return null; }
  }
  function setTheme(theme) {
    document.body.classList.toggle("dark", theme === "dark");
    window.dispatchEvent(new CustomEvent("iconoscope-theme", { detail: theme }));
  }
  function currentTheme() { return document.body.classList.contains("dark") ? "dark" : "light"; }
  document.addEventListener("click", (event) => {
    if (!(event.target instanceof Element) || !event.target.closest(".ico-theme")) return;
    const next = currentTheme() === "dark" ? "light" : "dark";
    try { window.localStorage.setItem("iconoscope-theme", next); } catch { /* private window: the choice lasts for this page */ }
    setTheme(next);
  });
  function startTheme() {
    const asked = new URLSearchParams(window.location.search).get("__theme");
    setTheme(asked === "dark" || asked === "light" ? asked : readTheme() ?? currentTheme());
  }

  /* An element with text, never with markup. */
  function element(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  /* A page that the server has built and escaped (app/components/markup.py). Scripts in it would not run. What is in view
     is drawn first; the rest is laid out in the frame after, so that nobody waits for what they cannot see. */
  function place(parent, page) {
    const { body } = new DOMParser().parseFromString(page, "text/html");
    parent.classList.add("is-new");
    parent.replaceChildren(...body.childNodes);
    requestAnimationFrame(() => { window.setTimeout(() => { parent.classList.remove("is-new"); }); });
  }

  async function fetchJson(address) {
    const response = await fetch(address);
    if (!response.ok) throw new Error(`${address} answered ${response.status}`);
    return response.json();
  }

  window.iconoscope = {
    register, go, setField, getField, urlReady, startTheme, currentTheme, element, place, fetchJson,
    /* Whether the server has read the address into the page. */
    get isReady() { return ready; },
  };
})();
