/* Light or dark, before anything is painted. The system decides until somebody presses the toggle; the choice is
   kept in localStorage, or for this page where that is switched off. Loaded in <head> without defer. */
(() => {
  "use strict";
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try {
    chosen = localStorage.getItem("kontor-theme");
  } catch {}
  const apply = () => (root.dataset.bsTheme = chosen ?? (system.matches ? "dark" : "light"));
  apply();
  system.addEventListener("change", apply);
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-toggle]")) return;
    chosen = root.dataset.bsTheme === "dark" ? "light" : "dark";
    apply();
    try {
      localStorage.setItem("kontor-theme", chosen);
    } catch {}
  });
  // Times are shown in the person's zone: the server takes it from here (runs/zones.py).
  document.cookie = `kontor-zone=${Intl.DateTimeFormat().resolvedOptions().timeZone}; path=/; max-age=31536000; samesite=lax`;
})();
