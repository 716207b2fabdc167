"""Fixtures of the page: a server with bundles of several families, and a browser on this machine.

Playwright is imported by the fixtures only, as the environment of the other tests does not have it.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest

from hsoftmax.demo.sample_model import export_sample, find_sample
from hsoftmax.exporter import export_file
from tests.exporter.sources.test_fasttext import real_model
from tests.exporter.sources.test_tree import NODES
from tests.exporter.sources.test_tree import write as write_tree
from tests.service.conftest import exported, repository
from tests.service.processes import Process

EXAMPLE = Path(__file__).parents[2] / "examples" / "state_of_the_union"

__all__ = ["exported", "repository"]

DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}

Page = Any  # of Playwright
OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def page_repository(tmp_path_factory, repository) -> Path:
    """The small bundles, two of examples (one is the demonstration's), and one without clusters."""
    folder = tmp_path_factory.mktemp("page") / "repository"
    shutil.copytree(repository, folder)
    export_sample(find_sample(), folder)
    export_file(
        EXAMPLE / "weights.npz", folder / "state_of_the_union" / "1",
        source="theano", labels=EXAMPLE / "labels.txt",
    )  # fmt: skip
    export_file(real_model(), folder / "language" / "1", source="fasttext")
    (tmp_path_factory.getbasetemp() / "names.txt").write_text("\n".join(NODES))
    export_file(
        write_tree(tmp_path_factory.getbasetemp()), folder / "animals" / "1",
        source="tree", labels=tmp_path_factory.getbasetemp() / "names.txt",
    )  # fmt: skip
    export_codes(folder, tmp_path_factory.mktemp("codes"))
    return folder


def export_codes(repository: Path, folder: Path) -> None:
    """Export `codes`: chapters, blocks, categories and codes, as in a classification of diseases.

    The first block has one category, which is the only child of its block.
    """
    names, parent = ["I", "II"], [-1, -1]
    for depth in range(3):
        above = [i for i, name in enumerate(names) if name.count(".") == depth]
        for node in above:
            only_child = depth == 1 and node == above[0]
            for letter in "a" if only_child else "ab":
                names.append(f"{names[node]}.{letter}")
                parent.append(node)
    rng = np.random.default_rng(5)
    bias = rng.normal(size=len(names), scale=0.2).astype(np.float32)
    weight = rng.normal(size=(len(names), 8)).astype(np.float32)
    np.savez(folder / "codes.npz", weight=weight, bias=bias, parent=np.array(parent))
    (folder / "names.txt").write_text("\n".join(names))
    export_file(
        folder / "codes.npz", repository / "codes" / "1", source="tree",
        labels=folder / "names.txt",
    )  # fmt: skip


@pytest.fixture(scope="session")
def server(page_repository) -> Iterator[Process]:
    process = Process(page_repository)
    yield process
    process.end()


@pytest.fixture(scope="session")
def service(server) -> Iterator[httpx2.Client]:
    """A client of the server, for the answers that the page must show."""
    with httpx2.Client(base_url=server.url.geturl()) as client:
        yield client


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    assert path is not None, "expected the program chromium, got none: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, server) -> Iterator[OpenPage]:
    """Function that opens the page of a server, with settings of a browser's context.

    When the test ends, no page has written a message to the console or asked another host. Refused
    requests may be messages: `refused` is the number that the test expects.
    """
    contexts, messages, hosts, expected = [], [], set(), [0]

    def open_page(
        at: Process = server, *, refused: int = 0, bundle: str | None = None, **settings
    ) -> Page:
        context = browser.new_context(**{"viewport": DESKTOP, **settings})
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        expected[0] += refused
        page.goto(at.url.geturl())
        if bundle is not None:
            page.wait_for_selector("#bars li")
            page.select_option("#bundle", bundle)
        return page

    yield open_page
    for context in contexts:
        context.close()
    refusals = [one for one in messages if "the server responded with a status of 4" in one]
    assert [one for one in messages if one not in refusals] == []
    assert len(refusals) <= expected[0]
    assert hosts <= {"127.0.0.1"}
