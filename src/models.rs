//! The models folder: which models are there, which one is served, which one was before.
//!
//! ```text
//! models/<name>/   a model directory; `train` names it by the model's id
//! models/current   text: the name of the served model
//! models/previous  text: the name of the one served before it
//! models/.lock     locked while one of them changes
//! ```
//!
//! A promotion writes its model into `previous` and lets the two texts change places in one step: whatever
//! interrupts it, `current` names one whole model, and a rollback leads to another one. A process that is
//! killed may leave hidden entries; nothing reads them, and [`prune`] removes them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::artifact::{self, ArtifactError};
use crate::bundle::{Bundle, BundleError, Manifest};
use crate::output;

const CURRENT: &str = "current";
const PREVIOUS: &str = "previous";
const LOCK: &str = ".lock";
/// Served when nothing was promoted yet.
const SHIPPED: &str = "default";
/// Models that `train` leaves in the folder, beside the served one and the one before.
pub const KEEP: usize = 5;
/// What is hidden and this old was left by a process that is gone: writing takes seconds.
const LEFT: Duration = Duration::from_secs(3600);

/// One model directory of the folder.
pub struct Entry {
    pub name: String,
    /// Why it cannot be used, when its manifest cannot be read.
    pub manifest: Result<Manifest, ArtifactError>,
}

/// Opens the served model of a models folder: the promoted one, else the shipped one.
pub fn open_current(models: &Path) -> Result<Bundle, ArtifactError> {
    artifact::open(&current(models)?)
}

/// Directory of the served model.
pub fn current(models: &Path) -> Result<PathBuf, ArtifactError> {
    let name = served(models)?;
    name.map(|name| models.join(name))
        .ok_or_else(|| ArtifactError::NoModel(models.to_path_buf()))
}

/// Name of the served model; `None` when there is none.
pub fn served(models: &Path) -> Result<Option<String>, ArtifactError> {
    let shipped = || artifact::is_model(&models.join(SHIPPED)).then(|| SHIPPED.to_string());
    Ok(read_name(&models.join(CURRENT))?.or_else(shipped))
}

/// Name of the model that was served before the current one.
pub fn previous(models: &Path) -> Result<Option<String>, ArtifactError> {
    let current = served(models)?;
    Ok(read_name(&models.join(PREVIOUS))?.filter(|name| current.as_ref() != Some(name)))
}

/// Directory of the model of that name.
pub fn directory(models: &Path, name: &str) -> Result<PathBuf, ArtifactError> {
    match is_name(name) {
        true => Ok(models.join(name)),
        false => Err(ArtifactError::Name(name.to_string())),
    }
}

/// Every model of the folder, the newest training range first.
pub fn list(models: &Path) -> Result<Vec<Entry>, ArtifactError> {
    let entries = match fs::read_dir(models) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(io("read", models, cause)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let dir = entry.map_err(|cause| io("read", models, cause))?.path();
        let name = dir
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        if let Some(name) = name.filter(|name| is_name(name) && artifact::is_model(&dir)) {
            let manifest = artifact::manifest(&dir);
            found.push(Entry { name, manifest });
        }
    }
    let until = |entry: &Entry| {
        let manifest = entry.manifest.as_ref().ok();
        manifest.and_then(Manifest::trained_until)
    };
    found.sort_by(|a, b| until(b).cmp(&until(a)).then_with(|| a.name.cmp(&b.name)));
    Ok(found)
}

/// Waits until no other process changes the folder; none does while the result lives.
pub fn lock(models: &Path) -> Result<fs::File, ArtifactError> {
    let path = models.join(LOCK);
    let locked = || {
        fs::create_dir_all(models)?;
        let file = fs::File::create(&path)?;
        file.lock()?;
        Ok(file)
    };
    locked().map_err(|cause| io("lock", &path, cause))
}

/// Makes a model of this folder the served one, and remembers the one served until now.
pub fn promote(models: &Path, name: &str) -> Result<(), ArtifactError> {
    let (current, previous) = (models.join(CURRENT), models.join(PREVIOUS));
    if let Some(served) = served(models)?.filter(|served| served != name) {
        if !current.exists() {
            write_name(&current, &served)?;
        }
        write_name(&previous, name)?;
        if output::exchange(&previous, &current).is_ok() {
            return Ok(());
        }
        write_name(&previous, &served)?;
    }
    write_name(&current, name)
}

/// Deletes all but the newest [`KEEP`] models that `train` wrote here; their names are the result.
///
/// Never the served one, the one before, the one in its shadow, nor one whose folder has another name than its id:
/// that one a person has put there. What killed processes left goes too.
pub fn prune(models: &Path, shadow: Option<&str>) -> Result<Vec<String>, ArtifactError> {
    let kept = [
        served(models)?,
        previous(models)?,
        shadow.map(str::to_owned),
    ];
    let own = |entry: &Entry| matches!(&entry.manifest, Ok(manifest) if manifest.id == entry.name);
    let mut removed = Vec::new();
    for Entry { name, .. } in list(models)?
        .into_iter()
        .filter(|entry| own(entry) && !kept.contains(&Some(entry.name.clone())))
        .skip(KEEP)
    {
        let dir = models.join(&name);
        // Nobody sees half a model.
        let hidden = models.join(format!(".{name}.{}.removed", std::process::id()));
        fs::rename(&dir, &hidden)
            .and_then(|()| fs::remove_dir_all(&hidden))
            .map_err(|cause| io("remove", &dir, cause))?;
        removed.push(name);
    }
    sweep(models).map_err(|cause| io("remove leftovers in", models, cause))?;
    Ok(removed)
}

fn sweep(models: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(models)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = [".partial", ".replaced", ".removed"]
            .iter()
            .any(|end| name.starts_with('.') && name.ends_with(end));
        let metadata = entry.metadata()?;
        if !is_ours || metadata.modified()?.elapsed().is_ok_and(|age| age < LEFT) {
            continue;
        }
        match metadata.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.')
}

fn read_name(path: &Path) -> Result<Option<String>, ArtifactError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(io("read", path, cause)),
    };
    match text.trim() {
        name if is_name(name) => Ok(Some(name.to_string())),
        name => Err(ArtifactError::Damaged {
            path: path.to_path_buf(),
            cause: BundleError::Damaged(format!("{name:?} is not the name of a model")),
        }),
    }
}

fn write_name(path: &Path, name: &str) -> Result<(), ArtifactError> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let staging = path.with_file_name(format!(".{file}.{}.partial", std::process::id()));
    fs::write(&staging, format!("{name}\n"))
        .and_then(|()| fs::File::open(&staging)?.sync_all())
        .and_then(|()| fs::rename(&staging, path))
        .map_err(|cause| io("write", path, cause))?;
    output::sync_folder_of(path);
    Ok(())
}

fn io(action: &'static str, path: &Path, cause: std::io::Error) -> ArtifactError {
    ArtifactError::Io {
        action,
        path: path.to_path_buf(),
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::manifest;

    fn put(models: &Path, name: &str, id: &str, end: &str) {
        let mut manifest = manifest();
        manifest.id = id.into();
        manifest.training.end = end.into();
        fs::create_dir_all(models.join(name)).unwrap();
        let json = serde_json::to_vec(&manifest).unwrap();
        fs::write(models.join(name).join("manifest.json"), json).unwrap();
    }

    fn names(models: &Path) -> Vec<String> {
        let entries = list(models).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn a_promotion_remembers_what_was_served() {
        let dir = tempfile::tempdir().unwrap();
        let models = dir.path();
        let state = || (served(models).unwrap(), previous(models).unwrap());
        let name = |name: &str| Some(name.to_string());
        assert_eq!(state(), (None, None));
        promote(models, "a").unwrap();
        assert_eq!(state(), (name("a"), None));
        promote(models, "b").unwrap();
        promote(models, "b").unwrap();
        assert_eq!(state(), (name("b"), name("a")));
        promote(models, "a").unwrap();
        assert_eq!(state(), (name("a"), name("b")));

        // Where two names cannot be exchanged, interrupted between the two renames.
        write_name(&models.join(PREVIOUS), "a").unwrap();
        assert_eq!(state(), (name("a"), None));
        promote(models, "c").unwrap();
        assert_eq!(state(), (name("c"), name("a")));
        fs::write(models.join(CURRENT), "../a\n").unwrap();
        assert!(
            served(models)
                .unwrap_err()
                .to_string()
                .contains("is not the name")
        );
    }

    #[test]
    fn the_shipped_model_is_served_until_one_is_promoted() {
        let dir = tempfile::tempdir().unwrap();
        let models = dir.path();
        put(models, "default", "x", "2026-01-01T00:00:00Z");
        assert_eq!(current(models).unwrap(), models.join("default"));
        promote(models, "a").unwrap();
        assert_eq!(previous(models).unwrap().as_deref(), Some("default"));
        promote(models, "default").unwrap();
        assert_eq!(current(models).unwrap(), models.join("default"));
        assert_eq!(previous(models).unwrap().as_deref(), Some("a"));
    }

    #[test]
    fn models_are_listed_newest_first_and_damaged_ones_last() {
        let dir = tempfile::tempdir().unwrap();
        let models = dir.path();
        assert_eq!(names(&models.join("absent")), [""; 0]);
        put(models, "a", "a", "2026-01-01T00:00:00Z");
        put(models, "b", "b", "2026-01-02T00:00:00Z");
        put(models, ".c.1.partial", "c", "2026-01-03T00:00:00Z");
        fs::create_dir(models.join("no-model")).unwrap();
        fs::create_dir(models.join("broken")).unwrap();
        fs::write(models.join("broken/manifest.json"), "{").unwrap();
        assert_eq!(names(models), ["b", "a", "broken"]);
    }

    #[test]
    fn only_old_models_of_train_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let models = dir.path();
        for day in 1..=9 {
            let id = format!("m{day}");
            put(models, &id, &id, &format!("2026-01-0{day}T00:00:00Z"));
        }
        put(models, "precious", "m0", "2025-01-01T00:00:00Z");
        promote(models, "m1").unwrap();
        promote(models, "m2").unwrap();
        // Left by processes that were killed; the last one is at work.
        let long_ago = std::time::SystemTime::now() - 2 * LEFT;
        for left in [
            ".m0.7.partial",
            ".m1.7.replaced",
            ".m2.7.removed",
            ".m3.7.partial",
        ] {
            put(models, left, "x", "2026-01-01T00:00:00Z");
            let is_old = left != ".m3.7.partial";
            let folder = fs::File::open(models.join(left)).unwrap();
            folder
                .set_modified(if is_old {
                    long_ago
                } else {
                    std::time::SystemTime::now()
                })
                .unwrap();
        }
        fs::write(models.join(".current.7.partial"), "m").unwrap();
        let file = fs::File::options()
            .write(true)
            .open(models.join(".current.7.partial"))
            .unwrap();
        file.set_modified(long_ago).unwrap();
        let removed = prune(models, None).unwrap();
        assert_eq!(removed, ["m4", "m3"]);
        assert_eq!(
            names(models),
            ["m9", "m8", "m7", "m6", "m5", "m2", "m1", "precious"]
        );
        assert_eq!(
            fs::read_dir(models).unwrap().count(),
            8 + 2 + 1,
            "nothing is left beside but what is at work"
        );
    }
}
