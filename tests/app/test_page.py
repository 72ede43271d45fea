"""The page of styleclip-app in a real browser."""

import pathlib
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
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
)
# Seconds; programs are compiled on the way.
_PATIENCE = 120


@pytest.fixture
def browser(address: str, tmp_path: pathlib.Path) -> Iterator[webdriver.Chrome]:
    """Chromium at the page, with the first face drawn."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
    ):
        options.add_argument(flag)
    options.add_argument("--window-size=1280,900")
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(tmp_path / "downloads")}
    )
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options, service) as driver:
        driver.get(address)
        wait(driver, lambda: picture(driver, "before"))
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
def test_edits_sliders_and_uploads_change_the_picture(
    browser: webdriver.Chrome, tmp_path: pathlib.Path
) -> None:
    # Nothing is wrong before anything is done.
    assert not browser.find_elements(By.CSS_SELECTOR, "input:invalid, .error")
    # Another face.
    change(browser, "before", find(browser, "#random").click)
    # A direction, then its strength.
    change(browser, "after", find(browser, "#direct").click)
    wait(browser, lambda: "strength" in find(browser, "#status").text)
    slider = find(browser, "#strength input[type=range]")
    change(browser, "after", lambda: slider.send_keys(Keys.ARROW_LEFT, Keys.HOME))
    assert picture(browser, "after") != picture(browser, "before")
    wait(browser, lambda: not find(browser, "#auto input").is_selected())
    # A new start, and back.
    after, before = picture(browser, "after"), picture(browser, "before")
    change(browser, "before", find(browser, "#use").click)
    assert picture(browser, "before") == after
    change(browser, "before", find(browser, "#undo").click)
    assert picture(browser, "before") == before
    # A photo.
    random = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    Image.fromarray(random).save(tmp_path / "me.png")
    upload = find(browser, "input[type=file]")
    change(browser, "before", lambda: upload.send_keys(str(tmp_path / "me.png")))


@pytest.mark.slow
def test_holding_the_edit_shows_the_start_in_its_place(
    browser: webdriver.Chrome,
) -> None:
    change(browser, "after", find(browser, "#direct").click)
    start, edit = find(browser, "#before img"), find(browser, "#after img")
    assert start.rect["x"] < edit.rect["x"]
    hold = ActionChains(browser).move_to_element(edit).click_and_hold()
    hold.perform()
    assert start.rect["x"] == pytest.approx(edit.rect["x"], abs=1)
    ActionChains(browser).release().perform()
    assert start.rect["x"] < edit.rect["x"]


@pytest.mark.slow
def test_pictures_stay_above_the_controls_of_a_phone(
    browser: webdriver.Chrome,
) -> None:
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    button = find(browser, "#direct")
    browser.execute_script("arguments[0].scrollIntoView({block: 'end'})", button)

    def top(selector: str) -> float:
        found = find(browser, selector)
        return browser.execute_script(
            "return arguments[0].getBoundingClientRect().top", found
        )

    wait(browser, lambda: 0 <= top("#pictures") < 20)
    assert top("#direct") > top("#pictures")
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width == 390


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
def test_seeds_that_are_none_are_answered(browser: webdriver.Chrome) -> None:
    (opened,) = (
        x for x in browser.find_elements(By.TAG_NAME, "button") if "on faces" in x.text
    )
    opened.click()
    before = picture(browser, "before")
    seed = wait(browser, lambda: find(browser, "#seed input"))
    seed.send_keys(Keys.BACKSPACE, "-5")
    wait(browser, lambda: "found -5" in find(browser, "#note").text)
    assert picture(browser, "before") == before
    change(browser, "before", lambda: seed.send_keys(*[Keys.BACKSPACE] * 2, "7"))
    wait(browser, lambda: not find(browser, "#note").text)


@pytest.mark.slow
def test_edit_is_saved(browser: webdriver.Chrome) -> None:
    find(browser, "#save").click()
    (link,) = wait(
        browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#files a[href]")
    )
    assert link.get_attribute("href").endswith("/edit.zip")
