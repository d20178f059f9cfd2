/* What the views of Compare share: shares with their intervals, in words. */
(() => {
  "use strict";
  if (window.iconoscopeCompare) return;

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
  window.iconoscopeBlind?.refresh();
})();
