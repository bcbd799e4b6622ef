"use strict";
// Shows /openapi.json. Text only ever becomes text nodes, never markup.

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

// Text in which names stand between backticks.
function prose(text) {
  return (text || "").split("`").map((part, place) => (place % 2 ? element("code", part) : part));
}

function example(schema, all, depth = 0) {
  if (!schema || depth > 5) return null;
  if (schema.$ref) return example(all[schema.$ref.split("/").pop()], all, depth + 1);
  if (schema.examples) return Object.values(schema.examples)[0];
  if ("default" in schema) return schema.default;
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[0];
  const choice = (schema.oneOf || schema.anyOf || []).find((one) => one.type !== "null");
  if (choice) return example(choice, all, depth + 1);
  if (schema.type === "array") return [example(schema.items, all, depth + 1)];
  if (schema.type === "object") {
    const names = Object.entries(schema.properties || {});
    return Object.fromEntries(names.map(([name, one]) => [name, example(one, all, depth + 1)]));
  }
  return { integer: 0, number: 0, boolean: false, string: "text" }[schema.type] ?? null;
}

function rows(headings, lines) {
  const head = element("tr", "", ...headings.map((text) => element("th", text)));
  return element("table", "", head, ...lines.map((line) => element("tr", "", ...line.map((text) => element("td", "", ...prose(text))))));
}

function body(content, all) {
  const [type, media] = Object.entries(content)[0];
  const parts = [element("p", type)];
  if (type.includes("json")) parts.push(element("pre", JSON.stringify(example(media.schema, all), null, 2)));
  return parts;
}

function operation(path, method, told, all) {
  const title = element("summary", "", Object.assign(element("span", method), { className: "method" }), element("code", path));
  const shown = element("details", "", title, element("p", "", ...prose(told.description)));
  shown.id = told.operationId;
  if (told.parameters?.length) {
    const lines = told.parameters.map((one) => [one.name, one.in, one.required ? "required" : "", one.description || ""]);
    shown.append(element("h3", "Parameters"), rows(["name", "in", "", ""], lines));
  }
  if (told.requestBody) shown.append(element("h3", "Request"), ...body(told.requestBody.content, all));
  const done = told.responses["200"];
  if (done?.content) shown.append(element("h3", "Answer"), ...body(done.content, all));
  const others = Object.entries(told.responses).filter(([status]) => status !== "200");
  shown.append(element("h3", "Problems"), rows(["status", "codes"], others.map(([status, one]) => [status, one.description])));
  return shown;
}

async function show() {
  const described = await (await fetch("/openapi.json")).json();
  const all = described.components.schemas;
  document.getElementById("about").append(...prose(described.info.description));
  const main = document.getElementById("operations");
  const list = element("ul");
  document.getElementById("contents").append(list);
  for (const tag of described.tags) {
    main.append(element("h2", tag.name), element("p", tag.description));
    for (const [path, item] of Object.entries(described.paths)) {
      for (const [method, told] of Object.entries(item)) {
        if (!told.tags?.includes(tag.name)) continue;
        main.append(operation(path, method, told, all));
        const link = element("a", told.operationId);
        link.href = "#" + told.operationId;
        link.addEventListener("click", () => (document.getElementById(told.operationId).open = true));
        list.append(element("li", "", link));
      }
    }
  }
}

// An address that names an operation opens it.
function openNamed() {
  const named = document.getElementById(location.hash.slice(1));
  if (!named?.matches("details")) return;
  named.open = true;
  named.scrollIntoView();
}

show().then(openNamed).catch((error) => document.getElementById("operations").append(element("p", String(error))));
