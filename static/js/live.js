/* Keeps pages true without reloading.
 *
 * A part of a page that changes carries an id and
 *     data-live="item:12 run:5"    what it shows; `all` for any event, `department:1+kind:failed` for both together
 *     data-live-url="/runs/5/panel/"  where the same partial comes from
 * One EventSource a page brings log events ({item, run, step, ...}). A part that an event touches is fetched again,
 * at most once a second, and morphed in place. A failed fetch changes nothing on the page. While the stream is down
 * all parts are fetched every 10 s; parts with something [data-changing] (a lease may run out without an event) every
 * 5 s. The indicator says which it is, and when the page was last known to be true.
 * Rows [data-row] that a person has scrolled into do not move, nor does anything while [data-live-pause] (key p) is
 * pressed: what happens meanwhile is counted on the button #news, which shows it; so does going back to the top.
 * data-live-noun="new line|new lines" says what is counted.
 */
(() => {
  "use strict";
  const [THROTTLE_MS, POLL_MS, CHANGING_MS, SILENCE_MS] = [1000, 10000, 5000, 40000]; // The server beats every 15 s.

  const indicator = document.getElementById("live");
  const news = document.getElementById("news");
  const address = document.body.dataset.events;
  if (!indicator || !address) return;

  const waiting = new Set(); // ids of parts that are about to be fetched
  const fetched = new Map(); // id of a part -> when it was last asked for
  const held = new Map(); // id of a part that stands still -> how many events have touched it
  let source = null;
  let triedAt = 0; // when the stream was last asked for
  let trueAt = Date.now(); // when the page was last known to show what is so
  let heardAt = 0;
  let [isUp, hasFailed, isPaused] = [false, false, false];

  const parts = () => [...document.querySelectorAll("[data-live]")];
  const isStill = (part) => isPaused || part.querySelector("[data-row]")?.getBoundingClientRect().top < 0;

  const say = () => {
    const seconds = Math.floor((Date.now() - trueAt) / 1000);
    const state = hasFailed || !isUp ? (heardAt || hasFailed ? "down" : "connecting") : "live";
    const since = seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min`;
    const text = { live: "live", connecting: "connecting", down: `reconnecting, last update ${since} ago` }[state];
    const label = indicator.querySelector("[data-text]");
    if (indicator.dataset.state !== state) indicator.dataset.state = state;
    if (label.textContent !== text) label.textContent = text;
    const count = Math.max(0, ...held.values());
    if (news.hidden && count) document.getElementById("said").textContent = "There are changes.";
    news.hidden = !count;
    const [one, more] = parts().find((part) => held.has(part.id))?.dataset.liveNoun?.split("|") ?? ["change", "changes"];
    news.textContent = `${count.toLocaleString("en")} ${count === 1 ? one : more}, show`;
  };

  const refresh = (part) => {
    held.delete(part.id);
    fetched.set(part.id, Date.now());
    const headers = { "Kontor-Refresh": "1" };
    htmx.ajax("GET", part.dataset.liveUrl, { source: part, target: part, swap: "morph:outerHTML", headers }).catch(() => {});
  };
  const schedule = ({ id }) => {
    if (waiting.has(id)) return;
    waiting.add(id);
    setTimeout(() => {
      waiting.delete(id);
      // A hidden page costs nobody anything; it is refreshed when it is looked at.
      const part = document.getElementById(id);
      if (part && !document.hidden && !isStill(part)) refresh(part);
    }, Math.max(0, (fetched.get(id) ?? 0) + THROTTLE_MS - Date.now()));
  };
  const touch = (part) => {
    if (isStill(part)) held.set(part.id, (held.get(part.id) ?? 0) + 1);
    else schedule(part);
  };
  const catchUp = () => {
    parts().filter((part) => held.has(part.id) && !isStill(part)).forEach(refresh);
    say();
  };

  const heard = () => {
    heardAt = Date.now();
    isUp = true;
    if (!hasFailed) trueAt = heardAt;
    say();
  };
  const connect = () => {
    source?.close();
    triedAt = Date.now();
    source = new EventSource(address);
    source.addEventListener("open", heard);
    source.addEventListener("beat", heard);
    source.addEventListener("refetch", () => {
      parts().forEach(touch);
      heard();
    });
    source.addEventListener("log", ({ data }) => {
      const names = new Set(["all", ...Object.entries(JSON.parse(data)).map(([name, value]) => `${name}:${value}`)]);
      const isMeant = (token) => token.split("+").every((name) => names.has(name));
      parts().filter((part) => part.dataset.live.split(" ").some(isMeant)).forEach(touch);
      heard();
    });
    source.addEventListener("error", () => {
      isUp = false;
      heardAt ||= 1;
      say();
    });
  };

  // An answer asked for before a person chose another tab or row of the part must not put the old one back.
  document.addEventListener("htmx:beforeSwap", ({ detail }) => {
    const { path, headers } = detail.requestConfig;
    if (headers["Kontor-Refresh"] && path !== detail.target.dataset.liveUrl) detail.shouldSwap = false;
  });
  document.addEventListener("htmx:afterRequest", ({ detail }) => {
    if (!detail.requestConfig?.headers["Kontor-Refresh"]) return;
    hasFailed = !detail.successful;
    if (!hasFailed) trueAt = Date.now();
    say();
  });
  // An action has been done: its answer is a message, and the parts of the page fetch what it changed.
  document.addEventListener("kontor:changed", ({ target }) => {
    target.closest?.("form")?.reset();
    parts().forEach(refresh);
  });
  // A browser allows six connections to a server: a hidden page gives its own back.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) {
      connect();
      parts().forEach(touch);
    } else {
      source.close();
      isUp = false;
    }
  });
  document.addEventListener("scroll", () => held.size && catchUp(), { passive: true });
  news.addEventListener("click", () => {
    scrollTo(0, 0);
    parts().filter((part) => held.has(part.id)).forEach(refresh);
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
      const pause = part.querySelector("[data-changing]") ? CHANGING_MS : isUp && !hasFailed ? Infinity : POLL_MS;
      if (!fetched.has(part.id)) fetched.set(part.id, now);
      else if (now - fetched.get(part.id) > pause) schedule(part);
    }
    say();
  }, 1000);
  connect();
  say();
})();
