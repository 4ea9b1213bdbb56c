// The viewer: an image, a caption, and what an explainer says of each of its words. Everything
// that comes from data becomes text; nothing is parsed as markup.
"use strict";
const capscope = (() => {
  const known = { runs: [], explainers: [], images: new Map(), waiting: new Map(), list: [] };
  const marks = { right: ["✓", "right"], wrong: ["≠", "wrong: the object is otherwise"],
    hallucinated: ["✗", "hallucinated: not in the image"] };

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  // What data files call.
  function about(found) { Object.assign(known, found); }
  function list(found) { known.list = found; }
  function image(found) {
    known.images.set(String(found.id), found);
    known.waiting.get(String(found.id))?.forEach((ready) => ready(found));
    known.waiting.delete(String(found.id));
  }

  // An image from its own small file, which works from disk as well.
  function load(id) {
    const key = String(id);
    if (known.images.has(key)) return Promise.resolve(known.images.get(key));
    return new Promise((ready, fail) => {
      if (known.waiting.has(key)) { known.waiting.get(key).push(ready); return; }
      known.waiting.set(key, [ready]);
      const script = make("script", { src: `gallery/${encodeURIComponent(key)}.js` });
      script.onerror = () => fail(new Error(`gallery/${key}.js cannot be read`));
      document.head.append(script);
    });
  }

  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  // Colour and opacity of each level (128 is none), as the pictures of `capscope explain` have them.
  const ramps = new Map();
  function ramp(name) {
    if (!ramps.has(name)) ramps.set(name, new Uint32Array(bytesOf(known.ramps[name]).buffer));
    return ramps.get(name);
  }

  function coloured(width, height, levels, step, name) {
    const canvas = make("canvas", { width, height });
    const pen = canvas.getContext("2d");
    const drawn = pen.createImageData(width, height);
    const pixels = new Uint32Array(drawn.data.buffer);
    const colours = ramp(name);
    for (let i = 0; i < pixels.length; i += 1) pixels[i] = colours[levels[i * step]];
    pen.putImageData(drawn, 0, 0);
    return canvas;
  }

  // The levels of a fine map are a picture with all words side by side.
  async function fine(map) {
    const picture = new Image();
    picture.src = `data:image/jpeg;base64,${map.levels}`;
    await picture.decode();
    const { naturalWidth: width, naturalHeight: height } = picture;
    const pen = make("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
    pen.drawImage(picture, 0, 0);
    return coloured(width, height, pen.getImageData(0, 0, width, height).data, 4, "maps");
  }

  const decoded = new Map();
  function layersOf(map) {
    if (decoded.size > 600) decoded.clear();
    if (!decoded.has(map)) {
      decoded.set(map, map.kind === "fine" ? fine(map) : Promise.resolve(map.kind === "cells"
        ? wordsOf(map).map((levels) => coloured(map.w, map.h, levels, 1, "maps")) : wordsOf(map)));
    }
    return decoded.get(map);
  }

  function wordsOf(map) {
    const bytes = bytesOf(map.levels);
    return map.where.map((_, k) => bytes.subarray(k * map.w * map.h, (k + 1) * map.w * map.h));
  }

  // Regions: areas tinted, the strongest outlined, the strongest of all on top.
  const RASTER = 128;
  function drawRegions(pen, levels, boxes) {
    const strengths = Array.from(levels, (level) =>
      Math.sign(level - 128) * (Math.abs(level - 128) / 127) ** (1 / known.power));
    const area = new Float32Array(RASTER * RASTER);
    boxes.forEach(([x0, y0, x1, y1], region) => {
      const [left, top, right, bottom] = [x0, y0, x1, y1].map((x) => Math.round(x * RASTER));
      for (let y = top; y < bottom; y += 1) {
        for (let x = left; x < right; x += 1) {
          area[y * RASTER + x] += strengths[region];
        }
      }
    });
    const most = area.reduce((largest, sum) => Math.max(largest, Math.abs(sum)), 1);
    const tints = area.map((sum) =>
      128 + Math.round(127 * Math.sign(sum) * Math.abs(sum / most) ** known.power));
    const { width, height } = pen.canvas;
    pen.imageSmoothingEnabled = true;
    pen.drawImage(coloured(RASTER, RASTER, tints, 1, "areas"), 0, 0, width, height);
    const order = [...strengths.keys()]
      .sort((a, b) => Math.abs(strengths[b]) - Math.abs(strengths[a])).slice(0, known.outlined);
    for (const region of order.reverse()) {
      const [x0, y0, x1, y1] = boxes[region];
      const strength = Math.abs(strengths[region]);
      if (strength < known.weak || x1 <= x0 || y1 <= y0) continue;
      const [red, green, blue] = new Uint8Array(ramp("maps").buffer, 4 * levels[region], 3);
      const thick = Math.max(1, strength * Math.min(width, height) / 55);
      pen.lineWidth = thick;
      pen.strokeStyle = `rgb(${red} ${green} ${blue})`;
      pen.strokeRect(x0 * width + thick / 2, y0 * height + thick / 2,
        (x1 - x0) * width - thick, (y1 - y0) * height - thick);
    }
  }

  // The relevance for one word over the faded image; without a map, the image itself.
  function panel(shown, width, alternative) {
    const canvas = make("canvas", { "aria-hidden": "true" });
    const picture = make("img", { src: shown.picture, alt: "", decoding: "async" });
    const frame = make("span", { class: "panel", role: "img", "aria-label": alternative },
      picture, canvas);
    frame.show = async (map, word, text, boxes) => {
      frame.classList.toggle("faded", Boolean(map));
      if (text) frame.setAttribute("aria-label", text);
      const turn = frame.turn = (frame.turn ?? 0) + 1;
      if (!map) { canvas.width = 0; return; }
      const layers = await layersOf(map);
      if (!picture.complete) await picture.decode().catch(() => null);
      if (turn !== frame.turn) return;
      const scale = Math.min(2, window.devicePixelRatio || 1);
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(canvas.width * (picture.naturalHeight || 1)
        / (picture.naturalWidth || 1));
      const pen = canvas.getContext("2d");
      if (map.kind === "regions") { drawRegions(pen, layers[word], boxes); return; }
      pen.imageSmoothingEnabled = map.kind === "fine";
      pen.imageSmoothingQuality = "high";
      const [layer, left] = map.kind === "fine"
        ? [layers, word * layers.width / map.where.length] : [layers[word], 0];
      pen.drawImage(layer, left, 0, map.w, map.h, 0, 0, canvas.width, canvas.height);
    };
    return frame;
  }

  function describe(caption, map, word) {
    const judged = caption.verdicts[word];
    const parts = [`${caption.words[word]}: probability ${caption.p[word].toFixed(2)}`];
    if (judged) parts.push(marks[judged][1]);
    if (map) {
      const [place, share] = map.where[word];
      parts.push(`${known.explainers[map.e]}: most of what speaks for it is ${known.places[place]} `
        + `(${Math.round(100 * share)} %)`);
      const before = map.before?.[word] ?? [];
      const strongest = before.reduce((best, x, i) =>
        Math.abs(x) > Math.abs(before[best] ?? 0) ? i : best, 0);
      if (before.length && before[strongest]) {
        parts.push(`of the words before, “${caption.words[strongest]}” speaks most `
          + (before[strongest] > 0 ? "for it" : "against it"));
      }
    }
    return `${parts.join("; ")}.`;
  }

  function tint(strength) {
    if (!strength) return null;
    const side = strength > 0 ? "var(--for-rgb)" : "var(--against-rgb)";
    return `background: rgb(${side} / ${(0.08 + 0.5 * Math.abs(strength)).toFixed(2)})`;
  }

  // The portrait of one image: choose captioner and explainer, point at words.
  function show(host, shown, start = {}, changed = () => {}) {
    const state = {
      caption: Math.max(0, shown.captions.findIndex((c) => c.run === start.run)),
      explainer: start.explainer ?? shown.captions[0].maps[0]?.e ?? 0,
      word: start.word ?? null,
    };
    const large = panel(shown, 384, shown.name);
    const strip = make("ol", { class: "strip" });
    const said = make("p", { class: "said", "aria-live": "polite" });
    const comparison = make("div", { class: "comparison" });
    const scores = make("p", { class: "scores" });
    const caption = () => shown.captions[state.caption];
    const mapOf = (c) => c.maps.find((map) => map.e === state.explainer) ?? null;

    const select = (label, options, value, pick) => {
      const box = make("select", { name: label.toLowerCase(), onchange: (event) => pick(Number(event.target.value)) },
        ...options.map(([number, text]) => make("option", { value: number }, text)));
      box.value = value;
      return make("label", {}, make("span", {}, label), box);
    };
    const choices = make("div", { class: "choices" });
    if (shown.captions.length > 1) {
      choices.append(select("Captioner", shown.captions.map((c, i) => [i, known.runs[c.run]]),
        state.caption, (value) => { state.caption = value; state.word = null; draw(); }));
    }
    const explainers = [...new Set(shown.captions.flatMap((c) => c.maps.map((map) => map.e)))];
    const explainerChoice = select("Explainer", explainers.map((e) => [e, known.explainers[e]]),
      state.explainer, (value) => { state.explainer = value; draw(); });
    if (explainers.length > 1) choices.append(explainerChoice);

    function point(word) {
      const map = mapOf(caption());
      const at = word ?? state.word;
      [...strip.children].forEach((item, i) => {
        item.firstChild.setAttribute("aria-pressed", String(i === state.word));
        item.classList.toggle("pointed", i === at);
        const strength = at === null ? 0 : map?.before?.[at]?.[i] ?? 0;
        item.querySelector("b").setAttribute("style", tint(strength) ?? "");
      });
      if (at === null) {
        large.show(null, 0, shown.name);
        said.textContent = "Point at a word, or move to it with the tab and arrow keys.";
        comparison.replaceChildren();
        return;
      }
      const text = describe(caption(), map, at);
      large.show(map, at, text, caption().boxes);
      said.textContent = text;
      if (comparison.at !== at || comparison.of !== state.caption) compare(at);
    }

    // The same word by every explainer and captioner that has it, side by side.
    function compare(at) {
      comparison.at = at;
      comparison.of = state.caption;
      const word = caption().words[at];
      const columns = explainers;
      if (columns.length * shown.captions.length < 2) { comparison.replaceChildren(); return; }
      const head = make("tr", {}, make("th", { scope: "col" }, "captioner"),
        ...columns.map((e) => make("th", { scope: "col" }, known.explainers[e])));
      const order = [caption(), ...shown.captions.filter((c) => c !== caption())];
      const rows = order.map((c) => {
        const place = c === caption() ? at : c.words.indexOf(word);
        const name = make("th", { scope: "row" }, known.runs[c.run]);
        if (place < 0) {
          return make("tr", { class: "absent" }, name,
            make("td", { colspan: columns.length }, `says “${c.words.join(" ")}”`));
        }
        return make("tr", {}, name, ...columns.map((e) => {
          const map = c.maps.find((one) => one.e === e);
          if (!map) return make("td", {}, "–");
          const small = panel(shown, 96, describe(c, map, place));
          small.show(map, place, null, c.boxes);
          return make("td", {}, small);
        }));
      });
      comparison.replaceChildren(
        make("h2", {}, `“${word}” side by side`),
        make("div", { class: "wide", tabindex: "0", role: "region",
          "aria-label": `The word ${word} by explainer and captioner` },
        make("table", { class: "small-multiples" }, make("thead", {}, head),
          make("tbody", {}, ...rows))));
    }

    function draw() {
      const c = caption();
      const map = mapOf(c) ?? c.maps[0] ?? null;
      if (map && map.e !== state.explainer) {
        state.explainer = map.e;
        explainerChoice.querySelector("select").value = map.e;
      }
      comparison.at = null;
      scores.textContent = [shown.split, ...c.scores.map(([name, value]) => `${name} ${value}`)]
        .filter(Boolean).join(" · ");
      strip.replaceChildren(...c.words.map((word, i) => {
        const judged = c.verdicts[i];
        const small = panel(shown, 96, "");
        small.setAttribute("aria-hidden", "true");
        small.show(map, i, null, c.boxes);
        const button = make("button", {
          type: "button", "aria-pressed": "false", class: judged ?? "",
          onmouseenter: () => point(i), onfocus: () => point(i),
          onclick: () => { state.word = state.word === i ? null : i; point(i); changed(state); },
          onkeydown: (event) => {
            const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: c.words.length - 1 };
            if (event.key in to) {
              strip.children[to[event.key]]?.firstChild.focus();
              event.preventDefault();
            }
          },
        }, small, make("b", {}, word),
        make("span", { class: "p" }, make("span", { class: "hidden" }, " probability "),
          c.p[i].toFixed(2)),
        judged ? make("span", { class: "mark" }, make("span", { "aria-hidden": "true" },
          marks[judged][0]), make("span", { class: "hidden" }, ` ${judged}`)) : null);
        return make("li", {}, button);
      }));
      if (state.word !== null && state.word >= c.words.length) state.word = null;
      point(null);
      changed(state);
    }

    strip.addEventListener("mouseleave", () => point(null));
    strip.addEventListener("focusout", (event) => {
      if (!strip.contains(event.relatedTarget)) point(null);
    });
    host.replaceChildren(make("article", { class: "portrait", "aria-label": shown.name },
      make("div", { class: "stage" }, large, scores),
      make("div", { class: "telling" }, choices, strip, said,
        shown.references.length
          ? make("details", { class: "references", open: "" }, make("summary", {}, "References"),
            make("ul", {}, ...shown.references.map((text) => make("li", {}, text))))
          : null),
      comparison));
    draw();
  }

  return { about, list, image, load, show, make, known };
})();

document.addEventListener("DOMContentLoaded", () => {
  for (const host of document.querySelectorAll("[data-portrait]")) {
    const word = host.dataset.word ? Number(host.dataset.word) : null;
    capscope.load(host.dataset.portrait)
      .then((shown) => capscope.show(host, shown, { word }))
      .catch((error) => { host.textContent = error.message; });
  }
});
