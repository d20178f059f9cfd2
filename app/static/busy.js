/* A thin line at the top of the page while an answer takes longer than a moment. Quick answers show nothing: a flicker
   would only make them look slow. Live steering has its own words and is not counted here. What an event answers that did
   not work is told as a notice. */
(() => {
  "use strict";
  if (window.iconoscopeBusy) return;
  const MOMENT_MS = 300;
  const COUNTED = /\/gradio_api\/run\/|\/iconoscope\/(?!static\/)/;

  const EVENT = /\/gradio_api\/run\//;

  let pending = 0;
  let timer = 0;
  let bar = null;

  function show() {
    if (!bar) {
      bar = document.createElement("div");
      bar.className = "ico-busy";
      bar.setAttribute("role", "progressbar");
      bar.setAttribute("aria-label", "Working");
      document.body.append(bar);
    }
    bar.hidden = false;
  }
  function begin() {
    pending += 1;
    if (pending === 1) timer = window.setTimeout(show, MOMENT_MS);
  }
  function end() {
    pending -= 1;
    if (pending) return;
    window.clearTimeout(timer);
    if (bar) bar.hidden = true;
  }

  function tell(answer) { if (!answer.ok) window.iconoscopeNotices.refused(answer.clone()); }

  const fetched = window.fetch.bind(window);
  window.fetch = (...request) => {
    const address = request[0] instanceof Request ? request[0].url : String(request[0]);
    if (!COUNTED.test(address)) return fetched(...request);
    begin();
    const answered = fetched(...request).finally(end);
    if (EVENT.test(address)) answered.then(tell, window.iconoscopeNotices.lost);
    return answered;
  };

  window.iconoscopeBusy = { get pending() { return pending; } };
})();
