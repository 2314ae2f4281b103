//! How many heaps glibc keeps for a process that runs for months.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Two heaps, and the thresholds that glibc begins with, kept: large pieces go back to the system at once.
const BOUNDS: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
];
/// glibc forgets the bounds where the program may do more than its user; this it does not.
const BOUND: &str = "FOREWARN_HEAPS_BOUND";

/// glibc gives each thread a heap of its own, and what is freed in one is of no use to the others: a server holds three times
/// what it needs (docs/reliability.md). It reads its bounds when a program starts, so the program starts itself again,
/// as the same process. What the user has set stays.
pub fn bound() {
    if env::var_os(BOUND).is_some() {
        return;
    }
    let unset = BOUNDS
        .into_iter()
        .filter(|(name, _)| env::var_os(name).is_none());
    let again = env::current_exe().map(|program| {
        let mut args = env::args_os();
        let mut command = Command::new(&program);
        command.arg0(args.next().unwrap_or_else(|| program.into()));
        command.args(args).envs(unset).env(BOUND, "1").exec()
    });
    let (Ok(error) | Err(error)) = again;
    eprintln!(
        "forewarn: cannot start again with fewer heaps, so it will take more memory: {error}"
    );
}
