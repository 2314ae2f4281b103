//! What explanations cost, with the shipped model: `cargo bench --bench explain`.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use forewarn::artifact;
use forewarn::model::Matrix;
use forewarn::time::Timestamp;
use forewarn::types::ServeMember;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const REASONS: usize = 3;

fn explain(criterion: &mut Criterion) {
    let bundle = artifact::open(Path::new("models/default")).expect("the shipped model opens");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut features = Matrix::new(bundle.catalogue.len());
    for _ in 0..64 {
        let mut window = bundle.catalogue.window();
        let mut levels: Vec<f32> = (0..window.signals())
            .map(|_| rng.random_range(10.0..90.0))
            .collect();
        let mut t = Timestamp(0);
        for _ in 0..window.lookback() {
            t = t.plus(bundle.catalogue.step());
            window.advance(t);
            for (signal, level) in levels.iter_mut().enumerate() {
                *level = (*level + rng.random_range(-2.0..2.0)).clamp(0.0, 100.0);
                window.set(signal, t, *level);
            }
        }
        features.data.extend(bundle.features(&window, t));
    }
    let mut rows = (0..features.rows()).cycle();
    let mut row = || features.row(rows.next().expect("a cycle does not end"));

    let mut group = criterion.benchmark_group("explain");
    group.sample_size(30);
    group.bench_function("score one row", |b| {
        b.iter(|| black_box(bundle.score(row())))
    });
    for (name, has_history) in [("full", true), ("snapshot", false)] {
        group.bench_function(format!("paths of one row, {name}"), |b| {
            b.iter(|| black_box(bundle.explain(row(), has_history, REASONS)))
        });
    }
    group.bench_function("prepare SHAP of both ensembles", |b| {
        b.iter(|| black_box(bundle.shap()))
    });
    let shap = bundle.shap();
    for (name, has_history) in [("full", true), ("snapshot", false)] {
        group.bench_function(format!("SHAP of one row, {name}"), |b| {
            b.iter(|| {
                black_box(shap.explain_served(ServeMember::Ensemble, row(), has_history, REASONS))
            })
        });
    }
    group.bench_function("SHAP of 64 rows on all cores", |b| {
        b.iter(|| black_box(shap.contributions(&features)))
    });
    group.finish();
}

criterion_group!(benches, explain);
criterion_main!(benches);
