// What happened under a transaction id, step by step: for money between shards, each leg in its own shard.
//
// The history tells by an id what was done under it and what ended it. The half of a transfer that is in another shard
// has an id that only the shards can derive, so it is looked for in the statement of the account that receives it: the
// try of the same amount that came behind the paying shard's.

import { address, ask, Refused } from "./api.js";
import { announce, badge, field, h, mark, row, table } from "./elements.js";
import { accountLink, place, timeOf } from "./events.js";
import { duration, money, nanoseconds, shardOf, timeText, words } from "./words.js";

const POLL_MS = 500;
const POLLS_MAX = 40;
const AROUND_NS = 10_000_000_000n;
const EVENTS_MAX = 500;
const NS_PER_MS = 1_000_000n;
const COLUMNS = [["Step", false], ["Shard · place", false], ["Time (UTC)", false], ["Since the start", true], ["From", false], ["To", false], ["Amount", true], ["Outcome", false]];
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

/** Show the page of a transaction id, or the form that asks for one. */
export function showTransaction(root, [id = ""], signal) {
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
  if (id) follow(shown, id, signal);
}

async function follow(root, id, signal) {
  for (let polls = 0; polls < POLLS_MAX && !signal.aborted; polls += 1) {
    try {
      const told = await gather(id, signal);
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

async function statement(name, currency, from, to, signal) {
  if (!name || name.startsWith("transit:") || /^[0-9a-f]{32}$/.test(name)) return [];
  const parameters = { currency, from: timeText(from), to: timeText(to), limit: EVENTS_MAX };
  return (await ask(address(["accounts", name, "statement"], parameters), signal)).events;
}

/** All events of an id: {events, mode, settled, alike}. */
export async function gather(id, signal) {
  const own = (await ask(address(["transfers", id]), signal)).events;
  const [first] = own;
  const events = new Map(own.map((event) => [event.position, event]));
  const told = { mode: first.kind === "transfer" ? "in one shard" : words(first.kind), settled: true, alike: 0, events: own };
  if (!TRIES.has(first.kind) || first.kind === "try_credit") return told;
  told.mode = "TC/C";
  const start = nanoseconds(first.time);
  const paid = await statement(first.from_account, first.currency, start, start + AROUND_NS, signal);
  const tries = [first];
  // The other legs that the same account pays follow the first one.
  const place_ = paid.findIndex((event) => event.position === first.position);
  for (const event of paid.slice(place_ + 1)) {
    if (event.kind !== "try_part") break;
    tries.push(event);
  }
  const endOf = (events_, one) => events_.find((event) => ENDS.has(event.kind) && event.hold_id === one.transaction_id);
  const taken = new Set();
  for (const one of tries) {
    events.set(one.position, one);
    const end = endOf(paid, one);
    if (end) events.set(end.position, end);
    if (one.result !== "COMMITTED") continue;
    const received = await statement(one.to_account, one.currency, start - AROUND_NS / 10n, start + AROUND_NS, signal);
    const alike = received.filter((event) => event.kind === "try_credit" && event.amount === one.amount && event.time >= first.time && !taken.has(event.position));
    const credit = alike[0];
    if (credit) {
      taken.add(credit.position);
      events.set(credit.position, credit);
      told.alike += alike.length - 1;
    }
    const creditEnd = credit && endOf(received, credit);
    if (creditEnd) events.set(creditEnd.position, creditEnd);
    if (!end || (credit?.result === "COMMITTED" && !creditEnd)) told.settled = false;
  }
  told.events = [...events.values()].sort((one, other) => (one.time < other.time ? -1 : 1));
  return told;
}

function outcome(events, settled) {
  if (events.some((event) => event.kind === "confirm")) return settled ? ["Confirmed", "good"] : ["Decided: confirmed, legs under way", "busy"];
  if (events.some((event) => event.kind === "cancel")) return settled ? ["Cancelled", "bad"] : ["Decided: cancelled, legs under way", "busy"];
  if (events[0].result !== "COMMITTED") return [words(events[0].result), "bad"];
  if (TRIES.has(events[0].kind)) return ["Under way", "busy"];
  return [events[0].kind === "hold" && events.length === 1 ? "Held" : "Done", "good"];
}

function render(root, id, { events, mode, settled, alike }) {
  const [first] = events;
  const [told, tone] = outcome(events, settled);
  const start = nanoseconds(first.time);
  const { shown, body } = table("Steps in the order of their time", COLUMNS, { hideCaption: true });
  body.id = "steps";
  const shards = [...new Set(events.map((event) => shardOf(event.position)))].sort((one, other) => one - other);
  for (const event of events) {
    const step = STEPS[event.kind] ?? words(event.kind);
    const since = Number((nanoseconds(event.time) - start) / 1000n) / 1000;
    const good = event.result === "COMMITTED";
    const amount = TRIES.has(event.kind) || !ENDS.has(event.kind) ? event.amount : event.moved;
    const cells = [
      h("b", { text: step }),
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
  const note = alike ? " · other transfers of the same amount came at the same time: the receiver's steps may be theirs" : "";
  root.replaceChildren(
    h(
      "section",
      { class: "card", "aria-labelledby": "story-title" },
      h("header", {}, h("h2", { id: "story-title", class: "break", text: id }), badge(told, tone)),
      h("p", { class: "note", text: `${mode} · ${shards.length === 1 ? `shard ${shards[0]}` : `shards ${shards.join(" and ")}`} · ${events.length} events in ${duration(Number((last - start) / 1000n) / 1000)}${note}` }),
      lanes(events, shards, start),
      shown,
    ),
  );
  announce(told);
}

/** One lane for each shard, with its steps in their places in time. */
function lanes(events, shards, start) {
  const times = [...new Set(events.map((event) => event.time))].sort();
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
  const made = h("li", { class: `step ${good ? event.kind : "refused"}` }, h("b", { text: (STEPS[event.kind] ?? words(event.kind)).split(":")[0] }), h("span", { class: "note", text: duration(Number(nanoseconds(event.time) - start) / Number(NS_PER_MS)) }));
  made.style.gridColumn = String(times.indexOf(event.time) + 1);
  return made;
}
