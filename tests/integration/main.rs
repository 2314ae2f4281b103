//! One binary for what no module can test alone.

/// What a user sees of the built binary when something is wrong: message, exit code, what goes on.
mod bad_input;
/// The commands that work on a model, run as a user runs them.
mod commands;
/// Nothing is learned where there is nothing to learn, nor from what is not known yet.
mod controls;
/// What is scored is compared with what was trained on, and what has moved is named.
mod drift;
/// Contributions add up to the score, and a cycle bounds how many it explains.
mod explanations;
/// A simulated history and a small model trained on it, shared by the tests below.
mod fleet;
/// The training matrix as Parquet, and trees that come from elsewhere.
mod init;
mod interchange;
/// What must hold whatever bytes come in.
mod fuzzed;
/// Lower layers do not import higher ones.
mod layering;
/// What one client can ask of the server, and how long it may take.
mod limits;
/// Serving computes what training computed, and no later sample changes an earlier row.
mod replay;
/// A changed config and a promoted model take over while everything goes on, whole or not at all.
mod reload;
/// report.html and card.md: whole, well-formed and honest, whatever there is to tell.
mod report;
/// No secret of the config is ever shown.
mod secrets;
/// The server and its cycle with a real model, against a stand-in for Prometheus that fails on demand.
mod serving;
/// The same data and seed give the same model on any number of threads.
mod training;
/// Windows and features under everything that samples do.
mod windows;
/// What is generated is current: the pages of features, configuration and command line.
mod docs;
/// TLS, users and tokens of the listener, over real connections.
mod web;
/// A stand-in for Prometheus that answers from a recorded history and fails on demand.
mod upstream;
