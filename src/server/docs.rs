//! `/openapi.json` and the two pages that show it, without a network.

use std::borrow::Cow;
use std::io::Read;
use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use utoipa::{OpenApi, ToSchema};

use super::auth::Takes;
use super::examples::{self, LOCKED, REFUSALS, Refusal};
use super::problem::Problem;
use super::web::Terms;
use super::{App, Serving, api, html, page, predict, reload};
use crate::action;
use crate::config::Config;
use crate::types::Signal;
use crate::webhook;

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
    components(schemas(predict::Explain, Problem)),
    info(title = "forewarn", description = include_str!("assets/description.md")),
    servers((url = ".", description = "This forewarn")),
    tags(
        (name = "predictions", description = "Score rows that you send. Nothing is kept of them."),
        (name = "fleet", description = "What forewarn says of the targets that it watches, and how good that has been."),
        (name = "alerts", description = "What Alertmanager sends."),
        (name = "operations", description = "Metrics, probes and reloads, as in Prometheus."),
        (name = "pages", description = "For people; they load nothing from elsewhere."),
    ),
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
        page::status,
        openapi,
        swagger,
        redoc,
        asset,
    )
)]
struct Description;

/// The OpenAPI document of what is in service, behind these terms.
fn document(serving: &Serving, terms: Option<&Terms>) -> Value {
    let signals = match &serving.model {
        Some(bundle) => Cow::from(bundle.catalogue.signals()),
        None => serving.config.inputs().into(),
    };
    let signals = signals.as_ref();
    let snapshot = serving.snapshot.as_deref();
    let known = snapshot.and_then(|snapshot| snapshot.assessments.first());
    let target = known.map_or("web-1", |assessment| assessment.target.as_str());
    let mut document = json!(Description::openapi());
    document["security"] = json!([]);
    let schemas = &mut document["components"]["schemas"];
    schemas["Explain"] = json!({
        "type": "string", "enum": ["false", "true", "shap", "0", "1"], "default": "false",
        "description": "`0` and `1` are `false` and `true`",
    });
    schemas["Values"] = json!({
        "type": "object", "description": "An earlier row: signals, null or absent where they are missing; unknown fields are ignored",
        "properties": properties(signals), "additionalProperties": true,
    });
    schemas["Row"] = row(signals);
    schemas["Rows"] = json!({
        "type": "array", "items": {"$ref": "#/components/schemas/Row"}, "minItems": 1, "maxItems": serving.config.api.max_batch,
        "description": "`api.max_batch` rows at most",
    });
    schemas["Delivery"] = delivery();
    schemas["DeliveredAlert"] = delivered_alert();
    schemas["Action"] = acted(&serving.config);
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    let mut schemes = Map::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            let method = method.to_uppercase().parse().unwrap_or_default();
            let takes = terms.map_or_else(Takes::default, |t| t.access.takes(&method, path));
            complete(operation, signals, target, takes);
            for (name, is_taken) in [("basic", takes.user), ("bearer", takes.token)] {
                if is_taken {
                    schemes.insert(name.into(), json!({"type": "http", "scheme": name}));
                }
            }
        }
    }
    if !schemes.is_empty() {
        document["components"]["securitySchemes"] = schemes.into();
    }
    document
}

/// Adds what the attributes at the handlers do not say: examples, refusals, and who is let in.
fn complete(operation: &mut Value, signals: &[Signal], target: &str, takes: Takes) {
    let id = operation["operationId"].clone();
    for (of, bodies) in examples::bodies(signals, target) {
        if id == of {
            operation["requestBody"]["required"] = true.into();
            operation["requestBody"]["content"]["application/json"]["examples"] = bodies;
        }
    }
    if id == "target" {
        operation["parameters"][0]["example"] = target.into();
    }
    let responses = &mut operation["responses"];
    if id == "targets" {
        responses["200"]["links"]["first"] = json!({
            "operationId": "target", "parameters": {"target": "$response.body#/targets/0/target"},
        });
    }
    for (of, status, answers) in examples::answers() {
        if id == of {
            let contents = responses[status.to_string()]["content"].as_object_mut();
            for (_, content) in contents.into_iter().flatten() {
                content["examples"] = answers.clone();
            }
        }
    }
    let is_locked = takes != Takes::default();
    let locked = if is_locked { LOCKED } else { &[] };
    for refusal in REFUSALS.iter().chain(locked) {
        if refusal.of.is_empty() || refusal.of.iter().any(|of| id == *of) {
            refuse(&mut responses[refusal.status.as_str()], refusal);
        }
    }
    if is_locked {
        let named = [("basic", takes.user), ("bearer", takes.token)];
        let taken = named.iter().filter(|(_, is_taken)| *is_taken);
        operation["security"] = taken.map(|(name, _)| json!({*name: []})).collect();
    }
}

fn refuse(response: &mut Value, refusal: &Refusal) {
    let description = match response["description"].as_str() {
        Some(before) => format!("{before}. {}", refusal.when),
        None => refusal.when.to_owned(),
    };
    response["description"] = description.into();
    let text = |description: &str, kind: &str| json!({"description": description, "schema": {"type": kind}});
    match refusal.status {
        StatusCode::UNAUTHORIZED => {
            let challenge = text("The schemes that are taken", "string");
            response["headers"]["WWW-Authenticate"] = challenge;
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            let seconds = text("Seconds to wait, where waiting helps", "integer");
            response["headers"]["Retry-After"] = seconds;
        }
        _ => {}
    }
    let content = &mut response["content"]["application/problem+json"];
    content["schema"] = json!({"$ref": "#/components/schemas/Problem"});
    content["examples"][refusal.name] =
        json!({"summary": refusal.when, "value": refusal.problem()});
}

fn row(signals: &[Signal]) -> Value {
    let mut properties = properties(signals);
    properties.insert(
        "target".into(),
        json!({
            "type": ["string", "null"],
            "description": "A target of the last cycle, whose live window is the history; instead of `history`",
        }),
    );
    properties.insert(
        "history".into(),
        json!({
            "type": ["array", "null"], "items": {"$ref": "#/components/schemas/Values"},
            "description": "Earlier rows, oldest first, one per step; instead of `target`. What reaches further back than the model looks is not used",
        }),
    );
    let missing = |signal: &Signal| (signal.name.clone(), json!({"type": "null"}));
    let no_signal: Map<_, _> = signals.iter().map(missing).collect();
    json!({
        "type": "object", "properties": properties, "additionalProperties": true,
        "description": "The model's signals, at least one of them as a number; null and absent mean missing. `target` and `history` exclude each other. \
            Other fields are ignored and named in the answer",
        "not": {"anyOf": [
            {"properties": no_signal},
            {"required": ["target", "history"], "properties": {"target": {"not": {"type": "null"}}, "history": {"not": {"type": "null"}}}},
        ]},
        "example": examples::row(signals),
    })
}

fn properties(signals: &[Signal]) -> Map<String, Value> {
    let property = |signal: &Signal| {
        let (minimum, maximum) = predict::bounds(signal);
        let schema = json!({
            "type": ["number", "null"], "minimum": minimum, "maximum": maximum, "description": signal.unit.name(),
        });
        (signal.name.clone(), schema)
    };
    signals.iter().map(property).collect()
}

/// What the webhook reads of Alertmanager's version 4.
fn delivery() -> Value {
    json!({
        "type": "object", "required": ["version", "alerts"], "additionalProperties": true,
        "description": "A delivery of Alertmanager; of its other fields nothing is read",
        "properties": {
            "version": {"const": "4"},
            "truncatedAlerts": {"type": ["integer", "null"], "minimum": 0, "maximum": webhook::MAX_TRUNCATED, "description": "Left out by Alertmanager; counted"},
            "alerts": {"type": "array", "maxItems": webhook::MAX_ALERTS, "items": {"$ref": "#/components/schemas/DeliveredAlert"}},
        },
    })
}

fn acted(config: &Config) -> Value {
    let text = |max: usize, description: &str| json!({"type": ["string", "null"], "maxLength": max, "description": description});
    let label = |name: &String| (name.clone(), json!({"minLength": 1}));
    let labels: Map<_, _> = config.targets.label.iter().map(label).collect();
    json!({
        "type": "object", "additionalProperties": true,
        "description": "What somebody did about the target that `target` names, or else `labels`",
        "properties": {
            "target": text(action::MAX_TARGET, "As in the label `target`"),
            "labels": {"type": ["object", "null"], "additionalProperties": {"type": "string"}, "description": "As an alert has them: those of forewarn name the `target`, those of others as `targets.label` and `failure.target_labels` say"},
            "time": {
                "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "format": "date-time"}, {"type": "null"}],
                "description": "When: unix seconds or RFC 3339, not in the future. Now, where it is missing",
            },
            "id": text(action::MAX_ID, "Of the action: the same target and id again change nothing. Made from the time, where it is missing"),
            "comment": text(action::MAX_COMMENT, "Kept, for people"),
        },
        "anyOf": [
            {"required": ["target"], "properties": {"target": {"minLength": 1, "not": {"type": "null"}}}},
            {"required": ["labels"], "properties": {"labels": {"not": {"type": "null"}, "required": config.targets.label, "properties": labels}}},
            {"required": ["labels"], "properties": {"labels": {
                "not": {"type": "null"}, "required": ["forewarn", "target"], "properties": {"forewarn": {"const": "true"}, "target": {"minLength": 1}},
            }}},
        ],
    })
}

fn delivered_alert() -> Value {
    let texts = |kind: Value, description: &str| json!({"type": kind, "additionalProperties": {"type": "string"}, "description": description});
    json!({
        "type": "object", "required": ["status", "labels", "startsAt"], "additionalProperties": true,
        "properties": {
            "status": {"enum": ["firing", "resolved"]},
            "labels": texts("object".into(), "At most 64 KiB together with the annotations"),
            "annotations": texts(json!(["object", "null"]), "Kept, for people"),
            "startsAt": {"type": "string", "format": "date-time", "not": {"pattern": "^0000|^0001-01-01"}, "description": "When the alert began; not the zero time"},
            "endsAt": {
                "anyOf": [{"type": "string", "format": "date-time"}, {"enum": ["", null]}],
                "description": "The zero time, null, absent and empty mean: not yet",
            },
            "fingerprint": {"type": ["string", "null"], "description": "Computed from the labels where it is missing"},
        },
    })
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "pages", responses((status = 200, body = Object, description = "OpenAPI 3.1")))]
pub async fn openapi(
    State(app): State<Arc<App>>,
    terms: Option<Extension<Arc<Terms>>>,
) -> Response {
    let terms = terms.as_ref().map(|Extension(terms)| terms.as_ref());
    super::json(&document(&app.serving.load(), terms))
}

/// These pages by Swagger UI
#[utoipa::path(get, path = "/docs", tag = "pages", responses((status = 200, body = String, content_type = "text/html; charset=utf-8", description = "The page")))]
pub async fn swagger() -> Response {
    shell(SWAGGER)
}

/// These pages by Redoc
#[utoipa::path(get, path = "/redoc", tag = "pages", responses((status = 200, body = String, content_type = "text/html; charset=utf-8", description = "The page")))]
pub async fn redoc() -> Response {
    shell(REDOC)
}

fn shell(page: &'static str) -> Response {
    let script = page
        .split_once("<script>")
        .and_then(|(_, rest)| rest.split_once("</script>"));
    let hash = Sha256::digest(script.map_or("", |(script, _)| script));
    let policy = POLICY.replace("{script}", &BASE64_STANDARD.encode(hash));
    html(page, policy)
}

/// Vendored.
#[derive(Deserialize, ToSchema)]
pub enum File {
    #[serde(rename = "swagger-ui-bundle.js")]
    SwaggerUiBundle,
    #[serde(rename = "swagger-ui.css")]
    SwaggerUiStyle,
    #[serde(rename = "redoc.standalone.js")]
    Redoc,
}

/// What these pages load
///
/// Vendored files. They are kept compressed and go out so to whoever takes gzip.
#[utoipa::path(
    get,
    path = "/docs/{file}", tag = "pages",
    params(("file" = inline(File), Path, description = "One of these")),
    responses((
        status = 200, description = "The file",
        content((String = "text/javascript; charset=utf-8"), (String = "text/css; charset=utf-8")),
    )),
)]
pub async fn asset(
    file: Result<Path<File>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (kind, packed): (_, &'static [u8]) = match file {
        Ok(Path(File::SwaggerUiBundle)) => (
            "text/javascript; charset=utf-8",
            include_bytes!("assets/swagger-ui-bundle.js.gz"),
        ),
        Ok(Path(File::SwaggerUiStyle)) => (
            "text/css; charset=utf-8",
            include_bytes!("assets/swagger-ui.css.gz"),
        ),
        Ok(Path(File::Redoc)) => (
            "text/javascript; charset=utf-8",
            include_bytes!("assets/redoc.standalone.js.gz"),
        ),
        Err(_) => {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "there is no such file; /docs and /redoc load what there is",
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
                    format!("cannot unpack the file: {error}"),
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
