//! What the command reads is no file: a folder, a pipe, a device, a link, nothing.

use crate::attempt::Attempt;
use crate::commands::{Base, NEWEST};
use crate::random::Random;
use anyhow::{Context as _, Result};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// A link by which a folder holds itself.
pub const BACK: &str = "link to its folder";

/// What a file is replaced by.
pub const THINGS: &[&str] = &[
    "nothing",
    "folder",
    "full folder",
    "pipe",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "dangling link",
    "link to itself",
    "link elsewhere",
    BACK,
    "unreadable",
    "200 GB of zeros",
];

/// Replaces a file that the command reads, or the folder that holds it.
pub fn mutate(attempt: &mut Attempt, random: &mut Random) -> Result<()> {
    let base = attempt.choose(random, |base| !base.files().is_empty());
    let folders = ["set", "pictures", "shards", "table", "run", "run/checkpoints", NEWEST];
    let files = base.files();
    if random.one_in(6) {
        let inside = |base: &Base, folder: &str| base.files().iter().any(|file| file.starts_with(folder));
        let used: Vec<&str> = folders.into_iter().filter(|folder| inside(base, folder)).collect();
        if !used.is_empty() {
            let folder = random.pick(&used);
            let thing = random.pick(THINGS);
            return put(attempt, folder, thing);
        }
    }
    let file = random.pick(&files);
    let thing = random.pick(THINGS);
    put(attempt, file, thing)?;
    // A link to the same bytes elsewhere is as good as the file; root reads what no one may.
    if !["link elsewhere", "unreadable"].contains(&thing) {
        attempt.broke(file, &format!("is replaced: {thing}"));
    }
    Ok(())
}

/// Puts something in a file's or folder's place.
///
/// # Errors
/// Where that can't be done.
pub fn put(attempt: &mut Attempt, name: &str, thing: &str) -> Result<()> {
    let path = attempt.folder.join(name);
    attempt.notes.push(format!("{name}: {thing}"));
    let aside = attempt.folder.join("elsewhere").join(name.replace('/', "-"));
    if std::fs::symlink_metadata(&path).is_ok() {
        if thing == "unreadable" {
            return Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000))?);
        }
        std::fs::rename(&path, &aside)?;
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match thing {
        "folder" => std::fs::create_dir(&path)?,
        "full folder" => {
            std::fs::create_dir(&path)?;
            std::fs::write(path.join("kept.txt"), "kept")?;
        }
        "pipe" => pipe(&path)?,
        "200 GB of zeros" => std::fs::File::create(&path)?.set_len(200_000_000_000)?,
        "/dev/null" => device(&path, 3)?,
        "/dev/zero" => device(&path, 5)?,
        "/dev/full" => device(&path, 7)?,
        "dangling link" => symlink("nowhere/at all", &path)?,
        "link to itself" => symlink(path.file_name().context("a path without a name")?, &path)?,
        "link elsewhere" => {
            symlink(&aside, &path)?;
            // Of a run, which is written as well as read, what the link leads to is.
            if Path::new(name).starts_with("run") {
                attempt.behind.push(format!("elsewhere/{}", name.replace('/', "-")));
            }
        }
        BACK => symlink(".", &path)?,
        _ => {}
    }
    Ok(())
}

fn c_path(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn pipe(path: &Path) -> Result<()> {
    let path = c_path(path)?;
    // SAFETY: a C string that lives through the call.
    let made = unsafe { libc::mkfifo(path.as_ptr(), 0o644) };
    if made == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

/// A memory device by its minor number: a node of its own, never the machine's, for a program that is tried as root
/// may replace it. Who may not make one gets a link.
fn device(path: &Path, minor: u32) -> Result<()> {
    let name = c_path(path)?;
    // SAFETY: a C string that lives through the call.
    let made = unsafe { libc::mknod(name.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, minor)) };
    // A file system may be mounted without devices: opening tells.
    if made == 0 {
        if std::fs::OpenOptions::new().write(true).open(path).is_ok() {
            return Ok(());
        }
        std::fs::remove_file(path)?;
    }
    let target = match minor {
        3 => "/dev/null",
        5 => "/dev/zero",
        _ => "/dev/full",
    };
    Ok(symlink(target, path)?)
}
