// Elements made by hand. Text only ever becomes text nodes, never markup.

/** An element. `attributes`: `class`, `text`, `on...` functions, and others as they are; null and false are left out. */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function s(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") made.textContent = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** Change the text of an element only if it differs, so that nothing is announced or laid out for nothing. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tell those who listen to the page. */
export function announce(text) {
  say(document.getElementById("announcement"), text);
}

/** A table with a caption. `columns`: [title, is a number]. */
export function table(caption, columns, { hideCaption = false } = {}) {
  const body = h("tbody");
  const head = h("tr", {}, columns.map(([title, number]) => h("th", { scope: "col", class: number ? "number" : null, text: title })));
  const shown = h("table", {}, h("caption", { class: hideCaption ? "hidden" : null, text: caption }), h("thead", {}, head), body);
  return { shown: h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, shown), body };
}

/** A row; cells are strings or nodes. */
export function row(columns, cells, attributes = {}) {
  return h("tr", attributes, cells.map((cell, place) => h("td", { class: columns[place][1] ? "number" : null, "data-title": columns[place][0] }, cell)));
}

/** A label with its field, and room for what is wrong with it. */
export function field(title, input, hint = "") {
  const wrong = h("span", { class: "wrong", id: `${input.id}-wrong` });
  input.setAttribute("aria-describedby", wrong.id);
  return h("label", { class: "field", for: input.id }, h("span", { class: "title", text: title }), input, hint ? h("span", { class: "note", text: hint }) : null, wrong);
}

/** A short word in a coloured frame: `good`, `bad`, `busy` or nothing. */
export function badge(text, tone = "") {
  return h("span", { class: `badge ${tone}`, text });
}

/** Say, or no longer say, that a field is wrong. */
export function mark(input, text) {
  input.setAttribute("aria-invalid", text ? "true" : "false");
  say(document.getElementById(`${input.id}-wrong`), text);
}
