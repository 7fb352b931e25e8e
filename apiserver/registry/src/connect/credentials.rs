//! What this server proves itself to webhooks with: the users of a kubeconfig file, each for the servers that its name
//! says.

use std::path::{Path, PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use serde::Deserialize;

/// Bytes of a file with a token that are read.
const MAX_TOKEN: u64 = 64 << 10;

/// Certificate and key, PEM.
pub(crate) type Identity = (Vec<u8>, Vec<u8>);

/// The users of a file.
#[derive(Clone, Default)]
pub struct Credentials {
    users: Vec<(String, User)>,
}

/// One user.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct User {
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: String,
    password: String,
    client_certificate: Option<PathBuf>,
    client_certificate_data: String,
    client_key: Option<PathBuf>,
    client_key_data: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    users: Vec<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
    user: User,
}

impl Credentials {
    /// Reads a kubeconfig file. Files that it names are found from its directory.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = runtime::config_file::read(file).map_err(|error| util::chain(&error))?;
        let (value, _) = machinery::decode::decode_yaml(text.as_bytes()).map_err(|error| error.to_string())?;
        let read: File = serde_json::from_value(value).map_err(|error| format!("{}: {error}", file.display()))?;
        let directory = file.parent().unwrap_or(Path::new("."));
        let users = read.users.into_iter().map(|Named { name, mut user }| {
            for path in [&mut user.token_file, &mut user.client_certificate, &mut user.client_key].into_iter().flatten()
            {
                *path = directory.join(&*path);
            }
            (name, user)
        });
        Ok(Self { users: users.collect() })
    }

    /// The user for a server, `name` or `name:port`: of the same name, else of the nearest `*.` domain, else `*`.
    pub(crate) fn of(&self, server: &str) -> Option<(&str, &User)> {
        let find =
            |wanted: &str| self.users.iter().find(|(name, _)| name == wanted).map(|(name, user)| (&**name, user));
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
            _ => (server, "443"),
        };
        let with_port = find(&format!("{host}:{port}"));
        let plain = || (port == "443").then(|| find(host)).flatten();
        let mut rest = host;
        let mut wild = || loop {
            let (_, parent) = rest.split_once('.')?;
            rest = parent;
            if let Some(found) = find(&format!("*.{parent}")) {
                return Some(found);
            }
        };
        with_port.or_else(plain).or_else(&mut wild).or_else(|| find("*"))
    }
}

impl User {
    /// Header `Authorization`, if the user has a token or a password. Tokens in files are read each time.
    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        let text = match &self.token_file {
            _ if !self.token.is_empty() => format!("Bearer {}", self.token),
            Some(file) => {
                let size = std::fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?.len();
                if size > MAX_TOKEN {
                    return Err(format!("{}: {size} bytes are too many for a token", file.display()));
                }
                let token = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
                format!("Bearer {}", token.trim())
            }
            None if !self.username.is_empty() => {
                format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", self.username, self.password)))
            }
            None => return Ok(None),
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| "a token is no header".to_owned())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Certificate and key, PEM.
    pub(crate) fn identity(&self) -> Result<Option<Identity>, String> {
        let part = |data: &str, file: &Option<PathBuf>| match (data, file) {
            ("", None) => Ok(None),
            ("", Some(file)) => runtime::tls::read(file).map(Some).map_err(|error| util::chain(&error)),
            (data, _) => BASE64_STANDARD.decode(data.trim()).map(Some).map_err(|error| error.to_string()),
        };
        let certificate = part(&self.client_certificate_data, &self.client_certificate)?;
        let key = part(&self.client_key_data, &self.client_key)?;
        Ok(certificate.zip(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(dir.path().join("token"), "from-file\n").unwrap();
        std::fs::write(
            &file,
            "users:\n- {name: hook.ns.svc, user: {token: own}}\n- {name: 'hook.ns.svc:8443', user: {tokenFile: token}}\n\
             - {name: '*.svc', user: {username: u, password: p}}\n- {name: '*', user: {}}\n",
        )
        .unwrap();
        let credentials = Credentials::read(&file).unwrap();
        let header = |server: &str| {
            let (_, user) = credentials.of(server).unwrap();
            user.authorization().unwrap().map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(header("hook.ns.svc:443").as_deref(), Some("Bearer own"));
        assert_eq!(header("hook.ns.svc").as_deref(), Some("Bearer own"));
        assert_eq!(header("hook.ns.svc:8443").as_deref(), Some("Bearer from-file"));
        assert_eq!(header("other.ns.svc:443").as_deref(), Some("Basic dTpw"));
        assert_eq!(header("hook.ns.svc:9"), header("other.ns.svc"));
        assert_eq!(header("example.com:443"), None);
        assert!(Credentials::default().of("a").is_none());
    }
}
