"""`dari completion bash|zsh|fish`, and the hidden `dari __complete` their scripts ask.

The scripts are thin: words go in, candidates come out one a line (dari.cli.candidates).
"""

from __future__ import annotations

from collections.abc import Sequence

from dari.cli.context import Context, Failed

# bash begins a new word at each = and :, so it has the words cut anew here, and what lies before them left out.
_SCRIPTS = {
    "bash": """_dari() {
    local line="${COMP_LINE:0:COMP_POINT}" current prefix
    local -a words
    read -ra words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    current="${words[${#words[@]}-1]}"
    local IFS=$'\\n'
    COMPREPLY=($(dari __complete "${words[@]:1}" 2>/dev/null))
    prefix="${current%"${current##*[=:]}"}"
    COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
}
complete -o bashdefault -o default -F _dari dari""",
    "zsh": """#compdef dari
_dari() {
    local -a found
    found=("${(@f)$(dari __complete "${(@)words[2,CURRENT-1]}" "${words[CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        compadd -a found
    else
        _files
    fi
}
compdef _dari dari""",
    "fish": """function __dari_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (dari __complete $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c dari -f -a '(__dari_complete)'""",
}
_HELP = """Usage:  dari completion bash|zsh|fish

Print a completion script for a shell

  bash   source <(dari completion bash)          in ~/.bashrc
  zsh    source <(dari completion zsh)           in ~/.zshrc, behind compinit
  fish   dari completion fish | source           in ~/.config/fish/config.fish"""


def completion(context: Context, argv: Sequence[str]) -> int:
    """Print the script of a shell."""
    if "--help" in argv or "-h" in argv:
        context.say(_HELP)
        return 0
    if len(argv) != 1 or argv[0] not in _SCRIPTS:
        raise Failed("Usage:  dari completion bash|zsh|fish", 1)
    context.say(_SCRIPTS[argv[0]])
    return 0


def complete(context: Context, argv: Sequence[str]) -> int:
    """Print the candidates for the last of these words."""
    from dari.cli.candidates import candidates

    words, current = list(argv[:-1]), argv[-1] if argv else ""
    for candidate in candidates(context, words, current):
        if candidate.startswith(current):
            context.say(candidate)
    return 0
