//! forewarn says how probable it is that a target fails within the horizon,
//! from series that an existing Prometheus already has.
//!
//! ```text
//! Prometheus ─► samples ─► window ─► features ─► ensemble ─► calibration ─► assessment ─► /metrics, API, ledger
//!                                       ▲                                                     │
//! history ranges + failure ranges ─► windows ─► features ─► labels ─► train                   └─► incidents ─► scoreboard
//! ```
//!
//! The modules below stand in reading order. Lower layers never import higher
//! ones; `tests/integration/layering.rs` holds that order. Everything down to
//! `simulator` is pure: no I/O, no clock, no unseeded randomness.

pub mod time;
pub mod types;
pub mod table;
pub mod window;
pub mod features;
pub mod labels;
pub mod tracker;
pub mod evaluation;
pub mod model;
pub mod surrogate;
pub mod risk;
pub mod scoreboard;
pub mod drift;
pub mod history;
pub mod training;
pub mod course;
pub mod assessment;
pub mod bundle;
pub mod cycle;
pub mod report;
pub mod simulator;
pub mod config;
pub mod promql;
pub mod presets;
pub mod learning;
pub mod output;
pub mod artifact;
pub mod dataset;
pub mod models;
pub mod state;
pub mod webhook;
pub mod prometheus;
pub mod action;
pub mod fetch;
pub mod shadow;
pub mod metrics;
pub mod exported;
pub mod rules;
pub mod server;
pub mod runner;
pub mod diagnosis;
pub mod survey;
pub mod starter;
pub mod service;
pub mod retrain;
pub mod commands;
