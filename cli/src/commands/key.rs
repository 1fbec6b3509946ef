//! `key`: the key of a name.

use clap::ValueEnum;
use serde_json::Value;

use crate::arguments::{Global, Key};
use crate::exit_code::Code;
use crate::failure::Failure;
use crate::lock_name::numbers;
use crate::output::table::Table;
use crate::output::{Terminal, json, print_line};
use crate::scheme::Scheme;

pub(super) fn run(arguments: &Key, global: &Global) -> Result<Code, Failure> {
    if arguments.all {
        all(arguments, global)?;
        return Ok(Code::SUCCESS);
    }
    let key = arguments.lock.key()?;
    if global.json {
        let mut object = json::key(key.raw());
        object.insert("text".to_owned(), key.text().into());
        json::print(object)?;
    } else if arguments.sql {
        print_line(&key.pg_locks().sql_condition())?;
    } else {
        print_line(&numbers(key.raw()))?;
    }
    Ok(Code::SUCCESS)
}

/// Prints the key of each scheme that accepts the name and its parts.
fn all(arguments: &Key, global: &Global) -> Result<(), Failure> {
    if arguments.lock.name.is_none() {
        return Err(Failure::usage("--all needs NAME"));
    }
    let keys = Scheme::value_variants().iter().filter_map(|scheme| {
        let key = arguments.lock.derive_with(*scheme)?;
        Some((scheme.label(), key.raw()))
    });
    if global.json {
        let keys = keys.map(|(scheme, raw)| {
            let mut object = json::key(raw);
            object.insert("scheme".to_owned(), scheme.into());
            Value::Object(object)
        });
        return json::print_field("keys", keys.collect::<Vec<_>>().into());
    }
    let mut table = Table::default();
    for (scheme, raw) in keys {
        table.add([scheme, numbers(raw)]);
    }
    print_line(&table.render(Terminal::detect(), |_| None))
}
