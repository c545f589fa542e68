/* What every page needs beside HTML: ages that stay true, menus that close, keys, and gentle refreshing. By attribute:
 *
 * data-menu            on <details>: one open at a time, closed by Escape or a click elsewhere
 * data-dismiss         a button that takes away the .k-message around it
 * data-copy="#id"      a button that copies the text of that element (of a field: its value) and says so
 * data-check-all       a checkbox that ticks and clears all checkboxes of its form
 * data-autosubmit      a field that submits its form when it changes; the form has a button for people without scripts
 * data-row, data-row-link   rows that j and k walk through
 * data-hotkey="n"      a link or button that this key presses
 * data-loaded-later    a part that a refresh leaves alone
 */
(() => {
  "use strict";

  /* --- Ages: <time data-ago>, data-age, data-due. The same words as in runs/templatetags/kontor.py. ----------- */
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const measure = (seconds) => {
    const [size, unit] = UNITS.find(([step]) => Math.abs(seconds) >= step) ?? [1, "s"];
    return `${Math.floor(Math.abs(seconds) / size)} ${unit}`;
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
    document.querySelectorAll("details[data-menu][open]").forEach((menu) => (menu.open = menu === except));
  };
  document.addEventListener("click", (event) => {
    closeMenus(event.target.closest("details[data-menu]"));
    if (event.target.closest("[data-dismiss]")) event.target.closest(".k-message").remove();
    const button = event.target.closest("[data-copy]");
    if (button) copy(button, document.querySelector(button.dataset.copy));
  });

  /* --- data-copy, data-check-all, data-autosubmit ------------------------------------------------------------- */
  const copy = async (button, source) => {
    const text = source.value ?? source.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without TLS browsers have no clipboard object; this older way works from a selection.
      const field = Object.assign(document.createElement("textarea"), { value: text });
      (button.closest("dialog") ?? document.body).append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
      button.focus();
    }
    button.dataset.copied = "";
    document.getElementById("said").textContent = "Copied.";
    setTimeout(() => delete button.dataset.copied, 2000);
  };
  document.addEventListener("change", ({ target }) => {
    if ("autosubmit" in target.dataset) target.form.requestSubmit();
    const all = target.form?.querySelector("[data-check-all]");
    if (!all || target.type !== "checkbox") return;
    const boxes = [...target.form.elements].filter((box) => box.type === "checkbox" && box !== all && !box.disabled);
    if (target === all) boxes.forEach((box) => (box.checked = all.checked));
    all.checked = boxes.length > 0 && boxes.every((box) => box.checked);
    all.indeterminate = !all.checked && boxes.some((box) => box.checked);
  });

  /* --- Keys: / searches, j and k walk through rows, Enter opens the row, p pauses, Escape closes menus. ------- */
  const isTyping = (node) => node.closest("input, textarea, select, [contenteditable]");
  const walk = (step) => {
    const links = [...document.querySelectorAll("[data-row] a[data-row-link]")];
    const here = links.findIndex((link) => link.closest("[data-row]").contains(document.activeElement));
    links[here < 0 ? 0 : here + step]?.focus();
  };
  document.addEventListener("keydown", (event) => {
    const menu = document.querySelector("details[data-menu][open]");
    if (event.key === "Escape" && menu) {
      closeMenus(null);
      menu.querySelector("summary").focus();
    }
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.body.dataset.keys) return;
    const search = document.querySelector("input[type=search]");
    if (event.key === "/" && search) search.focus(event.preventDefault());
    else if (event.key === "j" || event.key === "k") walk(event.key === "j" ? 1 : -1);
    else document.querySelector(`[data-hotkey="${CSS.escape(event.key)}"]`)?.click();
  });

  /* --- Refreshing by Idiomorph keeps what a person is doing: opened details, begun forms, loaded parts. ------- */
  const isChosen = ({ options, selectedIndex }) => selectedIndex !== Math.max(0, [...options].findLastIndex((one) => one.defaultSelected));
  const isChanged = (window.isChanged = (field) =>
    field.options ? isChosen(field) : field.type === "checkbox" || field.type === "radio" ? field.checked !== field.defaultChecked
      : "defaultValue" in field && field.type !== "hidden" && field.value !== field.defaultValue);
  const isDirty = (node) => [node, ...(node.elements ?? [])].some((field) => field.matches?.("input, textarea, select") && isChanged(field));
  Object.assign(window.Idiomorph.defaults.callbacks, {
    beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS"),
    beforeNodeMorphed: (node, fresh) => {
      const isDrawn = node.matches?.("figure[data-chart]:has(canvas)");
      if (isDrawn) node.dispatchEvent(new CustomEvent("kontor:figure", { bubbles: true, detail: fresh }));
      return !isDrawn && !isDirty(node) && !node.matches?.("[data-loaded-later]");
    },
    // Somebody else was quicker: what was typed stays beside what they did, and the server says the rest when it is sent.
    beforeNodeRemoved: (node) => ![node, ...(node.querySelectorAll?.("form") ?? [])].some((form) => form.elements && isDirty(form)),
  });
  document.addEventListener("htmx:afterSettle", tellAges);

  /* --- A request that failed leaves the page as it is and says so. -------------------------------------------- */
  document.addEventListener("htmx:responseError", (event) => tell(event, `The server answered ${event.detail.xhr.status}.`));
  document.addEventListener("htmx:sendError", (event) => tell(event, "The server could not be reached."));
  document.addEventListener("htmx:timeout", (event) => tell(event, "The server did not answer in time."));
  const tell = (event, text) => {
    // Live refreshes report to the indicator in the top bar; only what a person did gets a message. Who is signed out
    // is told by live.js.
    if (event.detail.requestConfig?.headers["Kontor-Refresh"] || event.detail.xhr?.status === 401) return;
    // A refusal says by its page why: the role, or that somebody has signed in since.
    const why = event.detail.xhr?.status === 403 && new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html").querySelector("h1 + p");
    const textContent = why ? why.textContent : `${text} Nothing was changed on this page; try again.`;
    const box = Object.assign(document.createElement("div"), { className: "k-message", textContent });
    box.dataset.colour = "error";
    document.getElementById("messages").replaceChildren(box);
  };
})();
