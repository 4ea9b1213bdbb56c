// Click on a bar: its images are listed, with their captions and scores.
const splits = JSON.parse(document.getElementById("data").textContent);
const listed = document.getElementById("listed");
const MOST = 200;
const close = () => { listed.hidden = true; };
const element = (name, text) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
};
const list = (bar) => {
  const { split, metric, runs, low, high, last } = bar.dataset;
  const data = splits[split];
  const places = runs.split("-").map(Number);
  const scores = places.map((place) => data.runs[place].scores[metric]);
  const value = (k) => {
    if (scores.some((column) => column[k] === null)) return null;
    return scores.length === 1 ? scores[0][k] : scores[0][k] - scores[1][k];
  };
  const first = Number(low) === Math.min(...[...bar.parentNode.querySelectorAll(".bar")]
    .map((other) => Number(other.dataset.low)));
  const found = data.ids.map((id, k) => [value(k), k]).filter(([v]) => v !== null
    && (v >= Number(low) - 5e-5 || first) && (v < Number(high) - 5e-5 || last === "1"));
  found.sort((one, other) => one[0] - other[0]);
  const named = places.map((place) => data.runs[place].title).join(" minus ");
  listed.querySelector("h3").textContent =
    `${metric}, ${named}: ${found.length} images from ${low} to ${high}, split ${split}`;
  const body = listed.querySelector("div");
  body.replaceChildren();
  for (const [v, k] of found.slice(0, MOST)) {
    const entry = element("article");
    const shown = document.querySelector(`img[data-image="${data.ids[k]}"]`);
    if (shown) {
      const copy = element("img");
      copy.src = shown.src;
      copy.alt = shown.alt;
      entry.append(copy);
    }
    const text = element("div");
    text.append(element("p", `image ${data.ids[k]}: ${v.toFixed(3)}`));
    data.runs.forEach((run) => {
      const line = element("p");
      const key = element("i");
      key.className = `swatch ${run.colour}`;
      key.title = run.title;
      line.append(key, `${run.captions[k]} `);
      const own = run.scores[metric][k];
      if (own !== null) line.append(element("small", own.toFixed(3)));
      text.append(line);
    });
    entry.append(text);
    body.append(entry);
  }
  if (found.length > MOST) body.append(element("p", `and ${found.length - MOST} more`));
  listed.hidden = false;
};
for (const bar of document.querySelectorAll(".bar")) {
  bar.addEventListener("click", () => list(bar));
  bar.addEventListener("keydown", (event) => { if (event.key === "Enter") list(bar); });
}
listed.querySelector("button").addEventListener("click", close);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
