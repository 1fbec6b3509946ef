fn main() -> rusqlite::Result<()> {
    let mut conn = rusqlite::Connection::open_in_memory()?;
    conn.execute_batch("CREATE TABLE pull_requests (id INTEGER PRIMARY KEY)")?;
    assert_eq!(create_once(&mut conn, 17)?, 1);
    assert_eq!(create_once(&mut conn, 17)?, 0);
    Ok(())
}
