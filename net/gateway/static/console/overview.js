// How the nodes are, every second: what a team sees from three metres.

import { listen } from "./api.js";
import { LineChart } from "./charts.js";
import { announce, badge, h, row, say, table } from "./elements.js";
import { count, duration, moment, rate, size } from "./words.js";

const SPAN_MS = 5 * 60_000;
const STALE_MS = 4_000;
const kept = []; // the points of the chart, for who comes back to this page
const COLUMNS = [
  ["Node", false],
  ["Role", false],
  ["Behind", true],
  ["Reader", true],
  ["On disk", true],
  ["Committed", true],
  ["Transfers/s", true],
  ["Commit p99", true],
  ["Sync p99", true],
  ["Waiting", true],
  ["Processor", true],
  ["Memory", true],
];

function figure(title, unit, id, large = false) {
  const value = h("span", { class: "value", id });
  return { value, shown: h("div", { class: large ? "figure large" : "figure" }, h("dt", { text: title }), h("dd", {}, value, " ", h("span", { class: "unit", text: unit }))) };
}

/** What is wrong, worst first; nothing if all is well. */
export function troubles(told) {
  const found = [];
  for (const { shard, leader, nodes } of told.shards) {
    const name = shard === 4095 ? "The slot map's group" : `Shard ${shard ?? "?"}`;
    if (leader === null) found.push(`${name} has no leader`);
    for (const node of nodes) {
      if (!node.reachable) found.push(`${name}, node ${node.node ?? node.address} cannot be reached`);
      else if (node.problem) found.push(`${name}, node ${node.node}: ${node.problem}`);
      else if (node.reader?.problem) found.push(`${name}, reader of node ${node.node}: ${node.reader.problem}`);
    }
  }
  return found;
}

/** The largest quantile of what leaders tell: a wall shows what the slowest shard's clients see. */
function worst(told, name, quantile) {
  const found = told.shards.flatMap(({ nodes }) => nodes.filter((node) => node.numbers?.role === "leader").map((node) => node.numbers.latency[name]?.[quantile]));
  const known = found.filter((ms) => ms !== null && ms !== undefined);
  return known.length ? Math.max(...known) : null;
}

/** How far a reader is behind: in entries, or its history in events. */
function readerState(reader) {
  if (!reader) return "–";
  if (reader.behind_entries === null) return badge("gone", "bad");
  const behind = Math.max(reader.behind_entries, reader.history_behind_events);
  return behind ? count(behind) : "level";
}

function nodeRow(node) {
  const { numbers } = node;
  const name = h("span", {}, h("b", { text: node.node === null ? "?" : String(node.node) }), " ", h("span", { class: "note", text: node.address }));
  if (!numbers) return row(COLUMNS, [name, badge("unreachable", "bad"), ...Array(COLUMNS.length - 2).fill("–")], { class: "down" });
  const waiting = ["commands", "batches"].map((queue) => numbers.queues[queue]?.depth ?? 0).reduce((sum, depth) => sum + depth, 0);
  const behind = numbers.role === "leader" ? "–" : `${count(numbers.behind_entries)}`;
  return row(COLUMNS, [
    name,
    badge(numbers.role, numbers.role === "leader" ? "good" : ""),
    behind,
    readerState(node.reader),
    count(numbers.durable_index),
    count(numbers.commit_index),
    rate(numbers.rates?.transfers_per_s),
    duration(numbers.latency.commit?.p99_ms),
    duration(numbers.latency.sync?.p99_ms),
    count(waiting),
    numbers.rates ? `${Math.round(numbers.rates.processor * 100)} %` : "–",
    size(numbers.memory_bytes),
  ]);
}

function shardCard(told) {
  const name = told.shard === 4095 ? "Slot map" : `Shard ${told.shard ?? "?"}`;
  const { shown, body } = table(`Nodes of ${name.toLowerCase()}`, COLUMNS, { hideCaption: true });
  body.append(...told.nodes.map(nodeRow));
  const healthy = told.leader !== null && told.nodes.every((node) => node.reachable && !node.problem);
  return h(
    "section",
    { class: "card", "aria-label": name },
    h(
      "header",
      {},
      h("h2", { text: name }),
      badge(healthy ? "healthy" : "needs attention", healthy ? "good" : "bad"),
      h("span", { class: "note", text: told.leader === null ? `no leader · term ${told.term}` : `leader ${told.leader} · term ${told.term}` }),
    ),
    shown,
  );
}

/** Show the page until the signal aborts. */
export function showOverview(root, _parts, signal) {
  const health = h("p", { class: "health", id: "health" });
  const freshness = h("p", { class: "freshness", id: "freshness", text: "connecting …" });
  const throughput = figure("Throughput", "transfers/s", "throughput", true);
  const median = figure("Latency p50", "", "latency-p50");
  const high = figure("p99", "", "latency-p99");
  const highest = figure("p99.9", "", "latency-p999");
  const total = figure("Transfers since the start", "", "transfers-total");
  const chart = new LineChart(SPAN_MS, 220, kept);
  const scale = h("span", { class: "scale" });
  const told = h("figcaption", { class: "note", text: "Transfers a second." });
  const shards = h("div", { id: "shards" });
  const page = h(
    "div",
    { class: "overview", id: "overview" },
    h("h1", { class: "hidden", text: "Overview" }),
    h("div", { class: "status" }, health, freshness),
    h("dl", { class: "figures" }, [throughput, median, high, highest, total].map((one) => one.shown)),
    h("figure", { class: "card plot", role: "group", "aria-label": "Throughput" }, h("div", { class: "frame" }, scale, chart.shown), told),
    shards,
  );
  root.append(page);

  let seenMs = null;
  let wrong = null;
  let problem = null;

  function freshen() {
    const stale = problem !== null || seenMs === null || Date.now() - seenMs > STALE_MS;
    page.classList.toggle("stale", stale);
    if (!stale) return;
    chartGap();
    if (wrong !== null) say(health, `Last known: ${wrong}`);
    const why = problem?.problem?.title ?? "the gateway does not answer";
    const since = seenMs === null ? "" : `no news for ${Math.round((Date.now() - seenMs) / 1000)} s · `;
    if (problem || seenMs !== null) say(freshness, `${since}${why} · connecting again`);
  }

  function chartGap() {
    if (chart.points.at(-1)?.[1] !== null && chart.points.length) chart.add(Date.now(), null);
  }

  function onCluster(now) {
    seenMs = Date.now();
    problem = null;
    page.classList.remove("stale");
    say(freshness, `live · ${moment(now.time).slice(11, 19)} UTC`);
    say(throughput.value, rate(now.rates?.transfers_per_s));
    for (const [one, quantile] of [[median, "p50_ms"], [high, "p99_ms"], [highest, "p999_ms"]]) say(one.value, duration(worst(now, "request", quantile)));
    say(total.value, count(now.transfers_total));
    const top = chart.add(seenMs, now.rates?.transfers_per_s ?? null);
    say(scale, rate(top));
    const found = troubles(now);
    const nodes = now.shards.reduce((sum, one) => sum + one.nodes.length, 0);
    const text = found.length ? found.join(" · ") : `All well: ${now.shards.length} ${now.shards.length === 1 ? "shard" : "shards"}, ${nodes} ${nodes === 1 ? "node" : "nodes"}`;
    say(health, text);
    health.classList.toggle("bad", found.length > 0);
    if (wrong !== null && wrong !== text) announce(text);
    wrong = text;
    const known = chart.points.map(([, number]) => number).filter((number) => number !== null);
    const minutes = chart.minutes(seenMs);
    if (known.length) say(told, `Transfers a second, the last ${minutes === 1 ? "minute" : `${minutes} minutes`}: lowest ${rate(Math.min(...known))}, highest ${rate(Math.max(...known))}.`);
    // Whoever reads or scrolls in a table is not disturbed by a new one.
    if (!shards.contains(document.activeElement)) shards.replaceChildren(...now.shards.map(shardCard));
  }

  chartGap(); // while nobody looked
  const timer = setInterval(freshen, 1000);
  signal.addEventListener("abort", () => clearInterval(timer));
  listen("/v1/cluster/stream", {
    signal,
    onEvent: (event) => onCluster(JSON.parse(event.data)),
    onState: (state, error) => {
      problem = state === "lost" ? error : null;
      if (state === "lost") freshen();
    },
  });
}
