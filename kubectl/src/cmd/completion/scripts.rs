//! The scripts. Each asks `kubectl __complete WORD... PREFIX`, whose last line is `:` and a number made of the bits of
//! [`super::live::Directive`].

/// The script of a shell.
pub(super) fn of(shell: &str) -> Option<&'static str> {
    match shell {
        "bash" => Some(BASH),
        "zsh" => Some(ZSH),
        "fish" => Some(FISH),
        "powershell" => Some(POWERSHELL),
        _ => None,
    }
}

const BASH: &str = r#"# bash completion for kubectl
__start_kubectl() {
    local cur="${COMP_WORDS[COMP_CWORD]}" words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
    local program out bits value line
    # Some words are split at = and : by the shell; the words as they were typed are wanted.
    if declare -F _get_comp_words_by_ref >/dev/null 2>&1; then
        _get_comp_words_by_ref -n "=:" cur words cword
    fi
    program=$(type -P "${words[0]}" 2>/dev/null) || program=kubectl
    out=$("$program" __completeNoDesc "${words[@]:1:cword-1}" "$cur" 2>/dev/null) || return
    bits="${out##*:}"
    out="${out%:*}"
    [[ $bits == *[!0-9]* || -z $bits ]] && bits=0
    (( bits & 1 )) && return
    (( bits & 2 )) && compopt -o nospace 2>/dev/null
    (( bits & 4 )) && compopt +o default 2>/dev/null
    COMPREPLY=()
    if (( bits & 8 )); then
        compopt -o filenames 2>/dev/null
        while IFS= read -r line; do
            case "$line" in *.json | *.yaml | *.yml) COMPREPLY+=("$line") ;; esac
            [[ -d $line ]] && COMPREPLY+=("$line")
        done < <(compgen -f -- "$cur")
        return
    fi
    value="$cur"
    [[ $cur == --*=* ]] && value="${cur#*=}"
    while IFS= read -r line; do
        [[ -n $line && $line == "$value"* ]] && COMPREPLY+=("$line")
    done <<<"$out"
    # What stands before the last colon is not replaced by the shell.
    if [[ $value == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${value%"${value##*:}"}"}")
    fi
}
complete -o default -F __start_kubectl kubectl
"#;

const ZSH: &str = r#"#compdef kubectl
compdef _kubectl kubectl

# zsh completion for kubectl
_kubectl() {
    local out bits line name
    local -a found
    out=$("${words[1]}" __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)words[CURRENT]}" 2>/dev/null) || return
    bits="${out##*:}"
    out="${out%:*}"
    (( bits & 1 )) && return
    if (( bits & 8 )); then
        _files -g '*.(json|yaml|yml)(-.)'
        return
    fi
    for line in "${(@f)out}"; do
        [[ -z $line ]] && continue
        name="${line%%$'\t'*}"
        name="${name//:/\\:}"
        [[ $line == *$'\t'* ]] && name="$name:${line#*$'\t'}"
        found+=("$name")
    done
    if (( bits & 2 )); then
        [[ ${#found} -gt 0 ]] && _describe -t values kubectl found -S '' && return
    else
        [[ ${#found} -gt 0 ]] && _describe -t values kubectl found && return
    fi
    (( bits & 4 )) || _files
}
[ "$funcstack[1]" = "_kubectl" ] && _kubectl
"#;

const FISH: &str = r#"# fish completion for kubectl
function __kubectl_ask
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    $words[1] __complete $words[2..-1] "$current" 2>/dev/null
end
function __kubectl_found
    __kubectl_ask | string match -v -r '^:[0-9]+$'
end
function __kubectl_wants_files
    set -l bits (__kubectl_ask | string match -r '^:[0-9]+$' | string sub -s 2)
    test -n "$bits"; and test (math "bitand($bits, 4)") -eq 0
end
complete -c kubectl -e
complete -c kubectl -f -a '(__kubectl_found)'
complete -c kubectl -n '__kubectl_wants_files' -F
"#;

const POWERSHELL: &str = r#"# powershell completion for kubectl
Register-ArgumentCompleter -Native -CommandName 'kubectl' -ScriptBlock {
    param($word, $line, $position)
    $words = @($line.CommandElements | Select-Object -Skip 1 | ForEach-Object { "$_" })
    if ("$word" -ne '' -and $words.Count -gt 0) { $words = @($words | Select-Object -SkipLast 1) }
    $lines = @(& kubectl __complete @words "$word" 2>$null)
    $lines | Where-Object { $_ -notmatch '^:\d+$' -and $_ -ne '' } | ForEach-Object {
        $name, $text = "$_" -split "`t", 2
        if (-not $text) { $text = $name }
        if ($name -like "$word*" -or "$word" -like '--*=*') {
            [System.Management.Automation.CompletionResult]::new($name, $name, 'ParameterValue', $text)
        }
    }
}
"#;
