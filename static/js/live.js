/* Keeps pages true without reloading.
 *
 * A part of a page that changes carries an id and
 *     data-live="item:12 run:5"    what it shows; `all` for any event
 *     data-live-url="/runs/5/panel/"  where the same partial comes from
 * One EventSource a page brings log events ({item, run, step, ...}). A part that an event touches is fetched again,
 * at most once a second, and morphed in place. A failed fetch changes nothing on the page. While the stream is down
 * all parts are fetched every 10 s; parts with something [data-changing] (a lease may run out without an event) every
 * 5 s. The indicator says which it is, and when the page was last known to be true.
 */
(() => {
  "use strict";
  const THROTTLE_MS = 1000;
  const POLL_MS = 10000;
  const CHANGING_MS = 5000;
  const SILENCE_MS = 40000; // The server beats every 15 s.

  const indicator = document.getElementById("live");
  const address = document.body.dataset.events;
  if (!indicator || !address) return;

  const waiting = new Map(); // id of a part -> timer
  const fetched = new Map(); // id of a part -> when it was last asked for
  let trueAt = Date.now(); // when the page was last known to show what is so
  let heardAt = 0;
  let isUp = false;
  let hasFailed = false;

  const parts = () => [...document.querySelectorAll("[data-live]")];

  const say = () => {
    const seconds = Math.floor((Date.now() - trueAt) / 1000);
    const state = hasFailed || !isUp ? (heardAt || hasFailed ? "down" : "connecting") : "live";
    const since = seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min`;
    const text = { live: "live", connecting: "connecting", down: `reconnecting, last update ${since} ago` }[state];
    const label = indicator.querySelector("[data-text]");
    if (indicator.dataset.state !== state) indicator.dataset.state = state;
    if (label.textContent !== text) label.textContent = text;
  };

  const refresh = (part) => {
    if (!part.isConnected) return;
    fetched.set(part.id, Date.now());
    htmx
      .ajax("GET", part.dataset.liveUrl, {
        source: part,
        target: part,
        swap: "morph:outerHTML",
        headers: { "Kontor-Refresh": "1" },
      })
      .catch(() => {});
  };

  const schedule = (part) => {
    if (waiting.has(part.id)) return;
    const pause = Math.max(0, (fetched.get(part.id) ?? 0) + THROTTLE_MS - Date.now());
    const id = part.id;
    waiting.set(
      id,
      setTimeout(() => {
        waiting.delete(id);
        // A hidden page costs nobody anything; it is refreshed when it is looked at.
        const now = document.getElementById(id);
        if (now && !document.hidden) refresh(now);
      }, pause),
    );
  };
  const scheduleAll = () => parts().forEach(schedule);

  const touches = (part, event) => {
    const names = ["all", `item:${event.item}`, `run:${event.run}`, `department:${event.department}`];
    return part.dataset.live.split(" ").some((name) => names.includes(name));
  };

  const heard = () => {
    heardAt = Date.now();
    isUp = true;
    if (!hasFailed) trueAt = heardAt;
    say();
  };

  let source = null;
  const connect = () => {
    if (source) source.close();
    source = new EventSource(address);
    source.addEventListener("open", heard);
    source.addEventListener("beat", heard);
    source.addEventListener("refetch", () => {
      heard();
      scheduleAll();
    });
    source.addEventListener("log", (message) => {
      heard();
      const event = JSON.parse(message.data);
      parts().filter((part) => touches(part, event)).forEach(schedule);
    });
    source.addEventListener("error", () => {
      isUp = false;
      heardAt ||= 1;
      say();
    });
  };

  const isRefresh = (event) => Boolean(event.detail.requestConfig?.headers["Kontor-Refresh"]);
  document.addEventListener("htmx:afterRequest", (event) => {
    if (!isRefresh(event)) return;
    hasFailed = !event.detail.successful;
    if (!hasFailed) trueAt = Date.now();
    say();
  });
  // An action has been done: its answer is a message, and the parts of the page fetch what it changed.
  document.addEventListener("kontor:changed", (event) => {
    event.target.closest?.("form")?.reset();
    scheduleAll();
  });
  // A browser allows six connections to a server: a hidden page gives its own back.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      source.close();
      isUp = false;
    } else {
      connect();
      scheduleAll();
    }
  });

  setInterval(() => {
    const now = Date.now();
    if (isUp && now - heardAt > SILENCE_MS) isUp = false;
    if (document.hidden) return;
    if (source.readyState === EventSource.CLOSED && now - (fetched.get("") ?? 0) > POLL_MS) {
      fetched.set("", now); // The browser has given up (an error page instead of a stream): try again.
      connect();
    }
    for (const part of parts()) {
      const pause = part.querySelector("[data-changing]") ? CHANGING_MS : isUp ? Infinity : POLL_MS;
      if (now - (fetched.get(part.id) ?? now - 0) > pause) schedule(part);
      if (!fetched.has(part.id)) fetched.set(part.id, now);
    }
    say();
  }, 1000);
  connect();
  say();
})();
