/* What the views of Compare share: a link that names fields of the address (data-set) writes them when it is followed
   inside the page. Its data-go tells the server; its href is the same state for a new tab. */
(() => {
  "use strict";
  if (window.iconoscopeCompare) return;

  document.addEventListener("click", (event) => {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest("[data-set]") : null;
    if (!link) return;
    for (const [name, text] of new URLSearchParams(link.dataset.set)) window.iconoscope.setField(name, text);
  });

  /* The share of something with its 95 % Wilson interval; null without a trial. The server's app/intervals.py is the same. */
  function wilson(count, n) {
    if (!n) return null;
    const z = 1.959963984540054;
    const share = count / n;
    const centre = (share + (z * z) / (2 * n)) / (1 + (z * z) / n);
    const half = (z / (1 + (z * z) / n)) * Math.sqrt((share * (1 - share)) / n + (z * z) / (4 * n * n));
    return { share, low: count === 0 ? 0 : Math.max(0, centre - half), high: count === n ? 1 : Math.min(1, centre + half), n };
  }

  function percent(share) { return `${Math.round(100 * share)} %`; }

  function shareWords(count, n) {
    const found = wilson(count, n);
    return found ? `${count} of ${n}: ${percent(found.share)} [${percent(found.low)}, ${percent(found.high)}]` : "none yet";
  }

  window.iconoscopeCompare = { wilson, shareWords };
})();
