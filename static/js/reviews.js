/* The card of a question: keys, and the next card without waiting. Everything works without it, by forms.
 *
 * j k to the next question and the one before (data-next, data-previous on #review). a e n r t u z open what has
 * data-open of that key (the editor, snooze), go to the field with data-focus of it (the note; Enter there sends it), or
 * press the button with data-key of it. Escape leaves a field, so that keys count again; Ctrl+Enter sends its form.
 * A card on which an answer was begun is not left, by j, k, a link or another answer, before the browser has asked.
 * A form with data-leaves is sent in the background while the next card, fetched before, stands there already, or this
 * one until the answer is there; "unless-begun": not where an answer was begun, as its card must stay. What is under way,
 * refused or lost is said in #review-notes, each by itself, and leads back to its own card with what was typed; "saved" is
 * only ever what the server has said (Kontor-Done).
 */
(() => {
  "use strict";
  const [place, card] = ["review-place", "review"].map((id) => () => document.getElementById(id));
  const isTyping = (node) => node.closest("input:not([type=hidden]), textarea, select, [contenteditable]");
  // Whose page this is and what it shows: another tab may have signed in somebody else, or chosen otherwise.
  const ofPage = () => JSON.parse(document.body.getAttribute("hx-headers"));
  let ahead = { address: "", html: "" };
  const fetchAhead = async () => {
    const address = card()?.dataset.ahead ?? "";
    card()?.toggleAttribute("data-ready", isReady());
    if (ahead.address === address) return;
    const mine = (ahead = { address, html: "" });
    const response = address && (await fetch(address.replace(/\/(\?|$)/, "/panel/$1"), { headers: ofPage() }).catch(() => null));
    if (response?.ok && !response.redirected) mine.html = await response.text();
    card()?.toggleAttribute("data-ready", isReady());
  };
  const isReady = () => Boolean(ahead.html) && ahead.address === card()?.dataset.ahead;
  const refresh = () => document.body.dispatchEvent(new CustomEvent("kontor:changed", { bubbles: true }));
  const show = (note, textContent) => document.getElementById("review-notes")?.append(Object.assign(note, { textContent }));
  const isSaving = (path = "/") => document.querySelector(`#review-notes [data-saving][href^="${path}"]`) !== null;
  const whyNot = (html) => new DOMParser().parseFromString(html, "text/html").querySelector("#messages .k-message")?.textContent;
  const why = (isOut, status, html) =>
    (isOut && "Not saved, because you were signed out. Sign in and answer again:") ||
    (status < 500 && `${whyNot(html)?.trim() ?? "Not answered."} Open it again:`) ||
    "The server did not answer as it should. Open it to see whether your answer was saved:";
  const showAhead = () => {
    history.replaceState({ htmx: true }, ""); // htmx reads a page anew that somebody goes back to
    history.pushState({ htmx: true }, "", ahead.address);
    place().innerHTML = ahead.html;
    htmx.process(place());
    card().querySelector("h1")?.focus(window.scrollTo(0, 0));
    fetchAhead();
  };
  const save = async (form) => {
    const body = new URLSearchParams(new FormData(form));
    const [node, url, own, ask] = [card(), location.href, location.pathname, card().querySelector("h1").textContent];
    const headers = { ...ofPage(), "HX-Request": "true", "Kontor-Ahead": isReady() ? ahead.address : "" };
    // So that a tab that is closed does not take it along; browsers refuse that for long texts.
    const request = { method: "POST", body, headers, keepalive: `${body}`.length < 20000, signal: AbortSignal.timeout(20000) };
    document.querySelectorAll(`#messages > *, #review-notes [href="${own}"]`).forEach((old) => old.remove());
    const note = Object.assign(document.createElement("a"), { className: "k-message", target: "_blank", href: own });
    show(note, `Saving your answer to: ${ask}`, (note.dataset.saving = "1"));
    if (isReady()) showAhead();
    const path = location.pathname; // an answer that comes late must not take a later card away
    const response = await fetch(form.action, request).catch(() => null);
    const said = response?.headers.get("Kontor-Done");
    const html = said && (await response.text().catch(() => ""));
    // 403: the page is from before somebody signed in anew.
    const [isDone, isHere, isOut] = [said === "1", path === location.pathname, [401, 403].includes(response?.status)];
    delete note.dataset.saving;
    if (isDone || (html && isHere)) note.remove();
    else show(note, `${why(isOut, said || !response?.ok ? response?.status : undefined, html)} ${ask}`);
    const back = (move) => history[move]({ htmx: true }, "", url, place().replaceChildren(node));
    note.addEventListener("click", (event) => {
      if (!isOut) note.remove();
      if (!node.isConnected) refresh(back("pushState"), event.preventDefault());
    });
    // What is refused brings its own card back, with all that was typed into it.
    if (isHere && !isDone && !node.isConnected) back("replaceState");
    if (html && isHere) {
      const address = response.headers.get("HX-Replace-Url") ?? response.headers.get("HX-Push-Url");
      history[isDone && path === own ? "pushState" : "replaceState"]({ htmx: true }, "", address);
      // As if nothing had been typed, so that the form's hidden fields are those of the new card; then typed again.
      const typed = isDone ? [] : [...form.elements].map(({ id, value }) => ({ id, value }));
      htmx.swap(place(form.reset()), html, { swapStyle: !isDone || address.startsWith(path) ? "morph:innerHTML" : "innerHTML" }, { contextElement: place() });
      for (const { id, value } of typed) Object.assign(document.getElementById(id) ?? {}, { value });
    } else if (isHere && !isOut) refresh(); // the login would come in the place of what was typed
  };
  const go = (name) => {
    if (name === "next" && isReady() && card().dataset.next === ahead.address && !isBegun()) refresh(showAhead());
    else if (card()?.dataset[name]) window.location.assign(card().dataset[name]);
  };
  const press = (key) => {
    const [opens, field, button] = ["open", "focus", "key"].map((kind) => card()?.querySelector(`[data-${kind}="${key}"]`));
    if (opens) (Object.assign(opens, { open: true }).querySelector("select") ?? [...opens.querySelectorAll("textarea, input:not([type=hidden])")].pop())?.focus();
    else if (field) field.focus();
    else button?.form.requestSubmit(button);
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && isTyping(event.target)) event.target.blur();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.target.form?.requestSubmit();
    // A key that is held down is one answer.
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.body.dataset.keys) return;
    if (event.key === "j" || event.key === "k") go(event.key === "j" ? "next" : "previous");
    else if ("aeunrtz".includes(event.key)) press(event.key, event.preventDefault());
  });
  const isBegun = (but) => [...document.querySelectorAll("#review :is(.k-answer, .k-filters) :is(textarea, input, select)")].some((field) => field.form !== but && isChanged(field));
  document.addEventListener("submit", (event, { leaves } = event.target.dataset) => {
    const isKept = event.target.matches("#review [hx-swap=innerHTML]") && isBegun(event.target) && !confirm("What you have begun for another answer would be lost. Go on without it?");
    if (isKept || (leaves !== undefined && (leaves !== "unless-begun" || !isBegun()))) event.stopImmediatePropagation(event.preventDefault());
    if (event.defaultPrevented && !isKept && !isSaving(location.pathname)) save(event.target);
  }, true); // before htmx hears of it
  // The browser asks, whichever way somebody leaves: a key, a link, or the window itself.
  window.addEventListener("beforeunload", (event) => (isSaving() || isBegun()) && event.preventDefault());
  // Done: a form that is still filled in would not be taken away.
  document.addEventListener("htmx:beforeSwap", ({ detail: { requestConfig, xhr } }) => xhr.getResponseHeader("Kontor-Done") === "1" && requestConfig.elt.reset?.());
  document.addEventListener("htmx:afterSettle", fetchAhead);
  fetchAhead();
})();
