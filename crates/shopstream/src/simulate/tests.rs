//! The simulator against itself: the same seed gives the same bytes, and the books equal the rows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::books::Books;
use super::rows::Table;
use super::shop::{HOUR, MINUTE, Plan, SECOND, Shop};

fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        rate: 50.0,
        start_us: 1_767_603_600_000_000,
        items: 100,
        duplicate_ratio: 0.02,
        disorder_ratio: 0.1,
        late_ratio: 0.01,
        broken_ratio: 0.01,
        skew_ratio: 0.1,
    }
}

fn play(plan: Plan, steps_us: &[i64]) -> (Vec<(Table, String)>, Books) {
    let mut rows = vec![];
    let mut shop = Shop::open(plan);
    for until in steps_us {
        shop.rows_until(*until, |table, json| rows.push((table, json.to_string())));
    }
    let books = shop.close(|table, json| rows.push((table, json.to_string())));
    (rows, books)
}

#[test]
fn same_seed_gives_the_same_rows_however_often_the_clock_is_read() {
    let (once, books_once) = play(plan(7), &[10 * MINUTE]);
    let steps: Vec<i64> = (1..=6000).map(|step| step * SECOND / 10).collect();
    let (stepwise, books_stepwise) = play(plan(7), &steps);
    assert!(once.len() > 10_000, "{}", once.len());
    assert!(once == stepwise);
    assert_eq!(books_once, books_stepwise);
    assert!(once != play(plan(8), &[10 * MINUTE]).0);
}

#[test]
fn another_start_moves_times_and_ids_only() {
    let later = Plan { start_us: plan(7).start_us + HOUR, ..plan(7) };
    let (first, second) = (play(plan(7), &[MINUTE]).0, play(later, &[MINUTE]).0);
    let strip = |rows: &[(Table, String)]| -> Vec<(Table, Value)> {
        rows.iter()
            .map(|(table, json)| {
                let mut value: Value = serde_json::from_str(json).unwrap_or_else(|_| json.as_str().into());
                if let Some(object) = value.as_object_mut() {
                    object.retain(|key, _| {
                        !key.ends_with("_at")
                            && !["ts", "date", "event_id", "order_id", "payment_id", "refund_id", "move_id"]
                                .contains(&key.as_str())
                    });
                }
                (*table, value)
            })
            .collect()
    };
    assert!(first != second);
    assert!(strip(&first) == strip(&second));
}

#[test]
fn books_equal_the_rows() {
    let (rows, books) = play(plan(3), &[3 * HOUR]);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut duplicates: BTreeMap<&str, u64> = BTreeMap::new();
    let mut event_ids = BTreeSet::new();
    let mut malformed_or_bad = 0;
    let (mut orders, mut stock, mut ledger) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let (mut paid, mut refunded, mut lines) = (0, 0, 0);
    let mut behavior: BTreeMap<String, u64> = BTreeMap::new();
    let mut actions: BTreeMap<String, u64> = BTreeMap::new();
    for (table, json) in &rows {
        let Ok(row) = serde_json::from_str::<Value>(json) else {
            malformed_or_bad += 1;
            continue;
        };
        // Broken rows are the ones of user_behavior without an event id.
        if *table == Table::UserBehavior && row["event_id"].is_null() {
            malformed_or_bad += 1;
            continue;
        }
        if let Some(id) = row["event_id"].as_str()
            && !event_ids.insert(id.to_string())
        {
            *duplicates.entry(table.name()).or_default() += 1;
            continue;
        }
        *counts.entry(table.name()).or_default() += 1;
        let id = |key: &str| row[key].as_i64().unwrap();
        match table {
            Table::Orders => {
                orders.insert(
                    id("order_id"),
                    (row["status"].as_str().unwrap().to_string(), cents(json, "amount"), id("units")),
                );
            }
            Table::OrderLines => lines += cents(json, "amount"),
            Table::Payments if row["outcome"] == "captured" => paid += cents(json, "amount"),
            Table::Refunds => refunded += cents(json, "amount"),
            Table::Stock => {
                stock.insert(id("product_id"), id("quantity"));
            }
            Table::StockMoves => *ledger.entry(id("product_id")).or_default() += id("delta"),
            Table::UserBehavior => {
                *behavior.entry(row["behavior"].as_str().unwrap().to_string()).or_default() += 1;
            }
            Table::Behavior => {
                *actions.entry(row["action"].as_str().unwrap().to_string()).or_default() += 1;
            }
            _ => {}
        }
    }
    assert_eq!(counts, books.rows);
    assert_eq!(duplicates, books.duplicates);
    assert_eq!(malformed_or_bad, books.broken.values().flat_map(|r| r.values()).sum::<u64>());
    assert_eq!(orders.len() as u64, books.orders);
    assert_eq!(orders.values().map(|(_, cents, _)| cents).sum::<i64>(), books.gmv_cents);
    assert_eq!(orders.values().map(|(_, _, units)| units).sum::<i64>(), books.units);
    assert_eq!(lines, books.gmv_cents);
    assert_eq!(paid, books.paid_cents);
    assert_eq!(refunded, books.refunded_cents);
    let cancelled: i64 =
        orders.values().filter(|(s, _, _)| s == "cancelled").map(|(_, cents, _)| cents).sum();
    assert_eq!(cancelled, books.cancelled_cents);
    let mut by_status: BTreeMap<&str, u64> = BTreeMap::new();
    for (status, _, _) in orders.values() {
        *by_status.entry(status).or_default() += 1;
    }
    assert_eq!(by_status, books.orders_by_status);
    assert_eq!(stock, books.stock);
    assert_eq!(ledger, books.stock);
    let expected: BTreeMap<String, u64> = books.behavior.iter().map(|(k, v)| (k.to_string(), *v)).collect();
    assert_eq!(behavior, expected);
    for (action, same) in [("browse", "pv"), ("add_to_cart", "cart"), ("purchase", "buy")] {
        assert_eq!(actions.get(action), expected.get(same), "{action} is {same} in other words");
    }
    assert_eq!(actions.len(), 3);
    // Everything that can happen did.
    for status in ["paid", "shipped", "cancelled", "refunded"] {
        assert!(by_status.contains_key(status), "{status}");
    }
    assert_eq!(books.broken["user_behavior"].len(), 5);
    assert!(
        books.bot_bursts > 1 && books.fraud_bursts > 1 && books.promotions > 1 && books.login_failures > 20
    );
    assert!(books.returning_sessions > 0 && books.late["user_behavior"] > 0);
    assert!(books.stock.values().any(|on_hand| *on_hand <= 10), "something runs short");
}

#[test]
fn rows_are_within_the_watermark_unless_late() {
    let mut shop = Shop::open(Plan {
        late_ratio: 0.0,
        broken_ratio: 0.0,
        skew_ratio: 0.5,
        disorder_ratio: 0.5,
        ..plan(5)
    });
    let (mut newest, mut behind_max) = (i64::MIN, 0);
    shop.rows_until(20 * MINUTE, |table, json| {
        if table == Table::UserBehavior {
            let row: Value = serde_json::from_str(json).unwrap();
            let at =
                chrono::DateTime::parse_from_rfc3339(row["ts"].as_str().unwrap()).unwrap().timestamp_micros();
            newest = newest.max(at);
            behind_max = behind_max.max(newest - at);
        }
    });
    assert!((SECOND..5 * SECOND).contains(&behind_max), "{behind_max}");
}

#[test]
fn rate_is_what_was_asked_for() {
    // A whole day has the average rate; the first hour is a twentieth busier, see `rhythm`.
    for (rate, hours, busier) in [(5.0, 24, 1.0), (100.0, 1, 1.05)] {
        let (rows, _) = play(Plan { rate, ..plan(11) }, &[hours * HOUR]);
        let measured = rows.len() as f64 / (3600 * hours) as f64 / busier;
        assert!((0.85 * rate..1.15 * rate).contains(&measured), "asked {rate}, got {measured}");
    }
}

#[test]
fn one_item_has_a_hostile_name() {
    let (rows, _) = play(plan(1), &[0]);
    let hostile =
        rows.iter().filter(|(t, json)| *t == Table::Items && json.contains("<script>alert(1)</script>"));
    assert_eq!(hostile.count(), 1);
}

/// Cents of an amount in the JSON text, read as digits.
fn cents(json: &str, key: &str) -> i64 {
    let rest = json.split_once(&format!("\"{key}\":")).unwrap().1;
    let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let (whole, fraction) = number.split_once('.').unwrap();
    assert_eq!(fraction.len(), 2);
    whole.parse::<i64>().unwrap() * 100 + fraction.parse::<i64>().unwrap()
}
