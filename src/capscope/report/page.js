// Point at a word's panel: it is shown large in place of the image.
for (const card of document.querySelectorAll(".card")) {
  const large = card.querySelector(".large");
  const picture = large.src;
  const show = (panel) => {
    card.querySelector("li.shown")?.classList.remove("shown");
    large.src = panel ? panel.querySelector("img").src : picture;
    panel?.classList.add("shown");
  };
  for (const panel of card.querySelectorAll(".strip li")) {
    panel.addEventListener("mouseenter", () => show(panel));
    panel.addEventListener("focus", () => show(panel));
    panel.addEventListener("click", () => show(panel));
    panel.addEventListener("mouseleave", () => show(null));
    panel.addEventListener("blur", () => show(null));
  }
}
