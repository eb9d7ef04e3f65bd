//! Small C programs for what safe Rust cannot do, compiled when they are needed with the compiler that Rust links with.
//!
//! The programs are in `native/`; each says what it does.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Compiles `native/NAME.c`; answers where the result lies, or why there is none.
pub(crate) fn compile(name: &str, flags: &[&str]) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("faults/native").join(name).with_extension("c");
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let done = place.join(format!("faults-{name}"));
    // Made aside and renamed, so that two who make it at once do no harm.
    let aside = tempfile::NamedTempFile::new_in(place).map_err(|error| error.to_string())?.into_temp_path();
    run(Command::new("cc").args(["-O1", "-Wall", "-Werror"]).args(flags).arg("-o").arg(&aside).arg(&source))?;
    std::fs::rename(&aside, &done).map_err(|error| error.to_string())?;
    Ok(done)
}

/// Runs a program that is expected to succeed; says what it said where it did not.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program} cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} ended with {}: {}", output.status, said.trim()))
}
