//! Kills at random moments while many drops come.

use std::time::Duration;

use super::checker::{Seen, Tally, a_picture, at_the_end, in_between, serve_results};
use super::scenes::Play;
use super::support::{Answer, Call, PATIENCE, wait_until};
use super::{Dice, long};

/// A long row of drops, some at each start: pictures with prompts, variants, prompts alone, in three folders.
struct Stream {
    play: Play,
    dice: Dice,
    next: u32,
    seen: Seen,
    kills: usize,
    /// Kills that met something in work.
    met: usize,
    faults: Tally,
}

impl Stream {
    fn new(seed: u64) -> Self {
        let play = Play::new();
        play.move_elsewhere(&["archive"]);
        play.site.set("api.max_in_flight", 3).set("limits.images_per_day", 0);
        if seed.is_multiple_of(2) {
            play.site.serve_pictures();
        }
        serve_results(&play.site);
        let (book, base) = (play.book.clone(), play.site.api.url());
        let answer = move |call: &Call| -> Answer {
            match call.n % 9 {
                3 => book.free(call, 409),
                5 => book.free(call, 429),
                n if n % 2 == 0 => book.url(call, &base),
                _ => book.picture(call),
            }
        };
        play.site.api.on_model(move |call| answer(call).later(Duration::from_millis(call.n as u64 % 4 * 5)));
        Self { play, dice: Dice(seed), next: 0, seen: Seen::default(), kills: 0, met: 0, faults: Tally::default() }
    }

    fn drop_some(&mut self, n: usize) {
        for _ in 0..n {
            let i = self.next;
            self.next += 1;
            let prompt = format!("prompt {i}");
            let folder = ["", "a/", "a/b/"][i as usize % 3];
            let text = prompt.clone().into_bytes();
            let seeds = format!("prompt = \"{prompt}\"\nseeds = [1, 2]\n").into_bytes();
            let name = |ext: &str| format!("{folder}{i}.{ext}");
            match i % 4 {
                0 => self.play.put(&prompt, 1, &[(&name("txt"), text)]),
                1 => self.play.put(&prompt, 2, &[(&name("toml"), seeds), (&name("jpg"), a_picture(i))]),
                _ => self.play.put(&prompt, 1, &[(&name("txt"), text), (&name("jpg"), a_picture(i))]),
            }
        }
    }

    /// Starts it, and kills it somewhere between its first step and when the drops are done.
    fn kill_once(&mut self) {
        let daemon = self.play.site.begin();
        if self.kills.is_multiple_of(2) {
            // However fast it is: every other one comes when something is in work, or shortly after.
            let begun = || !self.play.site.names("working").is_empty() || self.play.site.names("inbox").is_empty();
            wait_until(PATIENCE, begun);
            std::thread::sleep(Duration::from_millis(self.dice.roll(20)));
        } else {
            std::thread::sleep(Duration::from_millis(15 + self.dice.roll(250)));
        }
        daemon.kill();
        self.kills += 1;
        self.met += usize::from(!self.play.site.names("working").is_empty());
        self.seen.add(Seen::now(&self.play.site));
        self.faults.add(in_between(&self.play.site, &self.play.drops.borrow(), &self.play.book, 1));
    }

    /// The whole of it.
    fn run(mut self, kills: usize) {
        while self.kills < kills {
            let waiting = self.play.site.names("inbox").len();
            self.drop_some(6_usize.saturating_sub(waiting / 2));
            self.kill_once();
        }
        let ended = self.play.to_the_end();
        let mut tally = at_the_end(&self.play.site, &self.play.drops.borrow(), &self.play.book, 1, &self.seen);
        tally.litter.extend(ended.err());
        eprintln!(
            "{} kills, {} drops, {} shots, {} pictures made, {} held, {} lost, {} paid again, {} left behind",
            self.kills,
            tally.drops,
            tally.shots,
            tally.delivered,
            tally.held,
            tally.lost.len() + self.faults.lost.len(),
            tally.paid_again.len(),
            tally.litter.len()
        );
        assert!(self.met * 4 > self.kills, "{} of {} kills met something in work", self.met, self.kills);
        let faults = [self.faults.faults(), tally.faults()].concat();
        assert!(faults.is_empty(), "{}\n{}", faults.join("\n"), self.play.site.describe());
    }
}

#[test]
fn kills_at_random_moments_lose_nothing_and_pay_for_nothing_twice() {
    for seed in [1, 2] {
        Stream::new(seed).run(if long() { 500 } else { 12 });
    }
}
