// The gallery: search by word, captioner, split and what is right; open an image in the viewer.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector("#search");
  if (!form) return;
  const { make, known } = capscope;
  const results = document.querySelector("#found");
  const count = document.querySelector("#count");
  const opened = document.querySelector("#opened");
  const codes = { right: "r", wrong: "w", hallucinated: "h" };
  const AT_ONCE = 60;
  let first = null;
  let rest = [];
  const more = make("button", { type: "button", class: "more", onclick: grow }, "Show more");
  results.after(more);
  new IntersectionObserver(([seen]) => { if (seen.isIntersecting) grow(); },
    { rootMargin: "800px" }).observe(more);

  known.runs.forEach((title, run) => form.run.append(make("option", { value: run }, title)));
  for (const split of new Set(known.list.map((entry) => entry.split))) {
    form.split.append(make("option", { value: split }, split));
  }
  const words = new Map();
  for (const entry of known.list) {
    for (const word of new Set(entry.said.flatMap(([, said]) => said))) {
      words.set(word, (words.get(word) ?? 0) + 1);
    }
  }
  form.querySelector("datalist").append(...[...words].sort((a, b) => b[1] - a[1])
    .map(([word]) => make("option", { value: word })));

  // Which word of which caption of an image answers the search: [run, words, position], or null.
  function match(entry, wanted) {
    if (wanted.split && entry.split !== wanted.split) return null;
    for (const [run, said, verdicts] of entry.said) {
      if (wanted.run !== "" && run !== Number(wanted.run)) continue;
      if (!wanted.word && !wanted.verdict) return [run, said, null];
      const place = said.findIndex((word, i) =>
        (!wanted.word || word.toLowerCase().startsWith(wanted.word))
        && (!wanted.verdict || verdicts[i] === codes[wanted.verdict]));
      if (place >= 0) return [run, said, place];
    }
    return null;
  }

  function search() {
    const wanted = { word: form.word.value.trim().toLowerCase(), run: form.run.value,
      split: form.split.value, verdict: form.verdict.value };
    const found = known.list.map((entry) => [entry, match(entry, wanted)]).filter(([, hit]) => hit);
    first = found[0] ?? null;
    count.textContent = `${found.length} of ${known.list.length} images`;
    results.replaceChildren();
    rest = found;
    grow();
  }

  // Cards are made as far as one has scrolled, so that a search takes the same time in any gallery.
  function grow() {
    results.append(...rest.slice(0, AT_ONCE).map(([entry, [run, said, place]]) => {
      const text = make("span", {}, ...said.flatMap((word, i) =>
        [i ? " " : "", i === place ? make("mark", {}, word) : word]));
      const parameters = new URLSearchParams({ image: entry.id, run });
      if (place !== null) parameters.set("word", place);
      return make("li", {}, make("a", { href: `#${parameters}` },
        make("img", { src: entry.thumbnail, alt: "", loading: "lazy", decoding: "async",
          width: entry.size[0], height: entry.size[1] }), text));
    }));
    rest = rest.slice(AT_ONCE);
    more.hidden = !rest.length;
  }

  async function open() {
    const asked = new URLSearchParams(location.hash.slice(1));
    if (!asked.has("image")) { opened.replaceChildren(); return; }
    const number = (name) => asked.has(name) ? Number(asked.get(name)) : undefined;
    try {
      const shown = await capscope.load(asked.get("image"));
      const host = make("div");
      opened.replaceChildren(
        make("button", { type: "button", class: "close", onclick: close }, "Close"), host);
      capscope.show(host, shown, { run: number("run"), explainer: number("explainer"),
        word: number("word") ?? null }, (state) => {
        const now = new URLSearchParams({ image: shown.id, run: shown.captions[state.caption].run,
          explainer: state.explainer });
        if (state.word !== null) now.set("word", state.word);
        history.replaceState(null, "", `#${now}`);
      });
      opened.scrollIntoView({ block: "nearest" });
    } catch (error) {
      opened.textContent = error.message;
    }
  }

  function close() {
    const shown = new URLSearchParams(location.hash.slice(1)).get("image");
    history.replaceState(null, "", "#gallery");
    opened.replaceChildren();
    [...results.querySelectorAll("a")].find((link) =>
      new URLSearchParams(link.hash.slice(1)).get("image") === shown)?.focus();
  }

  form.addEventListener("input", search);
  form.addEventListener("reset", () => setTimeout(search));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (first) results.querySelector("a").click();
  });
  addEventListener("hashchange", open);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && opened.firstChild) close();
  });
  search();
  open();
});
