"""Waits for texts on the page. Its policy refuses expressions, so conditions are functions."""

from typing import Any


def wait_for_text(page: Any, selector: str, text: str) -> None:
    """Wait until the text of an element contains a text."""
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector).innerText.includes(text)",
        arg=[selector, text],
    )


def wait_for_match(page: Any, selector: str, pattern: str) -> None:
    """Wait until a regular expression of JavaScript matches the text of an element."""
    page.wait_for_function(
        "([selector, pattern]) => document.querySelector(selector).innerText.match(pattern)",
        arg=[selector, pattern],
    )


def wait_for_government(page: Any) -> None:
    """Wait for the answer to the README's query."""
    wait_for_match(page, "#bars", "^government")
