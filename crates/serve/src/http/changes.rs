//! Pushed changes: `GET /v1/views/{view}/changes` and `GET /v1/changes?views=a,b`.
//!
//! ```text
//!   subscription a --+
//!   subscription b --+--> Feed --(pulled by the socket)--> snapshot, change, status, lagged
//!   status each 1 s -+
//! ```
//!
//! Nothing is encoded before the socket takes it: what waits for a slow reader are shared batches and
//! the bounded channel of the engine. When that channel runs over, the reader is told (`lagged`) and
//! disconnected; it comes back with `Last-Event-ID`.
//!
//! Large snapshots and changes are sent in parts of [`parts::PART_ROWS`] rows. Only the last part carries
//! the id, so that a reader cut off in the middle gets the whole again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use dataflow::Tick;
use engine::{Change, RelationInfo};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde_json::json;
use sql::SqlError;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_stream::StreamMap;
use tokio_stream::wrappers::ReceiverStream;

use super::metrics::StreamGuard;
use super::problem::{Problem, ProblemKind};
use super::sse;
use super::values::{JsonRows, columns_json, write_json_string};
use super::views::{find_relation, query_pairs};
use super::{App, until_stopped};

mod parts;
mod recent;

use parts::Parts;
use recent::{Recent, RecentRequest};

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// Views of one multiplexed stream.
const VIEWS_MAX: usize = 64;

/// `GET /v1/views/{view}/changes`
pub async fn of_view(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let relation = find_relation(&app, &name)?;
    let position = Positions::parse(&headers, 1);
    // Asked before the answer begins, so that a view that can't be followed is a plain error.
    let subscription = app.db.subscribe(&relation.name, position.0[0])?;
    let mut feed = Feed::new(Arc::clone(&app), vec![relation.name.clone()], false)?;
    feed.positions = position;
    feed.attach(0, relation, subscription);
    Ok(feed.into_response())
}

/// `GET /v1/changes?views=a,b&status=true`
pub async fn of_views(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let query = query_pairs(&uri)?;
    let value =
        |wanted: &str| query.iter().rfind(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let mut views: Vec<String> = Vec::new();
    for name in value("views").unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !views.iter().any(|known| known == name) {
            views.push(name.to_string());
        }
    }
    let status = value("status").is_some_and(|value| value == "true" || value == "1");
    if views.is_empty() && !status {
        return Err(Problem::new(ProblemKind::InvalidParameter, "views names no view")
            .with("parameter", "views")
            .hint("GET /v1/changes?views=hot_items,low_stock"));
    }
    if views.len() > VIEWS_MAX {
        return Err(Problem::new(
            ProblemKind::InvalidParameter,
            format!("a stream carries at most {VIEWS_MAX} views"),
        )
        .with("parameter", "views"));
    }
    let recent = RecentRequest::parse_list(value("recent").unwrap_or_default())?;
    let mut feed = Feed::new(Arc::clone(&app), views, status)?;
    feed.positions = Positions::parse(&headers, feed.views.len());
    for view in &mut feed.views {
        view.recent = recent.iter().find(|recent| recent.view == view.name).cloned();
    }
    for index in 0..feed.views.len() {
        feed.subscribe(index);
    }
    Ok(feed.into_response())
}

/// Up to which tick each view's changes were delivered: the `id` of an event, `12.-.9`; one number for
/// a stream of one view.
#[derive(Clone, Debug, PartialEq)]
struct Positions(Vec<Option<Tick>>);

impl Positions {
    fn none(views: usize) -> Positions {
        Positions(vec![None; views])
    }

    /// Of the `Last-Event-ID` header; an id of another stream counts as none.
    fn parse(headers: &HeaderMap, views: usize) -> Positions {
        let text = headers.get("last-event-id").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let ticks: Option<Vec<Option<Tick>>> = text
            .split('.')
            .map(|part| match part {
                "-" => Some(None),
                number => number.parse().ok().map(|tick| Some(Tick(tick))),
            })
            .collect();
        ticks.filter(|ticks| ticks.len() == views).map_or_else(|| Positions::none(views), Positions)
    }

    fn to_id(&self) -> String {
        let parts: Vec<String> =
            self.0.iter().map(|tick| tick.map_or("-".to_string(), |tick| tick.to_string())).collect();
        parts.join(".")
    }
}

/// What a subscription brings.
enum Arrival {
    Change(Result<Change, SqlError>),
    /// The engine let go of it: the view was dropped, or the server stops.
    Ended,
}

/// What a waiting feed was woken by.
enum Woken {
    Stopping,
    Arrived(usize, Arrival),
    Status(Bytes),
    Recheck,
    Heartbeat,
}

struct FollowedView {
    name: String,
    recent: Option<RecentRequest>,
    filter: Option<Recent>,
    json: Option<JsonRows>,
    // Whether the reader was told that the view can't be followed.
    reported_unavailable: bool,
}

/// The state behind one event stream.
struct Feed {
    app: Arc<App>,
    views: Vec<FollowedView>,
    positions: Positions,
    streams: StreamMap<usize, BoxStream<'static, Arrival>>,
    // Not yet sent, in order.
    parts: VecDeque<(usize, Parts)>,
    events: VecDeque<Vec<u8>>,
    status: Option<watch::Receiver<Bytes>>,
    recheck: Interval,
    heartbeat: Interval,
    stopping: watch::Receiver<bool>,
    ended: bool,
    _guard: StreamGuard,
}

impl Feed {
    fn new(app: Arc<App>, views: Vec<String>, status: bool) -> Result<Feed, Problem> {
        let guard = app.metrics.open_stream(app.config.streams_max).ok_or_else(|| {
            Problem::new(ProblemKind::TooManyRequests, "too many event streams are open")
                .hint("follow several views on one stream: GET /v1/changes?views=a,b")
        })?;
        let mut events = VecDeque::from([sse::RETRY.to_vec()]);
        let status = status.then(|| app.monitor.watch());
        if status.is_some() {
            let current = app.monitor.to_json(&app.db.status()).to_string();
            events.push_back(sse::event("status", None, current.as_bytes()));
        }
        Ok(Feed {
            positions: Positions::none(views.len()),
            views: views
                .into_iter()
                .map(|name| FollowedView {
                    name,
                    recent: None,
                    filter: None,
                    json: None,
                    reported_unavailable: false,
                })
                .collect(),
            streams: StreamMap::new(),
            parts: VecDeque::new(),
            events,
            status,
            recheck: interval(Duration::from_secs(1)),
            heartbeat: interval(HEARTBEAT_INTERVAL),
            stopping: app.stopping.clone(),
            ended: false,
            _guard: guard,
            app,
        })
    }

    fn into_response(self) -> Response {
        let body = stream::unfold(self, |mut feed| async move {
            let event = feed.next().await?;
            Some((Ok::<_, Infallible>(Bytes::from(event)), feed))
        });
        let mut response = Body::from_stream(body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // nginx would hold events back otherwise.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }

    /// Follows a view of a multiplexed stream, or tells that it can't be followed (yet).
    fn subscribe(&mut self, index: usize) {
        let name = self.views[index].name.clone();
        match self.try_subscribe(index, &name) {
            Ok((relation, subscription)) => self.attach(index, relation, subscription),
            Err(problem) if !self.views[index].reported_unavailable => {
                self.views[index].reported_unavailable = true;
                let data = json!({"view": name, "code": problem.kind.code(), "detail": problem.detail});
                self.events.push_back(sse::event("unavailable", None, data.to_string().as_bytes()));
            }
            Err(_) => {}
        }
    }

    fn try_subscribe(
        &mut self,
        index: usize,
        name: &str,
    ) -> Result<(RelationInfo, engine::Subscription), Problem> {
        let unknown =
            || Problem::new(ProblemKind::UnknownView, format!("there is no view or table \"{name}\""));
        let relation = self.app.db.relation(name).ok_or_else(unknown)?;
        let view = &mut self.views[index];
        view.filter = view.recent.as_ref().map(|recent| recent.bind(&relation.schema)).transpose()?;
        let subscription = self.app.db.subscribe(name, self.positions.0[index])?;
        Ok((relation, subscription))
    }

    fn attach(&mut self, index: usize, relation: RelationInfo, subscription: engine::Subscription) {
        let view = &mut self.views[index];
        view.reported_unavailable = false;
        let schema = known_schema(&relation, &subscription.schema);
        view.json = Some(JsonRows::new(&schema));
        match subscription.snapshot {
            Some(rows) => {
                let reset = self.positions.0[index].is_some();
                self.positions.0[index] = None;
                let rows = match &mut view.filter {
                    Some(filter) => filter.filter_snapshot(rows),
                    None => rows,
                };
                let head = snapshot_head(&relation, &schema, subscription.tick, reset);
                self.parts.push_back((index, Parts::snapshot(subscription.tick, head, rows)));
            }
            None => {
                let position = self.positions.0[index].unwrap_or(subscription.tick);
                self.positions.0[index] = Some(position);
            }
        }
        let changes = ReceiverStream::new(subscription.changes).map(Arrival::Change);
        self.streams.insert(index, changes.chain(stream::iter([Arrival::Ended])).boxed());
    }

    /// The next bytes for the socket; `None` ends the stream.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                self.heartbeat.reset();
                return Some(event);
            }
            if self.ended {
                return None;
            }
            if let Some(event) = self.next_part() {
                self.heartbeat.reset();
                return Some(event);
            }
            self.wait().await;
        }
    }

    fn next_part(&mut self) -> Option<Vec<u8>> {
        let (index, parts) = self.parts.front_mut()?;
        let index = *index;
        let view = &self.views[index];
        let json = view.json.as_ref().expect("a view with parts was attached");
        let mut data = Vec::new();
        data.extend_from_slice(b"{\"view\":");
        write_json_string(&mut data, &view.name);
        let tick = parts.tick();
        let name = parts.event_name();
        let last = parts.write_next(&mut data, json);
        data.push(b'}');
        let id = last.then(|| {
            self.parts.pop_front();
            self.positions.0[index] = Some(tick);
            self.positions.to_id()
        });
        Some(sse::event(name, id.as_deref(), &data))
    }

    async fn wait(&mut self) {
        match self.wake().await {
            Woken::Stopping => self.ended = true,
            Woken::Arrived(index, arrival) => self.receive(index, arrival),
            Woken::Status(status) => self.events.push_back(sse::event("status", None, &status)),
            Woken::Recheck => {
                for index in 0..self.views.len() {
                    if !self.streams.contains_key(&index) {
                        self.subscribe(index);
                    }
                }
            }
            Woken::Heartbeat => self.events.push_back(sse::HEARTBEAT.to_vec()),
        }
    }

    async fn wake(&mut self) -> Woken {
        let has_streams = !self.streams.is_empty();
        let all_followed = self.streams.len() == self.views.len();
        let Feed { streams, status, recheck, heartbeat, stopping, .. } = self;
        tokio::select! {
            biased;
            () = until_stopped(stopping) => Woken::Stopping,
            Some((index, arrival)) = streams.next(), if has_streams => Woken::Arrived(index, arrival),
            status = next_status(status) => status.map_or(Woken::Stopping, Woken::Status),
            _ = recheck.tick(), if !all_followed => Woken::Recheck,
            _ = heartbeat.tick() => Woken::Heartbeat,
        }
    }

    fn receive(&mut self, index: usize, arrival: Arrival) {
        match arrival {
            Arrival::Change(Ok(mut change)) => {
                if let Some(filter) = &mut self.views[index].filter {
                    change.change = filter.filter_change(change.change);
                }
                if let Some(parts) = Parts::change(change) {
                    self.parts.push_back((index, parts));
                }
            }
            Arrival::Change(Err(error)) => self.end_lagged(index, &error.message),
            Arrival::Ended => {
                self.streams.remove(&index);
                // A channel that ran over ends, and so does that of a dropped view.
                if !*self.stopping.borrow() && self.app.db.relation(&self.views[index].name).is_some() {
                    self.end_lagged(index, "the reader was too slow");
                    return;
                }
                // The next subscription brings a new snapshot: it may be another view of the same name.
                self.positions.0[index] = None;
                if self.views.len() == 1 && self.status.is_none() {
                    self.ended = true;
                }
            }
        }
    }

    /// Tells the reader to come back; what was not sent yet is left out, the id says where to go on.
    fn end_lagged(&mut self, index: usize, detail: &str) {
        let data = json!({
            "view": self.views[index].name,
            "detail": detail,
            "hint": "reconnect with Last-Event-ID",
        });
        self.events.push_back(sse::event("lagged", None, data.to_string().as_bytes()));
        self.ended = true;
    }
}

/// The next status; `None` when there will be none, never without a wish for it.
async fn next_status(status: &mut Option<watch::Receiver<Bytes>>) -> Option<Bytes> {
    match status {
        Some(status) => {
            status.changed().await.ok()?;
            Some(status.borrow_and_update().clone())
        }
        None => std::future::pending().await,
    }
}

fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The relation's own description of the columns where it agrees: it knows `jsonb`.
fn known_schema(relation: &RelationInfo, given: &SchemaRef) -> SchemaRef {
    let same = relation.schema.fields().len() == given.fields().len()
        && relation.schema.fields().iter().zip(given.fields()).all(|(a, b)| a.data_type() == b.data_type());
    if same { Arc::clone(&relation.schema) } else { Arc::clone(given) }
}

/// What the first part of a snapshot says about the view, as members of a JSON object.
fn snapshot_head(relation: &RelationInfo, schema: &SchemaRef, tick: Tick, reset: bool) -> Vec<u8> {
    let key: Vec<&str> = relation.key.iter().map(|index| schema.field(*index).name().as_str()).collect();
    format!(",\"tick\":{tick},\"reset\":{reset},\"columns\":{},\"key\":{}", columns_json(schema), json!(key))
        .into_bytes()
}

fn rows_total(rows: &[RecordBatch]) -> usize {
    rows.iter().map(RecordBatch::num_rows).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(id: &str) -> HeaderMap {
        HeaderMap::from_iter([("last-event-id".parse().unwrap(), id.parse().unwrap())])
    }

    #[test]
    fn positions_travel_through_the_event_id() {
        let positions = Positions(vec![Some(Tick(12)), None, Some(Tick(9))]);
        assert_eq!(positions.to_id(), "12.-.9");
        assert_eq!(Positions::parse(&headers("12.-.9"), 3), positions);
        assert_eq!(Positions::parse(&headers("7"), 1), Positions(vec![Some(Tick(7))]));
    }

    #[test]
    fn a_foreign_id_means_from_the_start() {
        for id in ["12.9", "x", "", "1.2.3.4", "-1.2.3", "99999999999999999999.1.1"] {
            assert_eq!(Positions::parse(&headers(id), 3), Positions::none(3), "{id}");
        }
        assert_eq!(Positions::parse(&HeaderMap::new(), 1), Positions::none(1));
    }
}
