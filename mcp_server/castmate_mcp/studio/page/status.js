// How the server does, for its operators: what draws, what waits, what it costs, how fast it is.

import { element } from "../../page/element.js";
import { day, duration, money } from "../../page/words.js";
import { ask } from "./api.js";
import { plot } from "./plot.js";

const REFRESH_MS = 5000;

export function statusView() {
  const grid = element("div", { class: "facts-grid" });
  const node = element(
    "section",
    { class: "status-view" },
    element("header", { class: "bar" }, element("h1", {}, "Status")),
    grid,
  );
  let timer = null;
  const look = async () => {
    clearTimeout(timer);
    if (!node.isConnected) return;
    timer = setTimeout(look, REFRESH_MS);
    if (document.hidden) return;
    try {
      grid.replaceChildren(...boxes(await ask("GET", "/status")));
    } catch (error) {
      grid.replaceChildren(box("Not shown", element("p", { class: "message" }, error.message)));
    }
  };
  return { title: "Status", node, shown: look };
}

function boxes({ clients, queue, memory, spend, step_times: times, keys, version }) {
  return [
    box(
      "Queue",
      figures(
        [queue.waiting, "waiting"],
        [queue.running, "running"],
        [duration(queue.oldest_wait_s), "longest wait"],
        [duration(queue.work_s), "of work"],
      ),
    ),
    box("Clients", list(clients.map(client))),
    ...times.map(({ client, count, median_ms: median, p95_ms: late, histogram }) =>
      box(
        `Steps of ${client}`,
        figures(
          [`${median.toFixed(0)} ms`, "median"],
          [`${late.toFixed(0)} ms`, "95 %"],
          [count, count === 1 ? "prediction" : "predictions"],
        ),
        plot(
          "Predictions by the time of a step",
          histogram.map(({ up_to_ms: edge, count: many }) => [`${edge.toFixed(0)} ms`, many]),
        ),
      ),
    ),
    box("Spending, 30 days", ...spending(spend)),
    ...memory.map(({ title, ...plan }) => box(`Memory: ${title}`, ...memoryPlan(plan))),
    keys.length > 0 && box("Keys", list(keys.map(key))),
    box(
      "Server",
      element("p", {}, `Castmate ${version}. `, element("a", { href: "/docs" }, "Its API")),
    ),
  ].filter(Boolean);
}

function client({ name, up, opening, breaker, reason, servers }) {
  const word = opening ? "opening" : up ? "ready" : "not used";
  const told = [
    breaker && breaker !== "closed" && `breaker ${breaker}`,
    servers &&
      `${servers.usable} servers, ${servers.resting} resting, ${servers.ahead} requests ahead`,
    reason,
  ];
  return [
    element("b", {}, name),
    element("span", { class: up ? "ok" : "quiet" }, word),
    element("span", { class: "quiet" }, told.filter(Boolean).join(" · ")),
  ];
}

function key({ name, scopes, revoked_at: revoked }) {
  return [
    element("b", {}, name),
    element("span", { class: "quiet" }, revoked ? `revoked on ${day(revoked)}` : scopes.join(", ")),
  ];
}

function memoryPlan({
  fits,
  reason,
  room_bytes: room,
  peak_bytes: peaks,
  resident,
  parked,
  streamed,
}) {
  if (!fits) return [element("p", { class: "message" }, reason)];
  const peak = Math.max(...Object.values(peaks));
  const where = { "on the GPU": resident, parked, streamed };
  return [
    figures([gigabytes(peak), `at the peak, of ${gigabytes(room)}`]),
    plot("Peak by stage", Object.entries(peaks), gigabytes),
    list(
      Object.entries(where)
        .filter(([, graphs]) => graphs.length)
        .map(([name, graphs]) => [
          element("b", {}, name),
          element("span", { class: "quiet" }, graphs.join(", ")),
        ]),
    ),
  ];
}

function gigabytes(bytes) {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}

// By day, and by key: who reads the sum wants to know whose it is.
function spending(spend) {
  if (!spend.length)
    return [
      element("p", { class: "quiet" }, "Nothing was paid. What this server draws itself is free."),
    ];
  const [days, keys] = [
    sums(spend, ({ day: one }) => one.slice(5)),
    sums(spend, ({ key: name }) => name),
  ];
  return [
    plot("Dollars by day", days, money),
    list(keys.map(([name, usd]) => [element("b", {}, name), element("span", {}, money(usd))])),
  ];
}

function sums(spend, of) {
  const found = new Map();
  for (const one of spend) found.set(of(one), (found.get(of(one)) ?? 0) + one.usd);
  return [...found];
}

function box(title, ...children) {
  return element("section", { class: "panel-box" }, element("h2", {}, title), ...children);
}

function figures(...pairs) {
  return element(
    "div",
    { class: "figure-row" },
    ...pairs.map(([figure, name]) =>
      element("div", {}, element("b", {}, figure), element("span", { class: "quiet" }, name)),
    ),
  );
}

function list(rows) {
  return element("ul", { class: "facts-list" }, ...rows.map((row) => element("li", {}, ...row)));
}
