// Numbers, times and results in words. Amounts stay strings; what is computed with them is a BigInt of minor units.

const SHORT = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const FINE = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** An amount with its digits in groups of three, parted by narrow spaces; nothing else of it is changed. */
export function money(text) {
  if (typeof text !== "string") return "–";
  const [, sign, whole, rest] = /^(-?)(\d+)(.*)$/.exec(text) ?? [null, "", text, ""];
  return (sign ? "−" : "") + whole.replace(/\B(?=(\d{3})+$)/g, "\u202f") + rest;
}

/** Minor units of an amount. */
export function units(text) {
  return BigInt(text.replace(".", ""));
}

/** One amount less another of the same currency. */
export function less(text, other) {
  const decimals = (text.split(".")[1] ?? "").length;
  const difference = units(text) - units(other);
  const digits = String(difference < 0n ? -difference : difference).padStart(decimals + 1, "0");
  const whole = digits.slice(0, digits.length - decimals);
  return (difference < 0n ? "-" : "") + whole + (decimals ? `.${digits.slice(-decimals)}` : "");
}

export const count = (number) => SHORT.format(number);
export const rate = (number) => (number === null || number === undefined ? "–" : number >= 100 ? SHORT.format(number) : FINE.format(number));

/** Milliseconds, with the unit that suits them. */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1) return `${FINE.format(ms * 1000)} µs`;
  return ms < 1000 ? `${FINE.format(ms)} ms` : `${FINE.format(ms / 1000)} s`;
}

/** Bytes in the largest binary unit. */
export function size(bytes) {
  const names = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  for (; bytes >= 1024 && place < names.length - 1; place += 1) bytes /= 1024;
  return `${FINE.format(bytes)} ${names[place]}`;
}

/** Nanoseconds since 1970 of an RFC 3339 time in UTC with nine digits. */
export function nanoseconds(time) {
  const [whole, rest = ""] = time.replace("Z", "").split(".");
  return BigInt(Date.parse(`${whole}Z`)) * 1_000_000n + BigInt(rest.padEnd(9, "0"));
}

/** The same the other way. */
export function timeText(ns) {
  const seconds = ns / 1_000_000_000n;
  const whole = new Date(Number(seconds) * 1000).toISOString().slice(0, 19);
  return `${whole}.${String(ns % 1_000_000_000n).padStart(9, "0")}Z`;
}

/** A time for people, in UTC: date, time and milliseconds. */
export function moment(time) {
  return time ? `${time.slice(0, 10)} ${time.slice(11, 23)}` : "–";
}

/** SOME_CODE as words. */
export function words(code) {
  const text = code.toLowerCase().replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** The shard of a position: its upper 12 bits. */
export function shardOf(position) {
  return Number(BigInt.asUintN(64, BigInt(position)) >> 52n);
}

/** A random UUID of version 7 (RFC 9562): those name commands best. */
export function freshId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  let now = Date.now();
  for (let place = 5; place >= 0; place -= 1) {
    bytes[place] = now % 256;
    now = Math.floor(now / 256);
  }
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  const text = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return text.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
