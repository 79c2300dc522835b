"use strict";
const root = document.documentElement;
const plots = [...document.querySelectorAll(".plot")].map((div) => ({
  div,
  figure: JSON.parse(div.nextElementSibling.textContent),
}));
const touch = matchMedia("(pointer: coarse)").matches;
const options = {
  responsive: true,
  displaylogo: false,
  displayModeBar: touch ? false : "hover",
  modeBarButtons: [["toImage", "resetScale2d"]],
};

// Plotly does not read CSS variables: "var(--name)" becomes the colour that it has in the theme.
const probe = document.body.appendChild(document.createElement("i"));
function coloured(part) {
  if (typeof part === "string" && part.startsWith("var(--")) {
    probe.style.color = part;
    return getComputedStyle(probe).color;
  }
  if (Array.isArray(part)) return typeof part[0] === "number" ? part : part.map(coloured);
  if (part && typeof part === "object") {
    return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, coloured(value)]));
  }
  return part;
}

async function draw() {
  const font = getComputedStyle(document.body).fontFamily;
  for (const { div, figure } of plots) {
    const layout = coloured(figure.layout);
    layout.font.family = font;
    layout.uirevision = "kept"; // a change of the theme keeps the zoom
    if (touch) layout.dragmode = false; // a finger scrolls the page
    await Plotly.react(div, coloured(figure.data), layout, options);
  }
  root.dataset.drawn = plots.length;
}

// Zooming one chart zooms all, since they share the updates.
let zooming = false;
async function zoomAll(source, change) {
  const range = change["xaxis.range"] ?? [change["xaxis.range[0]"], change["xaxis.range[1]"]];
  const reset = change["xaxis.autorange"] === true;
  if (zooming || (!reset && range[0] === undefined)) return;
  zooming = true;
  const update = reset ? { "xaxis.autorange": true, "yaxis.autorange": true } : { "xaxis.range": range };
  await Promise.all(plots.filter(({ div }) => div !== source).map(({ div }) => Plotly.relayout(div, update)));
  zooming = false;
}

const system = matchMedia("(prefers-color-scheme: dark)");
document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  root.dataset.theme = dark ? "light" : "dark";
  draw();
});
system.addEventListener("change", draw);

for (const button of document.querySelectorAll(".copy")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
  });
}

draw().then(() => {
  for (const { div } of plots) div.on("plotly_relayout", (change) => zoomAll(div, change));
});
