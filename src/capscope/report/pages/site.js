// Every page: the theme, and tables that are sorted by a click on a heading.
"use strict";
const root = document.documentElement;
const kept = {
  get theme() { try { return localStorage.getItem("capscope-theme"); } catch { return null; } },
  set theme(value) { try { localStorage.setItem("capscope-theme", value); } catch { /* a file */ } },
};
if (kept.theme) root.dataset.theme = kept.theme;

document.addEventListener("DOMContentLoaded", () => {
  const toggle = document.querySelector(".theme");
  const isDark = () => root.dataset.theme
    ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { toggle.setAttribute("aria-pressed", String(isDark())); };
  toggle?.addEventListener("click", () => {
    kept.theme = root.dataset.theme = isDark() ? "light" : "dark";
    label();
  });
  if (toggle) label();
  for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);
});

function makeSortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") === "descending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const rows = [...table.tBodies[0].rows].sort((first, second) => {
        const [a, b] = [key(first), key(second)];
        const [x, y] = [parseFloat(a), parseFloat(b)];
        if (Number.isNaN(x) && Number.isNaN(y)) return a.localeCompare(b) * (up ? 1 : -1);
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
        return (x - y) * (up ? 1 : -1);
      });
      table.tBodies[0].append(...rows);
    });
  });
}
