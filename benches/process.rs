//! What the benchmarks read of their own process.

use anyhow::Context;

/// The kernel counts in hundredths of a second.
const TICK: f64 = 0.01;

/// User and system time so far, in seconds.
pub fn cpu() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: Vec<f64> = ticks.map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() * TICK)
}
