"""Seconds and memory of preparing RCV1-v2: `python tests/bench/bench_rcv1.py 804414 zips tar.xz folder`.

Made-up stories of the typical size (240 words in 8 paragraphs, 3 KB of XML), with ids, qrels and a tree of
the sizes of LYRL2004, are written in each format and prepared in a separate process.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

FORMS = ("folder", "tar", "tar.xz", "zip", "zips")
DAYS = 365
WORDS = [
    f"{a}{b}{c}"
    for a in ("mar", "bon", "sha", "cro")
    for b in "aeiou"
    for c in ("ket", "d", "res", "ll", "n")
]


def ids(count: int) -> list[int]:
    """Return ids as LYRL2004's: 23,149 of 804,414 up to 26150, all from 2286 to 810596."""
    draw = random.Random(0)
    training = max(count * 23_149 // 804_414, 10)
    early, late = range(2_286, 26_151), range(26_151, 810_597)
    return sorted(draw.sample(early, training)) + sorted(draw.sample(late, count - training))


def lists(folder: Path, numbers: list[int]) -> None:
    """Write the LYRL2004 files: a tree of 4, 55, 43 and 1 topics, and three labels for each story."""
    tops = [f"T{n}" for n in range(4)]
    edges = [("Root", top) for top in tops]
    edges += (
        [(tops[n % 4], f"S{n}") for n in range(55)] + [(f"S{n}", f"U{n}") for n in range(43)] + [("U0", "V0")]
    )
    above = {child: parent for parent, child in edges}
    lines = [
        f"parent: {parent}    child: {child}    child-description: {child} NAME" for parent, child in edges
    ]
    lines.insert(0, "parent: None    child: Root    child-description: No Description")
    (folder / "rcv1.topics.hier.orig").write_text("\n".join(lines) + "\n")
    (folder / "rcv1v2-ids.dat").write_text("".join(f"{number}\n" for number in numbers))
    draw, nodes = random.Random(1), [child for _, child in edges]
    with (folder / "rcv1-v2.topics.qrels").open("w") as stream:
        for number in numbers:
            found: set[str] = set()
            for node in draw.choices(nodes, k=2):
                while node != "Root":
                    found.add(node)
                    node = above[node]
            stream.writelines(f"{node} {number} 1\n" for node in sorted(found))


def days(numbers: list[int]) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Yield a day and the names and bytes of its stories."""
    draw = random.Random(2)
    sentences = [" ".join(draw.choices(WORDS, k=30)) for _ in range(20_000)]
    codes = "".join(
        f'<code code="X{n}"><editdetail attribution="R" date="1996-08-20"/></code>' for n in range(12)
    )
    per_day = -(-len(numbers) // DAYS)
    for day in range(0, len(numbers), per_day):
        name = f"{19960820 + day // per_day}"
        stories = []
        for number in numbers[day : day + per_day]:
            body = "".join(f"<p>{sentence} {number}.</p>\n" for sentence in draw.choices(sentences, k=8))
            text = (
                f'<?xml version="1.0" encoding="iso-8859-1" ?>\n<newsitem itemid="{number}" id="root" '
                f'date="1996-08-20" xml:lang="en">\n<title>INVENTED: {number}.</title>\n<headline>Story'
                f"</headline>\n<dateline>NOWHERE 1996-08-20</dateline>\n<text>\n{body}</text>\n<copyright>N"
                f'</copyright>\n<metadata>\n<codes class="bip:topics:1.0">{codes}</codes>\n'
                f'<dc element="dc.publisher" value="N"/></metadata>\n</newsitem>\n'
            )
            stories.append((f"{number}newsML.xml", text.encode("latin-1")))
        yield name, stories


def write(form: str, folder: Path, numbers: list[int]) -> None:
    """Write all stories in a form."""
    if form.startswith("tar"):
        with (
            (folder / f"rcv1.{form}").open("wb") as target,
            subprocess.Popen(
                ["xz", "-0", "-T0"] if form == "tar.xz" else ["cat"], stdin=subprocess.PIPE, stdout=target
            ) as pack,
            tarfile.open(fileobj=pack.stdin, mode="w|") as tar,
        ):
            for day, stories in days(numbers):
                for name, data in stories:
                    info = tarfile.TarInfo(f"rcv1/{day}/{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
            tar.close()
            assert pack.stdin is not None
            pack.stdin.close()
        return
    if form == "zip":
        with zipfile.ZipFile(folder / "rcv1.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for day, stories in days(numbers):
                for name, data in stories:
                    archive.writestr(f"rcv1/{day}/{name}", data)
        return
    for day, stories in days(numbers):
        if form == "zips":
            with zipfile.ZipFile(
                folder / f"{day}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=6
            ) as archive:
                for name, data in stories:
                    archive.writestr(name, data)
        else:
            (folder / "rcv1" / day).mkdir(parents=True)
            for name, data in stories:
                (folder / "rcv1" / day / name).write_bytes(data)


def main() -> None:
    """Print a line for each form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("documents", type=int)
    parser.add_argument("forms", nargs="+", choices=FORMS)
    parser.add_argument("--keep", type=Path, help="write there, or use what was written there")
    given = parser.parse_args()
    numbers = ids(given.documents)
    for form in given.forms:
        with tempfile.TemporaryDirectory() as place:
            raw = (given.keep or Path(place)) / f"{form}-{given.documents}"
            if not raw.exists():
                raw.mkdir(parents=True)
                lists(raw, numbers)
                write(form, raw, numbers)
            command = [sys.executable, "-m", "hblm.prepare", "dataset=rcv1v2", f"raw={raw}", "encoder=minilm"]
            command += [f"dataset.path={place}/made", f"allow_mismatch={given.documents != 804_414}"]
            started, before = time.perf_counter(), os.times()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds, after = time.perf_counter() - started, os.times()
            size = sum(path.stat().st_size for path in Path(place, "made").iterdir())
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        print(
            f"{form:<7} {given.documents:,} documents -> {size / 1e6:,.0f} MB: {seconds:.1f} s, "
            f"{cpu / seconds:.1f} cores in use, {given.documents / seconds:,.0f} documents/s, "
            f"largest process so far {peak} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
