"""Shells on a terminal of their own, into which keys are typed as a person types them."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import sys
import time
from pathlib import Path

import pytest

_SHELLS = {"bash": ("--norc", "--noprofile", "-i"), "zsh": ("-f", "-i"), "fish": ("--no-config", "-i")}
_LOADED = {  # each as its help has it
    "bash": 'eval "$(hblm completion bash)"',
    "zsh": 'bindkey -e; eval "$(hblm completion zsh)"',
    "fish": "hblm completion fish | source",
}
_SECONDS = 60.0


def command_on_path(folder: Path) -> None:
    """Write the script `hblm` into a folder, as an installation writes it."""
    script = folder / "hblm"
    script.write_text(f"#!{sys.executable}\nfrom hblm.__main__ import main\nmain()\n")
    script.chmod(0o755)


class Terminal:
    """A shell with the completion of hblm loaded; skips the test where the shell is not installed."""

    def __init__(self, shell: str, home: Path) -> None:
        """Start it with `home` as home and with the script `hblm` on its PATH."""
        if shutil.which(shell) is None:
            if os.environ.get("HBLM_REQUIRE_SHELLS"):
                pytest.fail(f"{shell} is not installed")
            pytest.skip(f"{shell} is not installed")
        command_on_path(home)
        env = {"HOME": str(home), "PATH": f"{home}:{os.environ['PATH']}", "TERM": "dumb", "LANG": "C.UTF-8"}
        child, self.terminal = pty.fork()
        if child == 0:
            os.execvpe(shell, [shell, *_SHELLS[shell]], env)
        self.child, self.seen = child, ""
        self.type(f"{_LOADED[shell]}; echo load''ed\n")
        self.wait("loaded")

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.terminal, keys.encode())

    def wait(self, text: str) -> str:
        """Wait for a text that matches a pattern, forget all output up to it, and return it."""
        end = time.monotonic() + _SECONDS
        while not (found := re.search(text, self.seen)):
            if not select.select([self.terminal], [], [], max(0.0, end - time.monotonic()))[0]:
                raise AssertionError(f"no {text} in {self.seen!r}")
            self.seen += os.read(self.terminal, 65536).decode(errors="replace")
        self.seen = self.seen[found.end() :]
        return found[0]

    def close(self) -> None:
        """End the shell."""
        os.close(self.terminal)
        os.waitpid(self.child, 0)
