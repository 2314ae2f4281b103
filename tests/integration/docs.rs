use std::fs;

use super::fleet::plan;

const HEAD: &str = "\
# Features

Generated from the catalogue in `src/features/`; `FOREWARN_UPDATE_DOCS=1 cargo test --test integration docs` writes it anew.

These are the features of the seven known signals at a step of 1m and a horizon of 30m. Spans scale with the step: at a step of 30s,
`memory_usage_slope_60m` is `memory_usage_slope_30m`. A signal of another name has its value, `delta`, `mean`, `std`, `max`, `slope` and `ratio`, and
with the unit `percent` or `ratio` also `projection` and `time_to_limit`. A feature is missing, never zero, where its window holds too few samples: a mean, standard
deviation or maximum needs a quarter of its slots, a line half of them, a lag or delta both of its samples. Slopes are per hour. The first sixteen need no history.

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
