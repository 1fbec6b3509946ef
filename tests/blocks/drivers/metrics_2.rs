fn main() -> Result<(), Box<dyn std::error::Error>> {
    install()?;
    assert!(install().is_err(), "a process has one observer");
    Ok(())
}
