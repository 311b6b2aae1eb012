//! Shows a folder in the desktop's file manager.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::segmind::VARIABLE;

/// A viewer that has not failed by then shows the folder; some stay as long as their window does.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the desktop to show `folder`; the error is for a person. May block for 2 s.
pub(super) fn show(folder: &Path) -> Result<(), String> {
    show_with(if cfg!(target_os = "macos") { "open" } else { "xdg-open" }, folder, PATIENCE)
}

fn show_with(program: &str, folder: &Path, patience: Duration) -> Result<(), String> {
    let mut child = Command::new(program)
        .arg(folder)
        .env_remove(VARIABLE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C ends the demo and not the window.
        .process_group(0)
        .spawn()
        .map_err(|e| format!("{program}: {e}"))?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = tell.send(child.wait());
    });
    match told.recv_timeout(patience) {
        Ok(Ok(status)) if !status.success() => Err(format!("{program} ended with {status}")),
        Ok(Err(e)) => Err(format!("{program}: {e}")),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_viewer_that_is_missing_or_fails_is_said_and_one_that_stays_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let missing = show_with("no-such-viewer-anywhere", folder.path(), PATIENCE).unwrap_err();
        assert!(missing.starts_with("no-such-viewer-anywhere: "), "{missing}");
        let failed = show_with("false", folder.path(), Duration::from_secs(60)).unwrap_err();
        assert!(failed.contains("exit status: 1"), "{failed}");
        show_with("true", folder.path(), Duration::from_secs(60)).unwrap();
    }
}
