//! What is wrong with a config: all of it at once.

use std::fmt;

/// One thing to correct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Key path, `signals.cpu_usage.query`; empty when it concerns the whole file.
    pub path: String,
    /// Line in the file; 0 when the file has no such line.
    pub line: usize,
    pub message: String,
}

/// Every problem of one config, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as the user named it.
    pub source_name: String,
    pub problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(source_name: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.line == 0, problem.line));
        Self {
            source_name: source_name.into(),
            problems,
        }
    }

    /// A single problem that has no key, such as an unreadable file.
    pub(super) fn single(source_name: &str, line: usize, message: String) -> Self {
        let path = String::new();
        Self::new(
            source_name,
            vec![Problem {
                path,
                line,
                message,
            }],
        )
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            f.write_str(&self.source_name)?;
            if problem.line > 0 {
                write!(f, ":{}", problem.line)?;
            }
            if !problem.path.is_empty() {
                write!(f, ": {}", problem.path)?;
            }
            write!(f, ": {}", problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
