//! `--token-auth-file`: a CSV of `token,user,uid[,"group1,group2"]`.

use std::collections::HashMap;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::{AuthnError, TokenAuthenticator, TokenIdentity};
use crate::user::User;

/// Static tokens. Only hashes are kept, so that a lookup takes the same time whatever prefix matches.
pub struct TokenFile(HashMap<[u8; 32], User>);

impl TokenFile {
    /// Parses the file's text. Errors name the line, never the token.
    pub fn parse(text: &str) -> Result<Self, AuthnError> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let fields = split_csv(line);
            let [token, name, uid, rest @ ..] = fields.as_slice() else {
                return Err(AuthnError::Unavailable(format!(
                    "token file line {}: expected at least 3 columns (token, user name, user uid)",
                    number + 1
                )));
            };
            if token.is_empty() {
                return Err(AuthnError::Unavailable(format!("token file line {}: empty token", number + 1)));
            }
            let groups = rest.first().map_or("", String::as_str).split(',').map(str::trim);
            let user = User {
                name: name.clone(),
                uid: uid.clone(),
                groups: groups.filter(|g| !g.is_empty()).map(str::to_owned).collect(),
                ..User::default()
            };
            users.insert(Sha256::digest(token.as_bytes()).into(), user);
        }
        Ok(Self(users))
    }
}

fn split_csv(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                if let Some(field) = fields.last_mut() {
                    field.push('"');
                }
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => {
                if let Some(field) = fields.last_mut() {
                    field.push(c);
                }
            }
        }
    }
    fields.iter().map(|f| f.trim().to_owned()).collect()
}

#[async_trait]
impl TokenAuthenticator for TokenFile {
    async fn authenticate_token(
        &self,
        token: &str,
        _audiences: &[String],
    ) -> Result<Option<TokenIdentity>, AuthnError> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        Ok(self.0.get(&hash).map(|user| TokenIdentity { user: user.clone(), audiences: Vec::new() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_a_quoted_column() {
        let file = TokenFile::parse("abc,admin,1,\"system:masters,dev\"\n\nx,y,2\n").expect("file");
        let hash: [u8; 32] = Sha256::digest(b"abc").into();
        assert_eq!(file.0[&hash].groups, ["system:masters", "dev"]);
        assert!(TokenFile::parse("only,two").is_err());
    }
}
