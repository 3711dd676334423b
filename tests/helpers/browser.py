"""Headless Chromium, and pages from files opened in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

REQUIRED = "ISARA_PL_REQUIRE_BROWSER"  # set in CI: there no test of a page may be skipped
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


@contextmanager
def chromium() -> Iterator[Any]:
    """Give a browser; the test is skipped where there is none."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("playwright is not installed")
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        path = found or (own if Path(own).exists() else None)
        if path is None:
            _missing("there is no Chromium; `playwright install chromium` or the system's package brings it")
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, path: Path, fragment: str = "", before: str = "") -> Iterator[Any]:
    """Give the page of a file; at the end it must have logged no error and asked for nothing but files.

    Args:
        browser: What `chromium` gave.
        path: The file.
        fragment: What stands after it in the address.
        before: JavaScript that runs before the page's own.
    """
    seen: list[str] = []

    def dismissed(dialog: Any) -> None:
        seen.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page = browser.new_page()
    page.set_default_timeout(10_000)
    page.add_init_script(before)
    page.on("console", lambda message: seen.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.on("dialog", dismissed)
    page.on("request", lambda request: None if _is_local(request.url) else seen.append(f"request: {request.url}"))
    try:
        page.goto(path.as_uri() + fragment)
        yield page
        assert not seen, seen
    finally:
        page.close()


def _is_local(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:"))


def _missing(reason: str) -> NoReturn:
    if os.environ.get(REQUIRED):
        pytest.fail(f"{REQUIRED} is set, and {reason}")
    pytest.skip(reason)
