// Light or dark: as the system has it, unless the reader chose. A script of its own, so that it acts before all is drawn.
(() => {
  "use strict";
  const KEY = "guardfs-theme", NEXT = { auto: "dark", dark: "light", light: "auto" };
  const kept = () => {
    try { return localStorage.getItem(KEY); } catch { return null; } // storage may be forbidden
  };
  const now = () => document.documentElement.dataset.theme || "auto";

  function set(theme) {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    button.textContent = { auto: "Auto", dark: "Dark", light: "Light" }[theme];
    button.setAttribute("aria-label", `Colours: ${theme}. Change`);
    try { localStorage.setItem(KEY, theme); } catch { /* then it lasts as long as the page */ }
  }

  window.guardfs = window.guardfs || {};
  window.guardfs.theme = () => set(NEXT[now()]);
  set(Object.hasOwn(NEXT, kept() ?? "") ? kept() : "auto");
})();
