#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = sqlx::PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
    let locks = LockManager::over_async_pool(pool.clone())?;
    let other = LockManager::over_async_pool(pool.clone())?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let led = locks.clone();
    let leader = tokio::spawn(async move {
        replica(&led, async { stopped.await.expect("a signal") }).await
    });
    let first = leads(&locks).await;
    let refused = other.try_acquire("bronze_leader", LockOptions::no_wait()).await?;
    assert!(refused.is_none());
    // The leader loses its lock, and is elected again.
    let end = sqlx::query("SELECT pg_terminate_backend($1)").bind(first);
    end.execute(&pool).await?;
    while leads(&locks).await == first {
        tokio::task::yield_now().await;
    }
    stop.send(()).expect("the replica runs");
    leader.await??;
    let next = other.acquire("bronze_leader", LockOptions::no_wait()).await?;
    next.release().await?;
    Ok(())
}

/// Returns the session of the leader, once there is one.
async fn leads(locks: &LockManager) -> i32 {
    loop {
        let snapshot = locks.snapshot();
        if let (1, [session]) = (snapshot.holders(), &*snapshot.sessions)
            && let Some(pid) = session.pid
        {
            return pid;
        }
        tokio::task::yield_now().await;
    }
}
