fn main() -> Result<(), Box<dyn std::error::Error>> {
    use diesel::Connection;

    let exposition = install()?;
    let mut conn = PgConnection::establish(&std::env::var("DATABASE_URL")?)?;
    sync(&mut conn, 4)?;
    let text = exposition.render();
    assert!(text.contains("advisory_lock_acquire_duration_seconds"), "{text}");
    Ok(())
}
