/* What every page needs beside HTML: ages that stay true, menus that close, keys, and gentle refreshing. */
(() => {
  "use strict";

  /* --- Ages: <time data-ago>, data-age, data-due. The same words as in runs/templatetags/kontor.py. ----------- */
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const measure = (seconds) => {
    const distance = Math.abs(seconds);
    const [size, unit] = UNITS.find(([step]) => distance >= step) ?? [1, "s"];
    return `${Math.floor(distance / size)} ${unit}`;
  };
  const words = (time, seconds) => {
    if ("age" in time.dataset) return measure(seconds);
    if ("due" in time.dataset) return seconds <= -1 ? `in ${measure(seconds)}` : "now";
    if (Math.abs(seconds) < 1) return "just now";
    return seconds > 0 ? `${measure(seconds)} ago` : `in ${measure(seconds)}`;
  };
  const tellAges = () => {
    for (const time of document.querySelectorAll("time[data-ago], time[data-age], time[data-due]")) {
      const text = words(time, (Date.now() - Date.parse(time.dateTime)) / 1000);
      if (time.textContent !== text) time.textContent = text;
    }
  };
  setInterval(tellAges, 1000);

  /* --- Menus are <details data-menu>: one open at a time, closed by Escape or a click elsewhere. -------------- */
  const closeMenus = (except) => {
    for (const menu of document.querySelectorAll("details[data-menu][open]")) {
      if (menu !== except) menu.open = false;
    }
  };
  document.addEventListener("click", (event) => {
    closeMenus(event.target.closest("details[data-menu]"));
    if (event.target.closest("[data-dismiss]")) event.target.closest(".k-message").remove();
  });

  /* --- Keys: / searches, j and k walk through rows, Enter opens the row, Escape closes menus. ----------------- */
  const isTyping = (node) => node.closest("input, textarea, select, [contenteditable]");
  const walk = (step) => {
    const links = [...document.querySelectorAll("[data-row] a[data-row-link]")];
    if (!links.length) return;
    const here = links.findIndex((link) => link.closest("[data-row]").contains(document.activeElement));
    const next = here < 0 ? 0 : Math.min(Math.max(here + step, 0), links.length - 1);
    links[next].focus();
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      const menu = document.querySelector("details[data-menu][open]");
      closeMenus(null);
      if (menu) menu.querySelector("summary").focus();
    }
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    if (event.key === "/") {
      const search = document.querySelector("input[type=search]");
      if (search) {
        event.preventDefault();
        search.focus();
      }
    } else if (event.key === "j" || event.key === "k") {
      walk(event.key === "j" ? 1 : -1);
    }
  });

  /* --- Refreshing by Idiomorph keeps what a person is doing: opened details, begun forms, loaded parts. ------- */
  const isDirty = (form) =>
    [...form.elements].some((field) => "defaultValue" in field && field.type !== "hidden" && field.value !== field.defaultValue);
  if (window.Idiomorph) {
    Object.assign(window.Idiomorph.defaults.callbacks, {
      beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS"),
      beforeNodeMorphed: (node) =>
        !(node.tagName === "FORM" && isDirty(node)) && !node.matches?.("[data-loaded-later]"),
    });
    document.addEventListener("htmx:afterSettle", tellAges);
  }

  /* --- A request that failed leaves the page as it is and says so. -------------------------------------------- */
  document.addEventListener("htmx:responseError", (event) => tell(event, `The server answered ${event.detail.xhr.status}.`));
  document.addEventListener("htmx:sendError", (event) => tell(event, "The server could not be reached."));
  document.addEventListener("htmx:timeout", (event) => tell(event, "The server did not answer in time."));
  const tell = (event, text) => {
    // Live refreshes report to the indicator in the top bar; only what a person did gets a message.
    if (event.detail.requestConfig?.headers["Kontor-Refresh"]) return;
    const box = document.createElement("div");
    box.className = "k-message";
    box.dataset.colour = "error";
    box.textContent = `${text} Nothing was changed on this page; try again.`;
    document.getElementById("messages").replaceChildren(box);
  };
})();
