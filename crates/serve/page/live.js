// The live page: follows the views on one event stream and redraws what changed, at most four times
// a second.

import { h, setText } from "./dom.js";
import { Relation, follow } from "./relations.js";
import { TILES, VIEWS, freshness, placeholder } from "./tiles.js";
import { clock, decimal, fullTime, locale, number, toggleLanguage, words } from "./words.js";

const REDRAW_MS = 250;
const RATES_MAX = 120;

const relations = new Map(VIEWS.map((view) => [view.name, new Relation(view.name, view.recent)]));
const context = { relations, status: null, rates: [], rows: (name) => relations.get(name).list() };
let connection = "connecting";
let statusAt = null;

const tileElements = new Map();

function buildTiles() {
  const main = document.getElementById("tiles");
  main.replaceChildren();
  for (const tile of TILES) {
    const body = h("div", { class: "body" });
    const asOf = h("span", { class: "asof" });
    const links = (tile.views ?? []).flatMap((name) => [
      h("a", { class: "view", href: `/v1/views/${encodeURIComponent(name)}` }, name),
      h("button", { type: "button", "aria-label": words().showSql(name), onclick: () => showDefinition(name) }, words().sql),
    ]);
    for (const address of tile.links ?? []) links.push(h("a", { class: "view", href: address }, address.split("/").pop().split("?")[0]));
    const heading = h("h2", { id: `tile-${tile.id}` }, tile.title());
    const element = h(
      "section",
      { class: `tile ${tile.className ?? "quarter"}`, "aria-labelledby": `tile-${tile.id}` },
      heading,
      body,
      h("footer", {}, ...links, asOf),
    );
    main.append(element);
    tileElements.set(tile.id, { element, body, asOf });
  }
}

function drawTile(tile) {
  const { element, body, asOf } = tileElements.get(tile.id);
  // A selection, the keyboard or the pointer inside a tile must not lose its place under the reader.
  const selection = document.getSelection();
  const inUse = body.contains(document.activeElement) || body.querySelector("svg:hover") !== null;
  const selected = selection && !selection.isCollapsed && body.contains(selection.anchorNode);
  if (!inUse && !selected) body.replaceChildren(...[placeholder(tile, context) ?? tile.draw(context)].flat());
  element.classList.toggle("stale", connection === "lost");
  setText(asOf, statusAt ? words().asOf(clock(statusAt)) : "");
  const view = context.status?.views?.[tile.views?.[0]];
  asOf.title = view?.watermark ? words().completeUntil(fullTime(Date.parse(view.watermark))) : "";
}

function drawPulse() {
  const pulse = document.getElementById("pulse");
  const dot = h("span", { class: connection === "live" ? "dot" : "dot off" });
  if (!context.status) {
    pulse.replaceChildren(dot, words().connecting);
    return;
  }
  const fresh = freshness(context.status);
  const parts = [dot];
  if (!fresh) parts.push(words().noEvents);
  else if (fresh.replay) parts.push(`${words().eventTime} `, h("strong", {}, fullTime(fresh.newest)));
  else {
    parts.push(`${words().behind} `, h("strong", {}, `${decimal(fresh.behindMs / 1000)} ${words().seconds}`));
    parts.push(` · ${words().lastEvent} ${clock(fresh.newest)}`);
  }
  parts.push(" · ", h("a", { href: "/v1/views/rejected_rows?order=rejected_at.desc" }, words().rejectedInWindow(number(context.status.window_rows_rejected))));
  pulse.replaceChildren(...parts);
}

function drawBanner() {
  const banner = document.getElementById("banner");
  let text = "";
  if (connection === "lost") text = words().connectionLost;
  else if (context.status?.writes_refused) text = words().writesRefused(context.status.writes_refused);
  else if (context.status && !context.status.ready) text = words().catchingUp(number(context.status.backlog_records));
  setText(banner, text);
  banner.hidden = text === "";
}

function drawFrame() {
  document.documentElement.lang = locale();
  const button = document.getElementById("language");
  setText(button, words().otherLanguage);
  button.setAttribute("aria-label", words().otherLanguageLabel);
  setText(document.getElementById("link-views"), words().views);
  setText(document.getElementById("link-api"), words().api);
  setText(document.getElementById("definition-close"), words().close);
  const zone = new Intl.DateTimeFormat(locale()).resolvedOptions().timeZone;
  setText(document.getElementById("bottom"), words().timeZone(zone));
}

let redrawTimer = null;

function redrawSoon() {
  redrawTimer ??= setTimeout(() => {
    redrawTimer = null;
    redraw();
  }, REDRAW_MS);
}

function redraw() {
  drawPulse();
  drawBanner();
  for (const tile of TILES) {
    try {
      drawTile(tile);
    } catch (error) {
      // A view of another shape must not take the rest of the page with it.
      tileElements.get(tile.id).body.replaceChildren(h("p", { class: "note alarm" }, String(error)));
    }
  }
}

async function showDefinition(name) {
  const dialog = document.getElementById("definition");
  setText(document.getElementById("definition-name"), name);
  const sql = document.getElementById("definition-sql");
  setText(sql, words().loading);
  dialog.showModal();
  try {
    const answer = await fetch("/v1/views", { headers: { accept: "application/json" } });
    const { views } = await answer.json();
    setText(sql, views.find((view) => view.name === name)?.sql ?? words().missing);
  } catch (error) {
    setText(sql, String(error));
  }
}

document.getElementById("language").addEventListener("click", () => {
  toggleLanguage();
  drawFrame();
  buildTiles();
  redraw();
});

drawFrame();
buildTiles();
redraw();
follow([...relations.values()], {
  changed: redrawSoon,
  status(status) {
    context.status = status;
    statusAt = new Date(status.server_time);
    context.rates.push({ time: statusAt.getTime(), value: status.rows_per_second });
    if (context.rates.length > RATES_MAX) context.rates.shift();
    redrawSoon();
  },
  connection(state) {
    if (connection === state) return;
    connection = state;
    redrawSoon();
  },
});
