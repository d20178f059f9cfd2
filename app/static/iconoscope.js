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

  /* The address bar is the state: written here, read by the server when the page loads. Empty fields are left out. */
  let ready = false;
  function writeUrl(fields) {
    if (!ready) return;
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(fields)) {
      if (value !== null && value !== undefined && value !== "") query.set(name, String(value));
    }
    const kept = new URLSearchParams(window.location.search).get("__theme");
    if (kept) query.set("__theme", kept);
    const text = query.toString();
    const address = window.location.pathname + (text ? "?" + text : "");
    if (address !== window.location.pathname + window.location.search) window.history.replaceState(null, "", address);
  }
  function urlReady() { ready = true; }

  function readTheme() {
    try { return window.localStorage.getItem("iconoscope-theme"); } catch { return null; }
  }
  function setTheme(theme) {
    document.body.classList.toggle("dark", theme === "dark");
    document.querySelectorAll(".ico-theme").forEach((button) => {
      button.setAttribute("aria-pressed", String(theme === "dark"));
      button.textContent = theme === "dark" ? "Light" : "Dark";
    });
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

  async function fetchJson(address) {
    const response = await fetch(address);
    if (!response.ok) throw new Error(`${address} answered ${response.status}`);
    return response.json();
  }

  window.iconoscope = { register, go, writeUrl, urlReady, startTheme, currentTheme, element, fetchJson };
})();
