//! Completions and manual pages.

mod common;

use std::process::{Command, Stdio};

use common::{Lab, left_in, puddle, run};

const COMMANDS: [&str; 15] = [
    "serve",
    "up",
    "put",
    "get",
    "ls",
    "stat",
    "rm",
    "nodes",
    "ping",
    "df",
    "verify",
    "raw",
    "demo",
    "completions",
    "man",
];

/// The options that the help of a command shows, and those that it hides.
fn options_of(words: &[&str]) -> Vec<String> {
    let help = run(puddle(words.iter().chain(&["--help"]))).expect(0).text();
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let option = |line: &str| {
        let long = line.split([' ', ',', '=', '[']).find(|word| word.starts_with("--"));
        long.map(str::to_owned)
    };
    lines.filter_map(option).collect()
}

#[test]
fn completions_of_every_shell_have_every_command_and_option_and_nothing_hidden() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(puddle(["completions", shell])).expect(0).text();
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
            for option in options_of(&[command]) {
                let name = option.trim_start_matches('-');
                let shown = if name == "help" { "h" } else { name };
                assert!(script.contains(shown), "{shell}: {command} {option}");
            }
        }
        for hidden in ["exit-with-parent", "--token ", "--token'", "'token'", "-l token "] {
            assert!(!script.contains(hidden), "{shell}: {hidden}");
        }
    }
    run(puddle(["completions", "csh"])).expect(2).says("possible values: bash, elvish, fish");
}

/// Runs what reads a script and does nothing, where there is such a shell.
fn is_sound(shell: &str, arguments: &[&str]) -> Option<bool> {
    let script = run(puddle(["completions", shell])).expect(0).stdout;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    let mut command = Command::new(shell);
    command.args(arguments).arg(file.path()).stdout(Stdio::null());
    Some(command.status().ok()?.success())
}

#[test]
fn shells_read_their_completions() {
    assert_eq!(is_sound("bash", &["-n"]), Some(true));
    assert_ne!(is_sound("zsh", &["-n"]), Some(false));
    assert_ne!(is_sound("fish", &["--no-execute"]), Some(false));
}

#[test]
fn bash_completes_commands_and_their_options() {
    let script = run(puddle(["completions", "bash"])).expect(0).text();
    let ask = |words: &str, at: usize| {
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={at}; \
             _puddle puddle \"${{COMP_WORDS[{at}]}}\" \"\"; echo \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash").args(["-c", &ask]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(ask("puddle ver", 1), "verify");
    assert_eq!(ask("puddle put --rec", 2), "--recursive");
    assert_eq!(ask("puddle raw gat", 2), "gather");
}

#[test]
fn there_is_a_manual_page_for_every_command_with_all_its_options() {
    let lab = Lab::new();
    let folder = lab.path("share/man1");
    let mut command = puddle(["man"]);
    command.arg(&folder);
    run(command).expect(0).says("21 pages");
    let mut pages: Vec<Vec<&str>> = COMMANDS.iter().map(|command| vec![*command]).collect();
    pages.extend(["create", "scatter", "gather", "delete"].map(|below| vec!["raw", below]));
    pages.push(vec!["nodes", "forget"]);
    pages.push(Vec::new());
    assert_eq!(left_in(&folder).len(), pages.len());
    for words in pages {
        let name = [&["puddle"], &words[..]].concat().join("-");
        let path = folder.join(format!("{name}.1"));
        let page = std::fs::read_to_string(&path).expect(&name);
        let plain = page.replace("\\-", "-");
        assert!(plain.contains(&format!(".TH {name} 1")), "{name}: {plain}");
        for option in options_of(&words) {
            assert!(plain.contains(&option), "{name}: {option}");
        }
        assert!(!plain.contains("--token ") && !plain.contains("exit-with-parent"), "{name}");
        // As people see it, where there is a reader of manual pages.
        let mut man = Command::new("man");
        man.args(["--warnings", "-P", "cat", "-l"]).arg(&path).env("MANWIDTH", "100");
        if let Ok(shown) = man.output() {
            let text = String::from_utf8_lossy(&shown.stdout);
            assert!(shown.status.success() && text.contains("SYNOPSIS"), "{name}: {shown:?}");
        }
    }
}

#[test]
fn pages_that_cannot_be_written_are_told() {
    let lab = Lab::new();
    lab.file("file", 1);
    lab.run(["man", "file"]).expect(2).says("cannot write manual pages into file");
    lab.run(["man", "file/below"]).expect(2).says("cannot write manual pages into file/below");
}
