//! Mistakes that people make, and what they are told: what was wrong, what was
//! expected, what to do. Every case is run on the real binary.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use common::{Lab, Ran, puddle, run, run_with};

/// Arguments, the exit code, and the words that stderr must have.
type Case<'c> = (&'c [&'c str], i32, &'c [&'c str]);

/// Nobody is told of an error in the words of the program's inside, of a terminal's
/// escapes, or in a heap of lines.
fn check_form(arguments: &[&str], ran: &Ran) {
    let said = &ran.stderr;
    assert!(!said.is_empty(), "{arguments:?}: nothing was said");
    for inside in ["panicked", "unwrap", "Some(", "None)", "Err(", "src/", "RUST_BACKTRACE"] {
        assert!(!said.contains(inside), "{arguments:?}: {said}");
    }
    assert!(!said.contains('\x1b'), "{arguments:?}: {said:?}");
    assert!(said.lines().count() <= 12, "{arguments:?}: {said}");
    // What is ours is one line; what clap says ends with where there is help.
    let is_ours = said.lines().any(|line| line.starts_with("puddle: "));
    let is_claps = said.contains("error: ") && said.contains("--help");
    assert!(is_ours || is_claps, "{arguments:?}: {said}");
    assert_eq!(ran.stdout, b"", "{arguments:?}");
}

fn check(lab: &Lab, cases: &[Case<'_>]) {
    for (arguments, code, words) in cases {
        let ran = lab.run(*arguments).expect(*code);
        check_form(arguments, &ran);
        for word in *words {
            assert!(ran.stderr.contains(word), "{arguments:?}: wanted {word:?}: {}", ran.stderr);
        }
    }
    println!("mistakes: {}", cases.len());
}

#[test]
fn what_makes_no_sense_on_the_command_line_is_told_before_anything_is_done() {
    let lab = Lab::new();
    let size = "such as 64KiB or 1.5GiB";
    let cases: &[Case<'_>] = &[
        // Commands and arguments.
        (&[], 2, &["requires a subcommand", "put", "verify", "Usage: puddle"]),
        (&["nonsense"], 2, &["unrecognized subcommand 'nonsense'", "Usage: puddle"]),
        (&["putt", "f"], 2, &["a similar subcommand exists: 'put'"]),
        (&["raw", "make"], 2, &["unrecognized subcommand 'make'"]),
        (&["put"], 2, &["<SOURCE>", "Usage: puddle put [OPTIONS] <SOURCE> [NAME]"]),
        (&["get"], 2, &["<NAME>", "Usage: puddle get [OPTIONS] <NAME> [DEST]"]),
        (&["stat"], 2, &["<NAME>"]),
        (&["rm"], 2, &["<NAMES>"]),
        (&["man"], 2, &["<DIR>"]),
        (&["completions"], 2, &["<SHELL>"]),
        (&["raw", "create"], 2, &["<KEY>"]),
        (&["raw", "scatter", "k"], 2, &["--value <FILE|->"]),
        (&["raw", "gather", "k"], 2, &["--length <N>"]),
        (&["raw", "delete"], 2, &["<KEY>"]),
        (&["get", "a", "b", "c"], 2, &["unexpected argument 'c'"]),
        (&["df", "x"], 2, &["unexpected argument 'x'"]),
        (&["verify", "a", "b"], 2, &["unexpected argument 'b'"]),
        (&["ls", "--lnog"], 2, &["--lnog", "a similar argument exists: '--long'"]),
        (&["put", ""], 2, &["<SOURCE>"]),
        (&["get", "-r", "p"], 2, &["<DEST>"]),
        (&["put", "f", "--jobs", "2"], 2, &["--recursive"]),
        (&["put", "f", "-L"], 2, &["--recursive"]),
        (&["get", "a", "f", "--jobs", "2"], 2, &["--recursive"]),
        (
            &["get", "-r", "p", "d", "--range", "0:1"],
            2,
            &["'--recursive' cannot be used with '--range"],
        ),
        (&["rm", "a", "--prefix", "b"], 2, &["--prefix", "cannot be used with"]),
        // Keys and names that look like options.
        (&["stat", "-name"], 2, &["unexpected argument '-n'", "'-- -n"]),
        (
            &["raw", "gather", "-k", "--length", "1"],
            2,
            &["'-k'", "to pass '-k' as a value, use '-- -k'"],
        ),
        (&["rm", "-x"], 2, &["use '-- -x'"]),
        // Sizes.
        (&["serve", "--pool", "-1"], 2, &["'-1'", size]),
        (&["serve", "--pool", "18446744073709551616"], 2, &["at most 18446744073709551615 bytes"]),
        (&["serve", "--pool", "0.3KiB"], 2, &["not a whole number of bytes"]),
        (&["serve", "--pool", "1.2.3"], 2, &["'1.2.3'", size]),
        (&["up", "--pool", "1.5GB"], 2, &["'1.5GB'", size]),
        (&["up", "--pool", "1 GiB"], 2, &["'1 GiB'", size]),
        (&["up", "--pool", "1"], 2, &["--pool 1: expected a multiple of 64KiB"]),
        (&["put", "f", "--stripe", "-1"], 2, &["'-1'", size]),
        (&["put", "f", "--stripe", "99999999999TiB"], 2, &["at most 18446744073709551615 bytes"]),
        (&["raw", "create", "k", "--length", "-1"], 2, &["'-1'", size]),
        (&["raw", "gather", "k", "--length", "x"], 2, &["'x'", size]),
        (&["raw", "gather", "k", "--length", "1", "--offset", "-5"], 2, &["'-5'", size]),
        (&["get", "a", "--range", "5"], 2, &["expected OFFSET:LENGTH, such as 1MiB:64KiB"]),
        (&["get", "a", "--range", "0:-1"], 2, &["the length: expected"]),
        (&["get", "a", "--range", "-1:0"], 2, &["the offset: expected"]),
        (&["get", "a", "--range", "18446744073709551616:1"], 2, &["the offset: expected at most"]),
        // Numbers and words.
        (&["ls", "--replicas", "0"], 2, &["'0'", "expected a whole number from 1 to 255"]),
        (&["ls", "--replicas", "256"], 2, &["expected a whole number from 1 to 255"]),
        (&["ls", "--replicas", "-1"], 2, &["expected a whole number from 1 to 255"]),
        (&["ls", "--replicas", "1.5"], 2, &["expected a whole number from 1 to 255"]),
        (&["up", "-n", "0"], 2, &["expected a whole number from 1 to 64"]),
        (&["put", "-r", "d", "--jobs", "0"], 2, &["expected a whole number from 1 to 64"]),
        (&["get", "-r", "p", "d", "--jobs", "1000"], 2, &["expected a whole number from 1 to 64"]),
        (&["serve", "--cpu", "-1"], 2, &["expected a whole number from 0"]),
        (&["serve", "--weight", "x"], 2, &["expected a number, such as 1 or 2.5"]),
        (&["serve", "--connections", "0"], 2, &["expected a whole number from 1 to"]),
        (&["ls", "--write", "most"], 2, &["'most'", "possible values: all, quorum, one"]),
        (&["put", "f", "--compress", "gzip"], 2, &["'gzip'", "possible values: none, lz4, zstd"]),
        (&["put", "f", "--meta", "x"], 2, &["'x'", "NAME=VALUE"]),
        (&["put", "-r", "d", "--if-version", "5"], 2, &["--if-version"]),
        (&["ls", "--json=perhaps"], 2, &["'perhaps'", "expected yes or no"]),
        (&["completions", "csh"], 2, &["'csh'", "possible values: bash"]),
        // A secret on the command line.
        (&["ls", "--token", "topsecret"], 2, &["--token-file", "put the token into a file"]),
        (&["--token=topsecret", "ls"], 2, &["--token-file", "put the token into a file"]),
    ];
    check(&lab, cases);
    for arguments in [&["ls", "--token", "topsecret"][..], &["--token=topsecret", "ls"]] {
        assert!(!lab.run(arguments).stderr.contains("topsecret"));
    }
    assert!(cases.len() >= 55, "{}", cases.len());
}

#[test]
fn what_does_not_fit_the_files_here_is_told_before_anything_is_done() {
    let lab = Lab::with_servers(1);
    lab.file("file", 100);
    lab.file("rubbish", 300);
    fs::create_dir_all(lab.path("d/sub")).unwrap();
    symlink("nowhere", lab.path("lost")).unwrap();
    fs::write(lab.path("config"), "clutser = 1\n").unwrap();
    run_with(lab.puddle(["put", "--replicas", "1", "-", "there"]), b"x").expect(0);
    run_with(lab.puddle(["put", "--replicas", "1", "-", "x/.."]), b"x").expect(0);
    let open_tokens = lab.path("open-tokens");
    fs::write(&open_tokens, "a:read:0123456789abcdef\n").unwrap();
    let private =
        |name: &str, text: &str| lab.token_file(name, text).to_str().expect("text").to_owned();
    let tokens = private("tokens", "a:write:0123456789abcdef\n");
    let (short, role, two) = (
        private("short", "a:write:0123\n"),
        private("role", "a:root:0123456789abcdef\n"),
        private("two", "a:read:0123456789abcdef\nb:read:0123456789abcdef\n"),
    );
    let dir_of_file = format!("dir:{}", lab.path("file").display());
    let file_of_dir = format!("file:{}", lab.path("d").display());
    let long = "n".repeat(901);
    let (long_key, long_file) = ("k".repeat(1_025), "f".repeat(256));
    let cases: &[Case<'_>] = &[
        // Sources.
        (&["put", "nowhere"], 2, &["cannot read nowhere: No such file"]),
        (&["put", "lost"], 2, &["cannot read lost: No such file"]),
        (&["put", "file/x"], 2, &["cannot read file/x: Not a directory"]),
        (&["put", "d"], 2, &["d: it is a directory; `puddle put -r d` puts all files below it"]),
        (&["put", "."], 2, &["it is a directory; `puddle put -r .`"]),
        (&["put", "-"], 2, &["has no name", "`puddle put - NAME`"]),
        (&["put", "/dev/zero"], 2, &["it is a device", "| puddle put - NAME"]),
        (&["put", "/dev/zero", "name"], 2, &["it is a device"]),
        (&["put", "file", &long], 2, &["name of 901 bytes", "expected 1 to 900"]),
        (&["put", "file", ""], 2, &["name of 0 bytes", "expected 1 to 900"]),
        (
            &["put", "file", "--stripe", "100KiB"],
            2,
            &["stripe length", "whole MiB, from 1 MiB to 1 GiB"],
        ),
        (&["put", "file", "--stripe", "2GiB"], 2, &["whole MiB, from 1 MiB to 1 GiB"]),
        (&["put", "file", "--replicas", "4"], 2, &["replicas is 4", "at most 3"]),
        (
            &["put", "file", "there", "--no-clobber", "--replicas", "1"],
            2,
            &["\"there\" exists already"],
        ),
        (&["put", "-r", "nowhere"], 2, &["cannot read nowhere: No such file"]),
        (&["put", "-r", "file"], 2, &["-r wants a directory, and file is none", "leave -r out"]),
        (&["put", "-r", "-"], 2, &["-r wants a directory, and - is stdin"]),
        (&["put", "-r", ".."], 2, &[".. has no name of its own", "`puddle put -r .. PREFIX`"]),
        (&["put", "file", "--if-version", "5"], 2, &["'5'"]),
        (
            &["raw", "create", "k", "--value", "d"],
            2,
            &["cannot read the value from d: Is a directory"],
        ),
        (&["raw", "create", "k", "--value", "nowhere"], 2, &["cannot read the value from nowhere"]),
        (
            &["raw", "create", "k", "--value", "file", "--length", "5"],
            2,
            &["100 bytes, more than --length 5"],
        ),
        (
            &["raw", "create", "k", "--length", "2GiB"],
            2,
            &["--length 2GiB", "at most 1GiB", "`puddle put`"],
        ),
        (&["raw", "create", &long_key, "--length", "1"], 2, &["a key of 1025 bytes", "1 to 1024"]),
        (&["raw", "delete", ""], 2, &["a key of 0 bytes: expected 1 to 1024"]),
        (&["raw", "delete", "k", "--server", "s9"], 2, &["\"s9\" is not a member of the cluster"]),
        // Destinations.
        (&["get", "there", "nowhere/file"], 2, &["there is no folder nowhere; create it first"]),
        (&["get", "there", "nowhere/"], 2, &["there is no folder nowhere/"]),
        (&["get", "there", "file/x"], 2, &["cannot write to file/x: Not a directory"]),
        (
            &["get", "x/..", "d"],
            2,
            &["\"x/..\" cannot be the name of a file", "`puddle get NAME FILE`"],
        ),
        (&["get", "d/sub", "d"], 2, &["d/sub: it is a folder; give another name"]),
        (&["get", "there", "lost"], 2, &["it is a link to what is not there"]),
        (&["get", "there", &long_file], 2, &["File name too long"]),
        (&["get", "there", "/proc/x"], 2, &["cannot create a file in /proc"]),
        (&["get", "there", "/dev/full"], 3, &["cannot write to /dev/full: No space left"]),
        (&["get", "", "x"], 2, &["name of 0 bytes"]),
        (&["get", "-r", "p", "-"], 2, &["-r wants a folder, and - is stdout"]),
        (&["get", "-r", "p", "file"], 2, &["-r wants a folder, and file is none"]),
        (&["get", "-r", "p", "file/x"], 2, &["cannot make the folder file/x: Not a directory"]),
        (&["get", "-r", "nothing", "d"], 1, &["no object's name begins with \"nothing/\""]),
        (&["man", "file"], 2, &["cannot write manual pages into file"]),
        (&["rm", "--prefix", "x"], 2, &["this is none: say --yes to delete without"]),
        // Where the servers are.
        (&["ls", "--discovery", ""], 2, &["it has no colon: expected SCHEME:..."]),
        (&["ls", "--discovery", "members"], 2, &["expected SCHEME:..., for example dir:"]),
        (
            &["ls", "--discovery", "http://x"],
            2,
            &["called \"http\"", "expected one of dir, file, static"],
        ),
        (
            &["ls", "--discovery", "consul://topsecret@x:0/y"],
            2,
            &["\"consul://...@x:0/y\" cannot be used", "a port from 1 to 65535"],
        ),
        (
            &["ls", "--discovery", "etcd://h/x?tsl=on"],
            2,
            &["\"tsl\" is no option here", "password-file"],
        ),
        (&["ls", "--discovery", "dir:"], 2, &["no path follows the colon: expected dir:PATH"]),
        (
            &["ls", "--discovery", "dir:nowhere"],
            2,
            &["there is no folder", "start one with `puddle serve"],
        ),
        (
            &["ls", "--discovery", "file:nowhere"],
            2,
            &["there is no file", "write the list of servers there"],
        ),
        (&["ls", "--discovery", &dir_of_file], 2, &["expected a folder", "it is file:PATH"]),
        (&["ls", "--discovery", &file_of_dir], 2, &["is a folder", "it is dir:PATH"]),
        (&["ls", "--discovery", "static:a"], 2, &["expected NAME=HOST:PORT"]),
        (&["ls", "--discovery", "static:a=h:0"], 2, &["a port from 1 to 65535"]),
        (&["ls", "--discovery", "static:a=127.0.0.1:99999"], 2, &["a port from 1 to 65535"]),
        (
            &["ls", "--discovery", "static:a=127.0.0.1:1"],
            3,
            &["cannot reach server \"a\" at 127.0.0.1:1: Connection refused"],
        ),
        (&["ls", "--discovery", "static:a=169.254.169.254:80"], 2, &["link-local"]),
        (&["ls", "--cluster", "../x"], 2, &["\"../x\" is not allowed: expected 1 to 64 of"]),
        (&["ls", "--cluster", ""], 2, &["\"\" is not allowed"]),
        (
            &["ls", "--cluster", "other"],
            3,
            &["\"other\" has no servers", "check the name (--cluster)"],
        ),
        (&["df", "--cluster", "other"], 3, &["\"other\" has no servers"]),
        (&["verify", "--cluster", "other"], 3, &["\"other\" has no servers"]),
        // Settings and tokens.
        (&["ls", "--config", "nowhere"], 2, &["cannot read the config file nowhere: No such file"]),
        (&["ls", "--config", "d"], 2, &["cannot read the config file d: Is a directory"]),
        (&["ls", "--config", "rubbish"], 2, &["it is not text: expected TOML"]),
        (&["ls", "--config", "config"], 2, &["config, line 1", "`clutser`", "expected one of"]),
        (&["ls", "--token-file", "nowhere"], 2, &["cannot read the token file nowhere"]),
        (&["ls", "--token-file", "d"], 2, &["the token file d is not a file"]),
        (&["ls", "--token-file", "open-tokens"], 2, &["others may read", "chmod 600"]),
        (&["ls", "--token-file", &short], 2, &["line 1"]),
        (&["ls", "--token-file", &role], 2, &["line 1"]),
        (&["ls", "--token-file", &two], 2, &["has 2 tokens"]),
        (
            &["ls", "--token-file", &tokens],
            2,
            &["did not prove that it knows the token", "or no token when they have none"],
        ),
        // Servers that cannot work.
        (&["serve", "--pool", "20TiB"], 2, &["make the pool smaller than --pool 20TiB"]),
        (&["serve", "--pool", "65537"], 2, &["multiple of 65536"]),
        (&["serve", "--listen", "nonsense"], 2, &["expected ADDR:PORT"]),
        (&["serve", "--name", "../x"], 2, &["not allowed"]),
        (&["serve", "--pool", "1MiB", "--listen", "0.0.0.0:0"], 2, &["--advertise"]),
    ];
    check(&lab, cases);
    assert!(cases.len() >= 70, "{}", cases.len());
    // Nothing was done, and nothing was made.
    assert_eq!(lab.run(["ls"]).expect(0).text(), "there\nx/..\n");
    assert!(
        !lab.path("nowhere").exists() && fs::read_dir(lab.path("d/sub")).unwrap().next().is_none()
    );
}

/// Things that are no files, numbers that wrap, places where no server can be.
#[test]
fn what_somebody_may_try_who_means_no_good_is_refused_in_words() {
    let lab = Lab::with_servers(1);
    lab.file("file", 100);
    drop(UnixListener::bind(lab.path("socket")).unwrap());
    let pipe = lab.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    symlink("circle", lab.path("circle")).unwrap();
    let at = |scheme: &str, name: &str| format!("{scheme}:{}", lab.path(name).display());
    let (pipe, socket) = (at("file", "pipe"), at("file", "socket"));
    let (dir_of_pipe, circle) = (at("dir", "pipe"), at("file", "circle"));
    let long = "n".repeat(65);
    let long_meta = format!("{}=1", "m".repeat(256));
    let size = "such as 64KiB or 1.5GiB";
    let ttl = "expected a whole number with s, m, h or d";
    let cases: &[Case<'_>] = &[
        // Numbers.
        (
            &["serve", "--pool", "18446744073709551615"],
            2,
            &["multiple of 65536", "is not possible"],
        ),
        (&["serve", "--pool", "18446744073709486080"], 2, &["from 65536 to 70368744177664"]),
        (&["serve", "--pool", "16777215TiB"], 2, &["from 65536 to 70368744177664"]),
        (&["serve", "--pool", "0"], 2, &["a pool of 0 bytes is not possible"]),
        (&["serve", "--pool", "16EiB"], 2, &[size]),
        (&["serve", "--pool", "inf"], 2, &[size]),
        (&["serve", "--pool", "0x10000"], 2, &[size]),
        (&["serve", "--pool", "64_000"], 2, &[size]),
        (&["serve", "--pool", " 64KiB"], 2, &[size]),
        (&["serve", "--pool", "\u{664}GiB"], 2, &[size]),
        (&["up", "--pool", "18446744073709486080", "-n", "64"], 2, &["make the pool smaller"]),
        (&["up", "-n", "99999999999999999999"], 2, &["expected a whole number from 1 to 64"]),
        (&["raw", "create", "k", "--length", "18446744073709551615"], 2, &["at most 1GiB"]),
        (&["serve", "--weight", "1e308"], 2, &["the weight 1e308", "more than 0 and at most"]),
        (&["serve", "--weight", "inf"], 2, &["the weight inf", "more than 0"]),
        (&["serve", "--weight", "-0"], 2, &["more than 0"]),
        (&["serve", "--zone", "a\u{1b}[2J"], 2, &["at most 64 bytes that can be printed"]),
        (&["put", "file", "--ttl", "-1"], 2, &["'-1'", ttl]),
        (&["put", "file", "--ttl", "0"], 2, &["'0'", ttl]),
        (&["put", "file", "--ttl", "1e9"], 2, &[ttl]),
        (&["put", "file", "--ttl", "99999999999999999999d"], 2, &[ttl]),
        (&["put", "file", "--ttl", "36501d"], 2, &["expected 1 s to 3,650 days"]),
        (&["put", "file", "--if-version", "0000000000000000-0000000000000000"], 2, &["no object"]),
        // Names.
        (&["put", "file", "--meta", "=x"], 2, &["metadata name is \"\"", "1 to 255 bytes"]),
        (&["put", "file", "--meta", "a\nb=x"], 2, &["without control characters"]),
        (&["put", "file", "--meta", &long_meta], 2, &["expected 1 to 255 bytes"]),
        (&["put", "file", "--meta", "a=1", "--meta", "a=2"], 2, &["\"a\" twice"]),
        (&["serve", "--name", &long], 2, &["expected 1 to 64 of A-Z a-z 0-9"]),
        (&["serve", "--name", "a\u{1b}[2J"], 2, &["expected 1 to 64 of A-Z a-z 0-9"]),
        (&["serve", "--name", "-a"], 2, &["'-a'"]),
        // What is no file.
        (&["put", "socket"], 2, &["cannot read socket: No such device"]),
        (&["put", "circle"], 2, &["cannot read circle: Too many levels of symbolic links"]),
        (&["raw", "create", "k", "--value", "socket"], 2, &["cannot read the value from socket"]),
        (&["raw", "create", "k", "--value", "/dev/zero"], 2, &["it has more than 1 GiB"]),
        (&["ls", "--config", "/dev/zero"], 2, &["it has more than 1 MiB"]),
        (&["ls", "--config", "socket"], 2, &["cannot read the config file socket"]),
        (&["ls", "--config", "circle"], 2, &["cannot read the config file circle"]),
        (&["ls", "--token-file", "/dev/zero"], 2, &["is not a file"]),
        (&["ls", "--token-file", "socket"], 2, &["cannot read the token file socket"]),
        (&["ls", "--discovery", "file:/dev/zero"], 2, &["expected a file", "a device"]),
        (&["ls", "--discovery", &pipe], 2, &["expected a file", "is a pipe"]),
        (&["ls", "--discovery", &socket], 2, &["expected a file", "socket or a device"]),
        (&["ls", "--discovery", &circle], 2, &["cannot look at", "Too many levels of symbolic"]),
        (&["ls", "--discovery", &dir_of_pipe], 2, &["expected a folder"]),
        (&["ls", "--discovery", "dir:/dev/null"], 2, &["expected a folder"]),
        (&["man", "/dev/full"], 2, &["cannot write manual pages into /dev/full"]),
        (&["get", "-r", "p", "/dev/full"], 2, &["-r wants a folder"]),
        // Where no server can be.
        (&["serve", "--listen", "127.0.0.1:99999"], 2, &["expected ADDR:PORT"]),
        (&["serve", "--listen", "[::1"], 2, &["expected ADDR:PORT"]),
        (&["serve", "--advertise", "0.0.0.0:1"], 2, &["is unspecified: expected one at which"]),
        (&["serve", "--advertise", "[fd00:ec2::254]:80"], 2, &["a cloud's metadata service"]),
        (&["serve", "--advertise", "255.255.255.255:1"], 2, &["is broadcast"]),
        (&["ls", "--discovery", "static:a=224.0.0.1:7"], 2, &["is multicast"]),
        (&["ls", "--discovery", "static:a=2852039166:80"], 2, &["expected HOST:PORT"]),
        (&["ls", "--discovery", "static:a=h:1*1e308"], 2, &["the weight 1e308 of \"a\""]),
        (&["ls", "--discovery", "static:a=h:1*NaN"], 2, &["more than 0"]),
        (&["ls", "--discovery", "static:a=h:1,a=h:2"], 2, &["there twice"]),
        (&["ls", "--discovery", "static:a=h:1,b=H:01"], 2, &["is that of \"a\""]),
    ];
    check(&lab, cases);
    assert!(cases.len() >= 50, "{}", cases.len());
    assert_eq!(lab.run(["ls"]).expect(0).text(), "", "nothing was stored");
}

#[test]
fn what_the_environment_says_that_makes_no_sense_is_refused_like_a_flag() {
    let lab = Lab::with_servers(1);
    for (variable, value, arguments, words) in [
        ("PUDDLE_POOL", &b"-1"[..], &["serve"][..], "such as 64KiB"),
        ("PUDDLE_POOL", b"18446744073709551615", &["serve"], "is not possible"),
        ("PUDDLE_REPLICAS", b"256", &["ls"], "expected a whole number from 1 to 255"),
        ("PUDDLE_DISCOVERY", b"", &["ls"], "expected SCHEME:..."),
        ("PUDDLE_DISCOVERY", b"http://x", &["ls"], "expected one of dir, file, static"),
        ("PUDDLE_CLUSTER", b"\xff\xfe", &["ls"], "UTF-8"),
        ("PUDDLE_CLUSTER", b"../x", &["ls"], "expected 1 to 64 of"),
        ("PUDDLE_WRITE", b"most", &["ls"], "possible values: all, quorum, one"),
        ("PUDDLE_CONFIG", b"/dev/zero", &["ls"], "more than 1 MiB"),
        ("PUDDLE_TOKEN_FILE", b"/dev/zero", &["ls"], "is not a file"),
        ("PUDDLE_JSON", b"\x1b[2J", &["ls"], "expected yes or no"),
    ] {
        let mut command = lab.puddle(arguments);
        command.env(variable, OsStr::from_bytes(value));
        let ran = run(command).expect(2).says(words);
        check_form(&[variable], &ran);
    }
}

#[test]
fn a_usage_names_only_what_must_be_given_whatever_the_environment_sets() {
    let mut command = puddle(["put"]);
    command.env("PUDDLE_DISCOVERY", "dir:x").env("PUDDLE_REPLICAS", "2");
    let ran = run(command).expect(2);
    assert!(ran.stderr.contains("Usage: puddle put [OPTIONS] <SOURCE> [NAME]"), "{ran:?}");
    let mut command = puddle(["raw", "gather", "k"]);
    command.env("PUDDLE_DISCOVERY", "dir:x");
    let ran = run(command).expect(2);
    assert!(
        ran.stderr.contains("Usage: puddle raw gather [OPTIONS] --length <N> <KEY>"),
        "{ran:?}"
    );
}
