// The tiles: each knows its views, how to draw itself, and what to say while it is empty.

import { barChart, lineChart, shareBar } from "./charts.js";
import { h } from "./dom.js";
import { day, decimal, fullTime, minute, money, number, share, words } from "./words.js";

const MINUTE = 60_000;
const MINUTES_SHOWN = 30;
const DAYS_SHOWN = 14;
const ROWS_SHOWN = 6;
/** A newest event older than this is a replay of old data, not a delay. */
const REPLAY_MS = 24 * 3_600_000;

/** Views on the stream; of those that grow with time only the newest part. */
export const VIEWS = [
  { name: "orders_per_minute", recent: { column: "window_start", seconds: 3600 } },
  { name: "behavior_per_minute", recent: { column: "window_start", seconds: 3600 } },
  { name: "cumulative_uv_today", recent: { column: "window_end", seconds: 7200 } },
  { name: "pv_uv_per_hour", recent: { column: "window_start", seconds: 7200 } },
  { name: "hot_items", recent: { column: "window_end", seconds: 1800 } },
  { name: "low_stock" },
  { name: "sales_by_day", recent: { column: "day", seconds: 20 * 86_400 } },
];

const origin = () => location.origin;
const post = (table, row) => `curl ${origin()}/v1/tables/${table}/rows --json '${JSON.stringify(row)}'`;
const SIMULATE = "shopstream simulate --rate 50 --seed 1";
const PACK = "shopstream serve --pack packs/commerce";

export const TILES = [
  {
    id: "orders",
    title: () => words().orders,
    views: ["orders_per_minute"],
    hint: () => SIMULATE,
    draw: (context) => minuteTile(context, words().orders, (row) => Number(row.orders), number),
  },
  {
    id: "gmv",
    title: () => words().gmv,
    views: ["orders_per_minute"],
    hint: () => SIMULATE,
    draw: (context) => minuteTile(context, words().gmv, (row) => Number(row.gmv), money),
  },
  { id: "paid", title: () => words().paid, views: ["orders_per_minute"], hint: () => SIMULATE, draw: paidTile },
  {
    id: "visitors",
    title: () => words().visitors,
    views: ["cumulative_uv_today", "pv_uv_per_hour"],
    hint: () => SIMULATE,
    draw: visitorsTile,
  },
  {
    id: "behavior",
    className: "wide",
    title: () => words().behavior,
    views: ["behavior_per_minute"],
    hint: () => SIMULATE,
    draw: behaviorTile,
  },
  {
    id: "hot",
    className: "wide",
    title: () => words().hotItems,
    views: ["hot_items"],
    hint: () => SIMULATE,
    draw: hotItemsTile,
  },
  {
    id: "stock",
    className: "wide",
    title: () => words().lowStock,
    views: ["low_stock"],
    hint: () => post("stock", { product_id: 103, quantity: 0 }),
    emptyText: () => words().noLowStock,
    draw: lowStockTile,
  },
  {
    id: "sales",
    className: "wide",
    title: () => words().salesByDay,
    views: ["sales_by_day"],
    hint: () => SIMULATE,
    draw: salesTile,
  },
  { id: "ingest", className: "sixth", title: () => words().ingest, links: ["/v1/status"], draw: ingestTile },
  { id: "freshness", className: "sixth", title: () => words().freshness, links: ["/v1/status"], draw: freshnessTile },
  { id: "watermark", className: "sixth", title: () => words().watermarkLag, links: ["/v1/status"], draw: watermarkTile },
  {
    id: "rejected",
    className: "sixth",
    title: () => words().rejected,
    links: ["/v1/views/rejected_rows?order=rejected_at.desc", "/v1/views/late_rows"],
    draw: troubleTile,
  },
];

/** What stands in place of a tile whose view is missing, suspended, loading or empty; `null` when it has rows. */
export function placeholder(tile, context) {
  const text = words();
  const relations = (tile.views ?? []).map((name) => context.relations.get(name));
  if (relations.length === 0) return null;
  const suspended = tile.views.map((name) => context.status?.views?.[name]?.suspended).find(Boolean);
  if (suspended) return h("div", { class: "empty alarm" }, h("p", {}, text.suspended), h("pre", {}, suspended));
  if (relations.some((relation) => relation.list().length > 0)) return null;
  if (relations.some((relation) => relation.state === "live")) {
    const emptyText = tile.emptyText ? tile.emptyText() : text.noRows;
    return h("div", { class: "empty" }, h("p", {}, emptyText), h("pre", { tabindex: "0" }, tile.hint()));
  }
  if (relations.some((relation) => relation.state === "unavailable")) {
    return h("div", { class: "empty" }, h("p", {}, text.missing), h("pre", { tabindex: "0" }, PACK));
  }
  return h("div", { class: "empty" }, h("p", {}, text.loading));
}

const value = (text, unit) => h("p", { class: "value" }, text, unit ? h("span", { class: "unit" }, unit) : null);
const note = (text) => h("p", { class: "note" }, text);

/** True when the watermark of the view has passed the window's end, or time has gone on without one. */
function isComplete(context, view, endMs) {
  const watermark = context.status?.views?.[view]?.watermark;
  return watermark ? Date.parse(watermark) >= endMs : false;
}

/** One point per minute up to the newest window; minutes without a row are zero. */
function minutePoints(rows, valueOf) {
  const byTime = new Map();
  for (const row of rows) {
    const time = Date.parse(row.window_start);
    byTime.set(time, (byTime.get(time) ?? 0) + valueOf(row));
  }
  if (byTime.size === 0) return [];
  const newest = Math.max(...byTime.keys());
  const oldest = Math.max(newest - (MINUTES_SHOWN - 1) * MINUTE, Math.min(...byTime.keys()));
  const points = [];
  for (let time = oldest; time <= newest; time += MINUTE) points.push({ time, value: byTime.get(time) ?? 0 });
  return points;
}

function minuteTile(context, title, valueOf, format) {
  const points = minutePoints(context.rows("orders_per_minute"), valueOf);
  const newest = points.at(-1);
  const lastIsOpen = !isComplete(context, "orders_per_minute", newest.time + MINUTE);
  const full = lastIsOpen ? points.at(-2) : newest;
  const peak = Math.max(...points.map((point) => point.value));
  const shown = full ?? newest;
  return [
    value(format(shown.value), words().perMinute),
    note(lastIsOpen ? words().soFar(format(newest.value)) : words().lastMinute),
    lineChart({
      points,
      lastIsOpen,
      label: words().chartLabel(title, format(shown.value), format(peak)),
      describe: (point) => `${minute(point.time)}: ${format(point.value)}`,
      from: minute(points[0].time),
      to: minute(newest.time),
    }),
  ];
}

function paidTile(context) {
  const rows = context.rows("orders_per_minute");
  const newest = Math.max(...rows.map((row) => Date.parse(row.window_start)));
  const recent = rows.filter((row) => Date.parse(row.window_start) > newest - MINUTES_SHOWN * MINUTE);
  const sum = (name) => recent.reduce((total, row) => total + Number(row[name] ?? 0), 0);
  const orders = sum("orders");
  const paid = sum("paid_orders");
  const points = minutePoints(recent, (row) => Number(row.paid_orders ?? 0));
  const lastIsOpen = !isComplete(context, "orders_per_minute", newest + MINUTE);
  return [
    value(number(paid), words().last30),
    note(words().paidNote(orders > 0 ? share(paid / orders) : "–", number(sum("cancelled_orders")))),
    lineChart({
      points,
      lastIsOpen,
      label: words().chartLabel(words().paid, number(points.at(-1).value), number(Math.max(...points.map((p) => p.value)))),
      describe: (point) => `${minute(point.time)}: ${number(point.value)}`,
      from: minute(points[0].time),
      to: minute(newest),
    }),
  ];
}

function latestBy(rows, column) {
  return rows.reduce((best, row) => (!best || Date.parse(row[column]) > Date.parse(best[column]) ? row : best), null);
}

/** How far event time has come; windows that end later are still filling. */
function eventNow(context) {
  const newest = context.status?.tables?.user_behavior?.max_event_time;
  return newest ? Date.parse(newest) : Infinity;
}

/** The open window that is most complete: the first to end after the newest event, else the last that ended. */
function fullestWindow(rows, nowMs) {
  const open = rows.filter((row) => Date.parse(row.window_end) > nowMs);
  if (!open.length) return latestBy(rows, "window_end");
  return open.reduce((best, row) => (Date.parse(row.window_end) < Date.parse(best.window_end) ? row : best));
}

function visitorsTile(context) {
  const steps = context.rows("cumulative_uv_today").sort((a, b) => Date.parse(a.window_end) - Date.parse(b.window_end));
  // Steps later today hold the same visitors already; they are no news.
  const fullest = steps.length ? fullestWindow(steps, eventNow(context)) : null;
  const today = fullest ? steps.filter((row) => Date.parse(row.window_end) <= Date.parse(fullest.window_end)) : [];
  const hour = latestBy(context.rows("pv_uv_per_hour"), "window_start");
  const latest = today.at(-1);
  const content = [value(latest ? number(latest.uv) : hour ? number(hour.uv) : "–", latest ? words().visitorsUnit : null)];
  content.push(note(hour ? words().visitorsNote(number(hour.uv), number(hour.pv)) : ""));
  const sameDay = latest ? today.filter((row) => row.window_start === latest.window_start) : [];
  if (sameDay.length > 1) {
    const points = sameDay.map((row) => ({ time: Date.parse(row.window_end), value: Number(row.uv) }));
    content.push(
      lineChart({
        points,
        lastIsOpen: !isComplete(context, "cumulative_uv_today", points.at(-1).time),
        label: words().chartLabel(words().visitors, number(latest.uv), number(latest.uv)),
        describe: (point) => `${minute(point.time)}: ${number(point.value)}`,
        from: minute(points[0].time),
        to: minute(points.at(-1).time),
      }),
    );
  }
  return content;
}

function behaviorTile(context) {
  const rows = context.rows("behavior_per_minute");
  const newest = Math.max(...rows.map((row) => Date.parse(row.window_start)));
  const lastIsOpen = !isComplete(context, "behavior_per_minute", newest + MINUTE);
  const shownAt = lastIsOpen ? newest - MINUTE : newest;
  const kinds = [...new Set(rows.map((row) => row.behavior))];
  const lines = kinds.map((kind) => {
    const byTime = new Map(rows.filter((row) => row.behavior === kind).map((row) => [Date.parse(row.window_start), Number(row.cnt)]));
    const points = [];
    for (let time = newest - (MINUTES_SHOWN - 1) * MINUTE; time <= newest; time += MINUTE) {
      points.push({ time, value: byTime.get(time) ?? 0 });
    }
    return { kind, points, shown: byTime.get(shownAt) ?? 0, total: points.reduce((sum, point) => sum + point.value, 0) };
  });
  lines.sort((a, b) => b.total - a.total);
  const body = lines.slice(0, ROWS_SHOWN).map(({ kind, points, shown }) => {
    const name = words().behaviors[kind] ?? String(kind);
    const peak = Math.max(...points.map((point) => point.value));
    const chart = lineChart({ points, lastIsOpen, small: true, label: words().chartLabel(name, number(shown), number(peak)) });
    return h("tr", {}, h("td", {}, name), h("td", { class: "spark" }, chart), h("td", { class: "number" }, number(shown)));
  });
  return [
    note(`${minute(shownAt)} · ${words().lastMinute} · ${words().unfinished}`),
    h("table", {}, h("tbody", {}, ...body)),
  ];
}

function hotItemsTile(context) {
  const rows = context.rows("hot_items");
  const newest = fullestWindow(rows, eventNow(context));
  const shown = rows
    .filter((row) => row.window_end === newest.window_end)
    .sort((a, b) => Number(a.rank) - Number(b.rank))
    .slice(0, ROWS_SHOWN);
  const peak = Math.max(...shown.map((row) => Number(row.cnt)), 1);
  const text = words();
  return [
    note(text.windowOf(minute(Date.parse(newest.window_start)), minute(Date.parse(newest.window_end)))),
    table(
      [
        [text.rank, ""],
        [text.item, ""],
        ["", ""],
        [text.count, "number"],
      ],
      shown.map((row) =>
        h(
          "tr",
          {},
          h("td", {}, number(Number(row.rank))),
          h("td", {}, String(row.item_id)),
          h("td", { class: "share" }, shareBar(Number(row.cnt) / peak)),
          h("td", { class: "number" }, number(Number(row.cnt))),
        ),
      ),
    ),
  ];
}

function lowStockTile(context) {
  const rows = context.rows("low_stock").sort((a, b) => Number(a.on_hand) - Number(b.on_hand));
  const text = words();
  const lines = rows.slice(0, ROWS_SHOWN).map((row) => {
    const out = Number(row.on_hand) <= 0;
    return h(
      "tr",
      { class: out ? "alarm" : null },
      h("td", {}, String(row.product_id)),
      h("td", {}, out ? text.outOfStock : ""),
      h("td", { class: "number" }, number(Number(row.on_hand))),
      h("td", { class: "number" }, row.reorder_point === null || row.reorder_point === undefined ? "–" : number(Number(row.reorder_point))),
    );
  });
  const head = [
    [text.product, ""],
    ["", ""],
    [text.onHand, "number"],
    [text.reorderPoint, "number"],
  ];
  const more = rows.length - lines.length;
  return [note(more > 0 ? text.moreRows(number(more)) : ""), table(head, lines)];
}

function table(head, lines) {
  const cells = head.map(([name, className]) => h("th", { scope: "col", class: className || null }, name));
  return h("table", {}, h("thead", {}, h("tr", {}, ...cells)), h("tbody", {}, ...lines));
}

function salesTile(context) {
  const rows = context.rows("sales_by_day").sort((a, b) => Date.parse(a.day) - Date.parse(b.day));
  const shown = rows.slice(-DAYS_SHOWN);
  const points = shown.map((row) => ({ time: Date.parse(row.day), value: Number(row.gmv), orders: Number(row.orders) }));
  const newest = points.at(-1);
  const peak = Math.max(...points.map((point) => point.value));
  return [
    note(words().salesNote(money(newest.value), number(newest.orders))),
    barChart({
      points,
      lastIsOpen: !isComplete(context, "sales_by_day", newest.time + 86_400_000),
      label: words().chartLabel(words().salesByDay, money(newest.value), money(peak)),
      describe: (point) => `${day(point.time)}: ${money(point.value)} (${number(point.orders)})`,
      from: day(points[0].time),
      to: day(newest.time),
    }),
  ];
}

function ingestTile(context) {
  if (!context.status) return [value("–")];
  const points = context.rates;
  const content = [value(decimal(context.status.rows_per_second), words().rowsPerSecond), note(words().totalRows(number(context.status.rows_accepted)))];
  if (points.length > 1) {
    const peak = Math.max(...points.map((point) => point.value));
    content.push(lineChart({ points, small: true, label: words().chartLabel(words().ingest, decimal(points.at(-1).value), decimal(peak)) }));
  }
  return content;
}

/** How old the newest event is: { behindMs, newest, replay }, or null without events. */
export function freshness(status) {
  const times = Object.values(status?.tables ?? {})
    .map((table) => Date.parse(table.max_event_time))
    .filter(Number.isFinite);
  if (times.length === 0) return null;
  const newest = Math.max(...times);
  const behindMs = Math.max(Date.parse(status.server_time) - newest, 0);
  return { behindMs, newest, replay: behindMs > REPLAY_MS };
}

function freshnessTile(context) {
  const fresh = freshness(context.status);
  if (!fresh) return [value("–"), note(words().noEvents)];
  const backlog = words().backlog(number(context.status.backlog_records));
  if (fresh.replay) return [note(words().eventTime), h("p", { class: "value" }, fullTime(fresh.newest)), note(backlog)];
  return [value(decimal(fresh.behindMs / 1000), words().seconds), note(backlog)];
}

function watermarkTile(context) {
  let worst = null;
  for (const [name, entry] of Object.entries(context.status?.tables ?? {})) {
    const lag = Date.parse(entry.max_event_time) - Date.parse(entry.watermark);
    if (!entry.idle && Number.isFinite(lag) && (!worst || lag > worst.lag)) worst = { name, lag };
  }
  if (!worst) return [value("–"), note(words().noWatermark)];
  return [value(decimal(Math.max(worst.lag, 0) / 1000), words().seconds), note(words().watermarkNote(worst.name))];
}

function troubleTile(context) {
  if (!context.status) return [value("–")];
  const { window_rows_rejected: rejected, window_rows_late: late } = context.status;
  return [
    h("div", { class: rejected > 0 ? "alarm" : null }, value(number(rejected), words().rejectedUnit)),
    h("div", { class: late > 0 ? "alarm" : null }, value(number(late), words().lateUnit)),
    note(words().lastFive),
  ];
}
