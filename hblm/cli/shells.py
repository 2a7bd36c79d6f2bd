"""The sub-command `hblm completion`: the script of each shell, and the answer to its question on Tab.

On Tab a script calls `hblm completion words LINE`, LINE being the command line up to the cursor. It prints a
candidate a line, and behind a tab what that is.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from hblm.cli.completion import SHELLS, candidates
from hblm.errors import HblmError

_WORDS = "words"  # what the scripts call
_END = "\x01"  # behind the last word, so that it is a word after a space, too

_PAGE = """\
Print the script that completes arguments of hblm on Tab: programs, groups, options, keys, values, paths.

usage: hblm completion {shells}

The line for the file that the shell reads at its start:
{lines}"""
_READ_AT_START = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/config.fish"}

# Bash replaces only what follows the last = or : of a word (COMP_WORDBREAKS): $2, so it is an argument.
_BASH = r"""
_hblm() {
  local word before=${COMP_LINE:0:COMP_POINT-${#2}} quoted=
  [[ $before == *[\'\"] ]] && quoted=1  # nothing is escaped there, and a space would be part of the word
  COMPREPLY=()
  while IFS=$'\t' read -r word _; do
    [[ -z $quoted && $word == *[\ \'\"\\\&\;\|\<\>\(\)\$\`]* ]] && printf -v word %q "$word"
    COMPREPLY+=("$word")
  done < <("${1/#\~\//$HOME/}" completion words "${COMP_LINE:0:COMP_POINT}" "$2" 2> /dev/null)
  [[ -z $quoted && ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} != *[=./] ]] && COMPREPLY[0]+=" "
}
complete -o nospace -F _hblm hblm
"""

_ZSH = r"""
_hblm() {
  local line word
  local -a whole whole_shown open open_shown
  for line in "${(@f)$(${~words[1]} completion words "${(j: :)words[1,CURRENT-1]} $PREFIX" 2> /dev/null)}"; do
    word=${line%%$'\t'*}
    [[ -z $word ]] && continue
    if [[ $word == *[=./] ]]; then
      open+=("$word") open_shown+=("${line/$'\t'/  }")
    else
      whole+=("$word") whole_shown+=("${line/$'\t'/  }")
    fi
  done
  compadd -l -S '' -d open_shown -a open
  compadd -l -d whole_shown -a whole
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _hblm hblm
"""

_FISH = r"""
complete --command hblm --erase
complete --command hblm --no-files \
  --arguments '(hblm completion words (commandline -cp | string collect) 2> /dev/null)'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def run(arguments: Sequence[str]) -> None:
    """Print the script of a shell, or the candidates for a command line; exit code 2 for other arguments."""
    if [*arguments[:1]] == [_WORDS] and len(arguments) in (2, 3):
        answer(*arguments[1:])
    elif len(arguments) == 1 and arguments[0] in _SCRIPTS:
        print(_SCRIPTS[arguments[0]].strip())
    elif not arguments or arguments[0] in ("--help", "-h"):
        lines = (f"  {shell:<5} {line:<36} # in {_READ_AT_START[shell]}" for shell, line in SHELLS.items())
        print(_PAGE.format(shells="|".join(SHELLS), lines="\n".join(lines)))
    else:
        given = " ".join(arguments)
        print(f"hblm completion: {given!a:.200} is not one of {', '.join(SHELLS)}", file=sys.stderr)
        sys.exit(2)


def answer(line: str, replaced: str | None = None) -> None:
    """Print the candidates for the last word of a command line, without the part that the shell keeps.

    A fault of the line, such as a --config-dir that is no folder, gives no candidates.

    Args:
        line: the command line up to the cursor.
        replaced: the end of the last word that a candidate replaces; None: the whole word.
    """
    *words, current = words_of(line)
    command = next((place for place, word in enumerate(words) if word.rpartition("/")[2] == "hblm"), 0)
    kept = 0 if replaced is None else len(current) - len(" ".join(words_of(replaced)))
    try:
        found = candidates(words[command + 1 :], current)
    except (HblmError, OSError):
        return
    for word, about in found:
        if word.isprintable():
            print(f"{word[kept:]}\t{about}" if about else word[kept:])


def words_of(line: str) -> list[str]:
    """Return the words of a command line without their quotes; the last is "" after a space."""
    for closing in ("", "'", '"'):
        try:
            *words, last = shlex.split(f"{line}{_END}{closing}")
        except ValueError:  # a quote is open
            continue
        return [*words, last.removesuffix(_END)]
    return [""]
