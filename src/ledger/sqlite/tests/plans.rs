//! Long histories: every query that runs often goes through an index.

use super::*;

const MANY: u32 = 50_000;

/// A ledger with many closed drops (most archived, some failed) and as many sends of long ago.
fn long_history(room: &Room) -> SqliteLedger {
    let ledger = room.open();
    ledger
        .conn
        .execute_batch(&format!(
            "BEGIN;
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})
            INSERT INTO drops (id, folder, stem, name, working, recognition, picture, members_print, moving_print,
                               prompts, plan, claimed, ending, closed)
            SELECT randomblob(16), CAST('a' AS BLOB), CAST('s' AS BLOB), CAST('n' AS BLOB), CAST('w' AS BLOB),
                   randomblob(32), randomblob(32), randomblob(32), randomblob(32), i % 2, '', i,
                   CASE i % 10 WHEN 0 THEN 'failed' ELSE 'archived' END, i FROM n;
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})
            INSERT INTO sends (id, shot, at, boot, since_boot, billed, cost)
            SELECT randomblob(16), 0, i, 'boot-0', i, 'yes', NULL FROM n;
            COMMIT;"
        ))
        .unwrap();
    ledger
}

#[test]
fn no_frequent_query_walks_a_whole_table() {
    let room = Room::new();
    let ledger = long_history(&room);
    let queries = [
        steps::OPEN,
        money::COUNT,
        money::AGE_OF_NTH,
        money::SUM,
        money::FUTURE_HERE,
        money::FUTURE_ELSEWHERE,
        money::LAST_OF_SHOT,
        money::LAST_COST,
        history::BACK_MEMBERS,
        history::BACK_PICTURE,
        history::BACK_PROMPTS,
        history::BACK_FOREIGN,
        history::RECOGNISE,
        history::SEEN,
        history::WISH,
        history::FILED,
        history::FAILED,
        history::FAILED_COUNT,
        history::OLD_DROPS,
        history::OLD_SENDS,
        history::OLD_UPLOADS,
        past::CLOSED,
        past::NTH,
        past::IN_WORK,
        "SELECT row, ending IS NULL FROM drops WHERE id = ?1",
        "SELECT name, role, print, size, moves FROM members WHERE drop_row = ?1 ORDER BY place",
        "SELECT shot FROM shots WHERE drop_row = ?1 ORDER BY no",
        "SELECT path, print FROM notes WHERE drop_row = ?1 ORDER BY path",
        "SELECT EXISTS (SELECT 1 FROM notes WHERE print = ?1)",
    ];
    // These walk an index that holds only what they ask for.
    let whole = ["drops_open", "drops_failed", "sends_priced"];
    for sql in queries {
        let mut plan = ledger.conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let none = vec![rusqlite::types::Null; plan.parameter_count()];
        let steps = plan.query_map(rusqlite::params_from_iter(none), |r| r.get::<_, String>(3)).unwrap();
        let steps: Vec<_> = steps.map(Result::unwrap).collect();
        for step in &steps {
            let allowed = whole.iter().any(|index| step.contains(index));
            let of_subquery = step.contains("subquery") || step.contains("CONSTANT ROW") || step.contains("(subquery");
            assert!(!step.starts_with("SCAN") || allowed || of_subquery, "{sql}\n{steps:#?}");
        }
        assert!(steps.iter().any(|s| s.contains("SEARCH") || s.contains("SCAN")), "{sql}\n{steps:#?}");
    }
}

#[test]
fn a_long_history_is_tidied_in_bounded_parts() {
    let room = Room::new();
    let mut ledger = long_history(&room);
    let rows = |ledger: &SqliteLedger, table| {
        ledger.conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get::<_, u32>(0)).unwrap()
    };
    for call in 1..=3 {
        ledger.tidy(Duration::from_secs(1), wall_at(0)).unwrap();
        assert_eq!(rows(&ledger, "drops"), MANY - 1_000 * call);
    }
    assert!(rows(&ledger, "sends") >= MANY - 30_000);
    assert_eq!(ledger.failures(3).unwrap().0, u64::from(MANY / 10 - 300));
    let pictures = "INSERT INTO members SELECT row, 0, name, 'picture', NULL, 1, 1 FROM drops";
    ledger.conn.execute_batch(pictures).unwrap();
    assert_eq!(ledger.filed_since(Timestamp::from_millisecond(i64::from(MANY)).unwrap()).unwrap().len(), 1);
}
