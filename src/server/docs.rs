//! `/openapi.json` and the two pages that show it, without a network.

use std::io::Read;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::read::GzDecoder;
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::OpenApi;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{OpenApi as Document, Ref, RefOr, Schema};

use super::problem::Problem;
use super::{App, api, html, json, predict, reload};
use crate::types::{Signal, Unit};

/// The pages load from here only, and run our scripts and the line in the page that `{script}` is the hash of.
const POLICY: &str = "default-src 'none'; script-src 'self' 'sha256-{script}'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; \
    frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const SWAGGER: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>forewarn API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "openapi.json", domNode: document.getElementById("page"), validatorUrl: null, deepLinking: true})</script>
</body>
</html>
"#;

const REDOC: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>forewarn API</title>
<link rel="icon" href="data:,">
<style>body { margin: 0 }</style>
</head>
<body>
<div id="page"></div>
<script src="docs/redoc.standalone.js"></script>
<script>Redoc.init("openapi.json", {}, document.getElementById("page"))</script>
</body>
</html>
"#;

#[derive(OpenApi)]
#[openapi(
    components(schemas(predict::Explain)),
    info(
        title = "forewarn",
        description = "How probable it is that a target fails within the horizon."
    ),
    tags((name = "predictions"), (name = "fleet"), (name = "alerts"), (name = "operations")),
    paths(
        predict::predict,
        predict::predict_batch,
        api::webhook,
        super::action::act,
        super::action::actions,
        api::targets,
        api::target,
        api::incidents,
        api::alerts,
        api::model,
        api::scoreboard,
        api::shadow,
        api::metrics,
        api::health,
        api::healthy,
        api::ready,
    reload::reload,
    )
)]
struct Description;

/// The OpenAPI document for a model with these signals.
fn document(signals: &[Signal], max_batch: usize) -> Document {
    let mut document = Description::openapi();
    let values = signals.iter().fold(ObjectBuilder::new(), |object, signal| {
        object.property(&signal.name, number(signal))
    });
    let rows = ArrayBuilder::new()
        .items(Ref::from_schema_name("Row"))
        .min_items(Some(1))
        .max_items(Some(max_batch));
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(
            "A configured target, whose live window is the history; instead of `history`",
        ));
    let earlier = ArrayBuilder::new()
        .items(Ref::from_schema_name("Values"))
        .description(Some(
            "Earlier rows, oldest first, one per step; instead of `target`",
        ));
    let row = signals
        .iter()
        .fold(ObjectBuilder::new(), |object, signal| {
            object.property(&signal.name, number(signal))
        })
        .property("target", text)
        .property("history", earlier)
        .examples([example(signals)])
        .description(Some("The model's signals, at least one of them; null and absent mean missing, unknown fields are ignored"));
    let components = document.components.get_or_insert_default();
    for (name, schema) in [
        ("Values", Schema::Object(values.build())),
        ("Row", Schema::Object(row.build())),
        ("Rows", Schema::Array(rows.build())),
    ] {
        components.schemas.insert(name.into(), RefOr::T(schema));
    }
    document
}

/// A row that can be sent as it stands.
fn example(signals: &[Signal]) -> Value {
    let value = |signal: &Signal| match signal.unit {
        Unit::Percent => 62.5,
        Unit::Milliseconds => 120.0,
        Unit::Ratio => 0.25,
        Unit::Bytes => 1e9,
        Unit::Seconds | Unit::Count | Unit::None => 3.0,
    };
    let values = signals.iter().map(|s| (s.name.clone(), value(s).into()));
    Value::Object(values.collect())
}

fn number(signal: &Signal) -> ObjectBuilder {
    let nullable = SchemaType::from_iter([Type::Number, Type::Null]);
    let (low, _) = signal.unit.range();
    let object = ObjectBuilder::new()
        .schema_type(nullable)
        .description(Some(signal.unit.name()))
        .minimum((low > f64::MIN).then_some(low));
    match signal.unit.limit() {
        Some(limit) => object.maximum(Some(limit)),
        None => object,
    }
}

pub async fn openapi(State(app): State<Arc<App>>) -> Response {
    let serving = app.serving.load();
    let max_batch = serving.config.api.max_batch;
    json(&match &serving.model {
        Some(bundle) => document(bundle.catalogue.signals(), max_batch),
        None => document(&serving.config.inputs(), max_batch),
    })
}

pub async fn swagger() -> Response {
    page(SWAGGER)
}

pub async fn redoc() -> Response {
    page(REDOC)
}

fn page(page: &'static str) -> Response {
    let script = page
        .split_once("<script>")
        .and_then(|(_, rest)| rest.split_once("</script>"));
    let hash = Sha256::digest(script.map_or("", |(script, _)| script));
    let policy = POLICY.replace("{script}", &BASE64_STANDARD.encode(hash));
    html(page, policy)
}

/// A vendored file; they are kept compressed and go out so to whoever takes gzip.
pub async fn asset(Path(file): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let (kind, packed): (_, &'static [u8]) = match file.as_str() {
        "swagger-ui-bundle.js" => (
            "text/javascript; charset=utf-8",
            include_bytes!("assets/swagger-ui-bundle.js.gz"),
        ),
        "swagger-ui.css" => (
            "text/css; charset=utf-8",
            include_bytes!("assets/swagger-ui.css.gz"),
        ),
        "redoc.standalone.js" => (
            "text/javascript; charset=utf-8",
            include_bytes!("assets/redoc.standalone.js.gz"),
        ),
        _ => {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                format!("there is no /docs/{file}"),
            ));
        }
    };
    let accepts_gzip = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| {
            v.split(',')
                .any(|coding| coding.trim().split(';').next() == Some("gzip"))
        });
    let mut response = if accepts_gzip {
        ([(header::CONTENT_ENCODING, "gzip")], packed).into_response()
    } else {
        let mut plain = Vec::new();
        GzDecoder::new(packed)
            .read_to_end(&mut plain)
            .map_err(|error| {
                Problem::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("cannot unpack {file}: {error}"),
                )
            })?;
        plain.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=3600"),
    );
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    Ok(response)
}
