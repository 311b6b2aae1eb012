//! One commit for several steps.
//!
//! A commit waits for the disk, and ten steps in one commit wait as long as one does. Each step is undone by itself
//! if it fails; none is told to anybody before the commit that all of them share has returned. Where the database
//! gives the whole transaction up (no room, an I/O error), nothing of it was recorded, and each of them is told so.

use rusqlite::Connection;

use super::Fault;
use super::ground::Ground;

/// Steps that wait for one commit.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// A transaction is open.
    pub(super) begun: bool,
    /// How many sends there are with those of this transaction.
    pub(super) sends: Option<i64>,
    /// Room is to be given back once it is committed.
    pub(super) shrink: bool,
    /// The database gave the transaction up.
    lost: Option<String>,
}

impl Shared {
    /// Does one step in the transaction, which is begun with the first one.
    pub(super) fn take_part<T>(
        &mut self,
        conn: &Connection,
        ground: &mut Ground,
        f: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if !self.begun && self.lost.is_none() {
            ground.holds()?;
            // What was begun is ended by `commit`, whatever happens to the step.
            run(conn, "BEGIN IMMEDIATE")?;
            self.begun = true;
        }
        self.notice_loss(conn, "it was given up");
        if let Some(why) = &self.lost {
            return Err(lost(why));
        }
        let done = Step::begin(conn).and_then(|step| {
            let done = f(conn)?;
            step.end()?;
            Ok(done)
        });
        let why = match &done {
            Err(Fault::Sql(e)) => e.to_string(),
            _ => "it was given up".into(),
        };
        self.notice_loss(conn, &why);
        done
    }

    /// Whether the database has given up the transaction that was begun.
    fn notice_loss(&mut self, conn: &Connection, why: &str) {
        if self.begun && conn.is_autocommit() {
            self.begun = false;
            self.lost = Some(why.to_owned());
        }
    }

    /// Commits what was done; how many sends there are now, if there were any among it.
    pub(super) fn commit(mut self, conn: &Connection) -> Result<Option<i64>, Fault> {
        self.notice_loss(conn, "it was given up");
        if let Some(why) = &self.lost {
            return Err(lost(why));
        }
        if self.begun
            && let Err(e) = run(conn, "COMMIT")
        {
            if !conn.is_autocommit() {
                run(conn, "ROLLBACK")?;
            }
            return Err(e);
        }
        Ok(self.sends)
    }
}

/// A step within the transaction: undone where it did not come to its end, be it by an error or a panic.
struct Step<'a> {
    conn: &'a Connection,
    ended: bool,
}

impl<'a> Step<'a> {
    fn begin(conn: &'a Connection) -> Result<Self, Fault> {
        run(conn, "SAVEPOINT step")?;
        Ok(Self { conn, ended: false })
    }

    fn end(mut self) -> Result<(), Fault> {
        run(self.conn, "RELEASE step")?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        // Where there is no transaction any more, all of it is undone.
        if !self.ended && !self.conn.is_autocommit() {
            let undone = run(self.conn, "ROLLBACK TO step").and_then(|()| run(self.conn, "RELEASE step"));
            if undone.is_err() {
                // Half a step is never committed: rather nothing.
                let _ = run(self.conn, "ROLLBACK");
            }
        }
    }
}

/// Statements that come with every step are parsed once.
fn run(conn: &Connection, statement: &str) -> Result<(), Fault> {
    conn.prepare_cached(statement)?.execute([])?;
    Ok(())
}

fn lost(why: &str) -> Fault {
    std::io::Error::other(format!("a commit that several steps share failed: {why}")).into()
}
