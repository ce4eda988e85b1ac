//! The workloads over user behaviour that other engines are measured with, in our dialect.

use crate::failure::{Failure, Result};

pub const TABLE: &str = "CREATE TABLE ub (user_id BIGINT, item_id BIGINT, category_id BIGINT, behavior TEXT, \
     ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') APPEND ONLY";

/// Name, query, and whether it gives one final row per window as the peers do.
pub const VIEWS: &[(&str, &str, bool)] = &[
    (
        "w1",
        "SELECT window_start, behavior, COUNT(*) AS cnt FROM TUMBLE(ub, ts, INTERVAL '1 minute') \
         GROUP BY window_start, window_end, behavior",
        true,
    ),
    (
        "w2",
        "SELECT window_end, rn, item_id, cnt FROM (SELECT window_start, window_end, item_id, cnt, \
         ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY cnt DESC, item_id) AS rn FROM ( \
         SELECT window_start, window_end, item_id, COUNT(*) AS cnt \
         FROM HOP(ub, ts, INTERVAL '5 minutes', INTERVAL '1 hour') WHERE behavior = 'pv' \
         GROUP BY window_start, window_end, item_id)) WHERE rn <= 5",
        true,
    ),
    (
        "w3",
        "SELECT window_start, COUNT(DISTINCT user_id) AS uv FROM TUMBLE(ub, ts, INTERVAL '1 hour') \
         WHERE behavior = 'pv' GROUP BY window_start, window_end",
        true,
    ),
    (
        "w5",
        "SELECT window_start, category_id, behavior, COUNT(*) AS cnt FROM TUMBLE(ub, ts, INTERVAL '1 minute') \
         GROUP BY window_start, window_end, category_id, behavior",
        true,
    ),
    (
        "w4",
        "SELECT user_id, window_start, window_end, COUNT(*) FILTER (WHERE behavior = 'pv') AS pv, \
         COUNT(*) FILTER (WHERE behavior = 'cart') AS cart, COUNT(*) FILTER (WHERE behavior = 'buy') AS buy \
         FROM SESSION(ub PARTITION BY user_id, ts, INTERVAL '30 minutes') \
         GROUP BY user_id, window_start, window_end",
        true,
    ),
    (
        "w6a",
        "SELECT user_id, ts, item_id, behavior, COUNT(*) OVER (PARTITION BY user_id ORDER BY ts \
         RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW) AS c10m FROM ub",
        true,
    ),
    (
        "w6b",
        "SELECT user_id, ts, item_id, behavior, COUNT(*) OVER (PARTITION BY user_id ORDER BY ts \
         RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW) AS c10m, \
         COUNT(DISTINCT item_id) OVER (PARTITION BY user_id ORDER BY ts \
         RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS items1h FROM ub",
        true,
    ),
    (
        "w7",
        "SELECT c.user_id, c.item_id, c.ts AS cart_ts, b.ts AS buy_ts \
         FROM (SELECT * FROM ub WHERE behavior = 'cart') AS c JOIN (SELECT * FROM ub WHERE behavior = 'buy') AS b \
         ON c.user_id = b.user_id AND c.item_id = b.item_id \
         AND b.ts BETWEEN c.ts AND c.ts + INTERVAL '1 hour'",
        false,
    ),
    ("w8", "SELECT item_id, COUNT(*) AS cnt FROM ub GROUP BY item_id", false),
];

/// `shopstream bench statements w1`: what creates the table and the workload's view, to be run in a server.
pub fn print(arguments: &[String]) -> Result {
    println!("{TABLE};");
    for name in arguments {
        let statement = create(name).ok_or_else(|| Failure::usage(format!("unknown view \"{name}\"")))?;
        println!("{statement};");
    }
    Ok(())
}

/// The statement that creates a workload's view.
pub fn create(name: &str) -> Option<String> {
    let (name, query, on_close) = VIEWS.iter().find(|(n, _, _)| *n == name)?;
    let emit = if *on_close { " EMIT ON WINDOW CLOSE" } else { "" };
    Some(format!("CREATE MATERIALIZED VIEW {name} AS {query}{emit}"))
}
