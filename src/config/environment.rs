//! The environment as a value, so that tests and reloads do not depend on the process.

use std::collections::BTreeMap;
use std::path::Path;

use super::ConfigError;

/// Variables for `${VAR}` and for the overrides (`API_HOST`, `API_PORT`, `MODEL_PATH`, `DATA_PATH`, `LOG_LEVEL`).
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process environment, completed from `.env` in the working directory.
    ///
    /// # Errors
    /// A `.env` that exists but cannot be read or parsed.
    pub fn from_process() -> Result<Self, ConfigError> {
        let process = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self(process).completed_from(Path::new(".env"))
    }

    fn completed_from(mut self, file: &Path) -> Result<Self, ConfigError> {
        let failed = |error: dotenvy::Error| {
            // The parser's own text quotes the line, which may hold a secret.
            let message = match error {
                dotenvy::Error::LineParse(_, _) => {
                    "has a line that is not NAME=value; quote values with blanks".into()
                }
                error => format!("cannot be read: {error}"),
            };
            ConfigError::single(&file.display().to_string(), 0, message)
        };
        let lines = match dotenvy::from_path_iter(file) {
            Ok(lines) => lines,
            Err(error) if error.not_found() => return Ok(self),
            Err(error) => return Err(failed(error)),
        };
        for line in lines {
            let (name, value) = line.map_err(failed)?;
            self.0.entry(name).or_insert(value);
        }
        Ok(self)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Replaces each `${NAME}`; `$${` stands for a literal `${`.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('$') {
                expanded.push_str(before);
                expanded.push_str("${");
                rest = &from[2..];
                continue;
            }
            expanded.push_str(before);
            let (name, after) = from[2..]
                .split_once('}')
                .ok_or("has \"${\" without \"}\"; write $${ for a literal ${")?;
            expanded.push_str(self.get(name).ok_or_else(|| {
                format!(
                    "${{{name}}} is not set; set the environment variable {name}, or write $${{{name}}} if the text is meant"
                )
            })?);
            rest = after;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let owned = |(name, value): (N, V)| (name.into(), value.into());
        Self(variables.into_iter().map(owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_expand_once_and_escape() {
        let env = Environment::from_iter([("A", "1"), ("B", "${A}")]);
        for (text, expected) in [
            ("x${A}y${A}", "x1y1"),
            ("$${A}", "${A}"),
            ("${B}", "${A}"),
            ("$1 $A }", "$1 $A }"),
            ("$$${A}", "$${A}"),
        ] {
            assert_eq!(env.expand(text).as_deref(), Ok(expected), "{text}");
        }
        assert!(env.expand("${C}").unwrap_err().contains("variable C"));
        assert!(env.expand("${A").unwrap_err().contains("without"));
    }

    #[test]
    fn the_process_wins_over_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# comment\nAPI_PORT=1\nTOKEN='a b'\n").unwrap();
        let env = Environment::from_iter([("API_PORT", "2")])
            .completed_from(file.path())
            .unwrap();
        assert_eq!(env.get("API_PORT"), Some("2"));
        assert_eq!(env.get("TOKEN"), Some("a b"));
    }

    #[test]
    fn a_broken_file_is_an_error_that_keeps_its_secrets() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "TOKEN=hunter2 is secret\n").unwrap();
        let error = Environment::default()
            .completed_from(file.path())
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("not NAME=value") && !error.contains("hunter2"),
            "{error}"
        );
        assert!(
            Environment::default()
                .completed_from(Path::new("/no/such/.env"))
                .is_ok()
        );
    }
}
