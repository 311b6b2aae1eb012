//! Blacks out what must not stand in notes and logs: the key, asset URLs, queries of URLs, inline pictures.

use url::Url;

use super::key::ApiKey;

const ASSET: &str = "[asset URL]";

/// `text` without the key, without `assets` (asset URLs, and whatever else lies on their hosts), without the
/// query, fragment and user of any other http(s) URL, and without the payload of data URIs. URLs that hold an
/// e-mail address go wholly.
pub fn redact(text: &str, key: Option<&ApiKey>, assets: &[&str]) -> String {
    let mut text = text.replace("\\/", "/");
    if let Some(key) = key {
        text = text.replace(key.expose(), "[API key]");
    }
    let mut hosts = Vec::new();
    for asset in assets.iter().filter(|asset| !asset.is_empty()) {
        text = text.replace(asset, ASSET);
        if let Ok(url) = Url::parse(asset) {
            // Also without its scheme, and the path alone, as some messages name it.
            let (path, bare) = (url.path(), asset.split_once("://").map_or(*asset, |(_, rest)| rest));
            for part in [bare, path] {
                if part.len() >= 8 {
                    text = text.replace(part, ASSET);
                }
            }
            hosts.extend(url.host_str().map(str::to_owned));
        }
    }
    urls(&text, &hosts)
}

fn urls(text: &str, hosts: &[String]) -> String {
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    // Each scheme is looked for again only once it is behind: else a text that is full of one is searched to
    // its end for the others each time.
    let mut schemes = ["http://", "https://", "data:"].map(|scheme| (scheme, lower.find(scheme)));
    while at < text.len() {
        for (scheme, found) in &mut schemes {
            if found.is_some_and(|found| found < at) {
                *found = lower[at..].find(*scheme).map(|found| at + found);
            }
        }
        let Some(start) = schemes.iter().filter_map(|(_, found)| *found).min() else { break };
        out.push_str(&text[at..start]);
        let rest = &text[start..];
        let stop = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`' | '{' | '}' | '|' | '\\');
        let end = rest.find(stop).unwrap_or(rest.len());
        let found = rest[..end].trim_end_matches(['.', ',', ';', ':', ')', ']', '!', '…']);
        if found.is_empty() {
            break;
        }
        out.push_str(&shown(found, hosts));
        at = start + found.len();
    }
    out.push_str(&text[at..]);
    out
}

fn shown(found: &str, hosts: &[String]) -> String {
    if found.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data")) {
        // Words like "data:" alone stay.
        return if found.contains(',') { "[inline data]".into() } else { found.into() };
    }
    let Ok(mut url) = Url::parse(found) else { return "[URL]".into() };
    if url.host_str().is_some_and(|host| hosts.iter().any(|asset| asset == host)) {
        return ASSET.into();
    }
    if url.path().contains('@') || url.path().to_ascii_lowercase().contains("%40") {
        return "[URL]".into();
    }
    let tail = if url.query().is_some() { "?[…]" } else { "" };
    if tail.is_empty() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none() {
        return found.into();
    }
    url.set_query(None);
    url.set_fragment(None);
    // Both fail only for URLs that can have no user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    format!("{url}{tail}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_secret_is_left() {
        let key = ApiKey::new("SG_0123456789", "test").unwrap();
        let asset = "https://assets.example/u/me@example.org/pic.jpg?sig=abc";
        let table = [
            ("bad key SG_0123456789!", "bad key [API key]!"),
            ("cannot fetch https://assets.example/u/me@example.org/pic.jpg?sig=abc.", "cannot fetch [asset URL]."),
            (r#"{"url":"https:\/\/assets.example\/other"}"#, r#"{"url":"[asset URL]"}"#),
            ("HTTPS://ASSETS.example/x", "[asset URL]"),
            ("at assets.example/u/me@example.org/pic.jpg?sig=abc", "at [asset URL]"),
            ("at /u/me@example.org/pic.jpg gone", "at [asset URL] gone"),
            ("see https://docs.example/a?token=1#x, please", "see https://docs.example/a?[…], please"),
            ("see (https://docs.example/a)", "see (https://docs.example/a)"),
            ("https://u:p@docs.example/a", "https://docs.example/a"),
            ("https://other.example/me%40example.org", "[URL]"),
            ("url data:image/png;base64,AAAA== bad", "url [inline data] bad"),
            ("no data: here, http:// neither", "no data: here, [URL] neither"),
            ("ünï https://", "ünï [URL]"),
        ];
        for (text, want) in table {
            assert_eq!(redact(text, Some(&key), &[asset]), want, "{text}");
        }
    }

    #[test]
    fn a_long_text_takes_time_by_its_length_only() {
        let key = ApiKey::new("SG_0123456789", "test").unwrap();
        let text = "data: ".repeat(500_000);
        assert_eq!(redact(&text, Some(&key), &[]), text);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_redacted_without_a_panic_and_without_the_key(a in ".{0,40}", b in ".{0,40}") {
            let key = ApiKey::new("SG_0123456789", "test").unwrap();
            let text = format!("{a}SG_0123456789 https://{b}?q=1 data:{a},");
            proptest::prop_assert!(!redact(&text, Some(&key), &[]).contains("SG_0123456789"));
        }
    }
}
