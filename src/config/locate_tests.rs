#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use super::*;

fn env(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + use<> {
    let map: HashMap<String, OsString> = pairs.iter().map(|(k, v)| ((*k).to_owned(), OsString::from(v))).collect();
    move |name| map.get(name).cloned()
}

#[test]
fn the_configuration_is_looked_for_from_the_nearest_to_the_farthest() {
    let dir = tempfile::tempdir().unwrap();
    let at = |rel: &str| {
        let path = dir.path().join(rel);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        path
    };
    let (own, named, users, systemd) =
        (at("own"), at("named"), at("xdg/reimagined/config.toml"), at("etc/config.toml"));
    let (xdg, etc) = (dir.path().join("xdg"), dir.path().join("etc"));
    let (named_s, xdg_s, etc_s) = (named.to_str().unwrap(), xdg.to_str().unwrap(), etc.to_str().unwrap());
    let all = [("REIMAGINED_CONFIG", named_s), ("XDG_CONFIG_HOME", xdg_s), ("CONFIGURATION_DIRECTORY", etc_s)];

    assert_eq!(find(Some(&own), &env(&all)), Ok(own));
    assert_eq!(find(None, &env(&all)), Ok(named.clone()));
    assert_eq!(find(None, &env(&all[1..])), Ok(users.clone()));
    std::fs::remove_file(users).unwrap();
    assert_eq!(find(None, &env(&all[1..])), Ok(systemd));
    let gone = dir.path().join("gone");
    assert_eq!(find(Some(&gone), &env(&all)).unwrap_err().looked, [gone]);
}

#[test]
fn the_state_directory_is_the_one_set_else_systemds_else_the_users() {
    let file = Path::new("/c/config.toml");
    let home = Path::new("/home/ann");
    let plain = Config::default_for(file, home);
    let set = Config::parse("[service]\nstate_dir = \"s\"", file, Some(home)).unwrap();
    let all = [("STATE_DIRECTORY", "/var/lib/r:/x"), ("XDG_STATE_HOME", "/xdg"), ("HOME", "/home/ann")];
    for (config, env, dir) in [
        (&set, env(&all), "/c/s"),
        (&plain, env(&all), "/var/lib/r"),
        (&plain, env(&all[1..]), "/xdg/reimagined"),
        (&plain, env(&all[2..]), "/home/ann/.local/state/reimagined"),
        (&plain, env(&[("XDG_STATE_HOME", "rel"), ("HOME", "/h")]), "/h/.local/state/reimagined"),
    ] {
        assert_eq!(state_dir(config, &env).as_deref(), Some(Path::new(dir)));
    }
}
