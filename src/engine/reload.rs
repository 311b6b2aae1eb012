//! The configuration is read again: what changes at once, and what the key has to be read for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::Config;
use crate::domain::gate::Why;
use crate::domain::ids::{Mono, RelPath};
use crate::segmind::Client;

use super::event::Event;
use super::{Engine, ctx, inflow, send};

impl Engine {
    pub(super) fn reload(&mut self, config: Config, now: Mono) {
        let kept = self.ctx.config.differs_only_on_restart(&config);
        if !kept.is_empty() {
            tracing::warn!(keys = kept.join(", "), "these keys change only on restart; the old values stay");
        }
        let config = self.ctx.config.reloaded(config);
        match Client::new(client_settings(&config)) {
            Ok(client) => self.ctx.client = client,
            Err(e) => {
                tracing::error!(error = %e, "the API's new settings can't be used; the old configuration stays");
                return;
            }
        }
        // Who works by the old configuration goes on with its key.
        self.ctx.keys = Arc::new(self.ctx.keys.with_file(config.api.key_file.clone()));
        self.key_unread += 1;
        let (ctx, keys) = (self.ctx.clone(), self.ctx.keys.clone());
        self.spawn(async move {
            let read = ctx::blocking(move || keys.read().map_err(|e| e.to_string())).await.and_then(|r| r);
            ctx.send(Event::KeyRead(read)).await;
        });
        self.gate.set_probe_interval(config.retry.probe_interval);
        self.pace.set(config.api.requests_per_minute, config.api.max_in_flight);
        self.arrivals.set_rules(inflow::rules(&config, &self.backend, self.once), now);
        self.arrivals.reread_presets(&RelPath::root());
        self.limited = None;
        self.ctx.config = Arc::new(config);
        self.rescan_wanted = true;
        tracing::info!("the configuration was read again");
        self.look_at_folders();
    }

    /// The key was read with the configuration.
    pub(super) fn key_read(&mut self, read: Result<(), String>, now: Mono) {
        self.key_unread -= 1;
        match read {
            Ok(()) => self.gate.probe_now(now),
            Err(why) => {
                tracing::error!("{why}");
                self.gate.pause(Why::Key, &why, now, self.ctx.clock.wall());
                self.everything_pauses(now);
            }
        }
    }

    /// Folders that lie in one another by now are told at once, and not only before the next send.
    pub(super) fn look_at_folders(&mut self) {
        let looking = Arc::clone(&self.looking_at_folders);
        if looking.swap(true, Ordering::Relaxed) {
            // A look that hangs is one turn of those that may block, and not one for each mount.
            return;
        }
        let (ctx, bytes) = (self.ctx.clone(), send::reserve(&self.ctx, self.pace.in_flight()));
        self.spawn(async move {
            let again = ctx.clone();
            if let Ok(Some(trouble)) = ctx::blocking(move || again.site.trouble(bytes)).await {
                ctx.send(Event::Trouble(trouble)).await;
            }
            looking.store(false, Ordering::Relaxed);
        });
    }
}

/// What the API's client is made of, from the configuration.
pub fn client_settings(config: &Config) -> crate::segmind::Settings {
    crate::segmind::Settings {
        base_url: config.api.base_url.clone(),
        model: config.api.model.clone(),
        upload_url: config.api.upload_url.clone(),
        timeout: config.api.timeout,
        connect_timeout: config.api.connect_timeout,
    }
}
