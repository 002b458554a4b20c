"""Builds the documentation site in build/site: `python docs/make_site.py`, or `make site`.

The pages are those of the repository. They are copied with the folders that they are in, so that a link that
works in the repository works in the site too; what they link to is copied with them. Any warning is an error.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "build" / "site-source"
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
"""Pages outside docs/."""


def linked_files(page: Path) -> set[Path]:
    """The files of the repository that a page links to."""
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    return {(page.parent / target).resolve() for target in targets if "://" not in target}


def copy_pages() -> None:
    """Copy the pages, and the files that they link to, to SOURCE."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(ROOT / "docs", SOURCE / "docs", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    pages = [ROOT / name for name in PAGES]
    linked = set().union(*map(linked_files, [*pages, *(ROOT / "docs").rglob("*.md")]))
    for file in {*pages, *filter(Path.is_file, linked)}:
        copy = SOURCE / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def main() -> None:
    """Build the site; ends with the status of MkDocs."""
    copy_pages()
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(ROOT / "mkdocs.yml")]
    done = subprocess.run(command, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    if done.returncode == 0:
        print("the site is in build/site; open build/site/index.html")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
