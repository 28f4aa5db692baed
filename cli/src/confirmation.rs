//! A question on the terminal, and its answer.

use std::io::{self, BufRead as _, Write as _};

/// Asks on stderr; whatever is not a yes is a no.
pub(crate) fn is_confirmed(question: &str) -> anyhow::Result<bool> {
    let mut stderr = io::stderr().lock();
    stderr.write_all(question.as_bytes())?;
    stderr.flush()?;
    let mut answer = String::new();
    if io::stdin().lock().read_line(&mut answer)? == 0 {
        // No answer ended the line.
        stderr.write_all(b"\n")?;
    }
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
