//! All addresses, in one table: router, OpenAPI document and access rules are made of it, so that
//! none can forget a route.

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, get, post};

use super::{App, changes, health, ingest, openapi, page, statements, views};

/// Who may use a route when tokens are configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody: load balancers have no token.
    Open,
    Token,
}

pub struct Route {
    /// In lower case, as OpenAPI writes it.
    pub method: &'static str,
    /// With parameters in braces.
    pub path: &'static str,
    pub access: Access,
    pub handler: fn() -> MethodRouter<Arc<App>>,
}

const fn route(
    method: &'static str,
    path: &'static str,
    access: Access,
    handler: fn() -> MethodRouter<Arc<App>>,
) -> Route {
    Route { method, path, access, handler }
}

pub static ROUTES: [Route; 14] = [
    route("get", "/", Access::Token, || get(page::index)),
    route("get", "/assets/{build}/{file}", Access::Token, || get(page::asset)),
    route("post", "/v1/tables/{table}/rows", Access::Token, || post(ingest::post_rows)),
    route("get", "/v1/tables", Access::Token, || get(views::list_tables)),
    route("get", "/v1/views", Access::Token, || get(views::list_views)),
    route("get", "/v1/views/{view}", Access::Token, || get(views::read)),
    route("get", "/v1/views/{view}/changes", Access::Token, || get(changes::of_view)),
    route("get", "/v1/changes", Access::Token, || get(changes::of_views)),
    route("post", "/v1/sql", Access::Token, || post(statements::run)),
    route("get", "/v1/status", Access::Token, || get(health::status)),
    route("get", "/metrics", Access::Token, || get(health::metrics)),
    route("get", "/health/live", Access::Open, || get(health::live)),
    route("get", "/health/ready", Access::Open, || get(health::ready)),
    route("get", "/openapi.json", Access::Token, || get(openapi::document)),
];

pub fn router() -> Router<Arc<App>> {
    ROUTES.iter().fold(Router::new(), |router, route| router.route(route.path, (route.handler)()))
}

/// The rule of a matched route; what matches none needs a token too.
pub fn access_of(pattern: Option<&str>) -> Access {
    let open = ROUTES.iter().any(|route| Some(route.path) == pattern && route.access == Access::Open);
    if open { Access::Open } else { Access::Token }
}
