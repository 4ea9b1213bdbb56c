// Every page: the theme, and tables that are sorted by a click on a heading and filtered.
"use strict";
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
  for (const table of document.querySelectorAll("table[data-filters]")) makeFilters(table);
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

// A select for each kind of row that a table names; rows of other kinds are hidden.
function makeFilters(table) {
  const rows = [...table.tBodies[0].rows];
  const form = document.createElement("form");
  form.className = "filters";
  const count = document.createElement("output");
  count.setAttribute("aria-live", "polite");
  const selects = table.dataset.filters.split(" ").map((name) => {
    const kinds = [...new Set(rows.map((row) => row.dataset[name]))];
    const select = document.createElement("select");
    select.name = name;
    select.append(new Option("all", ""), ...kinds.map((kind) => new Option(kind, kind)));
    select.value = table.dataset[name] ?? "";
    const label = document.createElement("label");
    const text = document.createElement("span");
    text.textContent = name;
    label.append(text, select);
    form.append(label);
    return select;
  });
  const filter = () => {
    for (const row of rows) {
      row.hidden = selects.some(({ name, value }) => value && row.dataset[name] !== value);
    }
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  };
  form.append(count);
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  (table.closest(".wide") ?? table).before(form);
  filter();
}
