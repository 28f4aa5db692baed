//! Certificates for the tests of TLS, made by the program `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// An authority, and what it signed: a server at 127.0.0.1 and a client.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes all of them. None where there is no `openssl`, which is said.
    ///
    /// # Panics
    /// When there is none though services are required, or when it fails.
    pub fn make() -> Option<Self> {
        let is_required = ["CI", "PUDDLE_REQUIRE_SERVICES"].map(std::env::var_os);
        if Command::new("openssl").arg("version").output().is_err() {
            let how = "install the program openssl";
            assert!(is_required.iter().all(Option::is_none), "no certificates: {how}");
            eprintln!("skipped: no certificates can be made, {how}");
            return None;
        }
        let made = Self { folder: TempDir::new().expect("a temporary folder") };
        made.make_authority();
        made.sign("server", "subjectAltName=IP:127.0.0.1,DNS:service.test\nextendedKeyUsage=serverAuth,clientAuth\n");
        made.sign("client", "extendedKeyUsage=clientAuth\n");
        Some(made)
    }

    /// The certificate of the authority.
    pub fn authority(&self) -> PathBuf {
        self.file("authority.pem")
    }

    /// The certificate of the server, and its key.
    pub fn server(&self) -> (PathBuf, PathBuf) {
        (self.file("server.pem"), self.file("server.key"))
    }

    /// The certificate of a client, and its key.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.file("client.pem"), self.file("client.key"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make_authority(&self) {
        let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
                     -subj /CN=test-authority -keyout authority.key -out authority.pem";
        openssl(self.folder.path(), words);
    }

    fn sign(&self, name: &str, extensions: &str) {
        let file = format!("{name}.extensions");
        std::fs::write(self.file(&file), extensions).expect("the folder is ours");
        let request = format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} \
             -keyout {name}.key -out {name}.request"
        );
        openssl(self.folder.path(), &request);
        let sign = format!(
            "x509 -req -in {name}.request -CA authority.pem -CAkey authority.key \
             -CAcreateserial -days 2 -extfile {file} -out {name}.pem"
        );
        openssl(self.folder.path(), &sign);
    }
}

fn openssl(folder: &Path, words: &str) {
    let mut command = Command::new("openssl");
    let output = command.args(words.split_whitespace()).current_dir(folder).output();
    let output = output.expect("openssl can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
