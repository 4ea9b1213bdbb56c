// Before the page is drawn: the theme that its reader has chosen.
"use strict";
const root = document.documentElement;
const kept = {
  get theme() { try { return localStorage.getItem("capscope-theme"); } catch { return null; } },
  set theme(value) { try { localStorage.setItem("capscope-theme", value); } catch { /* a file */ } },
};
if (kept.theme) root.dataset.theme = kept.theme;
