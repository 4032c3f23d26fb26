// Instants in the reader's own zone (the UTC text stays in the title) or, where a page has the switch for it, in UTC; and chips that
// put a word into a field or take it out.
"use strict";
(() => {
  const root = document.documentElement, zone = document.getElementById("zone");
  const formats = (more) => [new Intl.DateTimeFormat(undefined, {dateStyle: "short", timeStyle: "short", ...more}),
    new Intl.DateTimeFormat(undefined, {dateStyle: "short", timeStyle: "medium", ...more})];
  const mine = formats({}), utc = formats({timeZone: "UTC"});
  const shown = (at) => (root.dataset.zone === "utc" ? utc : mine)[at.getSeconds() ? 1 : 0].format(at);  // seconds where there are some
  const words = (field) => field.value.split(/[\s,]+/).filter(Boolean);
  const mark = (root) => {
    for (const chip of root.querySelectorAll("[data-add]")) {
      const field = document.getElementById(chip.dataset.into);
      if (field) chip.setAttribute("aria-pressed", String(words(field).includes(chip.dataset.add)));
    }
  };
  const show = (root) => {
    for (const item of root.querySelectorAll("time[datetime]")) {
      const at = new Date(item.dateTime);
      if (!Number.isNaN(at.getTime())) item.textContent = shown(at);
    }
    mark(root);
  };
  const turn = (name) => {
    root.dataset.zone = name;
    zone.textContent = name === "utc" ? "Times: UTC" : "Times: yours";
    zone.setAttribute("aria-pressed", String(name === "utc"));
  };
  if (zone) {
    turn(localStorage.getItem("zone") === "utc" ? "utc" : "mine");
    zone.addEventListener("click", () => {
      turn(root.dataset.zone === "utc" ? "mine" : "utc");
      localStorage.setItem("zone", root.dataset.zone);
      show(document);
      document.dispatchEvent(new Event("zonechange"));
    });
  }
  show(document);
  document.body.addEventListener("htmx:afterSwap", (event) => show(event.target));
  document.body.addEventListener("pointerover", (event) => {  // the words of a day's cell, once for eye and ear
    const cell = event.target.closest(".cell[aria-label]");
    if (cell && !cell.title) cell.title = cell.getAttribute("aria-label");
  });
  document.body.addEventListener("input", (event) => { if (event.target.id === "symbols" || event.target.id === "timeframes") mark(document); });
  document.body.addEventListener("click", (event) => {
    const chip = event.target.closest("[data-add]");
    const field = chip && document.getElementById(chip.dataset.into);
    if (!field) return;
    const held = words(field), name = chip.dataset.add;
    field.value = (held.includes(name) ? held.filter((word) => word !== name) : [...held, name]).join(" ");
    mark(document);
  });
})();
