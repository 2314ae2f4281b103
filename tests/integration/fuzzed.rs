//! The fuzz targets' properties on recorded inputs, on every input that once broke one, and on damaged copies of both.
//! fuzz/README.md tells how to search for more.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;

#[path = "../../fuzz/src/lib.rs"]
mod properties;

/// Larger inputs cost much and show little.
const MAX_BYTES: u64 = 64 << 10;

fn files(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_path_buf()];
    }
    let entries = fs::read_dir(place).unwrap_or_else(|e| panic!("{}: {e}", place.display()));
    entries
        .flat_map(|entry| files(&entry.expect("an entry").path()))
        .collect()
}

/// Contents of the small files in `seeds` and in the target's own corpus.
fn inputs(target: &str, seeds: &[&str]) -> Vec<Vec<u8>> {
    let corpus = format!("fuzz/corpus/{target}");
    let corpus = Path::new(&corpus).is_dir().then_some(corpus.as_str());
    let places = seeds.iter().copied().chain(corpus);
    let files = places.flat_map(|place| files(Path::new(place)));
    let small = files.filter(|file| file.metadata().expect("a file").len() <= MAX_BYTES);
    small.map(|file| fs::read(file).expect("a file")).collect()
}

/// Bytes changed, cut out, doubled or replaced.
fn damaged(mut input: Vec<u8>, damage: &[(Index, Index, u8, u8)]) -> Vec<u8> {
    for (from, to, kind, byte) in damage {
        let (from, to) = (from.index(input.len() + 1), to.index(input.len() + 1));
        let range = from.min(to)..from.max(to).min(from.min(to) + 64);
        match kind % 4 {
            0 if !range.is_empty() => input[range.start] = *byte,
            1 => drop(input.drain(range)),
            2 => {
                let copy = input[range.clone()].to_vec();
                input.splice(range.end..range.end, copy);
            }
            _ => {
                let odd: [&[u8]; 12] = [
                    b"1e308",
                    b"-1",
                    b"null",
                    b"NaN",
                    b"\"",
                    b"[",
                    b"}",
                    b",",
                    b"\xff",
                    b"0",
                    b"18446744073709551615",
                    b"\n",
                ];
                input.splice(range, odd[usize::from(*byte) % odd.len()].iter().copied());
            }
        }
    }
    input
}

fn hold(property: fn(&[u8]), inputs: &[Vec<u8>], cases: u32) {
    assert!(!inputs.is_empty());
    inputs.iter().for_each(|input| property(input));
    let damage = prop::collection::vec(any::<(Index, Index, u8, u8)>(), 1..5);
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    };
    proptest!(config, |(input in any::<Index>(), damage in damage)| {
        let input = input.get(inputs).clone();
        let damaged = damaged(input, &damage);
        property(&damaged);
    });
}

macro_rules! targets {
    ($($target:ident $cases:literal $seeds:expr;)*) => {$(
        #[test]
        fn $target() {
            hold(properties::$target, &inputs(stringify!($target), &$seeds), $cases);
        }
    )*};
}

targets! {
    config 1000 ["config.yaml", "deploy/demo/config.yaml", "tests/fixtures/config"];
    query 2000 ["tests/fixtures/prometheus"];
    rules 5000 ["tests/fixtures/prometheus/prom2.42/rules.json", "tests/fixtures/prometheus/prom3.5/rules.json", "tests/fixtures/prometheus/vm1.79/rules.json"];
    webhook 3000 ["tests/fixtures/alertmanager"];
    web 1000 [];
    action 10000 [];
    predict 1000 [];
    batch 1000 [];
    xgboost 2000 ["tests/fixtures/xgboost"];
    rows 1000 [];
    times 10000 [];
}

#[test]
fn model() {
    let mut all = inputs("model", &[]);
    all.extend(properties::model_files().into_values());
    hold(properties::model, &all, 2000);
}

/// After a change of the model files: `cargo test --test integration -- --ignored model_seeds`.
#[test]
#[ignore = "writes fuzz/corpus/model"]
fn model_seeds() {
    for (name, bytes) in properties::model_files() {
        let path = Path::new("fuzz/corpus/model").join(name.replace('/', "-"));
        fs::create_dir_all("fuzz/corpus/model").expect("a folder");
        fs::write(path, bytes).expect("a seed");
    }
}
