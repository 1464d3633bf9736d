"""The README's file tree is the real one, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("feature_repo", "encoders", "ray_jobs", "serving", "sdk")


def test_the_file_tree_is_the_real_one() -> None:
    named: dict[str, set[str]] = {}
    package = ""
    tree = (ROOT / "README.md").read_text().split("<!-- tree -->")[1].split("```")[1]
    for line in tree.strip().splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            package = name.rstrip("/")
        elif package in PACKAGES:
            named.setdefault(package, set()).add(name.rstrip("/"))
    for package in PACKAGES:
        here = {path.name for path in (ROOT / package).glob("*.py")}
        here |= {path.parent.name for path in (ROOT / package).glob("*/*.*") if path.is_file()}
        here.discard("__pycache__")
        assert named[package] - {"__init__.py"} == here - {"__init__.py"}, package


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
