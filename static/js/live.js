/* Keeps pages true without reloading.
 *
 * A part of a page that changes carries an id and
 *     data-live="item:12 run:5"    what it shows; `all` for any event, `department:1+kind:failed` for both together
 *     data-live-url="/runs/5/panel/"  where the same partial comes from
 * One EventSource a page brings log events ({item, run, step, ...}). A part that an event touches is fetched again,
 * at most once a second, and morphed in place. A failed fetch changes nothing on the page. While the stream is down
 * all parts are fetched every 10 s; parts with something [data-changing] (a lease may run out without an event) every
 * 5 s; both a little later on some pages than on others. The indicator says which it is, and when the page was last
 * known to be true. Where nobody, or somebody else, is signed in by now, #signed-out is shown until they are again.
 * Rows [data-row] that a person has scrolled into do not move, nor does what is counted while [data-live-pause] (key p)
 * is pressed, not even by an answer that was asked for before: what happens meanwhile is counted on the button #news, which
 * shows it; so does going back to the top. A line counts once, by its id, whether its event or the answer tells of it.
 * data-live-noun="new line|new lines" says what is counted.
 */
(() => {
  "use strict";
  // The server beats every 15 s. No two pages poll in step, or a server that comes back would hear all at one moment.
  const [POLL_MS, CHANGING_MS] = [10000, 5000].map((pause) => pause * (1 + Math.random() / 2));
  const [THROTTLE_MS, SILENCE_MS] = [1000, 40000];

  const [indicator, news, signedOut] = ["live", "news", "signed-out"].map((id) => document.getElementById(id));
  const address = document.body.dataset.events;
  if (!indicator || !address) return;

  const waiting = new Set(); // ids of parts that are about to be fetched
  // By the id of a part: when it was last asked for; the ids of events and rows that it does not show; why and for
  // which of them it was asked for last. And which failed last: one that comes must not hide that another does not.
  const [fetched, touched, asked, failed] = [new Map(), new Map(), new Map(), new Set()];
  // The stream was last asked for at `triedAt` and heard at `heardAt`; the page was last known to be true at `trueAt`.
  const openedAt = Date.now();
  let [source, triedAt, heardAt, trueAt, isUp, isPaused] = [null, 0, 0, openedAt, false, false];

  const parts = () => [...document.querySelectorAll("[data-live]")];
  const isBusy = (part) => part.querySelector(".htmx-request:not([data-live])") !== null;
  const hasFailed = () => [...failed].some((id) => document.getElementById(id)); // of those that poll by themselves too
  // A pause is for what is counted: the menu's badge and the banners go on being true.
  const isStill = (part) => (isPaused && "liveNoun" in part.dataset) || part.querySelector("[data-row]")?.getBoundingClientRect().top < 0;

  const say = () => {
    const seconds = Math.floor((Date.now() - trueAt) / 1000);
    const state = hasFailed() || !isUp || !signedOut.hidden ? (heardAt || hasFailed() ? "down" : "connecting") : "live";
    const since = seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min`;
    const down = `${signedOut.hidden ? "reconnecting" : "signed out"}, last update ${since} ago`;
    const text = state === "down" ? down : state;
    const label = indicator.querySelector("[data-text]");
    if (indicator.dataset.state !== state) indicator.dataset.state = state;
    if (label.textContent !== text) label.textContent = text;
    const still = parts().filter((part) => touched.has(part.id) && isStill(part));
    const count = Math.max(0, ...still.map((part) => touched.get(part.id).size));
    if (news.hidden && count) document.getElementById("said").textContent = "There are changes.";
    news.hidden = !count;
    const [one, more] = still[0]?.dataset.liveNoun?.split("|") ?? ["change", "changes"];
    news.textContent = `${count.toLocaleString("en")} ${count === 1 ? one : more}, show`;
  };

  const hold = ({ id }, ids) => touched.set(id, new Set([...(touched.get(id) ?? []), ...ids]));
  // `why`: what a person has asked for is shown, what an event has asked for only to who does not read.
  const refresh = (why) => (part) => {
    asked.set(part.id, { why, ids: touched.get(part.id) ?? [] });
    touched.delete(part.id);
    fetched.set(part.id, Date.now());
    const headers = { "Kontor-Refresh": why };
    htmx.ajax("GET", part.dataset.liveUrl, { source: part, target: part, swap: "morph:outerHTML", headers }).catch(() => {});
  };
  // `isBlind`: only the answer can tell what is new.
  const schedule = ({ id }, isBlind, spread = 0) => {
    if (waiting.has(id)) return;
    waiting.add(id);
    setTimeout(() => {
      waiting.delete(id);
      // A hidden page costs nobody anything; it is refreshed when it is looked at.
      const part = document.getElementById(id);
      if (part && !document.hidden && (isBlind || !isStill(part))) refresh("event")(part);
    }, Math.max(Math.random() * spread, (fetched.get(id) ?? 0) + THROTTLE_MS - Date.now()));
  };
  const lookAgain = (spread) => parts().forEach((part) => schedule(part, true, spread));
  const catchUp = () => {
    parts().filter((part) => touched.has(part.id) && !isStill(part)).forEach((part) => schedule(part));
    say();
  };

  const heard = () => {
    [heardAt, isUp] = [Date.now(), true];
    if (!hasFailed()) trueAt = heardAt;
    say();
  };
  // Each stream begins with who is signed in, and the token that their forms need by now: another tab may have signed
  // out and in again. What was typed here must not be sent by anybody else.
  const meet = ({ person, token }) => {
    const wasOut = !signedOut.hidden;
    signedOut.hidden = person === document.body.dataset.person;
    if (!signedOut.hidden) return say();
    document.querySelectorAll("[name=csrfmiddlewaretoken]").forEach((field) => (field.value = token));
    const headers = { ...JSON.parse(document.body.getAttribute("hx-headers")), "X-CSRFToken": token };
    document.body.setAttribute("hx-headers", JSON.stringify(headers));
    if (wasOut) lookAgain();
  };
  const connect = () => {
    source?.close();
    triedAt = Date.now();
    source = new EventSource(address);
    source.addEventListener("hello", ({ data }) => meet(JSON.parse(data)));
    source.addEventListener("beat", heard);
    source.addEventListener("refetch", ({ data }) => heard(lookAgain(Number(data))));
    source.addEventListener("log", ({ data, lastEventId }) => {
      const names = new Set(["all", ...Object.entries(JSON.parse(data)).map(([name, value]) => `${name}:${value}`)]);
      const isMeant = (token) => token.split("+").every((name) => names.has(name));
      parts().filter((part) => part.dataset.live.split(" ").some(isMeant)).forEach((part) => hold(part, [lastEventId]));
      catchUp(heard());
    });
    for (const lost of ["error", "away"]) source.addEventListener(lost, () => say(([isUp, heardAt] = [false, heardAt || 1])));
  };

  // An answer asked for before a person chose another tab or row of the part must not put the old one back, nor must
  // one asked for before they began to read, or take away the form whose answer is on its way: htmx looks from there
  // for where the answer's message belongs.
  document.addEventListener("htmx:beforeSwap", ({ detail }) => {
    const [part, { path, headers }] = [detail.target, detail.requestConfig];
    const why = detail.shouldSwap && headers["Kontor-Refresh"];
    if (why && path !== (part.dataset.liveUrl ?? path)) detail.shouldSwap = false;
    else if (why && (isBusy(part) || (why === "event" && isStill(part)))) {
      detail.shouldSwap = false;
      if (why === "event" && asked.get(part.id).why === "person") return; // the next answer is theirs
      const rows = [...new DOMParser().parseFromString(detail.serverResponse, "text/html").querySelectorAll("[data-row]")];
      const fresh = rows.filter((row) => !document.getElementById(row.id)).map((row) => row.id.replace("line-", ""));
      hold(part, [...(asked.get(part.id)?.ids ?? []), ...fresh]);
    }
  });
  document.addEventListener("htmx:afterRequest", ({ detail }) => {
    if ([401, 403].includes(detail.xhr.status)) connect(); // the stream says who is signed in
    if (!detail.requestConfig?.headers["Kontor-Refresh"]) return catchUp();
    const { id } = detail.target;
    failed[detail.successful ? "delete" : "add"](id);
    if (failed.has(id)) hold(detail.target, asked.get(id)?.ids ?? []);
    else if (!hasFailed()) trueAt = Date.now();
    say();
  });
  // What is typed would be lost at the door.
  document.addEventListener("submit", (event) => !signedOut.hidden && event.target.method === "post" && event.preventDefault(), true);
  // An action has been done: its answer is a message, and the parts of the page fetch what it changed.
  document.addEventListener("kontor:changed", ({ target }) => {
    target.closest?.("form")?.reset();
    parts().forEach(refresh("person"));
  });
  // A browser allows six connections to a server: a hidden page gives its own back.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return connect(lookAgain());
    source.close();
    isUp = false;
  });
  document.addEventListener("scroll", () => touched.size && catchUp(), { passive: true });
  news.addEventListener("click", () => {
    scrollTo(0, 0);
    parts().filter((part) => touched.has(part.id)).forEach(refresh("person"));
    say();
  });
  const pause = document.querySelector("[data-live-pause]");
  pause?.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", isPaused);
    pause.lastChild.textContent = isPaused ? "Resume" : "Pause";
    catchUp();
  });

  setInterval(() => {
    const now = Date.now();
    if (isUp && now - heardAt > SILENCE_MS) isUp = false;
    if (document.hidden) return;
    // The browser has given up (an error page instead of a stream): try again.
    if (source.readyState === EventSource.CLOSED && now - triedAt > POLL_MS) connect();
    for (const part of parts()) {
      const pause = part.querySelector("[data-changing]") ? CHANGING_MS : isUp && !hasFailed() ? Infinity : POLL_MS;
      if (now - (fetched.get(part.id) ?? openedAt) > pause) schedule(part);
    }
    say();
  }, 1000);
  connect(say());
})();
