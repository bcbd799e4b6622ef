// An account: what it is now, what happened to it, as it happens, and what it was at any moment.

import { address, ask, download, listen } from "./api.js";
import { drawSteps, stepsFrame } from "./charts.js";
import { announce, badge, field, h, mark, row, say, table } from "./elements.js";
import { accountLink, after, change, place, resultBadge, story, storyLink, timeOf } from "./events.js";
import { count, less, moment, money, nanoseconds, timeText, units } from "./words.js";

const PAGE_EVENTS = 50;
const EVENTS_MAX = 2_000; // kept on the page; what is older is a question away
const HOLDS_MAX = 50;
const STEPS = 1_000n;
const SAMPLES = 24; // moments of which the balance is asked for the curve
const SAMPLES_AT_ONCE = 4;
const DEBOUNCE_MS = 120;
const REFRESH_MS = 250;
const ANNOUNCE_MS = 3_000;
const COLUMNS = [["Time (UTC)", false], ["What", false], ["With", false], ["Change", true], ["Balance", true], ["Held", true], ["Transaction", false], ["Receipt", false]];
const HOLD_COLUMNS = [["Made (UTC)", false], ["For", false], ["Remaining", true], ["Hold", false]];

/** Show the page of an account, or the form that asks for one. */
export function showAccount(root, [name = "", currency = "EUR"], signal) {
  const nameInput = h("input", { id: "account-name", value: name, maxlength: 48, autocomplete: "off", spellcheck: "false" });
  const currencyInput = h("input", { id: "account-currency", value: currency, maxlength: 8, autocomplete: "off", spellcheck: "false" });
  const go = (event) => {
    event.preventDefault();
    mark(nameInput, nameInput.value.trim() ? "" : "the id of an account");
    if (!nameInput.value.trim()) return nameInput.focus();
    const wanted = `#/account/${encodeURIComponent(nameInput.value.trim())}/${encodeURIComponent(currencyInput.value.trim().toUpperCase())}`;
    if (wanted === location.hash) dispatchEvent(new Event("hashchange"));
    else location.hash = wanted;
  };
  const shown = h("div", { id: "account" });
  root.append(
    h("h1", { class: name ? "hidden" : null, text: name ? `Account ${name}` : "Account" }),
    h("form", { class: "search card", role: "search", novalidate: true, onsubmit: go }, field("Account id", nameInput), field("Currency", currencyInput), h("button", { class: "primary", text: "Show" })),
    shown,
  );
  if (name) new Account(shown, name, currency, signal).start();
  else shown.append(h("p", { class: "note", text: "An account is a name and a currency, such as wallet:ann in EUR. Its statement grows here as it happens, with its balance at any moment and a receipt of each event." }));
}

class Account {
  constructor(root, name, currency, signal) {
    Object.assign(this, { root, name, currency, signal });
    this.events = new Map(); // by position
    this.rows = new Map();
    this.older = null; // the cursor behind the oldest
    this.opened = null;
    this.samples = []; // [nanoseconds, minor units], of all its time
    this.timers = {};
    signal.addEventListener("abort", () => Object.values(this.timers).forEach(clearTimeout));
  }

  path(...more) {
    return ["accounts", this.name, ...more];
  }

  ask(more, parameters = {}) {
    return ask(address(this.path(...more), { currency: this.currency, ...parameters }), this.signal);
  }

  later(what, ms, act) {
    if (this.timers[what]) return;
    this.timers[what] = setTimeout(() => {
      this.timers[what] = null;
      act.call(this);
    }, ms);
  }

  async start() {
    try {
      const [account, first] = await Promise.all([this.ask([]), this.ask(["statement"], { limit: 1 })]);
      this.opened = first.events[0] ?? null;
      this.build();
      this.identify(account);
    } catch (error) {
      if (!this.signal.aborted) this.root.replaceChildren(h("p", { class: "card problem", role: "alert", text: error.message }));
      return;
    }
    const path = address(this.path("events"), { currency: this.currency });
    listen(path, { signal: this.signal, onEvent: (event) => this.onEvent(event), onState: (state, error) => this.onState(state, error) });
  }

  // ---- the page ----

  build() {
    this.balance = h("span", { class: "value", id: "balance" });
    this.available = h("span", { class: "value", id: "available" });
    this.held = h("span", { class: "value", id: "held" });
    this.badges = h("span", { id: "flags" });
    this.facts = h("span", { class: "note", id: "facts" });
    this.state = h("span", { class: "freshness", id: "live", text: "connecting …" });
    const figure = (title, value, large) => h("div", { class: large ? "figure large" : "figure" }, h("dt", { text: title }), h("dd", {}, value, " ", h("span", { class: "unit", text: this.currency })));
    const identity = h(
      "section",
      { class: "identity", "aria-labelledby": "account-title" },
      h("header", {}, h("h2", { id: "account-title", text: this.name }), this.badges, this.state),
      h("dl", { class: "figures" }, figure("Balance", this.balance, true), figure("Available", this.available), figure("Held", this.held)),
      this.facts,
    );
    const statement = table("Statement, newest first", COLUMNS, { hideCaption: true });
    this.body = statement.body;
    this.body.id = "statement";
    this.more = h("button", { type: "button", class: "quiet", id: "older", text: "Older events", hidden: true, onclick: () => this.loadOlder() });
    const holds = table("Open holds", HOLD_COLUMNS, { hideCaption: true });
    this.holds = holds.body;
    this.holds.id = "holds";
    this.noHolds = h("p", { class: "note", text: "Nothing is held." });
    this.holdsTable = holds.shown;
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.root.replaceChildren(
      this.problem,
      identity,
      this.buildMoments(),
      h("section", { class: "card", "aria-labelledby": "holds-title" }, h("h2", { id: "holds-title", text: "Open holds" }), this.noHolds, holds.shown),
      h("section", { class: "card", "aria-labelledby": "statement-title" }, h("h2", { id: "statement-title", text: "Statement" }), statement.shown, h("p", { class: "actions" }, this.more)),
    );
  }

  buildMoments() {
    this.slider = h("input", { type: "range", id: "moment", min: "0", max: String(STEPS), step: "1", value: String(STEPS), "aria-describedby": "moment-when" });
    this.momentBalance = h("output", { class: "value", id: "moment-balance", for: "moment", text: "–" });
    this.when = h("span", { id: "moment-when", class: "note", text: "" });
    this.frame = stepsFrame(90);
    this.slider.addEventListener("input", () => this.onSlide());
    return h(
      "section",
      { class: "card moments", "aria-labelledby": "moments-title" },
      h("h2", { id: "moments-title", text: "Balance at a moment" }),
      h("p", {}, this.momentBalance, " ", h("span", { class: "unit", text: this.currency }), h("br"), this.when),
      this.frame,
      h("label", { class: "hidden", for: "moment", text: "Moment, from the opening to now" }),
      this.slider,
      h("p", { class: "ends note" }, h("span", { text: this.opened ? moment(this.opened.time) : "" }), h("span", { text: "now" })),
    );
  }

  identify(account) {
    say(this.balance, money(account.balance));
    say(this.available, money(account.available));
    say(this.held, money(account.held));
    const flags = [account.frozen ? "frozen" : "", account.closed ? "closed" : ""].filter(Boolean);
    this.badges.replaceChildren(...(flags.length ? flags.map((flag) => badge(flag, "bad")) : [badge("open", "good")]));
    this.showNow(account.balance);
    const below = /^[0.]*$/.test(account.limit) ? "may not go below zero" : `may go ${money(account.limit)} below zero`;
    const limit = account.limit === "unlimited" ? "no limit below zero" : below;
    say(this.facts, `${count(account.event_count)} ${account.event_count === 1 ? "event" : "events"} · ${limit} · last event at ${place(account.last_position)} (shard · place)`);
  }

  fail(error) {
    if (this.signal.aborted) return;
    this.problem.hidden = false;
    say(this.problem, error.message);
  }

  // ---- what happens ----

  onState(state, error) {
    const live = state === "live";
    this.root.classList.toggle("stale", !live);
    say(this.state, live ? "live" : `not live: ${error.problem?.title ?? "the gateway does not answer"} · connecting again`);
    if (live) this.loadNewest();
  }

  /** The newest page: what a stream that begins now does not tell, and what a long loss may have left out. */
  async loadNewest() {
    try {
      const page = await this.ask(["statement"], { reverse: true, limit: PAGE_EVENTS });
      const joins = page.events.some((event) => this.events.has(event.position));
      if (!joins) {
        // What lies between is not known: begin anew.
        this.events.clear();
        this.rows.clear();
        this.body.replaceChildren();
        this.older = page.next;
      }
      page.events.forEach((event) => this.add(event));
      this.problem.hidden = true;
      this.after();
      this.refresh();
      await this.sample();
    } catch (error) {
      this.fail(error);
    }
  }

  async loadOlder() {
    try {
      const page = await this.ask(["statement"], { cursor: this.older, limit: PAGE_EVENTS });
      page.events.forEach((event) => this.add(event));
      this.older = page.next;
      this.after();
      announce(`${page.events.length} older events`);
    } catch (error) {
      this.fail(error);
    }
  }

  onEvent({ data }) {
    const event = JSON.parse(data);
    this.add(event, true);
    const [balance, held] = after(event, this.name);
    if (event.result === "COMMITTED") {
      say(this.balance, money(balance));
      this.showNow(balance);
      say(this.held, money(held));
      say(this.available, money(less(balance, held)));
    }
    // The rest is not on the hot path of what is seen at once.
    this.later("after", REFRESH_MS, this.after);
    this.later("refresh", REFRESH_MS, this.refresh);
    this.later("announce", ANNOUNCE_MS, () => announce(`Balance ${this.balance.textContent} ${this.currency}`));
  }

  add(event, fresh = false) {
    if (this.events.has(event.position)) return;
    this.events.set(event.position, event);
    const made = this.rowOf(event, fresh);
    this.rows.set(event.position, made);
    if (fresh) made.dataset.seenMs = String(performance.timeOrigin + performance.now());
    // Nearly always at one of the two ends.
    let behind = this.body.firstElementChild;
    if (this.body.lastElementChild && this.body.lastElementChild.dataset.time > event.time) behind = null;
    while (behind && behind.dataset.time > event.time) behind = behind.nextElementSibling;
    this.body.insertBefore(made, behind);
  }

  rowOf(event, fresh) {
    const [balance, held] = after(event, this.name);
    const other = event.from_account === this.name ? event.to_account : event.from_account;
    const changed = change(event, this.name);
    const id = story(event);
    const receipt = h("button", { type: "button", class: "quiet small", text: "Receipt", "aria-label": `Receipt of the event at ${place(event.position)}`, onclick: () => this.saveReceipt(event) });
    const cells = [
      timeOf(event),
      resultBadge(event),
      accountLink(other, event.currency),
      h("span", { class: changed.startsWith("+") ? "in" : "out", text: changed || "–" }),
      money(balance),
      money(held),
      h("a", { href: storyLink(event), class: "id", title: id, "aria-label": `Transaction ${id}`, text: `${id.slice(0, 8)}…` }),
      receipt,
    ];
    return row(COLUMNS, cells, { class: `${event.result === "COMMITTED" ? "" : "refused"} ${fresh ? "fresh" : ""}`.trim() || null, "data-position": event.position, "data-time": event.time });
  }

  /** What is drawn of the events that are here. */
  after() {
    while (this.body.rows.length > EVENTS_MAX) {
      const { position } = this.body.lastElementChild.dataset;
      this.events.delete(position);
      this.rows.delete(position);
      this.body.lastElementChild.remove();
      this.older = null;
    }
    this.more.hidden = this.older === null;
    const start = this.opened ? nanoseconds(this.opened.time) : 0n;
    const steps = [...this.events.values()]
      .filter((event) => event.result === "COMMITTED")
      .sort((one, other) => (one.time < other.time ? -1 : 1))
      .map((event) => [nanoseconds(event.time), units(after(event, this.name)[0])]);
    const oldest = this.older === null || !steps.length ? start : steps[0][0];
    const before = this.samples.filter(([ns]) => ns < oldest);
    drawSteps(this.frame, [...before, ...steps], start, steps.length ? steps.at(-1)[0] : start, 90);
  }

  /** The curve of all its time, roughly: between what is here event by event and the beginning. */
  async sample() {
    if (!this.opened) return;
    const start = nanoseconds(this.opened.time);
    const end = nanoseconds(this.latest());
    if (this.older === null || this.samples.length || end <= start) return;
    const times = Array.from({ length: SAMPLES }, (_, place_) => start + ((end - start) * BigInt(place_)) / BigInt(SAMPLES));
    this.samples = [[start, 0n]];
    for (let first = 0; first < SAMPLES; first += SAMPLES_AT_ONCE) {
      const some = times.slice(first, first + SAMPLES_AT_ONCE);
      const accounts = await Promise.all(some.map((ns) => this.ask([], { at: timeText(ns) })));
      this.samples.push(...accounts.map((account, place_) => [some[place_], units(account.balance)]));
    }
    this.after();
  }

  async refresh() {
    try {
      const [account, holds] = await Promise.all([this.ask([]), this.ask(["holds"], { limit: HOLDS_MAX })]);
      this.identify(account);
      this.noHolds.hidden = holds.holds.length > 0;
      this.holdsTable.hidden = holds.holds.length === 0;
      this.holds.replaceChildren(
        ...holds.holds.map(({ hold_id: id, remaining, made_by: made }) =>
          row(HOLD_COLUMNS, [timeOf(made), accountLink(made.to_account, this.currency), money(remaining), h("a", { href: `#/transaction/${encodeURIComponent(id)}`, class: "id", text: id })]),
        ),
      );
    } catch (error) {
      this.fail(error);
    }
  }

  // ---- moments ----

  /** The time of the latest event that is known here. */
  latest() {
    return this.body.firstElementChild?.dataset.time ?? this.opened.time;
  }

  /** What the slider stands for as long as nobody has moved it. */
  showNow(balance) {
    if (this.slid) return;
    say(this.momentBalance, money(balance));
    say(this.when, "Now. Move the slider for what it was.");
  }

  onSlide() {
    this.slid = true;
    clearTimeout(this.timers.slide);
    this.timers.slide = setTimeout(() => this.showMoment(), DEBOUNCE_MS);
  }

  async showMoment() {
    if (!this.opened) return;
    const start = nanoseconds(this.opened.time);
    const step = BigInt(this.slider.value);
    // Nobody can be asked about what has not been taken in yet.
    const end = this.latest();
    const at = step === STEPS ? null : start + ((nanoseconds(end) - start) * step) / STEPS;
    const asked = at === null ? {} : { at: timeText(at) };
    try {
      const account = await this.ask([], asked);
      if (BigInt(this.slider.value) !== step) return; // moved on meanwhile
      say(this.momentBalance, money(account.balance));
      const when = at === null ? "now" : timeText(at);
      const where = account.last_position;
      say(this.when, `${when}, behind the event at ${place(where)} (shard · place) · held ${money(account.held)}`);
      Object.assign(this.momentBalance.dataset, { at: at === null ? "" : timeText(at), position: where, balance: account.balance });
      this.slider.setAttribute("aria-valuetext", `${account.balance} ${this.currency}, ${at === null ? "now" : moment(timeText(at))}`);
    } catch (error) {
      if (!this.signal.aborted) say(this.when, error.message);
    }
  }

  async saveReceipt(event) {
    try {
      const receipt = await download(address(["events", event.position, "receipt"]));
      const link = h("a", { href: URL.createObjectURL(receipt), download: `receipt-${event.position}.bezant` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      announce("Receipt saved");
    } catch (error) {
      this.fail(error);
    }
  }
}
