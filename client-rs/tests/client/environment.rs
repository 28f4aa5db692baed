//! What the environment says, in processes of their own: a variable belongs to
//! a whole process.

use std::process::{Command, Output};

use rampuddle_client::Options;

/// What `Options::from_env` gives in this environment. Run by the tests below;
/// does nothing when run by hand.
#[test]
fn helper_that_tells_its_options() {
    if std::env::var_os("HARNESS_TELLS_ITS_OPTIONS").is_none() {
        return;
    }
    match Options::from_env() {
        Ok(options) => println!(
            "options: {:?} {} {:?} {:?} {}",
            options.discovery,
            options.cluster,
            options.replicas,
            options.write,
            options.token.is_some()
        ),
        Err(error) => println!("refused: {error}"),
    }
}

/// The line that the helper prints with these variables and no other.
fn told(variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["environment::helper_that_tells_its_options", "--exact", "--nocapture"]);
    command.env_clear().env("HARNESS_TELLS_ITS_OPTIONS", "1").envs(variables.iter().copied());
    let Output { stdout, status, .. } = command.output().unwrap();
    assert!(status.success());
    let text = String::from_utf8(stdout).unwrap();
    let at = |word: &str| text.find(word).map(|at| text[at..].lines().next().unwrap().to_owned());
    at("options: ").or_else(|| at("refused: ")).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn the_environment_comes_before_the_file_that_it_names_and_that_before_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("puddle.toml");
    let text = "discovery = \"static:a=h:1\"\ncluster = \"of-file\"\nreplicas = 3\n\
                [serve]\nname = \"for another\"\n";
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(
        told(&[("PUDDLE_CONFIG", path), ("PUDDLE_CLUSTER", "of-env"), ("PUDDLE_LOG", "debug")]),
        "options: Url(\"static:a=h:1\") of-env Some(3) All false"
    );
    let token = folder.path().join("token");
    std::fs::write(&token, "lab:write:0123456789abcdef\n").unwrap();
    let token = token.to_str().unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |mode| {
        std::fs::set_permissions(token, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o600);
    let alone =
        [("PUDDLE_DISCOVERY", "dir:/run/x"), ("PUDDLE_WRITE", "one"), ("PUDDLE_TOKEN_FILE", token)];
    assert_eq!(told(&alone), "options: Url(\"dir:/run/x\") default None One true");
    mode(0o644);
    assert!(told(&alone).contains("run chmod 600 on it"), "{}", told(&alone));
}

#[test]
fn without_any_word_on_discovery_the_usual_place_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = folder.path().to_str().unwrap();
    let refused = told(&[("XDG_RUNTIME_DIR", runtime)]);
    assert!(refused.contains("no server was ever started here"), "{refused}");
    assert!(refused.contains("PUDDLE_DISCOVERY"), "{refused}");
    use std::os::unix::fs::DirBuilderExt as _;
    let usual = folder.path().join("rampuddle");
    std::fs::DirBuilder::new().mode(0o700).create(&usual).unwrap();
    let found = told(&[("XDG_RUNTIME_DIR", runtime)]);
    assert!(found.starts_with(&format!("options: Url(\"dir:{}\")", usual.display())), "{found}");
}
