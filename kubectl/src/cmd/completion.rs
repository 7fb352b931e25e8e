//! `kubectl completion`: scripts made from the tree of commands.

use std::io::Write;

use crate::{command::Command, context::Context, error::CommandError, flags::Flag, globals};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("completion", "Output shell completion code for the specified shell (bash, zsh, fish, or powershell)")
        .usage("SHELL")
        .examples(&["source <(kubectl completion bash)", "kubectl completion zsh > \"${fpath[1]}/_kubectl\""])
        .runs(|context| Box::pin(run(context)))
}

/// Words that may follow a command: commands below it and its flags.
struct Row {
    /// `create secret`; empty for kubectl itself.
    path: String,
    words: Vec<String>,
    /// Whether names of resource types may follow.
    types: bool,
}

fn rows(path: &str, commands: &[Command], own: &[Flag], rows: &mut Vec<Row>) {
    let globals = globals::flags();
    let mut words: Vec<String> = commands.iter().filter(|c| !c.hidden).map(|c| c.name.to_owned()).collect();
    let shown = own.iter().chain(&globals).filter(|f| !f.hidden);
    words.extend(shown.map(|f| format!("--{}", f.name)));
    let types = commands.is_empty() && own.iter().any(|f| f.name == "filename" || f.name == "api-version");
    rows.push(Row { path: path.to_owned(), words, types });
    for command in commands.iter().filter(|c| !c.hidden) {
        let below = format!("{path} {}", command.name);
        self::rows(below.trim(), &command.commands, &command.flags, rows);
    }
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let shell = match context.args.as_slice() {
        [] => return Err(context.usage("Shell not specified.")),
        [shell] => shell.as_str(),
        _ => return Err(context.usage("Too many arguments. Expected only the shell type.")),
    };
    let mut all = Vec::new();
    rows("", &super::commands(), &[], &mut all);
    let text = match shell {
        "bash" => bash(&all),
        "zsh" => format!("#compdef kubectl\nautoload -U +X bashcompinit && bashcompinit\n{}", bash(&all)),
        "fish" => fish(&all),
        "powershell" => powershell(&all),
        other => return Err(context.usage(format!("Unsupported shell type {other:?}."))),
    };
    write!(context.streams.out.clone(), "{text}")?;
    Ok(())
}

fn bash(rows: &[Row]) -> String {
    let mut text = String::from(
        "# bash completion for kubectl\n\
         __kubectl_words() {\n    case \"$1\" in\n",
    );
    for row in rows {
        text.push_str(&format!("        {:?}) echo {:?} ;;\n", row.path, row.words.join(" ")));
    }
    text.push_str("    esac\n}\n__kubectl_takes_types() {\n    case \"$1\" in\n");
    for row in rows.iter().filter(|r| r.types) {
        text.push_str(&format!("        {:?}) return 0 ;;\n", row.path));
    }
    text.push_str(
        "    esac\n    return 1\n}\n\
         __start_kubectl() {\n    \
             local cur=\"${COMP_WORDS[COMP_CWORD]}\" path=\"\" i word next\n    \
             for ((i = 1; i < COMP_CWORD; i++)); do\n        \
                 word=\"${COMP_WORDS[i]}\"\n        \
                 [[ $word == -* ]] && continue\n        \
                 next=\"${path:+$path }$word\"\n        \
                 [[ -n $(__kubectl_words \"$next\") ]] && path=\"$next\"\n    \
             done\n    \
             COMPREPLY=($(compgen -W \"$(__kubectl_words \"$path\")\" -- \"$cur\"))\n    \
             if [[ $cur != -* ]] && __kubectl_takes_types \"$path\"; then\n        \
                 COMPREPLY+=($(compgen -W \"$(kubectl api-resources -o name 2>/dev/null)\" -- \"$cur\"))\n    \
             fi\n\
         }\n\
         complete -o default -F __start_kubectl kubectl\n",
    );
    text
}

fn fish(rows: &[Row]) -> String {
    let mut text = String::from("# fish completion for kubectl\n");
    for row in rows {
        let condition = match row.path.as_str() {
            "" => "__fish_use_subcommand".to_owned(),
            path => {
                let seen: Vec<String> =
                    path.split(' ').map(|word| format!("__fish_seen_subcommand_from {word}")).collect();
                seen.join("; and ")
            }
        };
        let (flags, words): (Vec<&String>, Vec<&String>) = row.words.iter().partition(|w| w.starts_with("--"));
        if !words.is_empty() {
            let words: Vec<&str> = words.into_iter().map(String::as_str).collect();
            text.push_str(&format!("complete -c kubectl -f -n '{condition}' -a '{}'\n", words.join(" ")));
        }
        for flag in flags {
            text.push_str(&format!("complete -c kubectl -n '{condition}' -l {}\n", &flag[2..]));
        }
        if row.types {
            text.push_str(&format!(
                "complete -c kubectl -f -n '{condition}' -a '(kubectl api-resources -o name 2>/dev/null)'\n"
            ));
        }
    }
    text
}

fn powershell(rows: &[Row]) -> String {
    let mut text = String::from("# powershell completion for kubectl\n$__kubectlWords = @{\n");
    for row in rows {
        let words: Vec<String> = row.words.iter().map(|w| format!("'{w}'")).collect();
        text.push_str(&format!("    '{}' = @({})\n", row.path, words.join(", ")));
    }
    text.push_str(
        "}\nRegister-ArgumentCompleter -Native -CommandName 'kubectl' -ScriptBlock {\n    \
             param($word, $line, $position)\n    \
             $path = ''\n    \
             foreach ($element in $line.CommandElements | Select-Object -Skip 1) {\n        \
                 $next = \"$path $element\".Trim()\n        \
                 if ($__kubectlWords.ContainsKey($next)) { $path = $next }\n    \
             }\n    \
             $__kubectlWords[$path] | Where-Object { $_ -like \"$word*\" } | ForEach-Object {\n        \
                 [System.Management.Automation.CompletionResult]::new($_)\n    \
             }\n\
         }\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_words() {
        let mut all = Vec::new();
        rows("", &super::super::commands(), &[], &mut all);
        let find = |path: &str| all.iter().find(|r| r.path == path).map(|r| r.words.clone()).unwrap_or_default();
        assert!(find("").contains(&"get".to_owned()) && find("create secret").contains(&"tls".to_owned()));
        assert!(find("get").contains(&"--output".to_owned()));
        assert!(bash(&all).contains("complete -o default -F __start_kubectl kubectl"));
    }
}
