// Dark or light as Airflow is, before anything is painted: Airflow's own choice where the page stands in its frame or was
// opened beside it, else the system's.
"use strict";
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const airflow = () => {
    try {
      const classes = window.parent === window ? [] : [...window.parent.document.documentElement.classList];
      return ["dark", "light"].find((theme) => classes.includes(theme)) ?? localStorage.getItem("theme");
    } catch {
      return null; // another site's frame, or no storage
    }
  };
  const apply = () => {
    const chosen = airflow();
    const theme = chosen === "dark" || chosen === "light" ? chosen : system.matches ? "dark" : "light";
    if (document.documentElement.dataset.theme === theme) return;
    document.documentElement.dataset.theme = theme;
    document.dispatchEvent(new Event("themechange"));
  };
  apply();
  system.addEventListener("change", apply);
  window.addEventListener("storage", apply);
  try {
    if (window.parent !== window) {
      const html = window.parent.document.documentElement;
      new MutationObserver(apply).observe(html, { attributes: true, attributeFilter: ["class"] });
    }
  } catch {
    // another site's frame: it keeps its theme to itself
  }
})();
