// Which page is shown, and what all pages share: theme, token, shortcuts.

import { setToken, token } from "./api.js";
import { announce, say } from "./elements.js";
import { showAccount } from "./account.js";
import { showOverview } from "./overview.js";
import { showTransaction } from "./transaction.js";
import { showTransfer } from "./transfer.js";

const PAGES = {
  overview: ["Overview", showOverview],
  account: ["Account", showAccount],
  transaction: ["Transaction", showTransaction],
  transfer: ["Transfer", showTransfer],
};
const KEYS = { 1: "overview", 2: "account", 3: "transaction", 4: "transfer" };
const THEMES = ["auto", "light", "dark"];
const THEME = "bezant theme";

const main = document.getElementById("main");
let leave = new AbortController();

function show(focus) {
  const [name, ...parts] = location.hash.replace(/^#\/?/, "").split("/");
  const [title, page] = PAGES[name] ?? PAGES.overview;
  leave.abort();
  leave = new AbortController();
  main.replaceChildren();
  let given;
  try {
    given = parts.map(decodeURIComponent);
  } catch {
    given = []; // a percent sign that escapes nothing
  }
  page(main, given, leave.signal);
  document.title = `${title} · Bezant`;
  for (const link of document.querySelectorAll(".bar nav a")) {
    if (link.hash === `#/${PAGES[name] ? name : "overview"}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (focus) {
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
    announce(title);
  }
}

// ---- theme ----

function applyTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  say(document.getElementById("theme-button"), `Theme: ${theme}`);
}

function nextTheme() {
  const theme = THEMES[(THEMES.indexOf(localStorage.getItem(THEME) ?? "auto") + 1) % THEMES.length];
  localStorage.setItem(THEME, theme);
  applyTheme(theme);
}

// ---- token ----

const tokenDialog = document.getElementById("token-dialog");
const tokenField = document.getElementById("token-field");

function showToken() {
  const button = document.getElementById("token-button");
  say(button, token() ? "Token ✓" : "Token");
  button.setAttribute("aria-label", token() ? "Token: given" : "Token: none");
}

function askToken() {
  tokenField.value = "";
  tokenDialog.returnValue = "";
  tokenDialog.showModal();
}

tokenDialog.addEventListener("close", () => {
  if (tokenDialog.returnValue === "use" && tokenField.value.trim()) setToken(tokenField.value.trim());
  else if (tokenDialog.returnValue === "forget") setToken("");
  else return;
  tokenField.value = "";
  showToken();
  show(false);
});
// The first button of a form is what Enter presses; here it would forget.
tokenField.addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  tokenDialog.close("use");
});

// ---- shortcuts ----

function onKey(event) {
  const typing = event.target.closest("input, select, textarea") && event.target.type !== "range";
  if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const page = KEYS[event.key];
  if (page) location.hash = `#/${page}`;
  else if (event.key === "/") main.querySelector("input")?.focus();
  else if (event.key === "d") nextTheme();
  else if (event.key === "k") askToken();
  else if (event.key === "?") document.getElementById("help-dialog").showModal();
  else return;
  event.preventDefault();
}

document.getElementById("theme-button").addEventListener("click", nextTheme);
document.getElementById("token-button").addEventListener("click", askToken);
document.getElementById("help-button").addEventListener("click", () => document.getElementById("help-dialog").showModal());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the page
  main.focus();
});
document.addEventListener("keydown", onKey);
addEventListener("hashchange", () => show(true));
applyTheme(localStorage.getItem(THEME) ?? "auto");
showToken();
show(false);
