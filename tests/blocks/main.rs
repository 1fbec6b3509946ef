//! Runs every Rust block of README and of the guide.
//!
//! `scripts/blocks` runs this program, `cargo test` does not: it builds packages with cargo. It
//! needs the server in `DATABASE_URL` and prints a line for each block. It fails if a block does
//! not compile or ends with an error. Arguments are names of documents, such as `README` or
//! `create-once`.
//!
//! * A block of README is a program. It becomes a new package, created by the commands above the
//!   block and nothing else.
//! * A block of a page contains functions. `drivers/` has the rest of the program: calls of the
//!   functions and assertions. If the page shows a `Cargo.toml`, the package uses it.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the program fails by panicking and prints its results"
)]

mod document;
mod package;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use document::Block;
use package::Package;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const DRIVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/blocks/drivers");

/// Dependencies of the pages that show no `Cargo.toml`.
const PAGE_DEPENDENCIES: [&str; 8] = [
    "cargo add diesel@2.3 --features postgres,r2d2",
    "cargo add diesel-async@0.9 --features postgres,bb8",
    "cargo add sea-orm@2 --features sqlx-postgres,sqlx-sqlite,runtime-tokio",
    "cargo add sqlx@0.9 --features postgres,sqlite,runtime-tokio",
    "cargo add tokio@1 --features macros,rt-multi-thread",
    "cargo add advisory-locking --features diesel-postgres,r2d2,diesel-async-postgres,bb8",
    "cargo add advisory-locking --features sea-orm,async-lock-manager",
    "cargo add advisory-locking --features sqlx-postgres,sqlx-sqlite",
];

fn main() {
    assert!(
        std::env::var("DATABASE_URL").is_ok_and(|url| url.starts_with("postgres")),
        "DATABASE_URL must name a PostgreSQL server: run scripts/blocks"
    );
    let wanted: Vec<_> = std::env::args().skip(1).collect();
    let wanted = |block: &Block| {
        let document = block.document();
        wanted.is_empty() || wanted.iter().any(|wanted| wanted == document)
    };
    let shown: Vec<_> = document::pages()
        .iter()
        .flat_map(|page| document::blocks("docs/", page))
        .collect();
    check_drivers(&shown);
    let (alone, together): (Vec<_>, Vec<_>) = shown
        .into_iter()
        .chain(document::blocks("", "README"))
        .filter(wanted)
        .partition(|block| block.has_main() || !block.manifest.is_empty());
    assert!(alone.len() + together.len() > 0, "no such document");
    if !together.is_empty() {
        run_together(&together);
    }
    for block in &alone {
        run_alone(block);
    }
}

/// Builds the blocks as modules of one package, which saves time, and runs each in a process.
fn run_together(blocks: &[Block]) {
    let package = Package::new("pages");
    for command in PAGE_DEPENDENCIES {
        package.add(command);
    }
    let mut main = String::new();
    let mut arms = String::new();
    for block in blocks {
        let name = block.name();
        let driver = driver(block);
        let run = "pub(crate) fn run() -> ExitCode { std::process::Termination::report(main()) }";
        package.write(
            &format!("src/{name}.rs"),
            &format!(
                "{}\nuse std::process::ExitCode;\n{driver}\n{run}\n",
                block.code
            ),
        );
        writeln!(main, "mod {name};").expect("text");
        writeln!(arms, "        Some(\"{name}\") => {name}::run(),").expect("text");
    }
    package.write(
        "src/main.rs",
        &format!(
            "{main}\nfn main() -> std::process::ExitCode {{\n    match std::env::args().nth(1).as_deref() {{\n{arms}        \
             other => panic!(\"{{other:?}}\"),\n    }}\n}}\n"
        ),
    );
    package.cargo(["build"]);
    for block in blocks {
        package.cargo(["run", "--", &block.name()]);
        println!("blocks: {block}: ran");
    }
    package.cargo(["test"]);
    for block in blocks.iter().filter(|block| block.has_tests()) {
        println!("blocks: {block}: its tests passed");
    }
}

/// Reads the driver of a block: the code that calls its functions.
fn driver(block: &Block) -> String {
    let file = format!("{DRIVERS}/{}.rs", block.name());
    fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{block}: cannot read its driver {file}: {error}"))
}

/// Checks that every driver has a block and every block a driver.
fn check_drivers(blocks: &[Block]) {
    let named: BTreeSet<_> = blocks.iter().map(Block::name).collect();
    let there: BTreeSet<_> = fs::read_dir(DRIVERS)
        .expect("the drivers")
        .map(|entry| entry.expect("an entry").file_name())
        .filter_map(|name| Some(name.to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    assert_eq!(there, named, "drivers, and blocks of pages");
}

/// Runs a block as a reader would: the commands or the manifest, the block, `cargo run`.
fn run_alone(block: &Block) {
    let package = Package::new(&block.name());
    let made = if block.manifest.is_empty() {
        assert!(
            !block.commands.is_empty(),
            "{block}: no `cargo add` command"
        );
        for command in &block.commands {
            package.add(command);
        }
        package.write("src/main.rs", &block.code);
        block.commands.join("; ")
    } else {
        package.depend(&block.manifest);
        package.write("src/main.rs", &format!("{}\n{}", block.code, driver(block)));
        if block.manifest.contains("[dev-dependencies]") {
            package.cargo(["test"]);
        }
        "its manifest".to_owned()
    };
    package.cargo(["run"]);
    println!("blocks: {block}: ran, after {made}");
    if block.falls_back_to_sqlite() {
        package.run_without_server();
        println!("blocks: {block}: ran on SQLite");
    }
    if block.has_tests() {
        package.cargo(["test"]);
        println!("blocks: {block}: its tests passed");
        check_testing_is_off(block, &package);
    }
}

/// Checks that the feature `testing` of the `[dev-dependencies]` is off in the program.
fn check_testing_is_off(block: &Block, package: &Package) {
    package.write(
        "src/bin/accident.rs",
        "fn main() {\n    let _locks = advisory_locking::testing::TestLocks::enter();\n}\n",
    );
    let output = package.try_cargo(["build", "--bin", "accident"]);
    let said = package::text(&output);
    assert!(
        !output.status.success(),
        "{block}: `testing` is on in the program"
    );
    assert!(
        said.contains("could not find `testing` in `advisory_locking`"),
        "{said}"
    );
    println!("blocks: {block}: the program has no `testing`");
}
