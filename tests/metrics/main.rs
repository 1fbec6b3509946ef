//! Metrics of both libraries, from one run of every outcome. The page docs/metrics.md shows this
//! run, so a difference between the page and the exposition is a failure.
//!
//! A separate program, because a process has one observer.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use advisory_locking::lock_manager::LockManager;
use advisory_locking::observer::{MetricsObserver, OpenTelemetryObserver, observe};
use advisory_locking::{AdvisoryLocking, LockOptions};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, SdkMeterProvider};
use testkit::observer::Observe;
use testkit::server::{connect, eventually, fresh_key, pool_of};

const PAGE: &str = include_str!("../../docs/metrics.md");

/// The buckets of the page.
const BUCKETS: [f64; 19] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 900.0, 1800.0, 3600.0,
];

/// Every outcome, each with the label `nightly-report` or `sync-calendar`.
fn run(exposition: &PrometheusHandle) {
    let report = LockOptions::no_wait().label("nightly-report");
    let (mut conn, mut other, key) = (connect(), connect(), fresh_key());
    // Released; held elsewhere; timed out.
    let guard = conn.acquire_advisory_lock(&key, report).unwrap();
    let refused = other.try_acquire_advisory_lock(&key, report);
    assert!(refused.unwrap().is_none());
    // Long enough for the attempt and the first pause on a loaded machine.
    let wait = LockOptions::wait_up_to(Duration::from_secs(1)).label("nightly-report");
    other.acquire_advisory_lock(&key, wait).unwrap_err();
    guard.release().unwrap();
    // Failed: a session-level lock in a transaction.
    other
        .with_advisory_xact_lock(&key, report, |conn| {
            conn.acquire_advisory_lock(&key, report).map(drop)
        })
        .unwrap_err();
    // Held for longer than the warning time, then lost.
    let warned = report.warn_after(Duration::from_millis(1));
    let guard = conn.acquire_advisory_lock(&key, warned).unwrap();
    eventually("the warning", || exposition.render().contains("overdue"));
    connect().terminate_holder(&key);
    assert!(guard.release().unwrap_err().is_lost());
    with_a_lock_manager();
}

fn with_a_lock_manager() {
    let sync = LockOptions::wait_forever().label("sync-calendar");
    let (manager, key) = (
        LockManager::over_blocking_pool(pool_of(1)).unwrap(),
        fresh_key(),
    );
    let guard = manager.acquire_blocking(&key, sync).unwrap();
    {
        // Dropped while it waits.
        let mut waiter = pin!(manager.acquire(&key, sync));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiter.as_mut().poll(&mut context).is_pending());
    }
    manager.snapshot().record_metrics("jobs");
    // Dropped: the reply to its release is not read.
    drop(guard);
    manager.close_blocking();
}

/// Returns the lines of an exposition without buckets and sums; `…` replaces a value that varies.
fn normalized(exposition: &str) -> BTreeSet<String> {
    let lines = exposition.lines().filter(|line| {
        let is_duration = line.contains("_bucket{") || line.contains("_sum{");
        !line.is_empty() && !line.starts_with("# HELP") && !is_duration
    });
    lines
        .map(|line| {
            let varies = line.contains("_polls_total{");
            match line.rsplit_once(' ') {
                Some((series, _)) if varies => format!("{series} …"),
                _ => line.to_owned(),
            }
        })
        .collect()
}

/// Returns the block of the page that begins with this line.
fn block_of_the_page(first: &str) -> &'static str {
    let mut blocks = PAGE.split("```text\n").skip(1);
    let block = blocks.find(|block| block.starts_with(first));
    block.and_then(|block| block.split("```").next()).unwrap()
}

/// Returns the names in the first column of the page's tables.
fn names_of_the_page() -> BTreeSet<&'static str> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split('`').next());
    names
        .filter(|name| name.starts_with("advisory_lock."))
        .collect()
}

#[test]
fn instruments_are_those_of_the_page() {
    let exposition = PrometheusBuilder::new()
        .with_recommended_naming(true)
        .set_buckets(&BUCKETS)
        .unwrap()
        .install_recorder()
        .unwrap();
    let exporter = InMemoryMetricExporter::default();
    let provider = SdkMeterProvider::builder()
        .with_periodic_exporter(exporter.clone())
        .build();
    let meter = provider.meter("advisory-locking");
    observe((MetricsObserver::new(), OpenTelemetryObserver::new(&meter))).unwrap();
    let manager = LockManager::over_blocking_pool(pool_of(1)).unwrap();
    manager.register_metrics(&meter, "jobs");
    let held = fresh_key();
    let guard = manager.acquire_blocking(&held, LockOptions::no_wait().label("other"));
    run(&exposition);

    provider.force_flush().unwrap();
    let mut values = BTreeMap::new();
    for resource in exporter.get_finished_metrics().unwrap() {
        for metric in resource.scope_metrics().flat_map(|scope| scope.metrics()) {
            values.insert(metric.name().to_owned(), value_of(metric.data()));
            // The attribute distinguishes the lock managers of a process.
            let of_manager = format!("{:?}", metric.data()).contains("lock.manager");
            let is_of_manager = metric.name().starts_with("advisory_lock.manager.");
            assert_eq!(of_manager, is_of_manager, "{metric:?}");
        }
    }
    let names: BTreeSet<_> = values.keys().map(String::as_str).collect();
    assert_eq!(names, names_of_the_page(), "OpenTelemetry");
    // The guard above is the only lock that is held, and no request waits.
    assert_eq!(values["advisory_lock.held"], 1.0);
    assert_eq!(values["advisory_lock.waiting"], 0.0);
    assert_eq!(values["advisory_lock.manager.holders"], 1.0);
    assert_eq!(values["advisory_lock.lost"], 1.0);
    drop(manager);
    guard.unwrap().release_blocking().unwrap_err();

    let shown = normalized(block_of_the_page("# TYPE"));
    let rendered: BTreeSet<_> = normalized(&exposition.render())
        .into_iter()
        // The lock of the second lock manager, which the page does not show.
        .filter(|line| !line.contains("lock_label=\"other\""))
        .collect();
    assert_eq!(rendered, shown, "\n{}", exposition.render());
}

/// Returns the sum of all series, or the count of a histogram.
fn value_of(data: &AggregatedMetrics) -> f64 {
    fn sum<T: Copy>(data: &MetricData<T>, number: impl Fn(T) -> f64) -> f64 {
        match data {
            MetricData::Gauge(gauge) => {
                gauge.data_points().map(|point| number(point.value())).sum()
            }
            MetricData::Sum(sum) => sum.data_points().map(|point| number(point.value())).sum(),
            MetricData::Histogram(histogram) => histogram
                .data_points()
                .map(|point| point.count() as f64)
                .sum(),
            MetricData::ExponentialHistogram(_) => f64::NAN,
        }
    }
    match data {
        AggregatedMetrics::F64(data) => sum(data, |value| value),
        AggregatedMetrics::U64(data) => sum(data, |value| value as f64),
        AggregatedMetrics::I64(data) => sum(data, |value| value as f64),
    }
}
