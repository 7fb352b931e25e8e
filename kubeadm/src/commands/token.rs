//! `kubeadm token`.

use std::{path::Path, time::Duration};

use client::ApiErrorExt;
use serde_json::{Value, json};

use super::output::{API_VERSION, Format, remaining};
use crate::{
    cli::TokenAction,
    client::{Cluster, error_text, items, tell},
    config::{BootstrapToken, validate},
    error::{Context, Error, Result, fail},
    fetch,
    host::Host,
    kubeconfig::Kubeconfig,
    phases::{summary, upload_certs},
    token::{self, ID_PATTERN, PATTERN, Token},
};

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(host: &dyn Host, action: TokenAction, kubeconfig: Option<&Path>, dry_run: bool) -> Result<()> {
    if let TokenAction::Generate = action {
        host.line(&token::generate(host));
        return Ok(());
    }
    let path = fetch::admin_kubeconfig(host, kubeconfig);
    let file = Kubeconfig::load(host, &path)?;
    let api = Cluster::connect(&file, None, PATIENCE).await?;
    let api = if dry_run { api.telling() } else { api };
    match action {
        TokenAction::Generate => Ok(()),
        TokenAction::Create {
            token,
            certificate_key,
            config,
            description,
            groups,
            print_join_command,
            ttl,
            usages,
        } => {
            let mut entry = match config {
                Some(path) => of_file(host, &path)?,
                None => BootstrapToken { description, groups, ttl: Some(ttl), usages, ..BootstrapToken::default() },
            };
            if let Some(token) = token {
                entry.token = token;
            }
            create(host, &api, &file, entry, print_join_command, &certificate_key).await
        }
        TokenAction::List { output } => list(host, &api, Format::parse(&output)?).await,
        TokenAction::Delete { tokens } => delete(host, &api, &tokens).await,
    }
}

/// The first token of an InitConfiguration.
fn of_file(host: &dyn Host, path: &Path) -> Result<BootstrapToken> {
    use crate::config::{defaults::GivenInit, documents::Strictness};
    let given = GivenInit::read(host, &super::read_config(host, path)?, Strictness::Warn)?;
    Ok(given.init.bootstrap_tokens.into_iter().next().unwrap_or_default())
}

async fn create(
    host: &dyn Host,
    api: &Cluster,
    file: &Kubeconfig,
    mut entry: BootstrapToken,
    print_join_command: bool,
    certificate_key: &str,
) -> Result<()> {
    if !certificate_key.is_empty() && !print_join_command {
        return fail!("cannot use --certificate-key without --print-join-command");
    }
    if entry.token.is_empty() {
        entry.token = token::generate(host);
    }
    let is_authentication = entry.usages.iter().any(|usage| usage == "authentication");
    if !is_authentication && !entry.usages.is_empty() && !entry.groups.is_empty() {
        return fail!("token groups cannot be specified unless --usages includes \"authentication\"");
    }
    crate::config::defaults::complete_token(&mut entry);
    validate::token(&entry)?;
    let id = Token::parse(&entry.token)?.id;
    let secret = token::to_secret(&entry, host.now())?;
    if api.is_told() {
        tell(host, "CREATE", &secret)?;
    } else {
        match api.create_once(&secret).await {
            Ok(_) => {}
            Err(error) if error.is_already_exists() => return fail!("a token with id {id:?} already exists"),
            Err(error) => return fail!("{}", error_text(&error)),
        }
    }
    if !print_join_command {
        host.line(&entry.token);
        return Ok(());
    }
    let key = (!certificate_key.is_empty()).then_some(certificate_key);
    if key.is_some_and(|key| upload_certs::check_key(key).is_err()) {
        return fail!("the certificate key must be 32 bytes in hexadecimal form");
    }
    let command = summary::join_command(host, file, &entry.token, key).context("failed to get join command")?;
    host.line(command.replace("\\\n\t", "").trim_end());
    Ok(())
}

async fn tokens(api: &Cluster) -> Result<Vec<Value>> {
    let path = format!("{SECRETS}?fieldSelector=type%3Dbootstrap.kubernetes.io%2Ftoken");
    let list = api.get(&path).await.context("failed to list bootstrap tokens")?.unwrap_or_default();
    Ok(items(&list).cloned().collect())
}

async fn list(host: &dyn Host, api: &Cluster, format: Format) -> Result<()> {
    let mut header = true;
    for secret in tokens(api).await? {
        let entry = match token::from_secret(&secret) {
            Ok(entry) => entry,
            Err(error) => {
                host.warn(&format!("{error}\n"));
                continue;
            }
        };
        if format != Format::Text {
            host.say(&format.render(&object(&entry))?);
            continue;
        }
        if header {
            host.line(&row(["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"]));
            header = false;
        }
        host.line(&describe(host, &entry));
    }
    Ok(())
}

fn object(entry: &BootstrapToken) -> Value {
    let mut value = json!({"apiVersion": API_VERSION, "kind": "BootstrapToken", "token": entry.token});
    let texts = [("description", Some(&entry.description)), ("expires", entry.expires.as_ref())];
    for (name, text) in texts {
        if let Some(text) = text.filter(|t| !t.is_empty()) {
            value[name] = text.as_str().into();
        }
    }
    for (name, list) in [("usages", &entry.usages), ("groups", &entry.groups)] {
        if !list.is_empty() {
            value[name] = json!(list);
        }
    }
    value
}

fn describe(host: &dyn Host, entry: &BootstrapToken) -> String {
    let (ttl, expires) = match &entry.expires {
        None => ("<forever>".to_owned(), "<never>".to_owned()),
        Some(at) => match machinery::time::parse(at) {
            Ok(time) => (remaining((time - host.now()).whole_seconds()), machinery::time::format(time)),
            Err(_) => ("<invalid>".to_owned(), at.clone()),
        },
    };
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    let mut usages = entry.usages.clone();
    usages.sort();
    row([
        &entry.token,
        &ttl,
        &expires,
        &or_none(usages.join(",")),
        &or_none(entry.description.clone()),
        &or_none(entry.groups.join(",")),
    ])
}

fn row(cells: [&str; 6]) -> String {
    let [token, ttl, expires, usages, description, groups] = cells;
    format!("{token:<23}   {ttl:<9}   {expires:<20}   {usages:<22}   {description:<56}   {groups}")
}

async fn delete(host: &dyn Host, api: &Cluster, given: &[String]) -> Result<()> {
    for text in given {
        let id = if token::is_id(text) {
            text.clone()
        } else {
            Token::parse(text)
                .map_err(|_| Error::new(format!("given token didn't match pattern {ID_PATTERN:?} or {PATTERN:?}")))?
                .id
        };
        if api.is_told() {
            host.line(&format!("[dryrun] Would perform action DELETE on resource \"secrets\" in API group \"core/v1\"\n[dryrun] Resource name {:?}, namespace \"kube-system\"", token::secret_name(&id)));
        } else if !api.delete(&format!("{SECRETS}/{}", token::secret_name(&id))).await? {
            return fail!("failed to delete bootstrap token {id:?}: secrets {:?} not found", token::secret_name(&id));
        }
        host.line(&format!("bootstrap token {id:?} deleted"));
    }
    Ok(())
}
