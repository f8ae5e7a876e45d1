"""The console in a real Chromium, driven by Playwright: figures, many services, themes, keyboard, telephone, offline.

States are awaited with `expect`: the page's policy forbids the evaluation that `wait_for_function` needs.
"""

from __future__ import annotations

import re
import time

import orjson
import pytest
from axe_playwright_python.sync_playwright import Axe
from bench.console.pages import CHROMIUM, Server, chromium, open_page
from bench.console.services import MadeService, many
from playwright.sync_api import expect

from tierserve.console.fleet import Fleet
from tierserve.console.local import LocalSource

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)"),
]
WAIT_MS = 30_000
AHEAD_S = 3600.0  # no supervisor writes the status again, so it must not age during the tests


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("state")
    now = time.time() + AHEAD_S
    MadeService(folder, "assistant").create(20.0, now)
    MadeService(folder, "fifty-sites", 50).create(40.0, now)
    many(folder, 1000, now=now)
    return folder


@pytest.fixture(scope="module")
def server(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIERSERVE_STATE", str(root))
        one = Server(Fleet(LocalSource()))
        one.start()
        yield one
        one.close()


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


@pytest.fixture
def opened(browser, server):
    """Function that opens a page of the console; at the end nothing may have been logged or requested elsewhere."""
    pages = []

    def open_at(address="", *, quiet=True, **context):
        watched = open_page(browser, server.url + address, **context)
        watched.page.set_default_timeout(WAIT_MS)
        pages.append((watched, quiet))
        return watched.page

    yield open_at
    for watched, quiet in pages:
        if quiet:
            assert watched.logged == []
        assert {url for url in watched.requested if not url.startswith(server.url)} == set()
        watched.page.context.close()


def text(page, selector):
    return page.locator(selector).inner_text()


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def tier(page, name):
    """The figures of a tier as a dict."""
    card = page.locator(f'.lane[data-key="{name}"] dl')
    return dict(zip(card.locator("dt").all_inner_texts(), card.locator("dd").all_inner_texts(), strict=True))


def test_a_service_shows_the_figures_of_its_status(opened, server):
    page = opened("#/local/assistant")
    page.wait_for_selector("#chart-arrivals canvas")
    row = next(one for one in server.fleet.rows if one["name"] == "assistant")
    assert text(page, "#state") == "Ready"
    assert text(page, "#slo") == "Target met"
    assert "target p95 1,500 ms" in text(page, "#facts")
    assert float(text(page, "#arrivals")) == pytest.approx(row["arrivalsPerSecond"], rel=0.01)
    pools = server.fleet.of(("local", "assistant"), 0)["service"]["poolStatus"]
    assert [pool["tier"] for pool in pools] == page.locator(".tier h4 > span").all_inner_texts()
    for pool in pools:
        shown = tier(page, pool["tier"])
        assert shown["Replicas"] == str(pool["running"])
        assert float(shown["Cost per hour"]) == pool["costPerHour"]
        assert shown["In flight"] == str(pool["gateway"]["in_flight"])
        if pool["gateway"]["p95_s"] is not None:
            assert shown["p95"] == f"{pool['gateway']['p95_s'] * 1e3:,.0f} ms"
        else:
            assert "p95" not in shown, "no traffic is not 0 ms"
    reasons = page.locator("#decisions .reason").all_inner_texts()
    assert {pool["decision"]["reason"] for pool in pools} == set(reasons)
    assert "edge now" in page.get_attribute("#chart-p95", "aria-label")


def test_figures_and_decisions_follow_the_service(opened, root):
    service = MadeService(root, "assistant")
    page = opened("#/local/assistant")
    page.wait_for_selector("#decisions .reason")
    try:
        service.write(44.0, time.time() + AHEAD_S, late=3.0)
        expect(page.locator("#slo")).to_have_text("Target missed", timeout=WAIT_MS)
        expect(page.locator("#problems")).to_have_text(re.compile(r"SLOMet"), timeout=WAIT_MS)
        assert float(text(page, "#arrivals")) == pytest.approx(44.0, rel=0.05)
        expect(page.locator("#announce")).to_have_text(re.compile(r"Target missed"), timeout=WAIT_MS)
        assert re.match(r"\d+ to \d+", page.locator("#decisions .change").first.inner_text())
    finally:
        service.write(20.0, time.time() + AHEAD_S)
    expect(page.locator("#slo")).to_have_text("Target met", timeout=WAIT_MS)


def test_what_a_status_says_is_text_and_never_markup(opened, root):
    hostile = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    service = MadeService(root, "assistant")
    status = root / service.name / "status.json"
    document = orjson.loads(status.read_bytes())
    for pool in document["status"]["pools"]:
        pool["decision"]["reason"] = pool["model"] = hostile
        pool["desired"] += 1
    document["fileProblem"] = hostile
    status.write_bytes(orjson.dumps(document))
    page = opened("#/local/assistant")
    try:
        expect(page.locator("#problems")).to_contain_text(hostile, timeout=WAIT_MS)
        expect(page.locator("#decisions")).to_contain_text(hostile, timeout=WAIT_MS)
        assert page.locator("main img, main script").count() == 0
        assert "taken" not in page.title()
    finally:
        service.write(20.0, time.time() + AHEAD_S)


def test_a_thousand_services_are_paged_and_found_by_name(opened):
    page = opened()
    page.wait_for_selector("#services tbody tr")
    expect(page.locator("#totals")).to_have_text(re.compile(r"1,?002"), timeout=WAIT_MS)
    expect(page.locator("#services tbody tr")).to_have_count(50, timeout=WAIT_MS)
    page.click("#next")
    expect(page.locator("#page")).to_have_text(re.compile(r"^51 to 100 of 1002$"), timeout=WAIT_MS)
    page.fill("#filter", "service-0777")
    expect(page.locator("#services tbody tr")).to_have_count(1, timeout=WAIT_MS)
    page.click("#services tbody a")
    expect(page.locator("#name")).to_have_text("service-0777", timeout=WAIT_MS)
    expect(page).to_have_url(re.compile(r"#/local/service-0777$"), timeout=WAIT_MS)
    expect(page.locator("#services tbody a")).to_have_attribute("aria-current", "page", timeout=WAIT_MS)
    page.fill("#filter", "no-such-service")
    expect(page.locator("#services tbody tr")).to_have_count(0, timeout=WAIT_MS)
    expect(page.locator("#matching")).to_have_text(re.compile(r"^0 of"), timeout=WAIT_MS)


def test_fifty_sites_are_a_table_and_the_page_is_painted(opened, capsys):
    page = opened("#/local/fifty-sites")
    page.wait_for_selector("#sites summary")
    page.click("#sites summary")
    page.wait_for_selector("#sites tbody tr:nth-child(50)")
    assert tier(page, "edge")["Sites ready"] == "50 of 50"
    assert fits(page)
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    with capsys.disabled():  # measured by bench/console, judged there
        print(f" [first paint with 50 sites beside 1000 services: {paint:.0f} ms]", end="")
    assert paint > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_theme_has_no_violation_that_axe_finds(opened, scheme):
    page = opened("#/local/fifty-sites", color_scheme=scheme, reduced_motion="reduce", bypass_csp=True)
    page.wait_for_selector("#chart-arrivals canvas")
    page.click("#sites summary")
    page.wait_for_selector("#sites tbody tr:nth-child(50)")
    page.click("#wi-submit")
    page.wait_for_selector("#wi-result tfoot")
    found = Axe().run(page)
    assert len(found.response["passes"]) > 20, "axe has run its rules"
    assert found.violations_count == 0, found.generate_report()


def test_the_theme_is_the_systems_until_another_is_chosen_and_kept(opened):
    page = opened("#/local/assistant", color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    page.wait_for_selector("#chart-arrivals canvas")
    dark = page.evaluate(background)
    page.click("#theme")
    light = page.evaluate(background)
    assert dark != light
    page.reload()
    page.wait_for_selector("#service:not([hidden])")
    assert page.evaluate(background) == light
    assert text(page, "#theme") == "Dark theme"


def test_without_motion_nothing_moves(opened):
    page = opened("#/local/assistant", reduced_motion="reduce")
    page.wait_for_selector(".link.moving")
    assert page.evaluate("document.getAnimations().length") == 0


@pytest.mark.parametrize("width", [360, 390, 768, 1440])
def test_it_fits_a_telephone_and_a_screen(opened, width):
    page = opened("#/local/fifty-sites", viewport={"width": width, "height": 780})
    page.wait_for_selector("#chart-arrivals canvas")
    page.click("#sites summary")
    page.fill("#wi-connections", "100")
    page.click("#wi-submit")
    page.wait_for_selector("#wi-result tfoot")
    assert fits(page)
    assert page.locator("#chart-p95 canvas").bounding_box()["width"] <= width


def test_what_if_works_with_the_keyboard_alone(opened):
    page = opened("#/local/assistant", quiet=False)  # Chromium logs each response of 400
    page.wait_for_selector("#prices input")

    def focused():
        return page.evaluate("document.activeElement.id")

    def tab_to(name):
        for _ in range(120):
            if focused() == name:
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"{name} cannot be reached with Tab")

    tab_to("wi-connections")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "focus is visible"
    page.keyboard.type("-5")
    page.keyboard.press("Enter")
    page.wait_for_selector("#wi-connections[aria-invalid=true]")
    assert focused() == "wi-connections", "the focus is on the first field that is wrong"
    described = page.get_attribute("#wi-connections", "aria-describedby")
    assert "connections" in text(page, f"#{described}")
    page.keyboard.press("Control+A")
    page.keyboard.type("300")
    tab_to("wi-think")
    page.keyboard.type("20")
    tab_to("wi-price-2")
    page.keyboard.type("10.5")
    page.keyboard.press("Enter")
    page.wait_for_selector("#wi-result tfoot")
    assert page.locator("#what-if [aria-invalid]").count() == 0
    cells = page.locator("#wi-result tbody tr").nth(2).locator("th, td").all_inner_texts()
    assert cells[0] == "cloud"
    assert float(cells[8].replace(",", "")) == pytest.approx(10.5 * int(cells[4]))
    tab_to("wi-submit")


def test_a_question_about_a_tier_or_a_target_that_cannot_be_is_answered_with_its_field(opened):
    page = opened("#/local/assistant", quiet=False)  # Chromium logs each response of 400
    page.wait_for_selector("#prices input")
    page.fill("#wi-target", "10")
    page.click("#wi-submit")
    page.wait_for_selector("#wi-errors p")
    assert "network.rtt" in text(page, "#wi-errors")
    page.fill("#wi-target", "soon")
    page.click("#wi-submit")
    page.wait_for_selector("#wi-target[aria-invalid=true]")


def test_a_link_to_a_service_that_is_gone_says_so_and_back_leads_back(opened):
    page = opened("#/local/assistant", quiet=False)  # Chromium logs the 404
    page.wait_for_selector("#service:not([hidden])")
    page.evaluate("location.hash = '#/local/gone'")
    page.wait_for_selector("#empty:not([hidden])")
    expect(page.locator("#empty")).to_contain_text("local/gone", timeout=WAIT_MS)
    page.go_back()
    expect(page.locator("#service")).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("#name")).to_have_text("assistant", timeout=WAIT_MS)


def test_while_the_browser_is_offline_the_page_says_since_when_and_recovers(opened):
    page = opened("#/local/assistant", quiet=False)  # Chromium logs requests that fail
    page.wait_for_selector("#chart-arrivals canvas")
    before = text(page, "#arrivals")
    page.context.set_offline(True)
    page.wait_for_selector("#offline:not([hidden])")
    assert re.search(r"since \d\d:\d\d:\d\d", text(page, "#offline"))
    assert text(page, "#arrivals") == before, "the last figures stay"
    page.context.set_offline(False)
    page.wait_for_selector("#offline", state="hidden")
    expect(page.locator("#announce")).to_contain_text("answers again", timeout=WAIT_MS)


def test_while_the_server_is_away_the_page_tries_again_until_it_is_back(browser, root):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIERSERVE_STATE", str(root))
        one = Server(Fleet(LocalSource()))
        one.start()
        try:
            watched = open_page(browser, f"{one.url}#/local/assistant")
            watched.page.wait_for_selector("#chart-arrivals canvas")
            one.stop()
            watched.page.wait_for_selector("#offline:not([hidden])")
            one.start()
            watched.page.wait_for_selector("#offline", state="hidden", timeout=40_000)
            watched.page.context.close()
        finally:
            one.close()


def test_when_the_services_cannot_be_read_the_page_names_the_reason(browser, root, tmp_path):
    class Broken(LocalSource):
        """A source whose state folder is away for a while."""

        away = False

        async def services(self):
            from tierserve.console.sources import SourceError

            if self.away:
                raise SourceError("state folder: Permission denied")
            return await super().services()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIERSERVE_STATE", str(root))
        source = Broken()
        one = Server(Fleet(source))
        one.start()
        try:
            watched = open_page(browser, f"{one.url}#/local/assistant")
            watched.page.wait_for_selector("#chart-arrivals canvas")
            source.away = True
            watched.page.wait_for_selector("#offline:not([hidden])")
            assert "Permission denied" in text(watched.page, "#offline")
            source.away = False
            watched.page.wait_for_selector("#offline", state="hidden")
            assert watched.logged == []
            watched.page.context.close()
        finally:
            one.close()
