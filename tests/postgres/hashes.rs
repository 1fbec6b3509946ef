//! The hash functions of `schemes`, compared with the server's.

use advisory_locking::{AdvisoryLocking, LockError, LockKey, LockOptions, RawLockKey, schemes};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Text};
use testkit::server::{connect, fresh_name};

/// The expression of PormG, good_job and others.
const MD5: &str = "('x' || substr(md5(name), 1, 16))::bit(64)::bigint";

#[derive(QueryableByName)]
struct Hashed {
    #[diesel(sql_type = Integer)]
    hashtext: i32,
    #[diesel(sql_type = BigInt)]
    extended: i64,
    #[diesel(sql_type = BigInt)]
    seeded: i64,
    #[diesel(sql_type = BigInt)]
    md5: i64,
}

/// Returns text of any script with up to 80 characters, so each length of the last block occurs.
fn random_text(random: &mut fastrand::Rng) -> String {
    let alphabet: [fn(&mut fastrand::Rng) -> char; 3] = [
        |random| random.char('\u{1}'..='\u{7f}'),
        |random| random.char('a'..='z'),
        |random| random.char('\u{80}'..=char::MAX),
    ];
    let kind = random.usize(..alphabet.len());
    (0..random.usize(..=80))
        .map(|_| alphabet[kind](random))
        .collect()
}

#[test]
fn as_the_server_hashes() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let names: Vec<String> = (0..20_000).map(|_| random_text(&mut random)).collect();
    let mut seeds = vec![0, 1, -1, i64::MIN, i64::MAX, 1 << 32, 0xffff_ffff];
    seeds.resize_with(names.len(), || random.i64(..));

    let hashed: Vec<Hashed> = diesel::sql_query(format!(
        "SELECT hashtext(name), hashtextextended(name, 0) AS extended, hashtextextended(name, seed) AS seeded, {MD5} AS md5 \
         FROM unnest($1, $2) WITH ORDINALITY AS given (name, seed, place) ORDER BY place"
    ))
    .bind::<Array<Text>, _>(&names)
    .bind::<Array<BigInt>, _>(&seeds)
    .load(&mut connect())
    .unwrap();

    assert_eq!(hashed.len(), names.len());
    for ((name, &seed), server) in names.iter().zip(&seeds).zip(hashed) {
        let number = |key: Result<LockKey, LockError>| key.unwrap().raw();
        assert_eq!(
            [
                number(schemes::hashtext(name)),
                number(schemes::hashtextextended(name, 0)),
                number(schemes::hashtextextended(name, seed)),
                number(schemes::md5_be(name)),
                number(schemes::hashtext_pair(name, "")),
            ],
            [
                RawLockKey::Single(server.hashtext.into()),
                RawLockKey::Single(server.extended),
                RawLockKey::Single(server.seeded),
                RawLockKey::Single(server.md5),
                RawLockKey::Pair(server.hashtext, -1_477_818_771),
            ],
            "{name:?}, seed {seed}"
        );
    }
}

#[derive(QueryableByName)]
struct Granted {
    #[diesel(sql_type = Bool)]
    granted: bool,
}

/// Tries the lock of an SQL expression. The session keeps the lock until it ends.
fn granted_by_sql(conn: &mut PgConnection, expression: &str, name: &str) -> bool {
    let statement = format!(
        "SELECT pg_try_advisory_lock({expression}) AS granted FROM (SELECT $1 AS name) AS given"
    );
    let answer: Granted = diesel::sql_query(statement)
        .bind::<Text, _>(name)
        .get_result(conn)
        .unwrap();
    answer.granted
}

#[test]
fn sql_and_the_schemes_take_the_same_lock() {
    let name = fresh_name();
    let (mut ours, mut other) = (connect(), connect());
    for (expression, key) in [
        (MD5, schemes::md5_be(&name)),
        ("hashtext(name)", schemes::hashtext(&name)),
        (
            "hashtext(name), hashtext(name)",
            schemes::hashtext_pair(&name, &name),
        ),
        (
            "hashtextextended(name, -7)",
            schemes::hashtextextended(&name, -7),
        ),
    ] {
        let key = key.unwrap();
        let guard = ours
            .acquire_advisory_lock(&key, LockOptions::no_wait())
            .unwrap();
        let another = fresh_name();
        assert!(
            granted_by_sql(&mut other, expression, &another),
            "{expression}: another name"
        );
        assert!(
            !granted_by_sql(&mut other, expression, &name),
            "{expression}"
        );
        guard.release().unwrap();

        assert!(
            granted_by_sql(&mut other, expression, &name),
            "{expression}"
        );
        let refused = ours
            .try_acquire_advisory_lock(&key, LockOptions::no_wait())
            .unwrap();
        assert!(refused.is_none(), "{expression}: {key}");
    }
}
