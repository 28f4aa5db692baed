//! Flags, environment, config file; what is refused before anything is done.

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use common::{Lab, puddle, run};

const COMMANDS: [&[&str]; 19] = [
    &["serve"],
    &["up"],
    &["put"],
    &["get"],
    &["ls"],
    &["stat"],
    &["rm"],
    &["nodes"],
    &["ping"],
    &["df"],
    &["verify"],
    &["completions"],
    &["man"],
    &["raw"],
    &["raw", "create"],
    &["raw", "scatter"],
    &["raw", "gather"],
    &["raw", "delete"],
    &["demo"],
];

#[test]
fn every_command_has_help_with_all_options_explained() {
    for command in COMMANDS {
        let mut arguments = command.to_vec();
        arguments.push("--help");
        let help = run(puddle(&arguments)).expect(0).text();
        assert!(help.contains("Usage: puddle"), "{help}");
        assert!(help.contains("--discovery <URL>"), "{help}");
        assert!(!help.contains("--token <"), "{help}");
        assert!(!help.to_lowercase().contains("tls"), "{help}");
        assert!(unexplained(&help).is_empty(), "{command:?}: {:?}", unexplained(&help));
    }
    let help = run(puddle(["--help"])).expect(0).text();
    for command in COMMANDS {
        assert!(help.contains(&format!("  {}", command[0])), "{help}");
    }
    run(puddle(["--version"])).expect(0);
}

/// Options of a help text without a word on what they do, which stands behind two
/// spaces on their line, or on the next one.
fn unexplained(help: &str) -> Vec<&str> {
    let lines: Vec<&str> = help.lines().map(str::trim).collect();
    // `- all: All of them` is a value of the option above it.
    let is_option = |line: &str| line.starts_with('-') && !line.starts_with("- ");
    let is_explained = |at: usize| {
        let next = lines.get(at + 1).copied().unwrap_or_default();
        lines[at].contains("  ") || !(next.is_empty() || next.starts_with('[') || is_option(next))
    };
    let options = (0..lines.len()).filter(|at| is_option(lines[*at]));
    options.filter(|at| !is_explained(*at)).map(|at| lines[at]).collect()
}

#[test]
fn an_option_without_an_explanation_is_found() {
    let help = "Options:\n  --good <N>\n      Says what\n\n  -b, --bare <N>\n\n  --env\n      [env: X]\n\n  --last\n";
    assert_eq!(unexplained(help), ["-b, --bare <N>", "--env", "--last"]);
    assert!(unexplained("Options:\n  -s, --short  Says what\n  -h, --help   Says\n").is_empty());
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [
        &["nonsense"][..],
        &[],
        &["get"],
        &["rm"],
        &["rm", "a", "--prefix", "b"],
        &["nodes", "--replicas", "0"],
        &["nodes", "--replicas", "256"],
        &["nodes", "--write", "most"],
        &["raw", "create", "k"],
        &["up", "-n", "0"],
    ] {
        run(puddle(arguments)).expect(2);
    }
}

#[test]
fn sizes_that_are_none_are_refused_and_told_what_is_expected() {
    for size in ["-1", "1e9", "12XB", "", "GiB"] {
        for arguments in [
            &["serve", "--pool", size][..],
            &["up", "--pool", size],
            &["raw", "create", "k", "--length", size],
            &["raw", "gather", "k", "--length", size],
            &["raw", "gather", "k", "--length", "1", "--offset", size],
            &["put", "f", "--stripe", size],
        ] {
            run(puddle(arguments)).expect(2).says("such as 64KiB or 1.5GiB");
        }
    }
    run(puddle(["serve", "--pool", "18446744073709551616"])).expect(2).says("64 bits");
    run(puddle(["serve", "--pool", "0.3KiB"])).expect(2).says("not a whole number of bytes");
    run(puddle(["get", "a", "--range", "5"])).expect(2).says("OFFSET:LENGTH");
    run(puddle(["get", "a", "--range", "0:-1"])).expect(2).says("the length: expected");
}

#[test]
fn a_token_on_the_command_line_is_refused_and_not_repeated() {
    for arguments in [
        &["--token", "topsecret", "nodes"][..],
        &["nodes", "--token=topsecret"],
        &["ls", "--token"],
    ] {
        let ran = run(puddle(arguments)).expect(2).says("unexpected argument '--token");
        assert!(!ran.stderr.contains("topsecret"), "{ran:?}");
        ran.says("--token-file").says("put the token into a file");
    }
}

#[test]
fn flags_come_before_the_environment_and_that_before_the_config_file() {
    let lab = Lab::new();
    let config = lab.path("puddle.toml");
    let text = "cluster = \"from-file\"\n[serve]\nname = \"from-file\"\npool = \"1.5MiB\"\n";
    std::fs::write(&config, text).unwrap();
    let print = |more: &[&str], environment: &[(&str, &str)]| {
        let mut command = lab.puddle(["serve", "--print-config", "--config"]);
        command.arg(&config).args(more).envs(environment.iter().copied());
        let config: toml::Table = run(command).expect(0).text().parse().unwrap();
        let serve = config["serve"].as_table().unwrap().clone();
        let words = [&config["cluster"], &serve["name"], &serve["pool"]];
        words.map(|word| word.as_str().unwrap().to_owned())
    };
    assert_eq!(print(&[], &[]), ["from-file", "from-file", "1536KiB"]);
    let environment = [("PUDDLE_CLUSTER", "from-env"), ("PUDDLE_POOL", "65536")];
    assert_eq!(print(&[], &environment), ["from-env", "from-file", "64KiB"]);
    let flags = ["--cluster", "from-flag", "--name", "from-flag"];
    assert_eq!(print(&flags, &environment), ["from-flag", "from-flag", "64KiB"]);
}

#[test]
fn switches_of_the_environment_are_words_for_yes_and_no() {
    let lab = Lab::new();
    let is_json = |value: &str| {
        let mut command = lab.puddle(["serve", "--print-config", "--name", "a"]);
        run({
            command.env("PUDDLE_JSON", value);
            command
        })
    };
    for (value, starts) in [("1", "{"), ("true", "{"), ("0", "discovery"), ("no", "discovery")] {
        let printed = is_json(value).expect(0).text();
        assert!(printed.starts_with(starts), "{value}: {printed}");
    }
    is_json("perhaps").expect(2).says("--json").says("expected yes or no");
}

#[test]
fn switches_of_the_config_file_can_be_turned_off_again() {
    let lab = Lab::new();
    let config = lab.path("puddle.toml");
    std::fs::write(&config, "json = true\nquiet = true\n[serve]\nmlock = true\n").unwrap();
    let printed = |more: &[&str], environment: &[(&str, &str)]| {
        let mut command = lab.puddle(["serve", "--print-config", "--name", "a", "--config"]);
        command.arg(&config).args(more).envs(environment.iter().copied());
        run(command).expect(0).text()
    };
    assert!(printed(&[], &[]).starts_with("{"));
    let off = [("PUDDLE_JSON", "0"), ("PUDDLE_QUIET", "no"), ("PUDDLE_MLOCK", "false")];
    for text in [printed(&[], &off), printed(&["--json=no", "--quiet=no", "--mlock=no"], &[])] {
        let config: toml::Table = text.parse().unwrap();
        assert!(!config.contains_key("json") && !config.contains_key("quiet"), "{text}");
        assert_eq!(config["serve"]["mlock"].as_bool(), Some(false));
    }
    assert!(printed(&["--json"], &off).starts_with("{"));
}

#[test]
fn every_option_of_all_commands_is_a_flag_a_variable_and_a_key() {
    let lab = Lab::new();
    let tokens = lab.token_file("tokens", "a:read:0123456789abcdef\n");
    let config = lab.path("puddle.toml");
    let file = |text: String| std::fs::write(&config, text).unwrap();
    let printed = |more: &[String], environment: &[(String, String)]| {
        let mut command = puddle(["serve", "--print-config", "--json=no", "--name", "a"]);
        command.args(more).envs(environment.iter().cloned());
        run(command).expect(0).text().parse::<toml::Table>().unwrap()
    };
    let options = [
        ("discovery", "static:a=127.0.0.1:1"),
        ("cluster", "other"),
        ("replicas", "3"),
        ("write", "quorum"),
        ("quiet", "true"),
        ("token_file", tokens.to_str().unwrap()),
        ("no_map", "true"),
    ];
    for (option, value) in options {
        let flag = format!("--{}={value}", option.replace('_', "-"));
        let variable = format!("PUDDLE_{}", option.to_uppercase());
        let is_text = !matches!(option, "replicas" | "quiet" | "no_map");
        file(format!("{option} = {}\n", if is_text { format!("{value:?}") } else { value.into() }));
        let by_file = ("PUDDLE_CONFIG".to_owned(), config.to_str().unwrap().to_owned());
        for printed in [
            printed(&[flag], &[]),
            printed(&[], &[(variable, value.to_owned())]),
            printed(&[], std::slice::from_ref(&by_file)),
        ] {
            let found = &printed[option];
            let found = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
            assert_eq!(found, value, "{option}");
        }
    }
}

#[test]
fn numbers_out_of_bounds_are_told_the_bounds() {
    for arguments in [
        &["ls", "--replicas", "0"][..],
        &["ls", "--replicas", "300"],
        &["ls", "--replicas", "-1"],
        &["ls", "--replicas", "x"],
    ] {
        run(puddle(arguments)).expect(2).says("expected a whole number from 1 to 255");
    }
    run(puddle(["up", "-n", "-1"])).expect(2).says("expected a whole number from 1 to 64");
    run(puddle(["serve", "--cpu", "-1"])).expect(2).says("expected a whole number from 0");
    run(puddle(["serve", "--weight", "x"])).expect(2).says("expected a number, such as");
    run(puddle(["up", "--pool", "1"])).expect(2).says("expected a multiple of 64KiB");
    run(puddle(["ls", "--write", "most"])).expect(2).says("possible values: all, quorum, one");
}

#[test]
fn what_print_config_prints_is_a_config_file_for_the_same_server() {
    let lab = Lab::new();
    let print = |arguments: &[&OsStr]| {
        let mut command = lab.puddle(["serve", "--print-config"]);
        run({
            command.args(arguments);
            command
        })
        .expect(0)
        .text()
    };
    let flags = ["--name", "x", "--pool", "1MiB", "--weight", "2.5", "--mlock", "--listen"];
    let mut flags: Vec<_> = flags.iter().map(OsStr::new).collect();
    flags.extend(["0.0.0.0:1", "--advertise", "h:2", "--insecure-public"].map(OsStr::new));
    flags.extend(["--zero-copy-from", "192KiB"].map(OsStr::new));
    let first = print(&flags);
    let path = lab.path("printed.toml");
    std::fs::write(&path, &first).unwrap();
    assert_eq!(print(&[OsStr::new("--config"), path.as_os_str()]), first);
    assert!(first.contains("zero_copy_from = \"192KiB\""), "{first}");
}

#[test]
fn an_unknown_key_of_the_config_file_is_named_with_its_line() {
    let lab = Lab::new();
    let config = lab.path("puddle.toml");
    let run_with = |text: &str| {
        std::fs::write(&config, text).unwrap();
        let mut command = lab.puddle(["nodes", "--config"]);
        command.arg(&config);
        run(command).expect(2)
    };
    run_with("cluster = \"a\"\nclutser = 1\n").says("line 2").says("`clutser`");
    run_with("[serve]\npools = 1\n").says("`pools`");
    run_with("[serve]\npool = -1\n").says("such as 64KiB");
    run_with("write = \"most\"\n").says("`most`");
    run_with("replicas = 300\n").says("expected a whole number from 1 to 255");
    run_with(&"#".repeat(2 << 20)).says("more than 1 MiB");
    let mut command = lab.puddle(["nodes", "--config"]);
    command.arg(lab.path("absent.toml"));
    run(command).expect(2).says("cannot read the config file");
}

#[test]
fn servers_that_cannot_work_are_refused() {
    let lab = Lab::new();
    let serve = |more: &[&str]| run(lab.serve_command("a", more)).expect(2);
    serve(&["--pool", "20TiB"]).says("make the pool smaller than --pool 20TiB");
    serve(&["--pool", "65537"]).says("multiple of 65536");
    for nonsense in ["0", "65535", "1025KiB"] {
        serve(&["--zero-copy-from", nonsense]).says("choose 65536 to 1048576 bytes");
    }
    serve(&["--zero-copy-from", "-1"]).says("such as 64KiB");
    serve(&["--listen", "0.0.0.0:0"]).says("--advertise");
    serve(&["--listen", "0.0.0.0:0", "--advertise", "h:0"]).says("--insecure-public");
    serve(&["--advertise", "169.254.169.254:80"]).says("link-local");
    serve(&["--listen", "nonsense"]).says("expected ADDR:PORT");
    serve(&["--name", "../x"]).says("not allowed");
    serve(&["--cluster", "../x"]).says("not allowed");
    serve(&["--weight", "-1"]).says("weight");
    serve(&["--weight", "NaN"]).says("weight");
    serve(&["--discovery", "nonsense"]).says("expected SCHEME:");
    serve(&["--discovery", "static:b=127.0.0.1:1"]).says("not listed");
    serve(&["--cpu", "99999"]).says("processor 99999");
    serve(&["--token-file", "/nonexistent"]).says("cannot read the token file");
    let tokens = lab.token_file("tokens", "# none\n");
    serve(&["--token-file", tokens.to_str().unwrap()]).says("has no token");
    lab.token_file("tokens", "a:read:0123456789abcdef\nb:root:topsecrettopsecret\n");
    let ran = serve(&["--token-file", tokens.to_str().unwrap()]).says("line 2");
    assert!(!ran.stderr.contains("topsecret"), "{ran:?}");
}

#[test]
fn messages_do_not_steer_the_terminal() {
    let lab = Lab::new();
    let ran = lab.run([OsStr::new("put"), OsStr::from_bytes(b"\x1b[2J\xff")]).expect(2);
    assert!(ran.stderr.contains("\\x1b[2J") && !ran.stderr.contains('\x1b'), "{ran:?}");
    let ran = lab.run(["nodes", "--discovery", "dir\x1b[2J:x"]).expect(2);
    assert!(!ran.stderr.contains('\x1b'), "{ran:?}");
}
