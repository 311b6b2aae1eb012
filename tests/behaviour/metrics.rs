//! What monitoring is told: metrics, health and readiness of the real binary, read by a real Prometheus; and the
//! files under `systemd/monitoring/`.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::Signal;
use serde_json::Value;
use support::api::CREDITS;
use support::faults::{cannot, left_out};
use support::{ASSET_MARK, Answer, Daemon, KEY, PATIENCE, Site, wait_until};

const SERVED: &str = "metrics are served at http://";

/// Status and body of a GET.
fn get_as(address: &str, path: &str, host: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn get(address: &str, path: &str) -> Option<(u16, String)> {
    get_as(address, path, address)
}

/// Where the daemon serves, as it said last.
fn address(site: &Site, daemon: &Daemon) -> String {
    let said = || daemon.log().rsplit_once(SERVED).and_then(|(_, at)| Some(at.split_once("/metrics")?.0.to_owned()));
    site.wait("it serves metrics", || said().is_some());
    said().unwrap()
}

/// The value of a series, as it is spelled.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[track_caller]
fn wait_for(site: &Site, at: &str, series: &str, wanted: f64) {
    let all = || get(at, "/metrics").map(|(_, text)| text).unwrap_or_default();
    let came = wait_until(PATIENCE, || value(&all(), series).is_some_and(|found| (found - wanted).abs() < 1e-9));
    assert!(came, "{series} is not {wanted}\n{}\n{}", all(), site.describe());
}

fn with_metrics() -> Site {
    let site = Site::new();
    site.set("metrics.listen", "127.0.0.1:0");
    site
}

/// From now on, and until it is told, the service refuses the key.
fn refuse_the_key(site: &Site) -> Arc<AtomicBool> {
    let well = Arc::new(AtomicBool::new(false));
    let (calls, credits) = (Arc::clone(&well), Arc::clone(&well));
    let refusal = || Answer::error(401, "no such key");
    site.api.on_model(move |call| if calls.load(Ordering::SeqCst) { call.good() } else { refusal() });
    site.api.on_other(move |request, _| (request.path == CREDITS && !credits.load(Ordering::SeqCst)).then(refusal));
    well
}

/// Whether a program is here; the test is left out, or fails, where it is not.
fn needs(program: &str) -> bool {
    if left_out("prometheus") {
        return false;
    }
    let tried = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match tried {
        Ok(status) if status.success() => true,
        Ok(status) => cannot("prometheus", &format!("{program} --version: {status}")),
        Err(e) => cannot("prometheus", &format!("{program}: {e} (Debian: prometheus)")),
    }
}

fn monitoring(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/monitoring").join(file)
}

/// Runs promtool; all that it says must be good.
fn promtool(args: &[&str], stdin: Option<&str>) -> String {
    let mut command = Command::new("promtool");
    command.args(args).current_dir(monitoring("")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.unwrap_or_default().as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "promtool {args:?}: {said}");
    said
}

#[test]
fn what_happened_and_what_waits_is_counted_and_nothing_private_is_told() {
    let site = with_metrics();
    site.api.on_model(|call| if call.prompt == "bad" { Answer::error(400, "no such thing") } else { call.good() });
    site.put("inbox/no-prompt/preset.toml", "prompt = \"unset\"\n");
    site.put_picture("inbox/no-prompt/private-name.jpg");
    site.put_picture("inbox/one.jpg");
    site.put_picture("inbox/two.jpg");
    site.put("inbox/three.txt", "bad");
    site.put_picture("inbox/three.jpg");
    let daemon = site.run();
    let at = address(&site, &daemon);
    for (series, wanted) in [
        (r#"reimagined_drops_total{verdict="done"}"#, 2.0),
        (r#"reimagined_drops_total{verdict="failed"}"#, 1.0),
        (r#"reimagined_drops_total{verdict="unconfirmed"}"#, 0.0),
        ("reimagined_results_total", 2.0),
        ("reimagined_spent_dollars_total", 0.08),
        ("reimagined_unpriced_calls_total", 0.0),
        ("reimagined_settle_duration_seconds_count", 4.0),
        (r#"reimagined_upload_duration_seconds_count{outcome="ok"}"#, 3.0),
        (r#"reimagined_call_duration_seconds_count{verdict="picture"}"#, 2.0),
        (r#"reimagined_call_duration_seconds_count{verdict="fault"}"#, 1.0),
        ("reimagined_deliver_duration_seconds_count", 2.0),
        (r#"reimagined_deliver_duration_seconds_bucket{le="+Inf"}"#, 2.0),
        (r#"reimagined_waiting_drops{reason="prompt"}"#, 1.0),
        (r#"reimagined_waiting_drops{reason="queued"}"#, 0.0),
        ("reimagined_in_work_drops", 0.0),
        ("reimagined_failed_drops", 1.0),
        (r#"reimagined_paused{kind="key"}"#, 0.0),
        ("reimagined_ready", 1.0),
        (r#"reimagined_recent_images{window="24h"}"#, 2.0),
        (r#"reimagined_recent_spent_dollars{window="1h"}"#, 0.08),
        ("reimagined_credits_dollars", 7.5),
        (concat!("reimagined_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ] {
        wait_for(&site, &at, series, wanted);
    }
    let (status, text) = get(&at, "/metrics").unwrap();
    assert_eq!(status, 200);
    let count = |series| value(&text, series).unwrap_or_else(|| panic!("{series}\n{text}"));
    assert!(count("reimagined_ledger_commit_duration_seconds_count") > 5.0);
    assert!(count("process_start_time_seconds") > 1.7e9);
    assert!(count("process_resident_memory_bytes") > 1e6 && count("process_open_fds") > 3.0);
    // What is waited for by the rules is at least the sidecar's wait, and at most settling and it.
    let settled = count("reimagined_settle_duration_seconds_sum") / 4.0;
    assert!((0.0..0.4).contains(&settled), "{settled}");
    for private in [KEY, ASSET_MARK, "private-name", "no-prompt", "one.jpg", "http", "no such thing"] {
        assert!(!text.contains(private), "{private} is told\n{text}");
    }
    if needs("promtool") {
        assert_eq!(promtool(&["check", "metrics"], Some(&text)), "");
    }
    assert_eq!(daemon.stop(), 0);
    assert_eq!(get(&at, "/metrics"), None);
}

#[test]
fn health_follows_the_loop_and_readiness_the_pause() {
    let site = with_metrics();
    let inbox = site.path("inbox");
    fs::rename(&inbox, site.path("elsewhere")).unwrap();
    let daemon = site.run();
    let at = address(&site, &daemon);
    let ask = |path: &str| get(&at, path).unwrap();
    // The kind alone: paths are for those who may read the status.
    site.wait("it waits for its inbox", || ask("/readyz").1 == "paused (inbox)\n");
    assert_eq!((ask("/readyz").0, ask("/healthz")), (503, (200, "starting\n".into())));
    wait_for(&site, &at, r#"reimagined_paused{kind="inbox"}"#, 1.0);
    wait_for(&site, &at, "reimagined_ready", 0.0);
    fs::rename(site.path("elsewhere"), &inbox).unwrap();
    site.wait("it is ready", || ask("/readyz") == (200, "ready\n".into()));
    assert_eq!(ask("/healthz"), (200, "ok\n".into()));
    let well = refuse_the_key(&site);
    site.put_picture("inbox/a.jpg");
    site.wait("it is paused", || ask("/readyz").0 == 503);
    assert_eq!(ask("/readyz").1, "paused (key)\n");
    assert_eq!(ask("/healthz"), (200, "ok\n".into()), "a pause is no illness");
    site.wait("status says the kind", || site.told()["paused"]["kind"] == "key");
    wait_for(&site, &at, r#"reimagined_paused{kind="key"}"#, 1.0);
    well.store(true, Ordering::SeqCst);
    site.wait("it is ready again", || ask("/readyz").0 == 200);
    site.wait_archived("a.jpg");
    assert_eq!(ask("/nowhere").0, 404);
    assert_eq!(get_as(&at, "/metrics", "evil.example").unwrap().0, 421);
    assert_eq!(get_as(&at, "/metrics", "localhost").unwrap().0, 200);
}

#[test]
fn without_an_address_nothing_listens_and_no_other_machine_is_let_in() {
    let site = Site::new();
    let daemon = site.run();
    site.wait_running();
    site.a_later_drop_is_done();
    assert!(!daemon.log().contains(SERVED));
    assert_eq!(daemon.stop(), 0);
    site.set("metrics.listen", "0.0.0.0:9947");
    let run = site.call(&["run"]);
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(2), "{said}");
    assert!(
        said.contains("config.toml:") && said.contains("[metrics] listen") && said.contains("reverse proxy"),
        "{said}"
    );
    // A run of its own ends by itself: nobody asks it.
    site.set("metrics.listen", "127.0.0.1:0");
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 0);
    assert!(!site.logs().contains(SERVED));
}

#[test]
fn a_port_that_is_taken_holds_up_no_picture_and_a_reload_tries_again() {
    let site = Site::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap();
    site.set("metrics.listen", port.to_string());
    let daemon = site.run();
    site.wait("it says so", || daemon.log().contains("metrics can't be served at"));
    site.a_later_drop_is_done();
    daemon.signal(Signal::HUP);
    site.wait("it was read again", || daemon.log().contains("the configuration was read again"));
    assert_eq!(daemon.log().matches("metrics can't be served at").count(), 1);
    drop(taken);
    daemon.signal(Signal::HUP);
    assert_eq!(address(&site, &daemon), port.to_string());
    // Another address, and none.
    site.set("metrics.listen", "[::1]:0");
    daemon.signal(Signal::HUP);
    site.wait("it serves elsewhere", || address(&site, &daemon).starts_with("[::1]:"));
    let at = address(&site, &daemon);
    assert_eq!(get(&at, "/readyz").unwrap().0, 200);
    assert_eq!(get(&port.to_string(), "/readyz"), None);
    site.unset("metrics.listen");
    daemon.signal(Signal::HUP);
    site.wait("it serves no more", || TcpStream::connect(&at).is_err());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn those_who_only_hold_a_connection_hold_up_nobody() {
    let site = with_metrics();
    let daemon = site.run();
    let at = address(&site, &daemon);
    // More than are let in at once, but not so many that the last one waits for two turns; some say half a word.
    let idle: Vec<TcpStream> = (0..20)
        .map(|n| {
            let mut stream = TcpStream::connect(&at).unwrap();
            if n % 2 == 0 {
                stream.write_all(b"GET /metr").unwrap();
            }
            stream
        })
        .collect();
    site.a_later_drop_is_done();
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    assert!(open < 100, "{open} descriptors");
    // Their time is up while they still hold on.
    assert_eq!(get(&at, "/readyz").unwrap().0, 200);
    drop(idle);
    assert_eq!(daemon.stop(), 0);
}

/// The expressions of the dashboard, and those of the alerts.
fn expressions() -> (Vec<String>, Vec<String>) {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Array(all) => all.iter().for_each(|v| walk(v, found)),
            Value::Object(all) => {
                found.extend(all.get("expr").and_then(Value::as_str).map(str::to_owned));
                all.values().for_each(|v| walk(v, found));
            }
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_slice(&fs::read(monitoring("dashboard.json")).unwrap()).unwrap();
    let mut shown = Vec::new();
    walk(&dashboard, &mut shown);
    let alerts = fs::read_to_string(monitoring("alerts.yml")).unwrap();
    let rules = alerts.split("- alert:").skip(1).map(|rule| {
        let (_, expr) = rule.split_once("expr:").unwrap();
        expr.split("labels:").next().unwrap().to_owned()
    });
    (shown, rules.collect())
}

/// The names of ours, and of the process, in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|w| w.starts_with("reimagined_") || w.starts_with("process_")).map(str::to_owned).collect()
}

#[test]
fn dashboard_and_alerts_ask_only_for_what_is_told() {
    let site = with_metrics();
    let daemon = site.run();
    let at = address(&site, &daemon);
    site.a_later_drop_is_done();
    wait_for(&site, &at, "reimagined_credits_dollars", 7.5);
    let told = names(&get(&at, "/metrics").unwrap().1);
    let (shown, alerts) = expressions();
    assert!(shown.len() > 25 && alerts.len() > 8);
    let mut asked = BTreeSet::new();
    for expr in shown.iter().chain(&alerts) {
        let named = names(expr);
        assert!(!named.is_empty() || expr.contains("up{"), "{expr}");
        asked.extend(named);
    }
    let unknown: Vec<_> = asked.difference(&told).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // And whatever is told is looked at somewhere.
    let base = |name: &String| {
        ["_bucket", "_sum", "_count"].iter().fold(name.clone(), |n, end| n.trim_end_matches(end).to_owned())
    };
    let (asked, told): (BTreeSet<_>, BTreeSet<_>) = (asked.iter().map(base).collect(), told.iter().map(base).collect());
    let idle: Vec<_> = told.difference(&asked).collect();
    assert!(idle.is_empty(), "shown nowhere: {idle:?}");
}

#[test]
fn the_files_for_prometheus_are_good_and_each_alert_comes_when_it_should() {
    if !needs("promtool") {
        return;
    }
    promtool(&["check", "config", "prometheus.yml"], None);
    promtool(&["check", "rules", "alerts.yml"], None);
    let said = promtool(&["test", "rules", "alerts.test.yml"], None);
    assert!(said.contains("SUCCESS"), "{said}");
    // None is left without a test.
    let tests = fs::read_to_string(monitoring("alerts.test.yml")).unwrap();
    let alerts = fs::read_to_string(monitoring("alerts.yml")).unwrap();
    for alert in alerts.split("- alert: ").skip(1).map(|rule| rule.lines().next().unwrap()) {
        let comes = tests
            .split("alertname: ")
            .any(|t| t.split_whitespace().next() == Some(alert) && t.split_whitespace().nth(1) == Some("exp_alerts:"));
        assert!(comes, "{alert} is not tried");
    }
}

/// A real Prometheus. Killed when it goes.
struct Prometheus {
    child: Child,
    at: String,
}

impl Prometheus {
    /// One that scrapes `target`, with the alerts as they are and with alerts that wait for nothing.
    fn start(site: &Site, target: &str) -> Self {
        let alerts = fs::read_to_string(monitoring("alerts.yml")).unwrap();
        let hasty = alerts.lines().map(|l| if l.trim_start().starts_with("for: ") { "        for: 0s" } else { l });
        let hasty = hasty.collect::<Vec<_>>().join("\n").replace("- name: reimagined", "- name: hasty");
        site.put("prometheus/hasty.yml", hasty.replace("severity:", "hasty: \"yes\"\n          severity:"));
        let example = fs::read_to_string(monitoring("prometheus.yml")).unwrap();
        let config = example
            .replace("15s", "250ms")
            .replace("127.0.0.1:9947", target)
            .replace("- alerts.yml", &format!("- \"{}\"\n  - hasty.yml", monitoring("alerts.yml").display()));
        let config = site.put("prometheus/prometheus.yml", config);
        // A port that is free now may be taken by then.
        for _ in 0..5 {
            let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
            let log = fs::File::create(site.path("prometheus/log")).unwrap();
            let child = Command::new("prometheus")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", site.path("prometheus/data").display()))
                .arg(format!("--web.listen-address={at}"))
                .current_dir(site.path("prometheus"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap();
            let mut this = Self { child, at };
            let up = || get(&this.at, "/-/ready").is_some_and(|(status, _)| status == 200);
            let mut ended = false;
            wait_until(PATIENCE, || {
                ended = this.child.try_wait().unwrap().is_some();
                ended || up()
            });
            if !ended && up() {
                return this;
            }
        }
        panic!("Prometheus does not start\n{}", site.text("prometheus/log"));
    }

    fn ask(&self, path: &str) -> Value {
        get(&self.at, path).and_then(|(_, body)| serde_json::from_str(&body).ok()).unwrap_or_default()
    }

    /// The answer to a query.
    fn query(&self, expr: &str) -> Value {
        self.ask(&format!("/api/v1/query?query={}", utf8_percent_encode(expr, NON_ALPHANUMERIC)))
    }

    /// The one number that a query gives.
    fn number(&self, expr: &str) -> Option<f64> {
        let answer = self.query(expr);
        let result = answer["data"]["result"].as_array()?;
        assert!(result.len() < 2, "{expr}: {answer}");
        result.first()?["value"][1].as_str()?.parse().ok()
    }

    /// The state of an alert of that kind of trouble.
    fn alert(&self, name: &str, hasty: bool, kind: &str) -> Option<String> {
        let answer = self.ask("/api/v1/alerts");
        let alerts = answer["data"]["alerts"].as_array()?;
        let found = alerts.iter().find(|alert| {
            let labels = &alert["labels"];
            labels["alertname"] == name && labels["hasty"].is_null() != hasty && labels["kind"] == kind
        })?;
        Some(found["state"].as_str()?.to_owned())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_prometheus_reads_it_answers_the_dashboard_and_fires_the_alerts() {
    if !needs("prometheus") {
        return;
    }
    let site = with_metrics();
    let daemon = site.run();
    let at = address(&site, &daemon);
    let prometheus = Prometheus::start(&site, &at);
    let wait = |expr: &str, wanted: f64| {
        site.wait(&format!("{expr} is {wanted}; {}", prometheus.query(expr)), || {
            prometheus.number(expr).is_some_and(|found| (found - wanted).abs() < 1e-9)
        });
    };
    wait("up{job=\"reimagined\"}", 1.0);
    wait("reimagined_drops_total{verdict=\"done\"}", 0.0);
    site.put_picture("inbox/a.jpg");
    wait("reimagined_drops_total{verdict=\"done\"}", 1.0);
    wait("reimagined_call_duration_seconds_count{verdict=\"picture\"}", 1.0);
    wait("reimagined_call_duration_seconds_bucket{verdict=\"picture\",le=\"+Inf\"}", 1.0);
    wait("reimagined_upload_duration_seconds_count{outcome=\"ok\"}", 1.0);
    wait("reimagined_settle_duration_seconds_count", 1.0);
    wait("reimagined_deliver_duration_seconds_count", 1.0);
    wait("reimagined_spent_dollars_total", 0.04);
    wait("reimagined_recent_spent_dollars{window=\"24h\"}", 0.04);
    wait("sum(reimagined_waiting_drops)", 0.0);
    wait("reimagined_credits_dollars", 7.5);
    wait("reimagined_paused{kind=\"key\"}", 0.0);
    let (shown, _) = expressions();
    for expr in shown {
        let filled = expr.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*");
        let answer = prometheus.query(&filled);
        assert_eq!(answer["status"], "success", "{expr}: {answer}");
    }
    assert_eq!(prometheus.alert("ReimaginedPaused", true, "key"), None);
    let well = refuse_the_key(&site);
    site.put_picture("inbox/b.jpg");
    wait("reimagined_paused{kind=\"key\"}", 1.0);
    wait("reimagined_ready", 0.0);
    wait("reimagined_waiting_drops{reason=\"paused\"}", 1.0);
    let state = |hasty| prometheus.alert("ReimaginedPaused", hasty, "key");
    site.wait("the alert is on its way", || state(false).as_deref() == Some("pending"));
    site.wait("it fires where it waits for nothing", || state(true).as_deref() == Some("firing"));
    well.store(true, Ordering::SeqCst);
    site.wait_archived("b.jpg");
    wait("reimagined_drops_total{verdict=\"done\"}", 2.0);
    site.wait("the alert is over", || state(false).is_none() && state(true).is_none());
    let rules = prometheus.ask("/api/v1/rules");
    assert!(rules.to_string().matches("\"health\":\"ok\"").count() >= 22, "{rules}");
    assert_eq!(daemon.stop(), 0);
    wait("up{job=\"reimagined\"}", 0.0);
}
