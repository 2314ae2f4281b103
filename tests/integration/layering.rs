//! The order of the modules in `lib.rs` is the order in which they may import each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("the sources are readable") {
        let path = entry.expect("the sources are readable").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// Modules of lib.rs in their order, and how many of them are pure.
fn layers() -> (Vec<String>, usize) {
    let text = fs::read_to_string("src/lib.rs").expect("lib.rs is readable");
    let modules: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_string)
        .collect();
    let pure = 1 + modules
        .iter()
        .position(|m| m == "simulator")
        .expect("lib.rs names simulator");
    (modules, pure)
}

fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix("src").expect("sources lie in src");
    let first = inside
        .components()
        .next()
        .expect("a file has a name")
        .as_os_str()
        .to_string_lossy();
    first.trim_end_matches(".rs").to_string()
}

fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("the sources are readable");
    let tests = text.find("#[cfg(test)]").unwrap_or(text.len());
    text[..tests].to_string()
}

#[test]
fn lower_layers_do_not_import_higher_ones() {
    let (modules, _) = layers();
    let order = |name: &str| modules.iter().position(|m| m == name);
    let mut wrong = BTreeSet::new();
    for path in sources(Path::new("src")) {
        let Some(own) = order(&module_of(&path)) else {
            continue;
        };
        for part in code_of(&path).split("crate::").skip(1) {
            let name: String = part
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if order(&name).is_some_and(|imported| imported > own) {
                wrong.insert(format!("{} imports {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_core_does_no_io_and_reads_no_clock() {
    let (modules, pure) = layers();
    let mut wrong = BTreeSet::new();
    for path in sources(Path::new("src")) {
        if !modules[..pure].contains(&module_of(&path)) {
            continue;
        }
        for forbidden in [
            "std::fs",
            "std::net",
            "SystemTime",
            "Instant::now",
            "tokio::",
            "reqwest",
            "rand::rng()",
            "thread_rng",
            "std::env",
        ] {
            if code_of(&path).contains(forbidden) {
                wrong.insert(format!("{} uses {forbidden}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
