"use strict";
(() => {
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  if (!data.cases.length) return;
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const state = { chosen: 0, slice: 0, mode: "contour", zoom: "focus", hidden: new Set() };
  const titles = { worst: "Worst", median: "Median", best: "Best", example: "Examples" };

  function element(name, attributes, parent, text) {
    const made = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  const figure = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));

  // from red (0.4 and less) over yellow to green (1)
  function shade(dice) {
    if (dice === null) return "#e6eaef";
    const share = Math.min(1, Math.max(0, (dice - 0.4) / 0.6));
    return `hsl(${Math.round(8 + 120 * share)} 60% 72%)`;
  }

  function draw(panel, view, slice, paths) {
    const [sx, sy] = view.spacing;
    const [x, y, width, height] = state.zoom === "focus" ? view.focus : [0, 0, ...view.size];
    panel.setAttribute("viewBox", [x * sx, y * sy, width * sx, height * sy].join(" "));
    panel.replaceChildren();
    const group = element("svg:g", { transform: `scale(${sx} ${sy})`, class: state.mode }, panel);
    const size = { width: view.size[0], height: view.size[1] };
    element("svg:image", { href: slice.image, ...size, preserveAspectRatio: "none" }, group);
    if (state.mode === "off") return;
    for (const [name, path] of Object.entries(paths || {})) {
      if (state.hidden.has(name)) continue;
      const colour = data.colours[name];
      const drawn = element("svg:path", { d: path, stroke: colour }, group);
      if (state.mode === "fill") drawn.setAttribute("fill", colour), drawn.style.fill = colour;
      element("svg:title", {}, drawn, name);
    }
  }

  function press(buttons, chosen) {
    buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(chosen(button, index))));
  }

  function show() {
    const view = data.cases[state.chosen];
    state.slice = Math.min(state.slice, view.slices.length - 1);
    const slice = view.slices[state.slice];
    draw(byId("reference"), view, slice, slice.reference);
    byId("predicted").hidden = slice.prediction === null;
    if (slice.prediction !== null) draw(byId("prediction"), view, slice, slice.prediction);
    byId("slice").max = view.slices.length - 1;
    byId("slice").value = state.slice;
    byId("position-bar").hidden = byId("strip").hidden = view.slices.length === 1;
    const dice = slice.dice === null ? "" : `, Dice ${figure(slice.dice)}`;
    byId("position").textContent = `slice ${slice.number} of ${view.depth}${dice}`;
    press([...byId("strip").children], (_, index) => index === state.slice);
    press([...byId("case-list").querySelectorAll("button")], (_, index) => index === state.chosen);
    for (const id of ["mode", "zoom"]) press([...byId(id).children], (button) => button.dataset.value === state[id]);
    press([...byId("legend").children], (button) => !state.hidden.has(button.dataset.name));
  }

  function choose(index) {
    const view = data.cases[index];
    state.chosen = index;
    state.slice = Math.floor(view.slices.length / 2);
    byId("strip").replaceChildren();
    view.slices.forEach((slice, place) => {
      const label = slice.dice === null ? String(slice.number) : slice.dice.toFixed(2);
      const button = element("button", { title: `slice ${slice.number}: Dice ${figure(slice.dice)}` }, byId("strip"), label);
      button.style.background = shade(slice.dice);
      button.addEventListener("click", () => { state.slice = place; show(); });
    });
    const classes = Object.entries(view.classes || {}).map(([name, dice]) => `${name} ${figure(dice)}`);
    byId("facts").textContent = view.dice === null ? "" : `${view.name}: Dice of the whole case ${figure(view.dice)} (${classes.join(", ")})${view.slices.length > 1 ? "; below the slider the Dice of each slice." : ""}`;
    show();
  }

  function step(by) {
    const last = data.cases[state.chosen].slices.length - 1;
    state.slice = Math.min(last, Math.max(0, state.slice + by));
    show();
  }

  let group = "";
  data.cases.forEach((view, index) => {
    if (view.group !== group) element("h3", {}, byId("case-list"), titles[group = view.group]);
    const button = element("button", {}, byId("case-list"));
    element("span", {}, button, view.name);
    element("b", { class: "number" }, button, view.dice === null ? "" : figure(view.dice));
    button.addEventListener("click", () => choose(index));
  });
  for (const [name, colour] of Object.entries(data.colours)) {
    const button = element("button", { "data-name": name }, byId("legend"));
    element("i", { class: "swatch" }, button).style.background = colour;
    element("span", {}, button, name);
    button.addEventListener("click", () => { state.hidden.delete(name) || state.hidden.add(name); show(); });
  }
  for (const id of ["mode", "zoom"]) {
    for (const button of byId(id).children) {
      button.addEventListener("click", () => { state[id] = button.dataset.value; show(); });
    }
  }
  byId("slice").addEventListener("input", (event) => { state.slice = Number(event.target.value); show(); });
  byId("panels").addEventListener("wheel", (event) => {
    if (data.cases[state.chosen].slices.length === 1) return;
    event.preventDefault();
    step(Math.sign(event.deltaY));
  }, { passive: false });
  for (const link of document.querySelectorAll("a[data-case]")) {
    const index = data.cases.findIndex((view) => view.name === link.dataset.case);
    if (index >= 0) link.addEventListener("click", () => choose(index));
  }
  choose(0);
})();
