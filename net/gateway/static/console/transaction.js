// What happened under a transaction id, step by step: of each leg what was done in which shard. Nothing is guessed: the
// gateway tells what belongs to a transaction. What is none, such as a hold, is told by the events that have the id.

import { address, ask, Refused } from "./api.js";
import { announce, badge, field, h, mark, row, table } from "./elements.js";
import { accountLink, place, timeOf } from "./events.js";
import { duration, money, nanoseconds, shardOf, words } from "./words.js";

const POLL_MS = 500;
const POLLS_MAX = 40;
const NS_PER_MS = 1_000_000n;
const COLUMNS = [["Step", false], ["Shard · place", false], ["Time (UTC)", false], ["Since the start", true], ["From", false], ["To", false], ["Amount", true], ["Outcome", false]];
const COLUMN_NS = 100_000n; // steps that come so close to each other stand in one column
const LEG_COLUMNS = [["Leg", false], ["From", false], ["To", false], ["Amount", true], ["Shards", false], ["Status", false]];
const KINDS = { tcc: "TC/C", saga: "Saga", direct: "At once, in one shard" };
const STEPS = {
  transfer: "Transfer",
  try_debit: "Try: hold at the payer",
  try_part: "Try: hold at the payer",
  try_credit: "Try: reserve at the receiver",
  confirm: "Confirm",
  cancel: "Cancel",
};
const TRIES = new Set(["try_debit", "try_part", "try_credit"]);
const ENDS = new Set(["confirm", "cancel"]);
const PHASES = {
  trying: ["Under way", "busy"],
  confirming: ["Decided: confirmed, legs under way", "busy"],
  confirmed: ["Confirmed", "good"],
  cancelling: ["Decided: cancelled, legs under way", "busy"],
  compensating: ["Decided: cancelled, what is done is given back", "busy"],
  cancelled: ["Cancelled", "bad"],
  refused: ["Refused", "bad"],
};

/** Show the page of a transaction id, or the form that asks for one. */
export function showTransaction(root, parts, signal) {
  const [id = ""] = parts;
  const input = h("input", { id: "transaction", value: id, maxlength: 128, autocomplete: "off", spellcheck: "false" });
  const go = (event) => {
    event.preventDefault();
    const wanted = input.value.trim();
    mark(input, wanted ? "" : "the id of a transaction");
    if (!wanted) return input.focus();
    const hash = `#/transaction/${encodeURIComponent(wanted)}`;
    if (hash === location.hash) dispatchEvent(new Event("hashchange"));
    else location.hash = hash;
  };
  const shown = h("div", { id: "story" });
  root.append(h("h1", { class: id ? "hidden" : null, text: id ? `Transaction ${id}` : "Transaction" }), h("form", { class: "search card", role: "search", novalidate: true, onsubmit: go }, field("Transaction id", input), h("button", { class: "primary", text: "Show" })), shown);
  if (id) follow(shown, parts, signal);
  else shown.append(h("p", { class: "note", text: "A transfer, a hold or a transaction, by its id: what was done of each leg, in which shard, and when." }));
}

async function follow(root, parts, signal) {
  const [id] = parts;
  for (let polls = 0; polls < POLLS_MAX && !signal.aborted; polls += 1) {
    try {
      const told = await gather(parts, signal);
      if (signal.aborted) return;
      render(root, id, told);
      if (told.settled) return;
    } catch (error) {
      if (signal.aborted) return;
      root.replaceChildren(h("p", { class: "card problem", role: "alert", text: error.message }));
      if (!(error instanceof Refused) || (error.status !== 404 && !error.problem?.retryable && error.problem)) return;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** What became of an id: {events, legs, kind, outcome, settled}; each event has its `step`. */
export async function gather(parts, signal) {
  const [id, from = null, currency = null] = parts;
  let told;
  try {
    told = await ask(address(["transactions", id], { from_account: from, currency }), signal);
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 404) throw error;
    return others(id, signal);
  }
  const events = new Map();
  for (const { debit, credit } of told.legs) {
    for (const side of [debit, credit]) (side?.events ?? []).forEach((event, number) => events.set(event.position, { ...event, step: step(event, number) }));
  }
  const [outcome, tone] = told.kind === "direct" && told.phase === "confirmed" ? ["Done", "good"] : PHASES[told.phase];
  const why = tone === "bad" ? `${told.phase === "cancelled" ? "Cancelled: " : ""}${words(told.result)}` : outcome;
  return { events: inOrder([...events.values()]), legs: told.legs, kind: KINDS[told.kind], outcome: [why, tone], settled: told.ended !== null };
}

/** The events of an id that is no transaction's. */
async function others(id, signal) {
  const found = (await ask(address(["transfers", id]), signal)).events.map((event) => ({ ...event, step: step(event, 0) }));
  const [first] = found;
  const good = first.result === "COMMITTED";
  const open = first.kind === "hold" && found.length === 1;
  return { events: inOrder(found), legs: [], kind: words(first.kind), outcome: good ? [open ? "Held" : "Done", "good"] : [words(first.result), "bad"], settled: true };
}

function inOrder(events) {
  return events.sort((one, other) => (one.time < other.time ? -1 : 1));
}

/** What an event is called; behind the end of a try comes what gives it back. */
function step(event, number) {
  const name = STEPS[event.kind] ?? words(event.kind);
  return number > 1 ? `Give back: ${name.toLowerCase().replace("try: ", "")}` : name;
}

function render(root, id, { events, legs, kind, outcome: [told, tone], settled }) {
  const [first] = events;
  const start = nanoseconds(first.time);
  const { shown, body } = table("Steps, in the order of their time", COLUMNS);
  body.id = "steps";
  const shards = [...new Set(events.map((event) => shardOf(event.position)))].sort((one, other) => one - other);
  for (const event of events) {
    const since = Number((nanoseconds(event.time) - start) / 1000n) / 1000;
    const good = event.result === "COMMITTED";
    const amount = TRIES.has(event.kind) || !ENDS.has(event.kind) ? event.amount : event.moved;
    const cells = [
      h("b", { text: event.step }),
      place(event.position),
      timeOf(event),
      event === first ? "0" : duration(since),
      accountLink(event.from_account, first.currency),
      accountLink(event.to_account, first.currency),
      `${money(amount)} ${event.currency}`,
      badge(good ? "committed" : words(event.result), good ? "good" : "bad"),
    ];
    body.append(row(COLUMNS, cells, { "data-kind": event.kind, "data-shard": shardOf(event.position), "data-position": event.position }));
  }
  const last = nanoseconds(events.at(-1).time);
  const shardsTold = shards.length === 1 ? `shard ${shards[0]}` : `shards ${shards.join(" and ")}`;
  const lasted = `${events.length} ${events.length === 1 ? "event" : "events"} in ${duration(Number((last - start) / 1000n) / 1000)}`;
  root.replaceChildren(
    h(
      "section",
      { class: "card", "aria-labelledby": "story-title" },
      h("header", {}, h("h2", { id: "story-title", class: "break", text: id }), badge(told, tone)),
      h("p", { class: "note" }, h("span", { id: "kind", text: kind }), ` · ${shardsTold} · ${lasted}${settled ? "" : " so far"}`),
      lanes(events, shards, start),
      legs.length > 1 ? legsTable(legs) : null,
      shown,
    ),
  );
  announce(told);
}

/** Each leg with its accounts, and how far it is. */
function legsTable(legs) {
  const { shown, body } = table("Legs", LEG_COLUMNS);
  body.id = "legs";
  for (const leg of legs) {
    const [told, tone] = PHASES[leg.phase];
    const shards = [leg.debit?.shard, leg.credit?.shard].map((shard) => shard ?? "–").join(" → ");
    const cells = [String(leg.number + 1), accountLink(leg.from_account, leg.currency), accountLink(leg.to_account, leg.currency), `${money(leg.amount)} ${leg.currency}`, shards, badge(told, tone)];
    body.append(row(LEG_COLUMNS, cells, { "data-phase": leg.phase }));
  }
  return shown;
}

/** One lane for each shard, with its steps in their places in time. */
function lanes(events, shards, start) {
  const times = [];
  for (const event of events) {
    const ns = nanoseconds(event.time);
    if (!times.length || ns - times.at(-1) > COLUMN_NS) times.push(ns);
  }
  const list = h(
    "ol",
    { class: "lanes" },
    shards.map((shard) => {
      const steps = events.filter((event) => shardOf(event.position) === shard);
      return h(
        "li",
        {},
        h("span", { class: "lane", text: `Shard ${shard}` }),
        laneOf(steps, times, start),
      );
    }),
  );
  return h("div", { class: "scroll keep", tabindex: "0", role: "region", "aria-label": "Steps by shard" }, list);
}

function laneOf(steps, times, start) {
  const made = h("ol", { class: "steps" }, steps.map((event) => laneStep(event, times, start)));
  made.style.gridTemplateColumns = `repeat(${times.length}, minmax(6rem, 1fr))`;
  return made;
}

function laneStep(event, times, start) {
  const good = event.result === "COMMITTED";
  const made = h("li", { class: `step ${good ? event.kind : "refused"}` }, h("b", { text: event.step.split(":")[0] }), h("span", { class: "note", text: duration(Number(nanoseconds(event.time) - start) / Number(NS_PER_MS)) }));
  made.style.gridColumn = String(times.findLastIndex((ns) => ns <= nanoseconds(event.time)) + 1);
  return made;
}
