// Every text of the page in English and Simplified Chinese, and the formats of numbers and times.

const WORDS = {
  en: {
    otherLanguage: "中文",
    otherLanguageLabel: "切换到中文",
    views: "Views and SQL",
    api: "API",
    close: "Close",
    sql: "SQL",
    showSql: (name) => `Show the SQL of ${name}`,
    connecting: "Connecting …",
    connectionLost: "Connection lost. The numbers below are old; reconnecting …",
    writesRefused: (reason) => `Writes are refused: ${reason}`,
    catchingUp: (count) => `Catching up: ${count} records are not visible yet.`,
    behind: "data is behind by",
    eventTime: "replaying; newest event",
    noEvents: "no events yet",
    lastEvent: "last event at",
    rejectedInWindow: (count) => `${count} rejected in the last 5 min`,
    asOf: (time) => `as of ${time}`,
    completeUntil: (time) => `complete until ${time}`,
    soFar: (count) => `${count} in the current minute so far`,
    lastMinute: "in the last full minute",
    perMinute: "/ min",
    last30: "last 30 min",
    unfinished: "dashed: not finished yet",
    now: "now",
    orders: "Orders per minute",
    gmv: "GMV per minute",
    paid: "Paid orders",
    paidNote: (share, cancelled) => `${share} of orders · ${cancelled} cancelled`,
    visitors: "Active users (UV)",
    visitorsUnit: "today",
    visitorsNote: (uv, pv) => `this hour: ${uv} users, ${pv} page views`,
    behavior: "Behaviour per minute",
    hotItems: "Hot items",
    lowStock: "Low stock",
    salesByDay: "Sales by day (GMV)",
    salesNote: (value, count) => `latest day ${value} · ${count} orders`,
    ingest: "Ingest",
    rowsPerSecond: "rows/s",
    totalRows: (count) => `${count} rows in all`,
    freshness: "Data is behind by",
    backlog: (count) => `${count} records waiting`,
    watermarkLag: "Watermark lag",
    watermarkNote: (table) => `held back by ${table}`,
    noWatermark: "no table has a watermark yet",
    rejected: "Rejected and late rows",
    rejectedUnit: "rejected",
    lateUnit: "late",
    lastFive: "in the last 5 min",
    seconds: "s",
    item: "Item",
    rank: "#",
    count: "Count",
    product: "Product",
    onHand: "On hand",
    reorderPoint: "Reorder at",
    outOfStock: "out of stock",
    moreRows: (count) => `and ${count} more`,
    windowOf: (from, to) => `${from} to ${to}`,
    noRows: "Nothing here yet. Send something:",
    noLowStock: "Nothing is at or under its reorder point. To try it:",
    missing: "This view does not exist. Start the server with the commerce pack:",
    suspended: "This view was suspended:",
    loading: "Loading …",
    timeZone: (zone) => `Times in ${zone}.`,
    chartLabel: (title, last, peak) => `${title}: last value ${last}, highest ${peak}`,
    behaviors: { pv: "Views", browse: "Views", cart: "Added to cart", add_to_cart: "Added to cart", fav: "Favourites", buy: "Purchases", purchase: "Purchases" },
  },
  zh: {
    otherLanguage: "English",
    otherLanguageLabel: "Switch to English",
    views: "视图与 SQL",
    api: "接口",
    close: "关闭",
    sql: "SQL",
    showSql: (name) => `查看 ${name} 的 SQL`,
    connecting: "正在连接……",
    connectionLost: "连接已断开，下方数字不是最新的；正在重新连接……",
    writesRefused: (reason) => `已停止写入：${reason}`,
    catchingUp: (count) => `正在追赶：还有 ${count} 条记录未显示。`,
    behind: "数据延迟",
    eventTime: "正在回放；最新事件",
    noEvents: "还没有事件",
    lastEvent: "最后事件",
    rejectedInWindow: (count) => `近 5 分钟拒收 ${count} 行`,
    asOf: (time) => `数据截止 ${time}`,
    completeUntil: (time) => `${time} 之前已完结`,
    soFar: (count) => `本分钟目前 ${count}（未完结）`,
    lastMinute: "上一完整分钟",
    perMinute: "/ 分钟",
    last30: "近 30 分钟",
    unfinished: "虚线：未完结",
    now: "现在",
    orders: "每分钟订单数",
    gmv: "每分钟成交总额 (GMV)",
    paid: "支付订单数",
    paidNote: (share, cancelled) => `占订单 ${share} · 取消 ${cancelled}`,
    visitors: "活跃用户 (UV)",
    visitorsUnit: "今日",
    visitorsNote: (uv, pv) => `本小时：${uv} 位用户，${pv} 次浏览`,
    behavior: "每分钟行为",
    hotItems: "热门商品",
    lowStock: "库存不足",
    salesByDay: "每日成交总额 (GMV)",
    salesNote: (value, count) => `最近一天 ${value} · ${count} 单`,
    ingest: "写入速率",
    rowsPerSecond: "行/秒",
    totalRows: (count) => `累计 ${count} 行`,
    freshness: "数据延迟",
    backlog: (count) => `${count} 条记录等待处理`,
    watermarkLag: "水位线延迟",
    watermarkNote: (table) => `由 ${table} 决定`,
    noWatermark: "还没有表产生水位线",
    rejected: "拒收与迟到行",
    rejectedUnit: "拒收",
    lateUnit: "迟到",
    lastFive: "近 5 分钟",
    seconds: "秒",
    item: "商品",
    rank: "#",
    count: "次数",
    product: "商品",
    onHand: "现有库存",
    reorderPoint: "再订货点",
    outOfStock: "缺货",
    moreRows: (count) => `另有 ${count} 行`,
    windowOf: (from, to) => `${from} 至 ${to}`,
    noRows: "这里还没有数据。发送一条试试：",
    noLowStock: "没有商品达到或低于再订货点。试一试：",
    missing: "该视图不存在。请使用电商视图包启动服务器：",
    suspended: "该视图已暂停：",
    loading: "正在加载……",
    timeZone: (zone) => `时间所用时区：${zone}。`,
    chartLabel: (title, last, peak) => `${title}：最新 ${last}，最高 ${peak}`,
    behaviors: { pv: "浏览", browse: "浏览", cart: "加购", add_to_cart: "加购", fav: "收藏", buy: "购买", purchase: "购买" },
  },
};

const LOCALES = { en: "en", zh: "zh-CN" };
const STORED = "shopstream.language";

function stored() {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null; // Storage is switched off: the choice lasts as long as the page.
  }
}

let language = ["en", "zh"].includes(stored()) ? stored() : navigator.language.startsWith("zh") ? "zh" : "en";
let formats = makeFormats();

function makeFormats() {
  const locale = LOCALES[language];
  return {
    whole: new Intl.NumberFormat(locale, { maximumFractionDigits: 0 }),
    compact: new Intl.NumberFormat(locale, { notation: "compact", maximumFractionDigits: 2 }),
    money: new Intl.NumberFormat(locale, { minimumFractionDigits: 2, maximumFractionDigits: 2 }),
    decimal: new Intl.NumberFormat(locale, { maximumFractionDigits: 1 }),
    share: new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 1 }),
    clock: new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }),
    minute: new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }),
    day: new Intl.DateTimeFormat(locale, { month: "short", day: "numeric", timeZone: "UTC" }),
    full: new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" }),
  };
}

export const words = () => WORDS[language];
export const locale = () => LOCALES[language];

export function toggleLanguage() {
  language = language === "en" ? "zh" : "en";
  formats = makeFormats();
  try {
    localStorage.setItem(STORED, language);
  } catch {
    // See stored().
  }
}

export const number = (value) => (Math.abs(value) >= 1e7 ? formats.compact : formats.whole).format(value);
export const money = (value) => (Math.abs(value) >= 1e5 ? number(value) : formats.money.format(value));
export const decimal = (value) => (Math.abs(value) >= 100 ? formats.whole : formats.decimal).format(value);
export const share = (value) => formats.share.format(value);
export const clock = (time) => formats.clock.format(time);
export const minute = (time) => formats.minute.format(time);
export const day = (time) => formats.day.format(time);
export const fullTime = (time) => formats.full.format(time);
