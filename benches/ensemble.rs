//! What features and scores cost, with the shipped model: `cargo bench --bench ensemble`. Features of one target's step, one
//! row, and blocks of 1000 rows on one core.
//!
//! `FOREWARN_MODEL` names another model directory. `FOREWARN_ROWS` names a file to which the rows are written, for
//! `benches/evaluators.sh`.

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forewarn::artifact;
use forewarn::bundle::Bundle;
use forewarn::model::Matrix;
use forewarn::time::Timestamp;
use forewarn::types::ServeMember;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ROWS: usize = 1000;

fn ensemble(criterion: &mut Criterion) {
    let bundle = open();
    let features = rows(&bundle);
    if let Some(file) = std::env::var_os("FOREWARN_ROWS") {
        let bytes: Vec<u8> = features.data.iter().flat_map(|x| x.to_le_bytes()).collect();
        std::fs::write(file, bytes).expect("the rows can be written");
    }
    let one_core = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("a pool of one thread");

    let mut group = criterion.benchmark_group("ensemble");
    group.sample_size(30);
    let mut next = (0..ROWS).cycle();
    let mut row = || features.row(next.next().expect("a cycle does not end"));
    group.bench_function("full, one row", |b| {
        b.iter(|| black_box(bundle.score(row())))
    });
    group.bench_function("snapshot, one row", |b| {
        b.iter(|| black_box(bundle.score_snapshot(row())))
    });
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("full, block", |b| {
        one_core.install(|| b.iter(|| black_box(bundle.score_rows(&features))))
    });
    for member in [ServeMember::Xgboost, ServeMember::RandomForest] {
        group.bench_function(format!("{}, block", member.name()), |b| {
            one_core.install(|| b.iter(|| black_box(bundle.probabilities(member, &features, true))))
        });
    }
    group.bench_function("snapshot, block", |b| {
        one_core.install(|| b.iter(|| black_box(bundle.score_snapshot_rows(&features))))
    });
    group.finish();
}

/// Samples of a step come in, the row of features goes out.
fn features(criterion: &mut Criterion) {
    let bundle = open();
    let mut window = bundle.catalogue.window();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut t = Timestamp(0);
    let mut row = vec![f32::NAN; bundle.catalogue.len()];
    let samples: Vec<f32> = (0..1024).map(|_| rng.random_range(5.0..95.0)).collect();
    let mut next = samples.iter().cycle();
    criterion.bench_function("features, one target, one step", |b| {
        b.iter(|| {
            t = t.plus(bundle.catalogue.step());
            window.advance(t);
            for (signal, sample) in (0..window.signals()).zip(&mut next) {
                window.set(signal, t, *sample);
            }
            bundle.catalogue.compute(&window, t, &mut row);
            black_box(&row);
        })
    });
}

fn open() -> Bundle {
    let dir = std::env::var_os("FOREWARN_MODEL").map_or("models/default".into(), PathBuf::from);
    artifact::open(&dir).expect("the model opens")
}

criterion_group!(benches, ensemble, features);
criterion_main!(benches);

/// Rows of random walks, so that no two take the same paths.
fn rows(bundle: &Bundle) -> Matrix {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut features = Matrix::new(bundle.catalogue.len());
    let step = bundle.catalogue.step();
    for _ in 0..ROWS {
        let mut window = bundle.catalogue.window();
        let mut levels: Vec<f32> = (0..window.signals())
            .map(|_| rng.random_range(5.0..95.0))
            .collect();
        let mut t = Timestamp(0);
        for _ in 0..window.lookback() {
            t = t.plus(step);
            window.advance(t);
            for (signal, level) in levels.iter_mut().enumerate() {
                *level = (*level + rng.random_range(-2.0..2.0)).clamp(0.0, 100.0);
                window.set(signal, t, *level);
            }
        }
        features.data.extend(bundle.features(&window, t));
    }
    features
}
