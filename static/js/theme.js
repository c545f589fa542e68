/* Light or dark, before anything is painted. The system decides until somebody presses the toggle; the choice is kept
   in a cookie. Loaded in <head> without defer. */
(() => {
  "use strict";
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const keep = (name, value) => (document.cookie = `kontor-${name}=${value}; path=/; max-age=31536000; samesite=lax`);
  let chosen = /\bkontor-theme=(\w+)/.exec(document.cookie)?.[1];
  const apply = () => (root.dataset.bsTheme = chosen ?? (system.matches ? "dark" : "light"));
  apply();
  system.addEventListener("change", apply);
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-toggle]")) return;
    keep("theme", (chosen = root.dataset.bsTheme === "dark" ? "light" : "dark"));
    apply();
  });
  // Times are shown in the person's zone: the server takes it from here (runs/zones.py).
  keep("zone", Intl.DateTimeFormat().resolvedOptions().timeZone);
})();
