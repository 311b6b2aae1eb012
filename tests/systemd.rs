//! The units, tried by a real systemd.

mod support;

use std::path::Path;
use support::Boot;

#[test]
fn a_boot_leaves_nothing_behind() {
    let Some(boot) = Boot::start() else { return };
    assert_eq!(boot.sh("cat /proc/1/comm"), "systemd");
    boot.put("/srv/there/file", "bytes", 0o600);
    assert_eq!(boot.read("/srv/there/file").unwrap(), b"bytes");
    boot.sh("useradd -m anna");
    assert_eq!(
        boot.sh_as("anna", "077", "touch 'it'\"'\"'s'; stat -c '%U %a %n' it*; pwd"),
        "anna 600 it's\n/home/anna"
    );
    drop(boot);
    assert!(!Path::new("/srv/there").exists());
}
