// Make a transfer, or several that are all done or none: fill in, look at it again, confirm. The id is drawn once for a
// form, so that whatever is sent again moves nothing twice.

import { address, ask, command } from "./api.js";
import { announce, badge, field, h, mark, row, table } from "./elements.js";
import { freshId, money, units, words } from "./words.js";

const ACCOUNT = /^[!-~]{1,48}$/;
const CURRENCY = /^[A-Z0-9]{1,8}$/;
const AMOUNT = /^\d{1,20}(\.\d{1,18})?$/;
const LEGS_MAX = 16;
const COLUMNS = [["Account", false], ["Balance", true], ["Held", true]];

/** What is wrong with a leg, by field; empty if nothing is. `decimals`: of each currency, null while unknown. */
export function faults(leg, decimals) {
  const found = {};
  for (const name of ["from_account", "to_account"]) {
    if (!ACCOUNT.test(leg[name])) found[name] = "1 to 48 characters, no spaces";
  }
  if (!found.to_account && leg.from_account === leg.to_account) found.to_account = "both accounts are the same";
  if (!CURRENCY.test(leg.currency)) found.currency = "a code such as EUR";
  else if (decimals && !(leg.currency in decimals)) found.currency = "not a registered currency";
  if (!AMOUNT.test(leg.amount)) found.amount = "a number such as 12.50";
  else if (units(leg.amount) === 0n) found.amount = "more than nothing";
  else if (decimals && (leg.amount.split(".")[1] ?? "").length > (decimals[leg.currency] ?? 18)) found.amount = `${leg.currency} has ${decimals[leg.currency]} decimals`;
  return found;
}

/** Show the page until the signal aborts. */
export function showTransfer(root, _parts, signal) {
  let identifier = freshId();
  let decimals = null;
  const legs = h("div", { class: "legs" });
  const mode = h("select", { id: "mode" }, h("option", { value: "tcc", text: "TC/C: try all, then confirm" }), h("option", { value: "saga", text: "Saga: one by one, or taken back" }));
  const modeField = h("label", { class: "field", for: "mode", hidden: true }, h("span", { class: "title", text: "How" }), mode);
  const more = h("button", { type: "button", class: "quiet", text: "Add another leg", onclick: () => addLeg(true) });
  const currencies = h("datalist", { id: "currencies" });
  const form = h("form", { class: "card", id: "transfer-form", novalidate: true, onsubmit: review }, legs, modeField, currencies, h("p", { class: "actions" }, more, h("button", { class: "primary", text: "Review" })));
  const step = h("div", { id: "step" });
  root.append(h("div", { class: "narrow" }, h("h1", { text: "Make a transfer" }), form, step));
  addLeg(false);
  ask("/v1/currencies", signal).then(
    (told) => {
      decimals = Object.fromEntries(told.currencies.map((one) => [one.code, one.decimals]));
      currencies.replaceChildren(...told.currencies.map((one) => h("option", { value: one.code })));
    },
    () => {}, // without them, the gateway is the one that refuses
  );

  function addLeg(focus) {
    const number = legs.children.length + 1;
    if (number > LEGS_MAX) return;
    const input = (name, more_) => h("input", { id: `${name}-${number}`, name, autocomplete: "off", spellcheck: "false", required: true, ...more_ });
    const from = input("from_account", { maxlength: 48 });
    const remove = number === 1 ? null : h("button", { type: "button", class: "quiet", text: "Remove", "aria-label": `Remove leg ${number}`, onclick: (event) => removeLeg(event.target.closest("fieldset")) });
    legs.append(
      h(
        "fieldset",
        {},
        h("legend", { class: number === 1 ? "hidden" : null, text: number === 1 ? "Transfer" : `Leg ${number}` }),
        field("From account", from),
        field("To account", input("to_account", { maxlength: 48 })),
        h("div", { class: "pair" }, field("Amount", input("amount", { inputmode: "decimal", maxlength: 40 })), field("Currency", input("currency", { maxlength: 8, list: "currencies", value: legs.querySelector("[name=currency]")?.value ?? "EUR" }))),
        remove,
      ),
    );
    modeField.hidden = legs.children.length < 2;
    if (focus) from.focus();
  }

  function removeLeg(leg) {
    leg.remove();
    modeField.hidden = legs.children.length < 2;
    more.focus();
  }

  function filled() {
    return [...legs.children].map((leg) => Object.fromEntries([...leg.querySelectorAll("input")].map((input) => [input.name, input.name === "currency" ? input.value.trim().toUpperCase() : input.value.trim()])));
  }

  function review(event) {
    event.preventDefault();
    const asked = filled();
    let first = null;
    asked.forEach((leg, place) => {
      const found = faults(leg, decimals);
      for (const input of legs.children[place].querySelectorAll("input")) {
        mark(input, found[input.name] ?? "");
        if (found[input.name]) first ??= input;
      }
    });
    if (first) {
      first.focus();
      return;
    }
    form.hidden = true;
    const confirm = h("button", { type: "button", class: "primary", id: "confirm", text: "Confirm", onclick: () => send(asked) });
    step.replaceChildren(
      h(
        "section",
        { class: "card", "aria-labelledby": "review-title" },
        h("h2", { id: "review-title", text: "Is this right?" }),
        asked.map((leg) => h("p", { class: "sum" }, h("strong", { class: "amount", text: `${money(leg.amount)} ${leg.currency}` }), h("span", { class: "way", text: `${leg.from_account} → ${leg.to_account}` }))),
        h("p", { class: "note" }, "Transaction id ", h("code", { id: "transaction-id", text: identifier })),
        h("p", { class: "actions" }, h("button", { type: "button", class: "quiet", text: "Back", onclick: back }), confirm),
      ),
    );
    confirm.focus();
  }

  function back() {
    step.replaceChildren();
    form.hidden = false;
    legs.querySelector("input").focus();
  }

  async function send(asked) {
    step.querySelectorAll("button").forEach((button) => (button.disabled = true));
    announce("Sending");
    try {
      const single = asked.length === 1;
      const done = single
        ? await command("/v1/wallet/balance_transfer", { ...asked[0], transaction_id: identifier }, signal)
        : await command("/v1/transactions", { legs: asked, mode: mode.value, answer_when: "applied", transaction_id: identifier }, signal);
      await showDone(asked, done);
    } catch (error) {
      if (!signal.aborted) showRefused(asked, error);
    }
  }

  async function showDone(asked, done) {
    const balances = table("Balances after", COLUMNS);
    const known = new Map();
    if (asked.length === 1) {
      known.set(asked[0].from_account, [done.from_balance, done.from_held]);
      if (done.to_balance !== null) known.set(asked[0].to_account, [done.to_balance, done.to_held]);
    }
    for (const leg of asked) {
      for (const name of [leg.from_account, leg.to_account]) {
        const key = `${name} ${leg.currency}`;
        if (known.has(key)) continue;
        let told = known.get(name);
        if (!told) {
          const account = await ask(address(["accounts", name], { currency: leg.currency }), signal).catch(() => null);
          told = account ? [account.balance, account.held] : ["–", "–"];
        }
        known.set(key, told);
        const link = h("a", { href: `#/account/${encodeURIComponent(name)}/${leg.currency}`, text: name });
        balances.body.append(row(COLUMNS, [link, `${money(told[0])} ${leg.currency}`, money(told[1])]));
      }
    }
    const title = done.repeated ? "Done before" : "Done";
    ended("good", title, done.repeated ? "This id was known: here is its first outcome, and nothing was moved twice." : done.to_balance === null ? "Decided, durably. The receiver is in another shard, where it can take a moment more." : "Durable, and it will stay so.", balances.shown);
  }

  function showRefused(asked, error) {
    const { problem } = error;
    const unknown = !problem || problem.code === "OUTCOME_UNKNOWN" || error.status >= 500;
    if (unknown || problem.retryable) {
      const again = h("button", { type: "button", class: "primary", id: "again", text: "Send the same again", onclick: () => send(asked) });
      result(unknown ? "busy" : "bad", unknown ? "Not known yet" : words(problem.code), `${error.message} Sent again with the same id, it is done once and no more.`, h("p", { class: "actions" }, again));
      again.focus();
      return;
    }
    ended("bad", words(problem.code ?? "refused"), error.message, null);
  }

  function result(tone, title, text, more_) {
    step.replaceChildren(h("section", { class: "card", id: "result", tabindex: "-1" }, h("header", {}, h("h2", { text: title }), badge(tone === "good" ? "success" : tone === "busy" ? "unknown" : "not done", tone)), h("p", { text }), more_, h("p", { class: "note" }, "Transaction id ", h("a", { href: `#/transaction/${encodeURIComponent(identifier)}` }, h("code", { text: identifier })))));
    announce(`${title}. ${text}`);
  }

  function ended(tone, title, text, more_) {
    result(tone, title, text, more_);
    const anew = () => {
      identifier = freshId();
      back();
    };
    const next = h("button", { type: "button", class: "primary", id: "next", text: "Another transfer", onclick: anew });
    document.getElementById("result").append(h("p", { class: "actions" }, next));
    next.focus();
  }
}
