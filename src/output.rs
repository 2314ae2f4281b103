//! Files that commands write: whole or not at all, and never over something of another kind.

use std::fs;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("cannot write {path}: {cause}; {}", remedy(cause))]
    Io {
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("{0} exists and is something else, so it is not replaced: name another file")]
    OtherKind(PathBuf),
}

fn remedy(cause: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    match cause.kind() {
        NotFound | NotADirectory => "make the folder first, or name another file",
        PermissionDenied | ReadOnlyFilesystem => {
            "name a file where this user may write, or run as one who may"
        }
        _ => "check that the disk has space, or name another file",
    }
}

/// What a file of a kind begins with.
pub const PARQUET: &[u8] = b"PAR1";
pub const XGBOOST_JSON: &[u8] = b"{\"learner\":";

/// Whether a file of the kind that begins with `magic` may be written to `path`: only nothing
/// or a file of the same kind is ever replaced.
pub fn check_replaceable(path: &Path, magic: &[u8]) -> Result<(), OutputError> {
    let mut found = Vec::new();
    let read =
        fs::File::open(path).and_then(|file| file.take(magic.len() as u64).read_to_end(&mut found));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => check_folder(path),
        Err(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(OutputError::Io {
                path: path.to_path_buf(),
                cause,
            })
        }
        Ok(_) if found == magic => check_folder(path),
        _ => Err(OutputError::OtherKind(path.to_path_buf())),
    }
}

/// Whether `path` can be written: better known before an hour's work than after it.
pub fn check_writable(path: &Path) -> Result<(), OutputError> {
    match path.exists() {
        true => may_write(path, path),
        false => check_folder(path),
    }
}

/// Whether a file can be made beside `path`.
fn check_folder(path: &Path) -> Result<(), OutputError> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    may_write(&folder.unwrap_or(Path::new(".")).join("."), path)
}

fn may_write(there: &Path, path: &Path) -> Result<(), OutputError> {
    access(there, Access::WRITE_OK).map_err(|cause| OutputError::Io {
        path: path.to_path_buf(),
        cause: cause.into(),
    })
}

/// As [`check_writable`], for a folder that is to be made, with those above it.
pub fn check_new_folder(path: &Path) -> Result<(), OutputError> {
    let there = path.ancestors().find(|one| one.exists());
    match there {
        None => Ok(()),
        Some(there) => check_folder(&there.join("new")),
    }
}

/// Writes a file beside `path` and renames it when it is complete. What was there before stays until then.
pub fn write<E: From<OutputError>>(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<fs::File>) -> Result<(), E>,
) -> Result<(), E> {
    let io = |cause| OutputError::Io {
        path: path.to_path_buf(),
        cause,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.{}.partial", std::process::id()));
    let written = (|| {
        let mut file = BufWriter::new(fs::File::create(&partial).map_err(io)?);
        fill(&mut file)?;
        file.flush().map_err(io)?;
        file.get_ref().sync_all().map_err(io)?;
        fs::rename(&partial, path).map_err(io)?;
        sync_folder_of(path);
        Ok(())
    })();
    if written.is_err() {
        fs::remove_file(&partial).ok();
    }
    written
}

/// Makes what happened to a name last through a power cut. Not every file system can.
pub fn sync_folder_of(path: &Path) {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    if let Ok(folder) = fs::File::open(folder.unwrap_or(Path::new("."))) {
        folder.sync_all().ok();
    }
}

/// Each of two names gets what the other one has, in one step. Not every file system can.
pub fn exchange(one: &Path, other: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?;
    sync_folder_of(one);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_or_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let put = |bytes: &'static [u8]| {
            write::<OutputError>(&path, |file| {
                file.write_all(bytes).unwrap();
                Ok(())
            })
        };
        put(b"PAR1 old").unwrap();
        let failed = write(&path, |file| {
            file.write_all(b"PAR1 half").unwrap();
            Err(OutputError::OtherKind("because".into()))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"PAR1 old");
        put(b"PAR1 new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"PAR1 new");
        assert_eq!(names(dir.path()), ["a.parquet"]);
        let nowhere = dir.path().join("no/such/folder.parquet");
        let error = write::<OutputError>(&nowhere, |_| Ok(())).unwrap_err();
        let expected = "make the folder first, or name another file";
        assert!(error.to_string().ends_with(expected), "{error}");
        assert!(error.to_string().contains("folder.parquet"), "{error}");
    }

    #[test]
    fn only_the_same_kind_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("old.parquet"), "PAR1...").unwrap();
        fs::write(path("thesis.txt"), "years").unwrap();
        fs::write(path("empty"), "").unwrap();
        let check = |name: &str| check_replaceable(&path(name), PARQUET).is_ok();
        assert!(check("new.parquet") && check("old.parquet"));
        assert!(!check("thesis.txt") && !check("empty") && !check("no/such/folder"));
        assert!(check_replaceable(Path::new("no-such.parquet"), PARQUET).is_ok());
        assert!(check_replaceable(dir.path(), PARQUET).is_err(), "a folder");
        assert!(
            check_new_folder(&path("a/b/c")).is_ok() && check_new_folder(Path::new("x/y")).is_ok()
        );
        assert!(
            check_new_folder(&path("thesis.txt/a")).is_err(),
            "below a file"
        );
    }
}
