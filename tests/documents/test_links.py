"""Every link in the Markdown files leads to a file, and its anchor to a heading of that file."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
FOLDERS = ("deploy", "docs", "examples")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))]
)
MAP = ROOT / "docs" / "index.md"
_ELSEWHERE = re.compile(r"[a-z]+:")


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text("utf-8"))


def links(page: Path) -> Iterator[str]:
    """Yield the links and pictures of a page that lead to no other site."""
    for token in tokens(page):
        for part in token.children or ():
            target = part.attrs.get("href" if part.type == "link_open" else "src")
            if target is not None and not _ELSEWHERE.match(str(target)):
                yield str(target)


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub and mkdocs make them."""
    found: set[str] = set()
    for opening, title in zip(tokens(page), tokens(page)[1:], strict=False):
        if opening.type == "heading_open":
            text = "".join(part.content for part in title.children or ())
            found.add(re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-"))
    return found


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    found = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def nav_pages(part: object) -> Iterator[str]:
    """Yield all pages of mkdocs' navigation."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict):
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from nav_pages(one)


def test_there_are_pages_with_links():
    assert len(PAGES) > 50
    assert sum(len(list(links(page))) for page in PAGES) > 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    assert broken(page) == []


@pytest.mark.parametrize("link", ["nothing.md", "a.md#second", "#second", "![](nothing.svg)"])
def test_a_link_that_leads_nowhere_is_found(tmp_path, link):
    page = tmp_path / "a.md"
    page.write_text(f"# First\n\n{link}\n" if "(" in link else f"# First\n\n[text]({link})\n")
    assert len(broken(page)) == 1
    page.write_text("# First\n\n[text](a.md#first) [text](#first)\n")
    anchors.cache_clear()
    tokens.cache_clear()
    assert broken(page) == []


def test_every_page_is_on_the_map_and_in_the_navigation_of_the_site():
    configuration = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), yaml.SafeLoader)
    nav = set(nav_pages(configuration["nav"]))
    on_map = {(MAP.parent / link).resolve() for link in links(MAP)}
    for page in (ROOT / "docs").rglob("*.md"):
        name = str(page.relative_to(ROOT / "docs"))
        if name.startswith("decisions/"):
            continue  # the hook of the site adds them
        assert name in nav, f"{name}: add it to `nav` in mkdocs.yml"
        assert page == MAP or page in on_map, f"{name}: add it to docs/index.md"


def test_the_site_loads_nothing_from_elsewhere():
    configuration = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), yaml.SafeLoader)
    assert configuration["theme"]["font"] is False
    assert configuration["strict"] is True
    assert not configuration.keys() & {"extra_javascript", "extra_css", "extra"}
