//! End to end through the router, with a real database in a temporary folder.

use std::io::Write;

use axum::body::{Body, BodyDataStream, to_bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use engine::Options;
use futures::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::*;

const TABLES: &str = "
    CREATE TABLE stock (product_id BIGINT PRIMARY KEY, quantity INT, price DECIMAL(18,2), note TEXT);
    CREATE TABLE clicks (user_id BIGINT, action TEXT) APPEND ONLY;
    CREATE MATERIALIZED VIEW low_stock AS SELECT product_id, quantity FROM stock WHERE quantity <= 10;
    CREATE MATERIALIZED VIEW actions AS SELECT action, count(*) AS cnt FROM clicks GROUP BY action;
    CREATE VIEW cheap AS SELECT product_id, price FROM stock WHERE price < 5;
";

struct Server {
    router: Router,
    stop: watch::Sender<bool>,
    db: Arc<Database>,
    _folder: TempDir,
}

impl Server {
    async fn start() -> Server {
        Server::with(HttpConfig::default(), HostRule::Any).await
    }

    async fn with(config: HttpConfig, hosts: HostRule) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().to_path_buf();
        let options = Options { workers: 1, memory_bytes: 256 << 20, ..Options::new(data_dir) };
        let db = tokio::task::spawn_blocking(|| Database::open(options)).await.unwrap().unwrap();
        let session = db.session();
        for statement in session.parse(TABLES).unwrap() {
            session.run(&statement, Vec::new()).await.unwrap();
        }
        let (stop, stopping) = watch::channel(false);
        let router = router(App::new(Arc::clone(&db), config, hosts, stopping));
        Server { router, stop, db, _folder: folder }
    }

    async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn get_json(&self, path: &str) -> Value {
        json_of(self.get(path).await).await
    }

    async fn post(&self, table: &str, content_type: &str, body: impl Into<Body>) -> Response {
        let request = Request::post(format!("/v1/tables/{table}/rows"))
            .header(header::CONTENT_TYPE, content_type)
            .body(body.into());
        self.send(request.unwrap()).await
    }

    async fn sql(&self, body: Value) -> Response {
        let request = Request::post("/v1/sql").header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// Adds rows and waits until views show them.
    async fn add(&self, table: &str, rows: Value) -> u64 {
        let response = self.post(table, "application/json", rows.to_string()).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let tick = json_of(response).await["tick"].as_u64().unwrap();
        self.db.wait_tick(dataflow::Tick(tick), Duration::from_secs(30)).await.unwrap();
        tick
    }
}

async fn json_of(response: Response) -> Value {
    serde_json::from_str(&text_of(response).await).unwrap()
}

async fn text_of(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), 64 << 20).await.unwrap().to_vec()).unwrap()
}

async fn assert_problem(response: Response, status: u16, code: &str) -> Value {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let got = response.status().as_u16();
    let problem = json_of(response).await;
    assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{problem}");
    problem
}

/// Reads events one by one, without comments.
struct Events {
    body: BodyDataStream,
    buffer: String,
}

impl Events {
    fn of(response: Response) -> Events {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        Events { body: response.into_body().into_data_stream(), buffer: String::new() }
    }

    /// Name, id and data; `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, Option<String>, Value)> {
        loop {
            while let Some((event, rest)) = self.buffer.split_once("\n\n") {
                let event = event.to_string();
                self.buffer = rest.to_string();
                let field = |name: &str| {
                    event.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.to_string())
                };
                if let Some(data) = field("data: ") {
                    let name = field("event: ").unwrap();
                    return Some((name, field("id: "), serde_json::from_str(&data).unwrap()));
                }
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.body.next()).await;
            let chunk = chunk.expect("an event comes in time")?.unwrap();
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_in_and_views_come_out() {
    let server = Server::start().await;
    let tick = server
        .add(
            "stock",
            json!([{"product_id": 1, "quantity": 3, "price": "19.90"}, {"product_id": 2, "quantity": 50}]),
        )
        .await;
    let answer = server.get_json(&format!("/v1/views/low_stock?wait_tick={tick}")).await;
    assert_eq!(answer["view"], "low_stock");
    assert!(answer["tick"].as_u64().unwrap() >= tick);
    assert_eq!(answer["rows"], json!([{"product_id": 1, "quantity": 3}]));
    assert_eq!(answer["next_cursor"], Value::Null);
    assert_eq!(answer["columns"][0]["type"], "bigint");
    let table = server.get_json("/v1/views/stock?product_id=1&select=price").await;
    assert_eq!(table["rows"], json!([{"price": "19.90"}]));
    server.add("stock", json!({"product_id": 1, "quantity": 20})).await;
    assert_eq!(server.get_json("/v1/views/low_stock").await["rows"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_and_encoding_goes_in() {
    let server = Server::start().await;
    let ndjson = "{\"user_id\":1,\"action\":\"pv\"}\n{\"user_id\":2,\"action\":\"buy\"}\n";
    assert_eq!(server.post("clicks", "application/x-ndjson", ndjson).await.status(), 202);
    assert_eq!(server.post("clicks", "text/csv", "action,user_id\npv,3\n").await.status(), 202);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(ndjson.as_bytes()).unwrap();
    let bodies =
        [("gzip", gzip.finish().unwrap()), ("zstd", zstd::encode_all(ndjson.as_bytes(), 1).unwrap())];
    let mut tick = 0;
    for (encoding, body) in bodies {
        let request = Request::post("/v1/tables/clicks/rows")
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .header(header::CONTENT_ENCODING, encoding)
            .body(Body::from(body));
        let answer = json_of(server.send(request.unwrap()).await).await;
        assert_eq!(answer["accepted"], 2, "{encoding}");
        tick = answer["tick"].as_u64().unwrap();
    }
    let answer = server.get_json(&format!("/v1/views/actions?order=action&wait_tick={tick}")).await;
    assert_eq!(answer["rows"], json!([{"action": "buy", "cnt": 3}, {"action": "pv", "cnt": 4}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_are_listed_and_kept() {
    let server = Server::start().await;
    let body = "{\"product_id\": 1, \"quantity\": 1}\n{\"product_id\": 2, \"quantity\": \"many\"}\n";
    let response = server.post("stock", "application/x-ndjson", body).await;
    assert_eq!(response.status(), 202);
    let answer = json_of(response).await;
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(1), &json!(1)));
    let rejection = &answer["rejections"][0];
    assert_eq!((&rejection["row"], &rejection["column"]), (&json!(1), &json!("quantity")));
    assert_eq!(rejection["reason"], "wrong_type");
    let all_bad = server.post("stock", "application/json", "{oops").await;
    let problem = assert_problem(all_bad, 422, "rows-rejected").await;
    assert_eq!(problem["rejections"][0]["reason"], "malformed");
    let tick = problem["tick"].as_u64().unwrap();
    let kept = server.get_json(&format!("/v1/views/rejected_rows?wait_tick={tick}")).await;
    assert_eq!(kept["rows"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_posts_get_their_answers() {
    let config = HttpConfig { body_bytes_max: 100_000, ..HttpConfig::default() };
    let server = Server::with(config, HostRule::Any).await;
    let problem =
        assert_problem(server.post("stok", "application/json", "{}").await, 404, "unknown-table").await;
    assert_eq!(problem["hint"], "did you mean \"stock\"?");
    assert_problem(server.post("low_stock", "application/json", "{}").await, 404, "unknown-table").await;
    assert_problem(server.post("rejected_rows", "application/json", "{}").await, 403, "forbidden").await;
    assert_problem(server.post("stock", "text/plain", "{}").await, 415, "unsupported-media-type").await;
    let large = vec![b' '; 100_001];
    assert_problem(server.post("stock", "application/json", large).await, 413, "body-too-large").await;
    let chunks = futures::stream::repeat_with(|| Ok::<_, io::Error>(vec![b' '; 1000]));
    let endless = Body::from_stream(chunks);
    assert_problem(server.post("stock", "application/json", endless).await, 413, "body-too-large").await;
    let bomb = zstd::encode_all(&vec![b' '; 10_000_000][..], 1).unwrap();
    let request = |body: Vec<u8>, encoding: &str| {
        Request::post("/v1/tables/stock/rows")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_ENCODING, encoding)
            .body(Body::from(body))
            .unwrap()
    };
    assert_problem(server.send(request(bomb, "zstd")).await, 413, "body-too-large").await;
    assert_problem(server.send(request(b"not gzip".to_vec(), "gzip")).await, 400, "bad-request").await;
    assert_problem(server.send(request(b"{}".to_vec(), "br")).await, 415, "unsupported-encoding").await;
    assert_problem(server.get("/v1/tables/stock/rows").await, 405, "method-not-allowed").await;
    // Nothing of all that was added, and the budget is free again.
    assert_eq!(server.get_json("/v1/views/stock").await["rows"], json!([]));
    assert!(text_of(server.get("/metrics").await).await.contains("shopstream_http_body_bytes_in_flight 0\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_in_flight_is_429() {
    let config = HttpConfig { inflight_bytes_max: 8192, ..HttpConfig::default() };
    let server = Server::with(config, HostRule::Any).await;
    let response = server.post("stock", "application/json", vec![b' '; 50_000]).await;
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    assert_problem(response, 429, "too-many-requests").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_counts_once() {
    let server = Server::start().await;
    let post = |key: &'static str, body: &'static str| {
        let request = Request::post("/v1/tables/clicks/rows")
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", key)
            .body(Body::from(body));
        server.send(request.unwrap())
    };
    let row = r#"{"user_id": 1, "action": "pv"}"#;
    let first = post("k1", row).await;
    assert!(!first.headers().contains_key("idempotency-replayed"));
    let first = json_of(first).await;
    let second = post("k1", row).await;
    assert_eq!(second.headers()["idempotency-replayed"], "true");
    assert_eq!(json_of(second).await["accepted"], first["accepted"]);
    assert_problem(post("k1", "{}").await, 422, "idempotency-conflict").await;
    let tick = json_of(post("k2", row).await).await["tick"].as_u64().unwrap();
    let answer = server.get_json(&format!("/v1/views/actions?wait_tick={tick}")).await;
    assert_eq!(answer["rows"], json!([{"action": "pv", "cnt": 2}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_cover_everything_once() {
    let server = Server::start().await;
    let rows: Value = (0..25).map(|n| json!({"product_id": n, "quantity": n % 3, "note": null})).collect();
    server.add("stock", rows).await;
    // The same row five times, in a relation without a key.
    let same: Value = (0..5).map(|_| json!({"user_id": 7, "action": "pv"})).collect();
    server.add("clicks", same).await;
    for (path, expected) in [
        ("/v1/views/stock?order=quantity.desc&limit=4&select=product_id,quantity", 25),
        ("/v1/views/stock?order=note,price.desc&limit=7", 25),
        ("/v1/views/clicks?limit=2", 5),
    ] {
        let mut seen = Vec::new();
        let mut next = path.to_string();
        loop {
            let page = server.get_json(&next).await;
            seen.extend(page["rows"].as_array().unwrap().iter().cloned());
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            next = format!("{path}&cursor={cursor}");
            assert!(seen.len() <= expected, "{path}");
        }
        assert_eq!(seen.len(), expected, "{path}");
        if path.contains("stock") {
            let mut ids: Vec<_> = seen.iter().map(|row| row["product_id"].as_u64().unwrap()).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), expected, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_formats_and_etags() {
    let server = Server::start().await;
    server
        .add("stock", json!([{"product_id": 1, "quantity": 3, "price": "4.50", "note": "=1+1"}, {"product_id": 2, "quantity": 50}]))
        .await;
    let csv = server.get("/v1/views/stock?format=csv&order=product_id").await;
    assert!(csv.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/csv"));
    assert_eq!(text_of(csv).await, "product_id,quantity,price,note\r\n1,3,4.50,'=1+1\r\n2,50,,\r\n");
    let lines =
        server.get("/v1/views/stock?format=ndjson&select=product_id&order=product_id.desc&limit=1").await;
    assert!(lines.headers()[header::LINK].to_str().unwrap().ends_with("rel=\"next\""));
    assert_eq!(text_of(lines).await, "{\"product_id\":2}\n");
    for (filter, count) in [
        ("price.gt=4.499", 1),
        ("price.gt=4.5", 0),
        ("product_id.in=1,2,3", 2),
        ("note.is=null", 1),
        ("quantity.lte=50&quantity.ne=3", 1),
        ("note=nothing'%20OR%20'1'='1", 0),
    ] {
        let answer = server.get_json(&format!("/v1/views/stock?{filter}")).await;
        assert_eq!(answer["rows"].as_array().unwrap().len(), count, "{filter}");
    }
    assert_eq!(server.get_json("/v1/views/cheap").await["rows"], json!([{"product_id": 1, "price": "4.50"}]));

    let first = server.get("/v1/views/stock").await;
    let etag = first.headers()[header::ETAG].clone();
    let again = |etag: axum::http::HeaderValue| {
        server.send(
            Request::get("/v1/views/stock").header(header::IF_NONE_MATCH, etag).body(Body::empty()).unwrap(),
        )
    };
    assert_eq!(again(etag.clone()).await.status(), StatusCode::NOT_MODIFIED);
    server.add("stock", json!({"product_id": 3, "quantity": 1})).await;
    assert_eq!(again(etag).await.status(), StatusCode::OK);

    let problem = assert_problem(server.get("/v1/views/low_stok").await, 404, "unknown-view").await;
    assert_eq!(problem["hint"], "did you mean \"low_stock\"?");
    assert_problem(server.get("/v1/views/stock?colour=red").await, 400, "invalid-parameter").await;
    assert_problem(server.get("/v1/views/stock?cursor=x").await, 400, "invalid-cursor").await;
    assert_problem(server.get("/v1/views/stock?wait_tick=x").await, 400, "invalid-parameter").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_tick_that_does_not_come_is_504() {
    let config = HttpConfig { query_timeout: Duration::from_millis(100), ..HttpConfig::default() };
    let server = Server::with(config, HostRule::Any).await;
    assert_problem(server.get("/v1/views/stock?wait_tick=999999").await, 504, "query-timeout").await;
    let rows: Value = (0..2000).map(|n| json!({"product_id": n})).collect();
    server.add("stock", rows).await;
    let endless = "SELECT count(*) FROM stock a, stock b, stock c, stock d
                   WHERE a.product_id + b.product_id + c.product_id + d.product_id < 0";
    assert_problem(server.sql(json!({"sql": endless})).await, 504, "query-timeout").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_runs_and_fails_with_positions() {
    let server = Server::start().await;
    let answer = json_of(server.sql(json!({"sql": "INSERT INTO stock (product_id, quantity) VALUES (1, 2); FLUSH; SELECT quantity, quantity AS again FROM stock"})).await).await;
    assert_eq!((&answer["tag"], &answer["rows"]), (&json!("SELECT 1"), &json!([[2, 2]])));
    let bound = json!({"sql": "SELECT product_id FROM stock WHERE product_id = $1", "params": ["1"]});
    assert_eq!(json_of(server.sql(bound).await).await["rows"], json!([[1]]));
    let problem =
        assert_problem(server.sql(json!({"sql": "SELECT x FROM stock"})).await, 400, "sql-error").await;
    assert_eq!(problem["sqlstate"], "42703");
    assert_problem(server.sql(json!({"sql": "COPY stock TO '/tmp/x'"})).await, 400, "sql-error").await;
    assert_problem(server.sql(json!({"query": "SELECT 1"})).await, 400, "bad-request").await;
    let form = Request::post("/v1/sql").header(header::CONTENT_TYPE, "text/plain").body(Body::from("{}"));
    assert_problem(server.send(form.unwrap()).await, 415, "unsupported-media-type").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_follow_the_snapshot_and_resume() {
    let server = Server::start().await;
    server.add("stock", json!({"product_id": 1, "quantity": 3})).await;
    let mut events = Events::of(server.get("/v1/views/low_stock/changes").await);
    let (name, id, data) = events.next().await.unwrap();
    assert_eq!(name, "snapshot");
    assert_eq!((&data["rows"], &data["last"]), (&json!([{"product_id": 1, "quantity": 3}]), &json!(true)));
    assert_eq!(id.unwrap(), data["tick"].to_string());
    let tick = server.add("stock", json!({"product_id": 1, "quantity": 4})).await;
    let (name, id, data) = events.next().await.unwrap();
    assert_eq!(name, "change");
    assert_eq!(data["deleted"], json!([{"product_id": 1, "quantity": 3}]));
    assert_eq!(data["inserted"], json!([{"product_id": 1, "quantity": 4}]));
    let id = id.unwrap();
    assert!(id.parse::<u64>().unwrap() >= tick);
    drop(events);

    server.add("stock", json!({"product_id": 2, "quantity": 0})).await;
    let resume = |id: String| {
        server.send(
            Request::get("/v1/views/low_stock/changes")
                .header("last-event-id", id)
                .body(Body::empty())
                .unwrap(),
        )
    };
    let (name, _, data) = Events::of(resume(id).await).next().await.unwrap();
    assert_eq!((name.as_str(), &data["inserted"]), ("change", &json!([{"product_id": 2, "quantity": 0}])));
    // An id that is not kept: everything again, and it says so.
    let (name, _, data) = Events::of(resume("99999999".to_string()).await).next().await.unwrap();
    assert_eq!((name.as_str(), &data["reset"]), ("snapshot", &json!(true)));
    assert_eq!(data["rows"].as_array().unwrap().len(), 2);
    assert_problem(server.get("/v1/views/nothing/changes").await, 404, "unknown-view").await;
    assert_problem(server.get("/v1/views/cheap/changes").await, 400, "sql-error").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_carries_several_views_and_waits_for_missing_ones() {
    let server = Server::start().await;
    server.add("stock", json!({"product_id": 1, "quantity": 3})).await;
    let mut events = Events::of(server.get("/v1/changes?views=low_stock,later,actions&status=true").await);
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let (name, id, data) = events.next().await.unwrap();
        seen.push((name, data["view"].as_str().unwrap_or_default().to_string(), id));
    }
    let of = |name: &str, view: &str| seen.iter().find(|(n, v, _)| n == name && v == view).unwrap();
    of("status", "");
    of("unavailable", "later");
    let (_, _, id) = of("snapshot", "actions");
    let parts: Vec<_> = id.as_ref().unwrap().split('.').map(str::to_string).collect();
    assert_eq!((parts.len(), parts[1].as_str()), (3, "-"));
    of("snapshot", "low_stock");

    let create = "CREATE MATERIALIZED VIEW later AS SELECT product_id FROM stock";
    assert_eq!(server.sql(json!({"sql": create})).await.status(), StatusCode::OK);
    loop {
        let (name, _, data) = events.next().await.unwrap();
        if name == "snapshot" && data["view"] == "later" {
            assert_eq!(data["rows"], json!([{"product_id": 1}]));
            break;
        }
    }
    // A stopping server ends the streams.
    server.stop.send_replace(true);
    while events.next().await.is_some() {}
    assert_problem(server.get("/v1/changes").await, 400, "invalid-parameter").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_hosts_keep_strangers_out() {
    let auth = Some(Auth::new(["0123456789abcdef0123"]).unwrap());
    let server = Server::with(HttpConfig { auth, ..HttpConfig::default() }, HostRule::Any).await;
    for route in &routes::ROUTES {
        let path = route.path.replace("{table}", "stock").replace("{view}", "stock").replace(['{', '}'], "");
        let request = |token: Option<&str>| {
            let mut request = Request::builder().method(route.method.to_uppercase().as_str()).uri(&path);
            if let Some(token) = token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            server.send(request.body(Body::empty()).unwrap())
        };
        let closed = route.access == routes::Access::Token;
        for token in [None, Some("wrong"), Some("0123456789abcdef0124")] {
            let refused = request(token).await.status() == StatusCode::UNAUTHORIZED;
            assert_eq!(refused, closed, "{} {} with {token:?}", route.method, path);
        }
        let admitted = request(Some("0123456789abcdef0123")).await.status();
        assert_ne!(admitted, StatusCode::UNAUTHORIZED, "{} {path}", route.method);
    }
    assert_eq!(server.get("/nothing/here").await.status(), StatusCode::UNAUTHORIZED);

    let server = Server::with(HttpConfig::default(), HostRule::Loopback(Vec::new())).await;
    let from = |host: &'static str| {
        server.send(Request::get("/v1/tables").header(header::HOST, host).body(Body::empty()).unwrap())
    };
    assert_eq!(from("localhost:8080").await.status(), StatusCode::OK);
    assert_problem(from("evil.example").await, 421, "unknown-host").await;
    let foreign = Request::post("/v1/tables/clicks/rows")
        .header(header::HOST, "localhost")
        .header("sec-fetch-site", "cross-site")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from("{}"));
    assert_problem(server.send(foreign.unwrap()).await, 403, "forbidden").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_table_is_served_with_security_headers() {
    let server = Server::start().await;
    for route in &routes::ROUTES {
        let path = route.path.replace("{table}", "stock").replace("{view}", "stock");
        let request =
            Request::builder().method(route.method.to_uppercase().as_str()).uri(path.replace(['{', '}'], ""));
        let response = server.send(request.body(Body::empty()).unwrap()).await;
        assert_ne!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{}", route.path);
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"));
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        if !route.path.starts_with("/assets") {
            assert_ne!(response.status(), StatusCode::NOT_FOUND, "{}", route.path);
        }
    }
    let lost = assert_problem(server.get("/v1/view").await, 404, "not-found").await;
    assert_eq!(lost["hint"], "did you mean /v1/views?");
    assert_problem(server.get("/v1/views/%ff").await, 400, "bad-request").await;
    let document = server.get_json("/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(server.get_json("/health/ready").await["status"], "ready");
    assert!(server.get_json("/v1/status").await["tables"]["stock"].is_object());
    assert!(text_of(server.get("/metrics").await).await.contains("shopstream_ready 1\n"));
    assert!(text_of(server.get("/").await).await.contains("/live.js"));
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_on_loopback_and_refuses_the_network_without_tokens() {
    let server = Server::start().await;
    let open = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = serve(open, Arc::clone(&server.db), HttpConfig::default(), std::future::ready(())).await;
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async {
        let _ = stopped.await;
    };
    let serving = tokio::spawn(serve(listener, Arc::clone(&server.db), HttpConfig::default(), shutdown));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(b"GET /v1/changes?status=true HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut text = String::new();
    // Two status events: the first at once, the second after a sample.
    while text.matches("event: status").count() < 2 {
        let mut buffer = [0u8; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(8), serving).await.expect("it stops in time").unwrap().unwrap();
}
