//! The model directory: what is written, how it is verified.
//!
//! ```text
//! <id>/manifest.json what the model is; names and checksums of the files below
//! <id>/full/…        the ensemble over all features
//! <id>/snapshot/…    the ensemble for bodies without history
//! <id>/reference.json what the features of the training rows were like; older models lack it
//! <id>/card.md       the same in words: outside checksums, as nothing is computed from it
//! <id>/report.html   the same with charts: outside checksums too
//! <id>/run.json      when, how long, by what command: outside checksums
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, BundleError, FORMAT_VERSION, Manifest};
use crate::output;

pub const MANIFEST: &str = "manifest.json";
const CARD: &str = "card.md";
const REPORT: &str = "report.html";

#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error(
        "no model in {0}: train one with `forewarn train`, or name its folder by model.path or MODEL_PATH"
    )]
    NoModel(PathBuf),
    #[error("cannot {action} {path}: {cause}")]
    Io {
        action: &'static str,
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("{path} is not a model manifest: {cause}")]
    Manifest {
        path: PathBuf,
        cause: serde_json::Error,
    },
    #[error(
        "{path} has format version {found}; this forewarn reads version {FORMAT_VERSION}: train the model again or use the forewarn that wrote it"
    )]
    Version { path: PathBuf, found: u32 },
    #[error(
        "{0} exists and is not a model, so it is not replaced: name a new folder or that of a model"
    )]
    NotAModel(PathBuf),
    #[error("{path} is damaged: {cause}; restore the directory or train again")]
    Damaged { path: PathBuf, cause: BundleError },
    #[error("{0:?} is not the name of a model; `forewarn model list` shows them")]
    Name(String),
}

/// Whether a model may be written to `dir`: only nothing, an empty folder or a model is ever replaced.
pub fn check_replaceable(dir: &Path) -> Result<(), ArtifactError> {
    let is_free = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none() || dir.join(MANIFEST).is_file(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    is_free
        .then_some(())
        .ok_or_else(|| ArtifactError::NotAModel(dir.to_path_buf()))
}

/// Writes the model directory: everything beside it first, then one step puts it in its place. What was there before
/// stays until then; where the file system cannot exchange two names there is none for a moment.
pub fn write(
    bundle: &Bundle,
    dir: &Path,
    card: &str,
    report: Option<&str>,
    run: &serde_json::Value,
) -> Result<(), ArtifactError> {
    let mut files = bundle.files();
    files.insert(MANIFEST.into(), pretty(&bundle.manifest));
    files.insert("run.json".into(), pretty(run));
    files.insert(CARD.into(), card.as_bytes().to_vec());
    if let Some(report) = report {
        files.insert(REPORT.into(), report.as_bytes().to_vec());
    }
    write_files(&files, dir)
}

fn write_files(files: &BTreeMap<String, Vec<u8>>, dir: &Path) -> Result<(), ArtifactError> {
    check_replaceable(dir)?;
    let staging = beside(dir, "partial");
    // Left by a process that died.
    fs::remove_dir_all(&staging).ok();
    let written = fill(&staging, files).and_then(|()| swap(&staging, dir));
    if written.is_err() {
        fs::remove_dir_all(&staging).ok();
    }
    written
}

fn fill(staging: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<(), ArtifactError> {
    for (name, bytes) in files {
        let path = staging.join(name);
        let folder = path.parent().unwrap_or(staging);
        fs::create_dir_all(folder).map_err(io("create", folder))?;
        let mut file = fs::File::create(&path).map_err(io("create", &path))?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(io("write", &path))?;
    }
    for name in files.keys() {
        output::sync_folder_of(&staging.join(name));
    }
    output::sync_folder_of(staging);
    Ok(())
}

fn swap(staging: &Path, dir: &Path) -> Result<(), ArtifactError> {
    let finish = "rename the finished model to";
    if !dir.exists() {
        fs::rename(staging, dir).map_err(io(finish, dir))?;
    } else if output::exchange(staging, dir).is_ok() {
        fs::remove_dir_all(staging).ok();
    } else {
        let replaced = beside(dir, "replaced");
        fs::rename(dir, &replaced).map_err(io("replace", dir))?;
        if let Err(error) = fs::rename(staging, dir) {
            fs::rename(&replaced, dir).map_err(io("restore", dir))?;
            return Err(io(finish, dir)(error));
        }
        fs::remove_dir_all(&replaced).ok();
    }
    output::sync_folder_of(dir);
    Ok(())
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ArtifactError {
    let path = path.to_path_buf();
    move |cause| ArtifactError::Io {
        action,
        path,
        cause,
    }
}

/// Whether a directory claims to be a model.
pub fn is_model(dir: &Path) -> bool {
    dir.join(MANIFEST).is_file()
}

/// `card.md` of a model directory.
pub fn card(dir: &Path) -> Result<String, ArtifactError> {
    let path = dir.join(CARD);
    fs::read_to_string(&path).map_err(|cause| ArtifactError::Io {
        action: "read",
        path,
        cause,
    })
}

/// `report.html` of a model directory, where there is one.
pub fn report(dir: &Path) -> Option<PathBuf> {
    Some(dir.join(REPORT)).filter(|path| path.is_file())
}

/// Reads the manifest of a model directory; its files stay unread.
pub fn manifest(dir: &Path) -> Result<Manifest, ArtifactError> {
    let path = dir.join(MANIFEST);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ArtifactError::NoModel(dir.to_path_buf()));
        }
        Err(cause) => {
            return Err(ArtifactError::Io {
                action: "read",
                path,
                cause,
            });
        }
    };
    let malformed = |cause| ArtifactError::Manifest {
        path: path.clone(),
        cause,
    };
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let Version {
        format_version: found,
    } = serde_json::from_slice(&bytes).map_err(malformed)?;
    if found != FORMAT_VERSION {
        return Err(ArtifactError::Version { path, found });
    }
    serde_json::from_slice(&bytes).map_err(malformed)
}

/// Opens and verifies a model directory.
pub fn open(dir: &Path) -> Result<Bundle, ArtifactError> {
    let manifest = manifest(dir)?;
    let damaged = |cause| ArtifactError::Damaged {
        path: dir.to_path_buf(),
        cause,
    };
    let mut files = BTreeMap::new();
    for name in manifest.files.keys() {
        let relative = Path::new(name);
        if !relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(damaged(BundleError::Damaged(format!(
                "the manifest lists {name}, which lies elsewhere"
            ))));
        }
        let path = dir.join(relative);
        let bytes = fs::read(&path).map_err(|cause| ArtifactError::Io {
            action: "read",
            path,
            cause,
        })?;
        files.insert(name.clone(), bytes);
    }
    Bundle::from_files(manifest, files).map_err(damaged)
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path
        .file_name()
        .map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned());
    path.with_file_name(format!(".{name}.{}.{what}", std::process::id()))
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> BTreeMap<String, Vec<u8>> {
        [MANIFEST, "full/a.json"]
            .map(|name| (name.to_string(), text.as_bytes().to_vec()))
            .into()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_model_replaces_a_model_whole_and_leaves_nothing_beside() {
        let models = tempfile::tempdir().unwrap();
        let dir = models.path().join("sub/m1");
        write_files(&files("old"), &dir).unwrap();
        fs::write(dir.join("full/stale.json"), "").unwrap();
        // A process with the same id died here once.
        let partial = beside(&dir, "partial");
        fs::create_dir_all(partial.join("full")).unwrap();
        fs::write(partial.join("full/foreign.json"), "").unwrap();
        write_files(&files("new"), &dir).unwrap();
        assert_eq!(names(&dir), ["full", MANIFEST]);
        assert_eq!(names(&dir.join("full")), ["a.json"]);
        assert_eq!(fs::read(dir.join(MANIFEST)).unwrap(), b"new");
        assert_eq!(names(dir.parent().unwrap()), ["m1"]);
    }

    #[test]
    fn what_is_no_model_is_never_replaced() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("thesis.txt"), "years").unwrap();
        fs::create_dir(home.path().join("empty")).unwrap();
        for dir in [home.path().to_path_buf(), home.path().join("thesis.txt")] {
            let error = write_files(&files("new"), &dir).unwrap_err().to_string();
            assert!(error.contains("is not a model"), "{error}");
        }
        write_files(&files("new"), &home.path().join("empty")).unwrap();
        assert_eq!(names(home.path()), ["empty", "thesis.txt"]);
    }

    #[test]
    fn a_failed_write_keeps_the_old_model() {
        let models = tempfile::tempdir().unwrap();
        let dir = models.path().join("m1");
        write_files(&files("old"), &dir).unwrap();
        let mut broken = files("new");
        // A name that is a file and a folder at once cannot be written.
        broken.insert("full/a.json/b".into(), Vec::new());
        write_files(&broken, &dir).unwrap_err();
        assert_eq!(fs::read(dir.join(MANIFEST)).unwrap(), b"old");
        assert_eq!(names(models.path()), ["m1"]);
    }
}
