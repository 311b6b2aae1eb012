#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::domain::params::Value;
use crate::domain::preset::Setting;

const HOME: &str = "/home/ann";
const FILE: &str = "/etc/reimagined/config.toml";

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, Path::new(FILE), Some(Path::new(HOME)))
}

/// What is said about `text`, without the file's name.
fn complaint(text: &str) -> String {
    let problems = parse(text).expect_err(text);
    assert!(problems.iter().all(|problem| problem.line.is_some()), "{text}: {problems}");
    problems.to_string().replace(FILE, "")
}

#[test]
fn an_empty_configuration_is_the_defaults() {
    assert_eq!(parse("").unwrap(), Config::default_for(Path::new(FILE), Path::new(HOME)));
}

#[test]
fn paths_count_from_the_file_or_the_home_directory() {
    let config = parse("[folders]\ninbox = \"./in/\"\noutbox = \"~/out\"\narchive = \"/a\"\nworking = \"~\"").unwrap();
    assert_eq!(config.folders.inbox, Path::new("/etc/reimagined/in"));
    assert_eq!(config.folders.outbox, Path::new("/home/ann/out"));
    assert_eq!(config.folders.archive, Path::new("/a"));
    assert_eq!(config.folders.errors, Path::new("/home/ann/reimagine/errors"));
    assert_eq!(config.folders.working.as_deref(), Some(Path::new(HOME)));
    let all = "[folders]\ninbox=\"a\"\noutbox=\"b\"\narchive=\"c\"\nerrors=\"d\"";
    assert!(Config::parse(all, Path::new(FILE), None).is_ok());
    assert!(Config::parse("", Path::new(FILE), None).unwrap_err().to_string().contains("no home directory"));
}

#[test]
fn the_grace_follows_the_timeout_unless_it_is_set() {
    assert_eq!(parse("[api]\ntimeout = \"60s\"").unwrap().service.grace, Duration::from_secs(75));
    let set = parse("[service]\ngrace = \"1s\"\n[api]\ntimeout = \"60s\"").unwrap();
    assert_eq!(set.service.grace, Duration::from_secs(1));
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let text = "settle = \"2s\"\n[watch]\nsetle = \"2s\"\nrescan = 5\n\n[wach]\n[api]\nmax_in_flight = 65\nmodel = 1\n\
                [limits]\nlocked = [\"variant\", \"enabled\"]\n[preset]\nsteps_num = 99\n";
    assert_eq!(
        complaint(text),
        ":1: settle: unknown key here: it belongs below [watch]\n\
         :3: [watch] setle: unknown key; did you mean \"settle\"?\n\
         :4: [watch] rescan: must be a duration as a text, such as \"90s\", not a whole number\n\
         :6: [wach]: unknown section; did you mean \"watch\"?\n\
         :8: [api] max_in_flight: 65 is out of range: must be a whole number from 1 to 64\n\
         :9: [api] model: must be a text, not a whole number\n\
         :11: [limits] locked: \"variant\" is no key of a sidecar; did you mean \"variants\"?\n\
         :11: [limits] locked: \"enabled\" can't be set by a sidecar anyway: take it out\n\
         :13: [preset] steps_num: 99 is out of range: must be a whole number from 4 to 50"
    );
}

#[test]
fn impossible_values_are_refused() {
    for bad in [
        "[api]\nbase_url = \"http://api.segmind.com\"",
        "[api]\nbase_url = \"https://me:pw@api.segmind.com\"",
        "[api]\nbase_url = \"https://api.segmind.com?key=1\"",
        "[api]\nbase_url = \"ftp://api.segmind.com\"",
        "[api]\nupload_url = \"http://example.com/\"",
        "[api]\nmodel = \"v1/x\"",
        "[api]\nmodel = \"/v1/../x\"",
        "[api]\nmax_in_flight = 0",
        "[api]\ntimeout = \"0s\"",
        "[api]\ntimeout = \"-5s\"",
        "[api]\nrequests_per_minute = -1",
        "[api]\nkey_file = \"\"",
        "[folders]\ninbox = \"\"",
        "[folders]\ninbox = \"~bob/in\"",
        "[watch]\nbackend = \"inotify\"",
        "[watch]\nignore = \"*.bak\"",
        "[watch]\nignore = [\"a[\"]",
        "[watch]\nignore = [1]",
        "[watch]\nrescan = \"1ns\"",
        "[reference]\nmode = \"public_url\"",
        "[reference]\nmode = \"public_url\"\nurl_base = \"https://cdn.example.com/\"",
        "[reference]\nmode = \"public_url\"\nstrip_metadata = false",
        "[reference]\nmax_bytes = 12",
        "[reference]\nmax_bytes = \"0B\"",
        "[reference]\nmax_edge = 0",
        "[retry]\nmax_attempts = 0",
        "[retry]\nfirst_delay = \"2m\"\nmax_delay = \"1m\"",
        "[retry]\nunconfirmed = \"maybe\"",
        "[limits]\nmax_variants = 0",
        "[limits]\nmax_variants = 2\n[preset]\nvariants = 3",
        "[limits]\nimages_per_day = 5000000000",
        "[output]\nname = \"{stem\"",
        "[output]\nname = \"{name}\"",
        "[output]\nname = \"../{stem}\"",
        "[output]\nname = \"\"",
        "[output]\nprovenance = \"yes\"",
        "[service]\nkeep_history = \"forever\"",
        "[preset]\nvariants = 1\nseeds = [1]",
        "preset = 1",
        "[[watch]]\nsettle = \"2s\"",
        "[api]\ntimeout = \"1s\"\ntimeout = \"2s\"",
        "[api",
    ] {
        complaint(bad);
    }
}

#[test]
fn a_key_in_the_configuration_is_refused_with_the_reason_and_never_repeated() {
    for text in [
        "[api]\nkey = \"SG_secret\"",
        "[api]\napi_key = \"SG_secret\"",
        "[api]\nx-api-key = \"SG_secret\"",
        "[api]\ntoken = \"SG_secret\"",
        "apikey = \"SG_secret\"",
        "[preset]\napi_key = \"SG_secret\"",
        "[key]\nvalue = \"SG_secret\"",
        "[api]\nkey = SG_secret",
        "[segmind]\napi_key = \"SG_secret\"",
        "api.key = SG_secret",
    ] {
        let told = complaint(text);
        assert!(!told.contains("SG_secret"), "{told}");
        assert!(told.contains("key_file") && told.contains("segmind-api-key"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn what_is_set_is_read() {
    let config = parse(
        "[api]\nbase_url = \"http://127.0.0.1:8080/x/\"\nkey_file = \"key\"\n[watch]\nbackend = \"poll\"\n\
         ignore = [\"*.bak\", \"drafts/*.png\"]\n[reference]\nmode = \"public_url\"\nurl_base = \
         \"https://cdn.example.com/in\"\nstrip_metadata = false\n[limits]\nlocked = [\"seeds\"]\n[output]\nname = \
         \"{date} {stem}-{variant}\"\n[preset]\nprompt = \"autumn\"\n",
    )
    .unwrap();
    assert_eq!(config.api.model_url().as_str(), "http://127.0.0.1:8080/x/v1/bria-reimagine");
    assert_eq!(config.api.key_file.as_deref(), Some(Path::new("/etc/reimagined/key")));
    assert_eq!(config.watch.backend, Backend::Poll);
    let ReferenceMode::PublicUrl { url_base } = &config.reference.mode else { panic!("{:?}", config.reference) };
    assert_eq!(url_base.as_str(), "https://cdn.example.com/in/");
    assert!(config.rules().locked.contains(&Key::Seeds));
    let (setting, origin) = config.preset.get(Key::Prompt).unwrap();
    assert_eq!(setting, &Setting::Set(Value::Text("autumn".into())));
    assert_eq!((origin.source.as_ref(), origin.line), ("config.toml [preset]", Some(16)));

    for (path, ignored) in
        [("a.bak", true), ("x/A.BAK", true), ("x.bak/a.png", true), ("drafts/a.png", true), ("x/drafts/a.png", false)]
    {
        assert_eq!(config.watch.ignore.matches(&RelPath::new(path).unwrap()), ignored, "{path}");
    }
}

#[test]
fn one_delay_that_was_set_moves_the_other_default() {
    assert_eq!(parse("[retry]\nmax_delay = \"1s\"").unwrap().retry.first_delay, Duration::from_secs(1));
    assert_eq!(parse("[retry]\nfirst_delay = \"9m\"").unwrap().retry.max_delay, Duration::from_secs(540));
}

#[test]
fn folders_state_and_backend_wait_for_a_restart() {
    let old = parse("").unwrap();
    let new = parse("[folders]\noutbox = \"o\"\n[watch]\nbackend = \"poll\"\nsettle = \"9s\"").unwrap();
    assert_eq!(old.differs_only_on_restart(&new), ["folders.outbox", "watch.backend"]);
    let held = old.reloaded(new);
    assert!(old.differs_only_on_restart(&held).is_empty());
    assert_eq!(held.watch.settle, Duration::from_secs(9));
}

#[test]
fn a_file_that_is_not_there_is_a_problem_with_its_name() {
    let told = Config::load(Path::new("/nowhere/config.toml")).unwrap_err().to_string();
    assert!(told.starts_with("/nowhere/config.toml: "), "{told}");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,80}", lines in "((\\[|\\]|=|\"|api|watch|settle|2s|\n){0,5}\n){0,9}") {
        for text in [&text, &lines] {
            if let Err(problems) = parse(text) {
                prop_assert!(problems.iter().all(|problem| problem.line.is_some()), "{:?}: {}", text, problems);
            }
        }
    }
}

#[test]
fn metrics_are_for_this_machine_alone() {
    assert_eq!(parse("").unwrap().metrics.listen, None);
    for good in ["127.0.0.1:9947", "[::1]:0", "127.9.9.9:80", "[::ffff:127.0.0.1]:80"] {
        let listen = parse(&format!("[metrics]\nlisten = \"{good}\"")).unwrap().metrics.listen;
        assert_eq!(listen, Some(good.parse().unwrap()));
    }
    for open in ["0.0.0.0:9947", "[::]:9947", "192.168.0.7:80", "[::ffff:10.0.0.1]:80"] {
        let told = complaint(&format!("[metrics]\nlisten = \"{open}\""));
        assert!(told.starts_with(":2: [metrics] listen: is no address of this machine alone"), "{told}");
        assert!(told.contains("reverse proxy") && told.contains("SSH tunnel"), "{told}");
    }
    for wrong in ["\"9947\"", "\"localhost:9947\"", "\"127.0.0.1\"", "\"\""] {
        let told = complaint(&format!("[metrics]\nlisten = {wrong}"));
        assert!(told.contains("must be an address and a port, such as \"127.0.0.1:9947\""), "{told}");
    }
    assert!(complaint("[metrics]\nlisten = 9947").contains("must be a text"));
    assert!(complaint("[metric]\nlisten = \"127.0.0.1:1\"").contains("did you mean \"metrics\"?"));
}
