// What an event of a statement means for one account.

import { badge, h } from "./elements.js";
import { money, moment, shardOf, words } from "./words.js";

const MOVES = new Set(["transfer", "transfer_available", "capture", "confirm", "move_in", "move_out"]);
const ENDS = new Set(["capture", "release", "expire", "confirm", "cancel"]);
const BEGINS = new Set(["transfer", "transfer_available", "try_debit"]);
const UNNAMED = /^[0-9a-f]{32}$/;

/** Balance and held of an account after an event. */
export function after(event, name) {
  const pays = event.from_account === name;
  return pays ? [event.from_balance, event.from_held] : [event.to_balance ?? "–", event.to_held ?? "–"];
}

/** What an event changed in the balance of an account, with its sign; empty if nothing. */
export function change(event, name) {
  if (event.result !== "COMMITTED" || !MOVES.has(event.kind) || /^[0.]*$/.test(event.moved)) return "";
  return event.from_account === name ? `−${money(event.moved)}` : `+${money(event.moved)}`;
}

/** The id under which the whole of it is found: that of the hold or try that an event ends, or its own. */
export function story(event) {
  return ENDS.has(event.kind) && event.hold_id ? event.hold_id : event.transaction_id;
}

/** The address of the page of that; with the account that pays, where the event says who began it. */
export function storyLink(event) {
  const id = encodeURIComponent(story(event));
  const begins = BEGINS.has(event.kind) && event.from_account && event.currency;
  return `#/transaction/${id}${begins ? `/${encodeURIComponent(event.from_account)}/${encodeURIComponent(event.currency)}` : ""}`;
}

/** An account as a link; accounts between shards have no page. */
export function accountLink(name, currency) {
  if (!name) return "–";
  if (name.startsWith("transit:")) return h("span", { class: "note", text: `in transit ${name.slice(8).replace(":", " → ")}` });
  if (UNNAMED.test(name)) return h("span", { class: "note", text: "another shard" });
  return h("a", { href: `#/account/${encodeURIComponent(name)}/${encodeURIComponent(currency)}`, text: name });
}

export function resultBadge(event) {
  return event.result === "COMMITTED" ? badge(words(event.kind), "") : badge(words(event.result), "bad");
}

/** Where an event is: its shard and the place in that shard's history. */
export function place(position) {
  const shard = shardOf(position);
  return `${shard} · ${BigInt.asUintN(52, BigInt(position))}`;
}

export function timeOf(event) {
  return h("time", { datetime: event.time, title: event.time, text: moment(event.time) });
}
