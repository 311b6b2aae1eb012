//! The units, installed as their heads say and tried by a real systemd.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::fs;
use std::path::Path;
use std::process::Command;

use reimagined::config::Config;
use support::boot::quoted;
use support::faults::{cannot, left_out};
use support::{Api, Boot, Gate, KEY, pictures};

/// Where the repository lies inside.
const CHECKOUT: &str = "/opt/reimagined";

const INBOX: &str = "/srv/reimagine/inbox";
const OUTBOX: &str = "/srv/reimagine/outbox";

fn file(rel: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(rel);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The commands that stand in a unit's head, between these two texts of it.
fn head(unit: &str, from: &str, to: &str) -> Vec<String> {
    let text = file(unit);
    let head = text.split("\n\n").next().unwrap();
    let part = head.split_once(from).unwrap().1.split_once(to).unwrap().0;
    let commands = part.lines().filter_map(|line| line.strip_prefix("#   "));
    // What stands behind two blanks is said to people.
    commands.map(|line| line.split("  ").next().unwrap().to_owned()).collect()
}

/// A machine with a checkout that was built, and the API that its configuration is to name.
struct Machine {
    boot: Boot,
    api: Api,
}

impl Machine {
    fn start() -> Option<Self> {
        let boot = Boot::start()?;
        for rel in [
            "systemd/reimagined.service",
            "systemd/user/reimagined.service",
            "systemd/config.toml",
            "systemd/sysusers.d/reimagined.conf",
            "systemd/tmpfiles.d/reimagined.conf",
        ] {
            boot.put(&format!("{CHECKOUT}/{rel}"), file(rel), 0o644);
        }
        Some(Self { boot, api: Api::start() })
    }

    /// As the system unit's head says, but for the last step: started it is by [`Self::up`].
    fn installed() -> Option<Self> {
        let machine = Self::start()?;
        let boot = &machine.boot;
        boot.put_binary(&format!("{CHECKOUT}/target/release/reimagined"));
        for command in head("systemd/reimagined.service", "To install", "And then:") {
            boot.sh(&format!("cd {CHECKOUT} && printf '%s\\n' {KEY} | {command}"));
        }
        machine.configure("/etc/reimagined/config.toml");
        for member in ["anna", "ben"] {
            boot.sh(&format!("useradd -m {member} && usermod -aG reimagined {member}"));
        }
        Some(machine)
    }

    /// Installed, with that in a drop-in of the unit, and started.
    fn up(service: &str) -> Option<Self> {
        let machine = Self::installed()?;
        machine.drop_in(service);
        machine.boot.sh("systemctl start reimagined");
        Some(machine)
    }

    /// As `systemctl edit` does.
    fn drop_in(&self, service: &str) {
        let path = "/etc/systemd/system/reimagined.service.d/override.conf";
        self.boot.put(path, format!("[Service]\n{service}\n"), 0o644);
        self.boot.sh("systemctl daemon-reload");
    }

    /// What a person would do with an editor: another service, and a prompt.
    fn configure(&self, path: &str) {
        // By name, as the real one is found.
        let url = self.api.url().replace("127.0.0.1", "localhost");
        let text = String::from_utf8(self.boot.read(path).unwrap()).unwrap();
        let text = text
            .lines()
            .filter(|line| !line.starts_with("base_url") && !line.starts_with("upload_url"))
            .map(|line| match line {
                "[api]" => format!("[api]\nbase_url = \"{url}\"\nupload_url = \"{url}/upload-asset\"\n"),
                "[preset]" => "[preset]\nprompt = \"a look\"\n".to_owned(),
                _ => format!("{line}\n"),
            })
            .collect::<String>();
        self.boot.sh(&format!("printf '%s' {} >{path}", quoted(&text)));
    }

    /// Puts a picture that no other is to where `anna` keeps hers.
    fn picture(&self, name: &str, n: u32) -> Vec<u8> {
        let bytes = pictures::jpeg(n);
        self.boot.put(&format!("/home/anna/{name}"), &bytes, 0o644);
        bytes
    }

    /// A member drops a picture, and it comes out.
    fn works(&self, name: &str, n: u32) {
        self.picture(&format!("{name}.jpg"), n);
        self.boot.sh_as("anna", "022", &format!("cp {name}.jpg {INBOX}/"));
        self.boot.wait(name, || self.boot.has(&format!("{OUTBOX}/{name}.png")));
    }

    fn is(&self, property: &str, value: &str) -> bool {
        self.boot.show("reimagined", property) == value
    }

    fn wait(&self, property: &str, value: &str) {
        self.boot.wait(&format!("{property}={value}"), || self.is(property, value));
    }

    fn journal(&self) -> String {
        self.boot.journal("reimagined")
    }
}

#[test]
fn a_boot_leaves_nothing_behind_even_if_its_test_fails() {
    let Some(boot) = Boot::start() else { return };
    let space = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let (inside, cgroup) = (space(boot.pid()).unwrap(), boot.cgroup().to_owned());
    boot.put("/srv/boot/file", "bytes", 0o644);
    boot.sh("setsid sleep 1000 >/dev/null 2>&1 &");
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _boot = boot;
        panic!("this test fails, as others may");
    }));
    assert!(failed.is_err() && !cgroup.exists() && !Path::new("/srv/boot").exists());
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    assert_eq!(all.filter(|pid| space(pid).as_ref() == Some(&inside)).collect::<Vec<_>>(), [""; 0]);
    assert!(!fs::read_to_string("/proc/self/mounts").unwrap().lines().any(|line| line.starts_with("boot ")));
}

#[test]
fn the_system_unit_is_exposed_by_one_of_ten_at_most() {
    if left_out("systemd") {
        return;
    }
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/reimagined.service");
    let told = Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=true", "--threshold=10"])
        .arg(unit)
        .output()
        .unwrap_or_else(|e| cannot("systemd", &format!("systemd-analyze: {e}")));
    let told = String::from_utf8_lossy(&told.stdout);
    let level = told.split("Overall exposure level for reimagined.service:").nth(1).expect(&told);
    let level: f64 = level.split_whitespace().next().unwrap().parse().unwrap();
    assert!(level <= 1.0, "{told}");
}

#[test]
fn the_services_configuration_names_the_folders_and_nothing_else_of_its_own() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/config.toml");
    let config = Config::load(&path).unwrap();
    let folders = config.folders.clone();
    let mut plain = Config::parse("", &path, Some(Path::new("/nobody"))).unwrap();
    plain.folders = folders;
    plain.api.key_file = Some("/etc/reimagined/api-key".into());
    plain.service.state_dir = Some("/var/lib/reimagined".into());
    assert_eq!(format!("{config:?}"), format!("{plain:?}"));
    assert!(config.folders.inbox.starts_with("/srv/reimagine"));
    // What stands there as a comment can be had by taking the # away.
    let text = file("systemd/config.toml").replace("\n# prompt", "\nprompt").replace("\n# images", "\nimages");
    let text = text.replace("\n# requests", "\nrequests");
    assert_eq!(Config::parse(&text, &path, None).unwrap().api.requests_per_minute, 5);
}

#[test]
fn the_journal_has_a_line_for_people_with_a_field_for_each_fact() {
    let Some(machine) = Machine::up("") else { return };
    let boot = &machine.boot;
    machine.picture("terrace.jpg", 1);
    boot.sh_as("anna", "022", &format!("mkdir {INBOX}/cafe && cp terrace.jpg {INBOX}/cafe/"));
    // Found by its folder, which no line says alone.
    let find =
        "journalctl --sync; journalctl -u reimagined REIMAGINED_FOLDER=cafe REIMAGINED_VERDICT=delivered -o json";
    boot.wait("it is delivered, and the journal knows", || boot.sh(find).contains("MESSAGE"));
    let line: serde_json::Value = serde_json::from_str(boot.sh(find).lines().next().unwrap()).unwrap();
    for (field, value) in [
        ("REIMAGINED_DROP", "cafe/terrace.jpg"),
        ("REIMAGINED_REQUEST_ID", "r-1"),
        ("REIMAGINED_RESULT", "cafe/terrace.png"),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "reimagined"),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    let message = line["MESSAGE"].as_str().unwrap();
    assert!(message.starts_with("delivered drop=cafe/terrace.jpg"), "{message}");
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let Some(machine) = Machine::installed() else { return };
    let boot = &machine.boot;
    // With the program in /usr/local/bin, and in /usr/bin, where packages put it.
    for place in ["/usr/local/bin", "/usr/bin"] {
        boot.sh(&format!("mv -n $(command -v reimagined) {place}/"));
        for unit in ["/etc/systemd/system/reimagined.service", "--user /opt/reimagined/systemd/user/reimagined.service"]
        {
            let done =
                boot.run(&format!("XDG_RUNTIME_DIR=/run systemd-analyze verify --man=no --recursive-errors=no {unit}"));
            let told = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
            assert!(done.status.success() && told.is_empty(), "{unit}: {told}");
        }
        boot.sh("systemctl restart reimagined");
    }
    machine.works("found", 1);
}

#[test]
fn members_drop_and_collect_whatever_their_umask() {
    let Some(machine) = Machine::up("") else { return };
    let boot = &machine.boot;
    let dropped = machine.picture("cat.jpg", 1);
    boot.sh_as(
        "anna",
        "077",
        &format!("mkdir -p {INBOX}/look/deep && cd {INBOX}/look/deep && cp ~/cat.jpg . && echo 'a cat' >cat.txt"),
    );
    let result = format!("{OUTBOX}/look/deep/cat.png");
    boot.wait("the result", || boot.has(&result));
    boot.wait("the original is filed", || boot.has("/srv/reimagine/archive/look/deep/cat.jpg"));
    assert_eq!(machine.api.calls_with("a cat"), 1);

    // The other one, who has no more rights than the group, changes the result, adds to its folder, takes all of it
    // away, and what anna dropped as well.
    boot.sh_as(
        "ben",
        "077",
        &format!(
            "cp {result} ~/ && echo more >>{result} && touch {OUTBOX}/look/deep/seen && rm -r {OUTBOX}/look
             cat /srv/reimagine/archive/look/deep/cat.jpg >~/original && rm -r /srv/reimagine/archive/look
             rmdir {INBOX}/look/deep {INBOX}/look"
        ),
    );
    assert_eq!(boot.read("/home/ben/original").unwrap(), dropped);
    assert_eq!(boot.read("/home/ben/cat.png").unwrap(), support::api::result(1));

    // What failed comes back, too, by whoever is a member.
    boot.sh_as("anna", "077", &format!("echo no picture >{INBOX}/broken.pdf"));
    boot.wait("the note", || boot.has("/srv/reimagine/errors/broken.error.txt"));
    boot.wait("the original", || boot.has("/srv/reimagine/errors/broken.pdf"));
    boot.sh_as(
        "ben",
        "077",
        "cd /srv/reimagine/errors && echo seen >>broken.error.txt && echo seen >>broken.pdf && rm broken*",
    );

    // Status is for members, and nothing at all is for others.
    assert!(boot.sh_as("anna", "077", "reimagined status").contains("running"));
    boot.sh("useradd -m carl");
    for closed in [INBOX, OUTBOX, "/var/lib/reimagined/status.json"] {
        assert!(!boot.run_as("carl", "022", &format!("cat {closed} || ls {closed}")).status.success(), "{closed}");
    }
    // The folders themselves stay where they are.
    assert!(!boot.run_as("anna", "022", &format!("mv {INBOX} {OUTBOX}/")).status.success());
}

#[test]
fn it_starts_with_the_machine_and_tells_systemd_what_it_does() {
    let Some(machine) = Machine::installed() else { return };
    let boot = &machine.boot;
    boot.sh("reimagined check && systemctl enable reimagined");
    assert!(machine.is("ActiveState", "inactive"));
    boot.sh("systemctl start multi-user.target");
    machine.wait("ActiveState", "active");

    let gate = Gate::default();
    let held = gate.clone();
    machine.api.on_model(move |call| call.good().after(&held));
    machine.picture("cat.jpg", 1);
    boot.sh_as("anna", "077", &format!("cp cat.jpg {INBOX}/"));
    boot.wait("the line says so", || boot.show("reimagined", "StatusText").contains("1 in work"));
    assert!(boot.sh("systemctl status reimagined").contains("1 in work"));
    gate.open();
    boot.wait("the line says so", || boot.show("reimagined", "StatusText").contains("$0.04"));
}

#[test]
fn a_reload_takes_a_good_configuration_and_refuses_a_broken_one() {
    let Some(machine) = Machine::up("") else { return };
    let boot = &machine.boot;
    let config = "/etc/reimagined/config.toml";
    boot.sh(&format!("sed -i 's/a look/another look/' {config} && systemctl reload reimagined"));
    boot.wait("it was read", || machine.journal().contains("configuration was read again"));
    machine.works("first", 1);
    assert_eq!(machine.api.calls_with("another look"), 1);

    boot.sh(&format!("sed -i 's/^prompt = .*/promptt = \"wrong\"/' {config} && systemctl reload reimagined"));
    boot.wait("it was refused", || machine.journal().contains("promptt"));
    assert!(machine.journal().contains(&format!("{config}:")), "{}", machine.journal());
    machine.works("second", 2);
    assert_eq!(machine.api.calls_with("another look"), 2);
    assert!(machine.is("ActiveState", "active") && machine.is("NRestarts", "0"));
}

#[test]
fn a_killed_daemon_and_a_stuck_one_are_started_again() {
    let Some(machine) = Machine::up("RestartSec=100ms\nWatchdogSec=3s") else { return };
    let boot = &machine.boot;
    for (n, signal) in [(1, "KILL"), (2, "STOP")] {
        boot.sh(&format!("systemctl kill -s {signal} reimagined"));
        // A machine that is slow enough may start it once more.
        let restarts = || boot.show("reimagined", "NRestarts").parse::<u32>().unwrap();
        boot.wait("it is up again", || restarts() >= n && machine.is("ActiveState", "active"));
        machine.works(&format!("after-{signal}"), n);
    }
    assert!(machine.journal().contains("Watchdog timeout"), "{}", machine.journal());
}

#[test]
fn it_is_never_given_up_but_for_a_wrong_configuration() {
    let Some(machine) = Machine::up("RestartSec=10ms") else { return };
    let boot = &machine.boot;
    // A state directory that is not there for it: that is no fault of the configuration, and may be mended.
    let state = "/var/lib/reimagined";
    boot.sh(&format!("systemctl stop reimagined && mv {state} {state}.away && touch {state}"));
    boot.run("systemctl start reimagined");
    boot.wait("it is tried again and again", || boot.show("reimagined", "NRestarts").parse::<u32>().unwrap() > 25);
    boot.sh(&format!("rm {state} && mv {state}.away {state}"));
    machine.wait("ActiveState", "active");
    machine.works("mended", 1);

    boot.sh("sed -i 's/^prompt = .*/promptt = \"wrong\"/' /etc/reimagined/config.toml");
    assert!(!boot.run("systemctl restart reimagined").status.success());
    assert!(machine.is("ActiveState", "failed") && machine.is("ExecMainStatus", "2"));
    assert!(machine.journal().contains("promptt"), "{}", machine.journal());
}

#[test]
fn a_stop_lets_a_call_that_is_in_flight_finish() {
    let Some(machine) = Machine::up("") else { return };
    let boot = &machine.boot;
    let gate = Gate::default();
    let held = gate.clone();
    machine.api.on_model(move |call| call.good().after(&held));
    machine.picture("cat.jpg", 1);
    boot.sh_as("anna", "077", &format!("cp cat.jpg {INBOX}/"));
    boot.wait("the call", || machine.api.calls().len() == 1);
    boot.sh("systemctl stop --no-block reimagined");
    boot.wait("it was told", || machine.is("SubState", "stop-sigterm") && machine.journal().contains("in flight"));
    gate.open();
    machine.wait("ActiveState", "inactive");
    assert!(machine.is("Result", "success"), "{}", machine.journal());
    assert!(boot.has(&format!("{OUTBOX}/cat.png")) && boot.has("/srv/reimagine/archive/cat.jpg"));
}

#[test]
fn what_it_starts_stands_behind_the_same_walls_and_can_do_its_work() {
    let Some(machine) = Machine::installed() else { return };
    let boot = &machine.boot;
    // Started by the daemon's unit, as programs are that the daemon starts.
    boot.put(
        "/usr/local/bin/walls",
        format!(
            "#!/bin/sh
            exec >{OUTBOX}/walls 2>{OUTBOX}/said
            id -un
            grep CapEff /proc/self/status
            cat /proc/sys/kernel/random/boot_id
            for path in /etc /usr/local/bin /srv /var/lib /home; do touch $path/wall && echo \"$path is open\"; done
            ls /home/anna && echo 'home is open'
            cat /etc/reimagined/api-key && echo 'the key is open'
            kill -0 1 && echo 'processes are open'
            unshare -m true && echo 'namespaces are open'
            touch {OUTBOX}/file && chmod g+s {OUTBOX}/file && echo 'setgid is open'
            reimagined sandbox --listen 127.0.0.1:0 >/tmp/told &
            until grep -q 127.0.0.1 /tmp/told; do sleep 0.01; done
            kill $! && echo 'it listened'
            "
        ),
        0o755,
    );
    machine.drop_in("ExecStartPost=walls");
    boot.sh("systemctl start reimagined");
    let told = String::from_utf8(boot.read(&format!("{OUTBOX}/walls")).unwrap()).unwrap();
    let boot_id = boot.sh("cat /proc/sys/kernel/random/boot_id");
    let wanted = format!("reimagined\nCapEff:\t0000000000000000\n{boot_id}\nit listened\n");
    assert_eq!(told, wanted, "{:?}", boot.read(&format!("{OUTBOX}/said")).map(String::from_utf8));
}

#[test]
fn a_hook_copies_results_to_where_the_unit_lets_it_write() {
    let Some(machine) = Machine::installed() else { return };
    let boot = &machine.boot;
    boot.sh("install -d -o reimagined -m 755 /mnt/copies");
    boot.sh(r#"printf '[hooks]\non_done = ["/bin/cp", "{result}", "/mnt/copies/"]\n' >>/etc/reimagined/config.toml"#);
    boot.sh("systemctl start reimagined");
    machine.works("first", 1);
    boot.wait("it is told", || machine.journal().contains("a hook failed"));
    assert!(!boot.has("/mnt/copies/first.png"), "behind the unit's walls nothing else can be written");
    machine.drop_in("ReadWritePaths=/mnt/copies");
    boot.sh("systemctl restart reimagined");
    machine.works("second", 2);
    boot.wait("the copy is whole", || boot.read("/mnt/copies/second.png") == Some(support::api::result(2)));
}

#[test]
fn the_key_may_be_encrypted_on_disk() {
    let Some(machine) = Machine::installed() else { return };
    let boot = &machine.boot;
    let unit = file("systemd/reimagined.service");
    let make = unit.lines().find_map(|line| line.strip_prefix("#   systemd-creds ")).unwrap();
    let load = unit.lines().find_map(|line| line.strip_prefix("#LoadCredentialEncrypted=")).unwrap();
    boot.sh(&format!("systemd-creds {make} && rm /etc/reimagined/api-key"));
    machine.drop_in(&format!("LoadCredential=\nLoadCredentialEncrypted={load}"));
    boot.sh("sed -i '/^key_file/d' /etc/reimagined/config.toml && systemctl start reimagined");
    machine.works("cat", 1);
}

#[test]
fn the_user_unit_runs_for_one_person() {
    let Some(machine) = Machine::start() else { return };
    let boot = &machine.boot;
    boot.sh("useradd -m anna && loginctl enable-linger anna");
    let anna =
        |script: &str| boot.sh_as("anna", "077", &format!("PATH=$HOME/.cargo/bin:$PATH; cd {CHECKOUT}; {script}"));
    boot.wait("anna's systemd", || boot.run_as("anna", "077", "systemctl --user is-system-running").status.success());
    boot.put_binary("/home/anna/.cargo/bin/reimagined");
    for command in head("systemd/user/reimagined.service", "To install", "And then:") {
        if command == "reimagined check" {
            machine.configure("/home/anna/.config/reimagined/config.toml");
        }
        anna(&format!("printf '%s\\n' {KEY} | {command}"));
    }
    for command in head("systemd/user/reimagined.service", "And then:", "To run it while") {
        anna(&command);
    }
    machine.picture("cat.jpg", 1);
    anna("cp ~/cat.jpg ~/reimagine/inbox/");
    boot.wait("the result", || boot.has("/home/anna/reimagine/outbox/cat.png"));
    boot.wait("status tells", || anna("reimagined status").contains("$0.04"));
    anna("systemctl --user kill -s KILL reimagined");
    let show = |property: &str| anna(&format!("systemctl --user show --value -p {property} reimagined"));
    boot.wait("it is tried again", || show("NRestarts") == "1" || show("SubState") == "auto-restart");
}

#[test]
fn what_was_copied_in_closed_waits_untouched_until_its_owner_opens_it() {
    let Some(machine) = Machine::up("") else { return };
    let boot = &machine.boot;
    machine.picture("cat.jpg", 1);
    // A copy has its original's rights, not those that a new file would have. So has what is moved in, its group too.
    boot.sh_as(
        "anna",
        "077",
        &format!(
            "mkdir look && chmod 755 look && cp cat.jpg look/a.jpg && cp -r look {INBOX}/
             cp cat.jpg b.jpg && cp b.jpg {INBOX}/ && mv b.jpg {INBOX}/c.jpg"
        ),
    );
    let status = || boot.sh_as("ben", "077", "reimagined status --json");
    boot.wait("all three wait", || status().contains("\"unreadable\": 3"));
    for name in ["look/a.jpg", "b.jpg", "c.jpg"] {
        assert!(status().contains(name), "{}", status());
    }
    assert!(machine.api.calls().is_empty());
    boot.sh_as("anna", "077", &format!("cd {INBOX} && chgrp -R reimagined look *.jpg && chmod -R g+rwX look *.jpg"));
    for name in ["look/a.png", "b.png", "c.png"] {
        boot.wait(name, || boot.has(&format!("{OUTBOX}/{name}")));
    }
}

#[test]
fn a_member_tries_again_what_failed() {
    let Some(machine) = Machine::up("") else { return };
    let boot = &machine.boot;
    machine.api.on_model(|call| if call.nth == 1 { support::Answer::error(400, "bad prompt") } else { call.good() });
    machine.picture("cat.jpg", 1);
    boot.sh_as("anna", "077", &format!("cp cat.jpg {INBOX}/"));
    boot.wait("it failed", || boot.has("/srv/reimagine/errors/cat.jpg"));
    boot.sh_as("ben", "077", "reimagined retry --all");
    boot.wait("it worked", || boot.has(&format!("{OUTBOX}/cat.png")));
}

#[test]
fn a_new_key_counts_after_a_restart() {
    let Some(machine) = Machine::installed() else { return };
    let boot = &machine.boot;
    boot.put("/etc/reimagined/api-key", "SG_wrong", 0o600);
    boot.sh("systemctl start reimagined");
    machine.picture("cat.jpg", 1);
    boot.sh_as("anna", "077", &format!("cp cat.jpg {INBOX}/"));
    boot.wait("it pauses", || boot.show("reimagined", "StatusText").contains("paused"));
    boot.put("/etc/reimagined/api-key", KEY, 0o600);
    boot.sh("systemctl restart reimagined");
    boot.wait("the result", || boot.has(&format!("{OUTBOX}/cat.png")));
}

#[test]
fn folders_may_lie_elsewhere_and_be_another_groups() {
    let Some(machine) = Machine::installed() else { return };
    let boot = &machine.boot;
    // As the unit's head says; the daemon gets in by a group that it is a member of.
    boot.sh("groupadd photos && usermod -aG photos reimagined && usermod -aG photos anna && usermod -aG photos ben
         mkdir /photos && chgrp photos /photos && chmod 2770 /photos && cd /photos
         mkdir inbox outbox archive errors && chmod 2770 *
         sed -i 's|/srv/reimagine/|/photos/|; /^working/d' /etc/reimagined/config.toml");
    machine.drop_in("ReadWritePaths=/photos");
    boot.sh("systemctl start reimagined");
    machine.picture("cat.jpg", 1);
    boot.sh_as("anna", "007", "mkdir /photos/inbox/look && cp cat.jpg /photos/inbox/look/");
    boot.wait("the original is filed", || boot.has("/photos/archive/look/cat.jpg"));
    boot.sh_as(
        "ben",
        "007",
        "echo more >>/photos/outbox/look/cat.png && rm -r /photos/outbox/look /photos/archive/look",
    );
}
