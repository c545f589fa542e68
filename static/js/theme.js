/* Light or dark, before anything is painted. The system decides until somebody presses the toggle; the choice is
   kept in localStorage. Loaded in <head> without defer. */
(() => {
  "use strict";
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try {
      return localStorage.getItem("kontor-theme");
    } catch {
      return null; // Storage is switched off: follow the system.
    }
  };
  const apply = () => {
    root.dataset.bsTheme = stored() ?? (system.matches ? "dark" : "light");
  };
  apply();
  system.addEventListener("change", apply);
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-toggle]")) return;
    const next = root.dataset.bsTheme === "dark" ? "light" : "dark";
    root.dataset.bsTheme = next;
    try {
      localStorage.setItem("kontor-theme", next);
    } catch {
      // It holds for this page then.
    }
  });
})();
