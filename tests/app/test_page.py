"""The page of styleclip-app in a real browser."""

import pathlib
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="needs gradio: the extra app")
pytest.importorskip("selenium", reason="needs selenium: the extra browser")
if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("needs chromium and chromedriver", allow_module_level=True)

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

# Seconds; programs are compiled on the way.
_PATIENCE = 120


@pytest.fixture
def browser(address: str, tmp_path: pathlib.Path) -> Iterator[webdriver.Chrome]:
    """Chromium at the page, with the first face drawn."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument("--window-size=1280,900")
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(tmp_path / "downloads")}
    )
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options, service) as driver:
        driver.get(address)
        wait(driver, lambda: picture(driver, "after"))
        yield driver


def wait(driver: webdriver.Chrome, condition: Callable[[], Any]) -> Any:
    """The first true value of a condition."""
    return WebDriverWait(driver, _PATIENCE, 0.1).until(lambda _: condition())


def find(driver: webdriver.Chrome, selector: str) -> Any:
    return driver.find_element(By.CSS_SELECTOR, selector)


def picture(driver: webdriver.Chrome, name: str) -> str | None:
    """What a picture shows, as a data: address; None without one."""
    found = driver.find_elements(By.CSS_SELECTOR, f"#{name} img")
    return found[0].get_attribute("src") if found else None


def change(driver: webdriver.Chrome, name: str, act: Callable[[], Any]) -> None:
    """Does something and waits until a picture is another one."""
    before = picture(driver, name)
    act()
    wait(driver, lambda: picture(driver, name) not in (None, before))


@pytest.mark.slow
def test_sliders_and_uploads_change_the_picture(
    browser: webdriver.Chrome, tmp_path: pathlib.Path
) -> None:
    start = picture(browser, "before")
    assert start == picture(browser, "after")
    # Another face.
    seed = find(browser, "#seed input")
    change(browser, "before", lambda: seed.send_keys(Keys.BACKSPACE, "7"))
    # A direction, then its sliders.
    change(browser, "after", find(browser, "#measure").click)
    wait(browser, lambda: "channels" in find(browser, "#status").text)
    for name, key in (("alpha", Keys.ARROW_LEFT), ("beta", Keys.HOME)):
        slider = find(browser, f"#{name} input[type=range]")
        change(browser, "after", lambda s=slider, k=key: s.send_keys(k))
        assert picture(browser, "after") != picture(browser, "before")
    # β at its least keeps every channel.
    count = find(browser, "#channels input").get_attribute("value")
    assert f"{count} channels" in find(browser, "#status").text
    # A new start.
    after = picture(browser, "after")
    change(browser, "before", find(browser, "#use").click)
    assert picture(browser, "before") == after
    # A photo.
    random = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    Image.fromarray(random).save(tmp_path / "me.png")
    upload = find(browser, "input[type=file]")
    change(browser, "before", lambda: upload.send_keys(str(tmp_path / "me.png")))


@pytest.mark.slow
def test_what_is_no_photo_is_said_on_the_page(
    browser: webdriver.Chrome, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "me.png").write_text("no picture")
    find(browser, "input[type=file]").send_keys(str(tmp_path / "me.png"))
    wait(
        browser,
        lambda: "me.png: not a readable photo" in find(browser, "body").text,
    )
    assert str(tmp_path) not in find(browser, "body").text


@pytest.mark.slow
def test_edit_is_saved(browser: webdriver.Chrome, tmp_path: pathlib.Path) -> None:
    find(browser, "#save").click()
    links = wait(
        browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#files a[href]")
    )
    names = {re.sub(r".*/", "", link.get_attribute("href")) for link in links}
    assert names == {"edited.png", "edited.npy"}
