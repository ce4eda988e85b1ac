//! The live page: plain files, compiled into the binary.
//!
//! All files stand under one address that changes with any of them, so browsers may keep them for
//! good, and modules import each other by relative names.

use std::sync::{Arc, LazyLock};

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::problem::{Problem, ProblemKind};
use super::select::hex;

struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

macro_rules! asset {
    ($name:literal, $content_type:literal) => {
        Asset {
            name: $name,
            content_type: $content_type,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/page/", $name)),
        }
    };
}

const INDEX: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/page/index.html"));
/// Replaced in the page by the folder of this build.
const FOLDER_MARK: &str = "{{assets}}";

const ASSETS: [Asset; 8] = [
    asset!("live.css", "text/css; charset=utf-8"),
    asset!("live.js", "text/javascript; charset=utf-8"),
    asset!("tiles.js", "text/javascript; charset=utf-8"),
    asset!("charts.js", "text/javascript; charset=utf-8"),
    asset!("dom.js", "text/javascript; charset=utf-8"),
    asset!("relations.js", "text/javascript; charset=utf-8"),
    asset!("words.js", "text/javascript; charset=utf-8"),
    asset!("icon.svg", "image/svg+xml"),
];

/// Folder name made of the content of all files.
static FOLDER: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for asset in &ASSETS {
        hash.update(asset.name.as_bytes());
        hash.update(asset.text.as_bytes());
    }
    hex(&hash.finalize()[..8])
});

static INDEX_PAGE: LazyLock<Arc<str>> =
    LazyLock::new(|| INDEX.replace(FOLDER_MARK, &format!("/assets/{}", *FOLDER)).into());

/// `GET /`
pub async fn index() -> Response {
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    (headers, INDEX_PAGE.to_string()).into_response()
}

/// `GET /assets/{build}/{file}`
pub async fn asset(Path((build, file)): Path<(String, String)>) -> Result<Response, Problem> {
    let found = ASSETS.iter().find(|asset| asset.name == file).filter(|_| build == *FOLDER);
    match found {
        Some(asset) => {
            let headers =
                [(CONTENT_TYPE, asset.content_type), (CACHE_CONTROL, "public, max-age=31536000, immutable")];
            Ok((headers, asset.text).into_response())
        }
        None => Err(Problem::new(ProblemKind::NotFound, "this build of the page has no such file")
            .hint("reload the page")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_file_the_page_names_is_served() {
        let page = INDEX_PAGE.to_string();
        assert!(!page.contains(FOLDER_MARK));
        let mut named = 0;
        for part in page.split(&format!("/assets/{}/", *FOLDER)).skip(1) {
            let file = part.split('"').next().unwrap().to_string();
            asset(Path((FOLDER.clone(), file))).await.unwrap();
            named += 1;
        }
        assert!(named >= 3);
        let imports = ASSETS.iter().flat_map(|asset| asset.text.split(" from \"./").skip(1));
        for import in imports {
            let file = import.split('"').next().unwrap();
            assert!(ASSETS.iter().any(|asset| asset.name == file), "{file} is imported but not served");
        }
        assert!(asset(Path(("old".to_string(), "live.js".to_string()))).await.is_err());
        assert!(asset(Path((FOLDER.clone(), "../Cargo.toml".to_string()))).await.is_err());
    }

    #[test]
    fn the_page_keeps_to_its_content_security_policy() {
        for (name, text) in ASSETS.iter().map(|asset| (asset.name, asset.text)).chain([("index.html", INDEX)])
        {
            for forbidden in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style="]
            {
                assert!(!text.contains(forbidden), "{name} has {forbidden}");
            }
        }
        assert!(!INDEX.contains("<script>") && !INDEX.contains("<style"));
        assert!(!INDEX.contains(" onclick=") && !INDEX.contains(" onload="));
    }
}
