// What is asked of the gateway, and streams of events that come back by themselves after a loss.
// EventSource cannot send a token in a header; fetch can, so a stream is a response that is read as it comes.

import { announce } from "./elements.js";

const TOKEN = "bezant token";
const SILENCE_MS = 45_000; // the gateway says something every 15 s
const RETRY_MS = 1_000;
const RETRY_MS_MAX = 15_000;
const LINE_SIZE_MAX = 1 << 22;

/** What a problem says: where there is nothing, what it is that there is not says it all. */
function sentence({ code, title, detail }) {
  const said = code === "NOT_FOUND" && detail ? detail : [title, detail].filter(Boolean).join(": ");
  return `${said.charAt(0).toUpperCase()}${said.slice(1)}`;
}

/** Something that was not done: `problem` is what the gateway said (RFC 9457), null if nobody answered. */
export class Refused extends Error {
  constructor(problem, status) {
    super(problem ? sentence(problem) : "The gateway cannot be reached.");
    this.problem = problem;
    this.status = status;
  }
}

export function token() {
  return sessionStorage.getItem(TOKEN) ?? "";
}

export function setToken(text) {
  if (text) sessionStorage.setItem(TOKEN, text);
  else sessionStorage.removeItem(TOKEN);
}

function headers(more) {
  const sent = token();
  return sent ? { Authorization: `Bearer ${sent}`, ...more } : more;
}

async function answered(path, options) {
  let answer;
  try {
    answer = await fetch(path, { ...options, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(null, 0);
  }
  if (answer.ok) return answer;
  let problem;
  try {
    problem = await answer.json();
  } catch {
    problem = { title: `HTTP ${answer.status}`, detail: "" };
  }
  if (answer.status === 401) announce("The gateway wants a token.");
  throw new Refused(problem, answer.status);
}

/** An address below /v1: `parts` are escaped, parameters that are null left out. */
export function address(parts, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = new URLSearchParams(given).toString();
  return `/v1/${parts.map(encodeURIComponent).join("/")}${query ? `?${query}` : ""}`;
}

export async function ask(path, signal) {
  return (await answered(path, { headers: headers({}), signal })).json();
}

export async function download(path) {
  return (await answered(path, { headers: headers({}) })).blob();
}

export async function command(path, body, signal) {
  const sent = { method: "POST", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(body), signal };
  return (await answered(path, sent)).json();
}

/**
 * Be told of events until the signal aborts. `onEvent` gets {id, event, data}; `onState` "live", or "lost" and an error.
 * After a loss it goes on behind the last id.
 */
export async function listen(path, { after = null, signal, onEvent, onState }) {
  let last = after;
  let retryMs = RETRY_MS;
  while (!signal.aborted) {
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    signal.addEventListener("abort", stop);
    let silent = setTimeout(stop, SILENCE_MS);
    try {
      const sent = headers({ Accept: "text/event-stream", ...(last === null ? {} : { "Last-Event-ID": last }) });
      const answer = await answered(path, { headers: sent, signal: attempt.signal });
      onState("live");
      for await (const event of events(answer.body)) {
        clearTimeout(silent);
        silent = setTimeout(stop, SILENCE_MS);
        retryMs = RETRY_MS;
        if (event.id !== null) last = event.id;
        if (event.data !== null) onEvent(event);
      }
      onState("lost", new Refused(null, 0));
    } catch (error) {
      if (signal.aborted) return;
      onState("lost", error);
    } finally {
      clearTimeout(silent);
      signal.removeEventListener("abort", stop);
    }
    await pause(retryMs, signal);
    retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
  }
}

/** Server-sent events of a body (the HTML standard, section 9.2.6). */
async function* events(body) {
  let rest = "";
  let event = { id: null, event: "message", data: null };
  const decoder = new TextDecoder(); // by hand: a stream of its own would cost each chunk some turns of the event loop
  const reader = body.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split(/\r\n|\n|\r/);
    rest = lines.pop();
    if (rest.length > LINE_SIZE_MAX) throw new Refused({ title: "A line of the stream is too long" }, 0);
    for (const line of lines) {
      if (line === "") {
        yield event;
        event = { id: null, event: "message", data: null };
        continue;
      }
      const place = line.indexOf(":");
      const name = place < 0 ? line : line.slice(0, place);
      const text = place < 0 ? "" : line.slice(place + 1).replace(/^ /, "");
      if (name === "data") event.data = event.data === null ? text : `${event.data}\n${text}`;
      else if (name === "id" || name === "event") event[name] = text;
    }
  }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done);
  });
}
