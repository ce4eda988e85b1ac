// The content of views, kept up to date by one event stream.
//
//   snapshot (parts) --> rows replaced      change (parts) --> deleted, then inserted
//
// A relation with a key is a map by key. One without is a list, in which a deletion takes away one
// equal row.

export class Relation {
  constructor(name, recent) {
    this.name = name;
    // { column, seconds }: only the newest rows are kept, as they were asked for.
    this.recent = recent;
    this.state = "waiting"; // waiting | loading | live | unavailable
    this.columns = [];
    this.key = [];
    this.rows = new Map();
    this.tick = null;
    this.changedAt = null;
    this.detail = "";
  }

  keyOf(row) {
    const names = this.key.length > 0 ? this.key : this.columns;
    return JSON.stringify(names.map((name) => row[name]));
  }

  snapshot(part) {
    if (part.columns) {
      this.columns = part.columns.map((column) => column.name);
      this.key = part.key;
      this.rows.clear();
      this.state = "loading";
    }
    this.insert(part.rows);
    if (part.last) this.state = "live";
    this.touch(part.tick);
  }

  change(part) {
    for (const row of part.deleted) {
      const key = this.keyOf(row);
      const entry = this.rows.get(key);
      if (!entry) continue;
      if (entry.count > 1 && this.key.length === 0) entry.count -= 1;
      else this.rows.delete(key);
    }
    this.insert(part.inserted);
    this.touch(part.tick);
  }

  insert(rows) {
    for (const row of rows) {
      const key = this.keyOf(row);
      const entry = this.rows.get(key);
      if (entry && this.key.length === 0) entry.count += 1;
      else this.rows.set(key, { row, count: 1 });
    }
  }

  touch(tick) {
    this.tick = tick;
    this.changedAt = new Date();
    if (this.recent && this.state === "live") this.prune();
  }

  prune() {
    const { column, seconds } = this.recent;
    let newest = -Infinity;
    for (const { row } of this.rows.values()) newest = Math.max(newest, Date.parse(row[column]));
    if (!Number.isFinite(newest)) return;
    for (const [key, { row }] of this.rows) {
      if (Date.parse(row[column]) < newest - seconds * 1000) this.rows.delete(key);
    }
  }

  list() {
    return Array.from(this.rows.values(), (entry) => entry.row);
  }
}

/** Opens the stream and keeps it open. `on` has: changed(), status(data), connection(state). */
export function follow(relations, on) {
  const byName = new Map(relations.map((relation) => [relation.name, relation]));
  const query = new URLSearchParams({
    views: relations.map((relation) => relation.name).join(","),
    recent: relations
      .filter((relation) => relation.recent)
      .map((relation) => `${relation.name}.${relation.recent.column}:${relation.recent.seconds}`)
      .join(","),
    status: "true",
  });
  let source;
  let lastHeard = Date.now();

  const listen = (name, act) =>
    source.addEventListener(name, (event) => {
      lastHeard = Date.now();
      act(JSON.parse(event.data));
    });

  const open = () => {
    source = new EventSource(`/v1/changes?${query}`);
    lastHeard = Date.now();
    listen("snapshot", (part) => {
      byName.get(part.view)?.snapshot(part);
      on.changed();
    });
    listen("change", (part) => {
      byName.get(part.view)?.change(part);
      on.changed();
    });
    listen("unavailable", (data) => {
      const relation = byName.get(data.view);
      if (!relation) return;
      relation.state = "unavailable";
      relation.detail = data.detail;
      relation.rows.clear();
      on.changed();
    });
    listen("status", (data) => {
      on.connection("live");
      on.status(data);
    });
    source.onerror = () => {
      on.connection("lost");
      // The browser reconnects after a broken connection, but not after an error answer.
      if (source.readyState === EventSource.CLOSED) setTimeout(reopen, 3000);
    };
  };

  const reopen = () => {
    source.close();
    open();
  };

  // A status comes each second: silence means a dead connection that nobody has noticed yet.
  setInterval(() => {
    if (Date.now() - lastHeard < 15000) return;
    on.connection("lost");
    reopen();
  }, 5000);

  open();
}
