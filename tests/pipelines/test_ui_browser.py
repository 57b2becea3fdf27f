"""The page in a real Chromium: it opens, searches, fits, and can be used without a mouse.

The pictures of the documentation are made here: `PICTURES=docs/images make test-engines
TESTS='-m browser'` replaces them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from tests.support.page_server import make_dataset, served

_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="no Chromium here; `make browser` installs it",
    ),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("browser")
    here = Path.cwd()
    os.chdir(folder)  # so that pictures name no path of this machine
    try:
        make_dataset(folder)
        with served(Path("kb.lance")) as address:
            yield address
    finally:
        os.chdir(here)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for one in (*_OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(one)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    found.set_window_size(1200, 900)
    yield found
    found.quit()


@pytest.fixture(autouse=True)
def no_complaint(browser: WebDriver) -> Iterator[None]:
    browser.get_log("browser")
    yield
    assert browser.get_log("browser") == []


def picture(browser: WebDriver, name: str) -> None:
    folder = os.environ.get("PICTURES")
    if folder:
        browser.save_screenshot(str(Path(__file__).parents[2] / folder / name))


def width_of_content(browser: WebDriver) -> tuple[int, int]:
    script = "return [document.documentElement.scrollWidth, window.innerWidth]"
    content, window = browser.execute_script(script)
    return content, window


@pytest.mark.parametrize("path", ["/", "/runs/third", "/documents", "/search?q=pears"])
@pytest.mark.parametrize("width", [400, 1200])
def test_pages_open_and_fit(browser, page, path, width):
    browser.set_window_size(width, 900)
    browser.get(page + path)
    assert browser.find_element(By.TAG_NAME, "h1").is_displayed()
    content, window = width_of_content(browser)
    assert content <= window


def test_a_search_is_made_with_the_keyboard_alone(browser, page):
    browser.set_window_size(1200, 900)
    browser.get(page + "/")
    focused = browser.switch_to.active_element
    for _ in range(10):
        focused.send_keys(Keys.TAB)
        focused = browser.switch_to.active_element
        if focused.get_attribute("id") == "q":
            break
    focused.send_keys("pears" + Keys.ENTER)
    WebDriverWait(browser, 30).until(lambda shown: "/search" in shown.current_url)
    assert browser.find_element(By.TAG_NAME, "h1").text == "Search for pears"
    assert len(browser.find_elements(By.CSS_SELECTOR, ".ways > section")) == 3
    picture(browser, "ui-search.png")
    hit = browser.find_element(By.CSS_SELECTOR, ".hits a")
    hit.send_keys(Keys.ENTER)
    WebDriverWait(browser, 30).until(lambda shown: "/documents/" in shown.current_url)
    assert "Pears" in browser.find_element(By.TAG_NAME, "h1").text


def test_a_failure_opens_to_its_item_with_the_keyboard(browser, page):
    browser.set_window_size(1200, 900)
    browser.get(page + "/")
    picture(browser, "ui.png")
    failure = browser.find_element(By.CSS_SELECTOR, "details.failure")
    failure.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert failure.find_element(By.TAG_NAME, "pre").is_displayed()


def test_text_of_documents_runs_no_script(browser, page):
    for path in ("/", "/search?q=pears", "/documents"):
        browser.get(page + path)
        assert browser.title != "hacked"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(browser, page, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page + "/")
    for selector in ("body", "th", ".note, dt", "a", ".good", ".bad"):
        element = browser.find_element(By.CSS_SELECTOR, selector)
        ink = luminance(element.value_of_css_property("color"))
        back = luminance(background_of(browser, element))
        lighter, darker = max(ink, back), min(ink, back)
        # The least contrast of text by WCAG 2.2, 1.4.3.
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (scheme, selector)
    assert (luminance(background_of(browser, element)) < 0.5) == (scheme == "dark")


def background_of(browser: WebDriver, element: object) -> str:
    script = """
        let at = arguments[0];
        while (at && getComputedStyle(at).backgroundColor.endsWith(', 0)')) at = at.parentElement;
        return getComputedStyle(at || document.body).backgroundColor;"""
    return str(browser.execute_script(script, element))


def luminance(color: str) -> float:
    """The relative luminance of an `rgb(...)` colour by WCAG 2.2."""
    numbers = color[color.index("(") + 1 : color.index(")")].split(",")[:3]
    parts = [float(number) / 255 for number in numbers]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return sum(weight * one for weight, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
