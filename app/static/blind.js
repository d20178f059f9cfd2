/* The visitor's score in the blind test, kept in this browser only. A round counts once: picking again changes nothing. */
(() => {
  "use strict";
  if (window.iconoscopeBlind) return;
  const MOST_ROUNDS = 5000;

  function store(version) { return `iconoscope-blind-${version}`; }

  function load(version) {
    try {
      const found = JSON.parse(window.localStorage.getItem(store(version)) ?? "{}");
      return found && typeof found === "object" && !Array.isArray(found) ? found : {};
    } catch { return {}; }
  }

  function save(version, rounds) {
    try { window.localStorage.setItem(store(version), JSON.stringify(rounds)); } catch { /* private window: the score lasts for this page */ }
  }

  let kept = {};
  function note(version, round) {
    // Seen once: after "Start over" the round that is still on the page must not count again.
    if (round.dataset.noted) return;
    round.dataset.noted = "yes";
    const { round: key, picked, better } = round.dataset;
    const rounds = { ...kept[version], ...load(version) };
    if (!picked || rounds[key] || Object.keys(rounds).length >= MOST_ROUNDS) { kept[version] = rounds; return; }
    const side = (one) => ({ arm: round.getAttribute(`data-arm-${one}`), label: round.getAttribute(`data-label-${one}`) });
    const other = picked === "a" ? "b" : "a";
    rounds[key] = { picked: side(picked), other: side(other), agrees: better === "unknown" || better === "tie" ? null : better === picked };
    kept[version] = rounds;
    save(version, rounds);
  }

  /* Per arm: how often it was picked of the times it was offered. */
  function tally(rounds) {
    const arms = new Map();
    const at = (side) => {
      if (!arms.has(side.arm)) arms.set(side.arm, { label: side.label, picked: 0, offered: 0 });
      return arms.get(side.arm);
    };
    for (const { picked, other } of rounds) {
      at(picked).picked += 1;
      at(picked).offered += 1;
      at(other).offered += 1;
    }
    return [...arms.values()].sort((a, b) => b.offered - a.offered || a.label.localeCompare(b.label));
  }

  function row(label, words) {
    const { element } = window.iconoscope;
    const line = element("tr");
    const head = element("th", "", label);
    head.scope = "row";
    line.append(head, element("td", "", words));
    return line;
  }

  function draw(panel) {
    const { element } = window.iconoscope;
    const version = panel.dataset.version;
    const rounds = Object.values({ ...kept[version], ...load(version) });
    const told = JSON.stringify(rounds).length + ":" + rounds.length;
    if (panel.dataset.told === told) return;
    panel.dataset.told = told;
    const decided = rounds.filter((one) => one.agrees !== null);
    const parts = [element("h3", "", "Your score")];
    if (!rounds.length) {
      parts.push(element("p", "ico-why", "No round yet. Your picks are counted here, in this browser only."));
      panel.replaceChildren(...parts);
      return;
    }
    const { shareWords } = window.iconoscopeCompare;
    const table = element("table", "ico-table");
    const body = element("tbody");
    body.append(row("You and AUROC picked the same", shareWords(decided.filter((one) => one.agrees).length, decided.length)));
    for (const arm of tally(rounds)) body.append(row(`${arm.label} picked, when offered`, shareWords(arm.picked, arm.offered)));
    table.append(body);
    const reset = element("button", "ico-button", "Start over");
    reset.type = "button";
    reset.addEventListener("click", () => {
      kept[version] = {};
      save(version, {});
      panel.dataset.told = "";
      draw(panel);
    });
    const left = rounds.length - decided.length;
    const remark = `n = ${rounds.length} ${rounds.length === 1 ? "round" : "rounds"}, in brackets 95 % Wilson intervals. Kept in this browser only.` + (left ? ` In ${left}, AUROC does not tell the two apart.` : "");
    parts.push(table, element("p", "ico-why", remark), reset);
    panel.replaceChildren(...parts);
  }

  function refresh() {
    const panel = document.querySelector(".ico-blind-score");
    if (!panel || !window.iconoscopeCompare) return;
    const round = document.querySelector(".ico-blind-round[data-picked]");
    if (round) note(panel.dataset.version, round);
    draw(panel);
  }

  new MutationObserver(() => refresh()).observe(document.documentElement, { childList: true, subtree: true });
  refresh();
  window.iconoscopeBlind = { refresh, tally };
})();
