fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let (mut first, mut second) = (PgConnection::establish(&url)?, PgConnection::establish(&url)?);
    std::thread::scope(|scope| {
        // Both strategies, against each other.
        let workers = [&mut first, &mut second].map(|conn| scope.spawn(|| update_driver(conn)));
        workers.map(|worker| worker.join().expect("no panic"))
    })
    .into_iter()
    .try_for_each(|outcome| outcome.map(drop))?;
    // Both have released it.
    first.acquire_advisory_lock("driver_update_1", LockOptions::no_wait())?.release()?;
    Ok(())
}
