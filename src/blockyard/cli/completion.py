"""`blockyard completion`: what shells complete commands and options by, made from the parser."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterable

from blockyard.cli.commands import build_parser
from blockyard.cli.parsers import Subparsers, leaf
from blockyard.cli.tree import Node, tree

_EPILOG = """\
exit status:
  0  done

examples:
  blockyard completion bash > /etc/bash_completion.d/blockyard       or ~/.local/share/bash-completion/completions/blockyard
  blockyard completion zsh > /usr/local/share/zsh/site-functions/_blockyard
  blockyard completion fish > ~/.config/fish/completions/blockyard.fish
"""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `completion` to the commands."""

    def run(options: argparse.Namespace) -> int:
        print(_SHELLS[options.shell](tree(build_parser())), end="")
        return 0

    parser = leaf(commands, "completion", run, "print what a shell completes commands and options by", epilog=_EPILOG)
    parser.add_argument("shell", choices=tuple(_SHELLS), help="the shell")


def bash(root: Node) -> str:
    """For bash 4 and later."""
    return _BASH.format(
        commands=_bash_table(root, _commands), options=_bash_table(root, _flags), choices=_bash_choices(root)
    )


def zsh(root: Node) -> str:
    commands = _zsh_table(root, lambda node: [(member.name, member.help) for member in node.members])
    options = _zsh_table(root, lambda node: [(flag, each.help) for each in node.options for flag in each.flags])
    return _ZSH.format(commands=commands, options=options)


def _zsh_table(root: Node, words: Callable[[Node], Iterable[tuple[str, str]]]) -> str:
    """By commands, lines of words with what they mean, as _describe takes them."""
    rows = ((node.path or "-", "\n".join(f"{word}:{text}" for word, text in words(node))) for node in root.walk())
    return "\n".join(f"  {shlex.quote(path)} {shlex.quote(found)}" for path, found in rows if found)


def fish(root: Node) -> str:
    lines = [_FISH]
    for node in root.walk():
        at = f"__blockyard_at {shlex.quote(node.path)}"
        if node.members:
            lines.append(f"complete -c blockyard -f -n {_fish(at)}")
        lines += [
            f"complete -c blockyard -n {_fish(at)} -a {_fish(member.name)} -d {_fish(member.help)}"
            for member in node.members
        ]
        for option in node.options:
            for flag in option.flags:
                kind = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                more = f" -xa {_fish(' '.join(option.choices))}" if option.choices else " -r" if option.value else ""
                lines.append(f"complete -c blockyard -n {_fish(at)} {kind}{more} -d {_fish(option.help)}")
    return "\n".join(lines) + "\n"


def _fish(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _commands(node: Node) -> Iterable[str]:
    return [member.name for member in node.members]


def _flags(node: Node) -> Iterable[str]:
    return [flag for option in node.options for flag in option.flags]


def _bash_table(root: Node, words: Callable[[Node], Iterable[str]]) -> str:
    rows = ((node.path or "-", " ".join(words(node))) for node in root.walk())
    return "\n".join(f"  [{shlex.quote(path)}]={shlex.quote(found)}" for path, found in rows if found)


def _bash_choices(root: Node) -> str:
    rows = [
        (f"{node.path} {flag}", " ".join(option.choices))
        for node in root.walk()
        for option in node.options
        for flag in option.flags
        if option.choices
    ]
    return "\n".join(f"  [{shlex.quote(at)}]={shlex.quote(words)}" for at, words in rows)


_BASH = """\
# Completion of blockyard for bash, made by `blockyard completion bash`.
declare -gA _blockyard_commands=(
{commands}
)
declare -gA _blockyard_options=(
{options}
)
declare -gA _blockyard_choices=(
{choices}
)
_blockyard() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} at=- number word
  for ((number = 1; number < COMP_CWORD; number++)); do
    word=${{COMP_WORDS[number]}}
    case " ${{_blockyard_commands[$at]:-}} " in
      *" $word "*) [[ $at == - ]] && at=$word || at="$at $word" ;;
    esac
  done
  local choices=${{_blockyard_choices["$at ${{COMP_WORDS[COMP_CWORD - 1]}}"]:-}}
  if [[ -n $choices ]]; then
    COMPREPLY=($(compgen -W "$choices" -- "$cur"))
  elif [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "${{_blockyard_options[$at]:-}}" -- "$cur"))
  elif [[ -n ${{_blockyard_commands[$at]:-}} ]]; then
    COMPREPLY=($(compgen -W "${{_blockyard_commands[$at]}}" -- "$cur"))
  else
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -- "$cur"))
  fi
}}
complete -F _blockyard blockyard
"""

_ZSH = """\
#compdef blockyard
# Completion of blockyard for zsh, made by `blockyard completion zsh`.
typeset -gA _blockyard_commands=(
{commands}
)
typeset -gA _blockyard_options=(
{options}
)
_blockyard() {{
  local at=- word
  local -a found
  for word in "${{(@)words[2,CURRENT-1]}}"; do
    found=("${{(@f)_blockyard_commands[$at]}}")
    if (( ${{found[(I)$word:*]}} )); then
      [[ $at == - ]] && at=$word || at="$at $word"
    fi
  done
  if [[ ${{words[CURRENT]}} == -* ]]; then
    found=("${{(@f)_blockyard_options[$at]}}")
    _describe -o option found
  elif (( ${{+_blockyard_commands[$at]}} )); then
    found=("${{(@f)_blockyard_commands[$at]}}")
    _describe command found
  else
    _files
  fi
}}
if [[ $funcstack[1] == _blockyard ]]; then _blockyard "$@"; else compdef _blockyard blockyard; fi
"""

_FISH = """\
# Completion of blockyard for fish, made by `blockyard completion fish`.
function __blockyard_at
    set -l words (commandline -opc)
    set -l found
    for word in $words[2..-1]
        string match -q -- '-*' $word; or set -a found $word
    end
    set -l wanted (string split ' ' -- $argv[1])
    test -z "$argv[1]"; and set wanted
    set -l count (count $wanted)
    if test $count -gt 0
        test (count $found) -ge $count; or return 1
        test "$found[1..$count]" = "$argv[1]"; or return 1
    end
    # a command that has others below it completes these only where none of them stands yet
    test -n "$argv[1]"; or test (count $found) -eq 0
end"""

_SHELLS: dict[str, Callable[[Node], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
