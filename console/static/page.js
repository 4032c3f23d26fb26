// Instants in the reader's own zone; the UTC text stays in the title.
"use strict";
(() => {
  const format = new Intl.DateTimeFormat(undefined, {dateStyle: "short", timeStyle: "medium"});
  const show = (root) => {
    for (const item of root.querySelectorAll("time[datetime]")) {
      const at = new Date(item.dateTime);
      if (!Number.isNaN(at.getTime())) item.textContent = format.format(at);
    }
  };
  show(document);
  document.body.addEventListener("htmx:afterSwap", (event) => show(event.target));
})();
