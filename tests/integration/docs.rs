use std::fs;

use super::fleet::plan;

const HEAD: &str = "\
# Features

Generated from the catalogue in `src/features/`; `FOREWARN_UPDATE_DOCS=1 cargo test --test integration docs` writes it anew.

These are the features of the seven known signals at a step of 1m and a horizon of 30m. Spans scale with the step: at a step of 30s,
`memory_usage_slope_60m` is `memory_usage_slope_30m`. A signal of another name has its value, `delta`, `mean`, `std`, `max`, `slope`, `ratio`, `departure` and
`growth`, and with the unit `percent` or `ratio` also `projection` and `time_to_limit`. A feature is missing, never zero, where its window holds too few samples: a mean,
standard deviation or maximum needs a quarter of its slots, a line half of them, a delta both of its samples, a level (the mean of five steps) two of them. Slopes are per
hour. The first sixteen need no history.

The *baseline* is what is normal for this target: the median of one sample in 60 steps over the last 24 of them, a day at a step of 1m. With fewer than four such samples it is
the mean over the window. The *floor* is 1 for counts, 1e-6 for other units without a limit: with it, one error where there are none is not infinitely many.

The ensemble that has a target's history does not see how large latency, errors, response time and connections are, nor what is computed from them (`total_stress`, `error_rate`,
`performance_ratio`): what is much on one target is little on another, and a model that knows the number learns whose it is. It sees how far they have left
their baseline. A body without history has no baseline, so the ensemble that answers it sees the first sixteen as they are.

";

#[test]
fn features_md_is_current() {
    let expected = format!("{HEAD}{}", plan().catalogue.markdown());
    if std::env::var_os("FOREWARN_UPDATE_DOCS").is_some() {
        fs::write("docs/features.md", &expected).expect("docs/ is writable");
    }
    let found = fs::read_to_string("docs/features.md").unwrap_or_default();
    assert!(
        found == expected,
        "docs/features.md is not what the catalogue says: run FOREWARN_UPDATE_DOCS=1 cargo test --test integration docs"
    );
}
