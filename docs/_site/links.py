"""Fits the documents of the repository into the site: a hook of mkdocs.

In the repository, pages link to files outside of `docs/`. Pages at the root of the repository
become pages of the site. Every other file that a page links to is copied into the site as it is,
and a link to a folder becomes plain text. The records of decisions are added to the navigation.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
ROOT_PAGES = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
COPIES = "repository"

_LINK = re.compile(r"\[([^\[\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the records of decisions into the section of the navigation that is named so."""
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    for section in config.nav or []:
        for pages in section.values() if isinstance(section, dict) else []:
            for i, page in enumerate(pages):
                if page == {"Decisions": "decisions/"}:
                    pages[i] = {"Decisions": [f"decisions/{record.name}" for record in records]}
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, and a copy of every other file that a page links to."""
    for name in ROOT_PAGES:
        files.append(File.generated(config, name, content=(ROOT / name).read_text("utf-8")))
    for file in list(files.documentation_pages()):
        for match in _LINK.finditer(file.content_string):
            path = _path(file.src_uri, match[2])
            if _is_copied(path) and files.get_file_from_path(_copy(path)) is None:
                content = (ROOT / path).read_bytes()
                files.append(File.generated(config, _copy(path), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page to the places of their files in the site."""
    source = page.file.src_uri

    def replace(match: re.Match[str]) -> str:
        path = _path(source, match[2])
        if (ROOT / path).is_dir():
            return match[1]
        target = _copy(path) if _is_copied(path) else _in_site(path)
        relative = posixpath.relpath(target, posixpath.dirname(source) or ".")
        return f"[{match[1]}]({relative}{match[3] or ''})"

    return _LINK.sub(replace, markdown)


def _path(source: str, link: str) -> str:
    """Return the path in the repository that a link of a page of the site leads to."""
    page = source if source in ROOT_PAGES else f"docs/{source}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _is_copied(path: str) -> bool:
    """Return True for a file outside of `docs/` that is no page of the site."""
    outside = not path.startswith("docs/") and path not in ROOT_PAGES
    return outside and (ROOT / path).is_file()


def _copy(path: str) -> str:
    """Return the place of a copied file in the site; Markdown becomes text, not a page."""
    return f"{COPIES}/{path}" + (".txt" if path.endswith(".md") else "")


def _in_site(path: str) -> str:
    return path.removeprefix("docs/")
