"""A dashboard as a browser shows it: the data of its charts, and the text of the page."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
from playwright.sync_api import (
    BrowserContext,
    Locator,
    Page,
    Request,
    Response,
    TimeoutError,
    sync_playwright,
)

TIMEOUT_SECONDS = 180
"""Limit for everything that ends by itself, on a busy machine too."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DASHBOARDS = ("overview", "nodes", "failures", "models", "run")
MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
BLINK = (
    # A mouse: Playwright's own setting, which this option replaces.
    "primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4,"
    # The compiled code of a script is kept from its first load on, not from the second on.
    "v8CacheOptions=4"
)
STILL = """{
    const still = new CSSStyleSheet();
    still.replaceSync(".loading > svg { display: none }");
    document.adoptedStyleSheets.push(still);
    window.requestAnimationFrame = draw => setTimeout(() => draw(performance.now()), 100);
    window.cancelAnimationFrame = clearTimeout;
}"""
"""Hides the spinner of a chart that loads, and draws ten frames a second instead of sixty.

Without a graphics card, each frame of a spinner or of a growing bar takes CPU time.
"""
MINUTELY = """{
    const later = window.setTimeout;
    window.minutely = [];
    window.setTimeout = (act, delay, ...rest) => {
        if (delay === 60000) minutely.push(act);
        return later.call(window, act, delay, ...rest);
    };
}"""
"""Keeps what a page does after a minute, so that a test need not wait for it."""
CHART = ".dashboard-component-chart-holder"
TROUBLE = re.compile(
    r"^(Data error|Unexpected error|Timeout error|No results|Add required control values"
    r"|There is no chart definition)",
    re.MULTILINE,
)


class Superset(msgspec.Struct, frozen=True):
    """Superset as a test sees it."""

    address: str
    home: Path
    """The folder of its keys and logs."""
    files: Path
    """The copy of config/superset that it serves."""
    command: Sequence[str]
    environment: Mapping[str, str]
    printed: str
    """The lines printed until it was ready."""

    def password_of(self, user: str) -> str:
        """Return a user's password."""
        return (self.home / f"{user}-password").read_text().strip()


@contextmanager
def served(
    home: Path, *, root: Path, variables: Mapping[str, str], days: int | None = None
) -> Iterator[Superset]:
    """Serve Superset with a copy of the dashboards' files in `home`.

    It shows the last `days` days, or the days that the files set.

    Raises:
        AssertionError: if it is not served, or does not end with 0.
    """
    checkout = home / "checkout"
    shutil.copytree(root / "config" / "superset", checkout / "config" / "superset")
    (checkout / ".superset").symlink_to(root / ".superset")
    if days is not None:
        for dashboard in (checkout / "config" / "superset" / "assets" / "dashboards").glob(
            "*.yaml"
        ):
            dashboard.write_text(dashboard.read_text().replace(", -7, day)", f", -{days}, day)"))
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DATABASE_", "ORCHESTRA_"))
    }
    variables = {**kept, "ORCHESTRA_ETL_HOME": str(home), "PYTHONPATH": str(root), **variables}
    command = [sys.executable, str(checkout / "config" / "superset" / "serve.py"), "--port", "0"]
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as serving:
        assert serving.stdout is not None
        printed = ""
        try:
            for line in serving.stdout:
                printed += line
                if "Ctrl-C ends it" in line:
                    break
            else:
                raise AssertionError(f"the dashboards are not served: {printed}")
            address = re.search(r"http://127\.0\.0\.1:\d+", printed)
            assert address is not None
            yield Superset(
                address[0],
                home / ("dashboards" if "DATABASE_URL" in variables else "demo/dashboards"),
                checkout / "config" / "superset",
                command,
                variables,
                printed,
            )
        finally:
            # Not SIGINT: a process that a shell started with `&` ignores it.
            serving.send_signal(signal.SIGTERM)
            try:
                status = serving.wait(180)
            finally:
                serving.kill()
        assert status == 0


@contextmanager
def chromium(*, sharp: bool = False) -> Iterator[BrowserContext]:
    """Start Chromium without a window, with a new profile.

    Unlike a context without a profile, it keeps the compiled code of Superset's scripts, of which
    every page loads megabytes. Its pages are tall, because Superset draws only what is visible.
    They are drawn with a sixteenth of the pixels unless they are `sharp`; the layout is the same.

    Raises:
        AssertionError: if none is installed.
    """
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    assert found is not None, "no Chromium is installed: `make test-browser` says how to install it"
    with sync_playwright() as playwright:
        # Chromium's sandbox refuses to run as root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch_persistent_context(
            "",
            executable_path=found,
            args=[*arguments, f"--blink-settings={BLINK}"],
            viewport={"width": 1440, "height": 3000},
            device_scale_factor=1 if sharp else 0.25,
        )
        browser.add_init_script(STILL)
        browser.add_init_script(MINUTELY)
        yield browser
        browser.close()


def sign_in(browser: BrowserContext, superset: Superset) -> Page:
    """Return a page in which admin has signed in."""
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT_SECONDS * 1000)
    page.goto(f"{superset.address}/login/")
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while urlsplit(page.url).path == "/login/":
        assert time.monotonic() < deadline, "admin cannot sign in"
        # Until everything has loaded, the form may be drawn again, empty.
        page.fill("#username", "admin")
        page.fill("#password", superset.password_of("admin"))
        page.press("#password", "Enter")
        with suppress(TimeoutError):
            page.wait_for_url(lambda url: urlsplit(url).path != "/login/", timeout=20_000)
    return page


@contextmanager
def client_of(superset: Superset, user: str = "admin") -> Iterator[httpx.Client]:
    """Provide a client of Superset's API in which this user has signed in, with the form."""
    with httpx.Client(base_url=superset.address, timeout=60) as client:
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', client.get("/login/").text)
        assert token is not None
        form = {
            "username": user,
            "password": superset.password_of(user),
            "csrf_token": token[1],
        }
        answer = client.post("/login/", data=form)
        assert answer.headers.get("location") == "/", f"{user} cannot sign in"
        client.headers["X-CSRFToken"] = client.get("/api/v1/security/csrf_token/").json()["result"]
        client.headers["Referer"] = superset.address
        yield client


def become(page: Page, superset: Superset, user: str) -> None:
    """Let another user sign in, in a page that keeps Superset's scripts in its cache.

    Superset lets no browser cache what depends on the user.
    """
    with client_of(superset, user) as client:
        page.goto("about:blank")
        page.context.clear_cookies()
        page.context.add_cookies(
            [
                {"name": name, "value": value, "url": superset.address}
                for name, value in client.cookies.items()
            ]
        )


def choose(page: Page, filter_: str, option: str) -> None:
    """Choose an option in the filter bar, or take it back; `apply` updates the charts."""
    combobox = page.get_by_role("combobox", name=filter_)
    offered = page.locator(".ant-select-item-option-content").get_by_text(option, exact=True)
    chosen = page.locator(".ant-select-item-option-selected", has=offered)
    # The bar may be drawn again while its options arrive, and then closes its list or loses the
    # click.
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        while not offered.is_visible():
            assert time.monotonic() < deadline, f"{filter_} does not offer {option}"
            combobox.click()
            with suppress(TimeoutError):
                offered.wait_for(timeout=2_000)
        before = chosen.count()
        offered.click()
        for _ in range(50):
            if chosen.count() != before:
                page.keyboard.press("Escape")
                return
            page.wait_for_timeout(100)
        assert time.monotonic() < deadline, f"{filter_} does not take {option}"


def apply(page: Page) -> None:
    """Apply the chosen filters, and wait until a chart requests its data."""
    button = page.locator("[data-test='filter-bar__apply-button']")
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        # The bar may be drawn again while a filter's options arrive, and then lose the click.
        try:
            with page.expect_request(lambda request: _chart_of(request.url) > 0, timeout=20_000):
                button.click()
            return
        except TimeoutError:
            assert time.monotonic() < deadline, "no chart follows the filters"


def refresh(page: Page) -> None:
    """Let the dashboard begin to refresh itself, as it does every other minute, for a minute."""
    assert page.evaluate("minutely.length") > 0, "the dashboard does not refresh itself"
    page.evaluate("minutely.splice(0).forEach(act => act())")


class Shown(msgspec.Struct, frozen=True):
    """A dashboard at the moment when all of its charts had been drawn.

    It stays the same when the page shows another dashboard.
    """

    page: Page
    rows: Mapping[str, list[dict[str, Any]]]
    """The data of each chart, by the chart's title."""
    since: Mapping[str, datetime | None]
    """The start of the time range of each chart."""
    asked_at: Mapping[str, datetime]
    """The time of the database's response for each chart: Superset caches it for half a minute."""
    requests: Mapping[str, int]
    """How often each chart requested its data."""
    numbers: Mapping[str, str]
    """The text of each big number."""
    tables: Mapping[str, list[list[str]]]
    """The text of each table's cells."""
    elements: set[str]
    """Elements in the tables' cells."""
    links: set[str]
    """Targets of the links in tables and texts, without the part after `?`."""
    errors: Sequence[str]
    """Superset's error responses, and charts that show an error, a warning or nothing."""
    other_hosts: set[str]
    """Hosts other than Superset's that the browser was allowed to contact."""

    def chart(self, title: str) -> Locator:
        """Return a chart of the current page by its title."""
        name = self.page.locator(".header-title", has_text=re.compile(f"^{re.escape(title)}$"))
        return self.page.locator(CHART).filter(has=name).first

    def number(self, title: str) -> str:
        """Return the text of a big number."""
        return self.numbers[title]

    def table(self, title: str) -> list[list[str]]:
        """Return the text of a table's cells."""
        return self.tables[title]


DRAWN = {"big_number_total": ".header-line:not(:empty)", "table": "tbody td"}
"""What a drawn chart of this kind has; any other kind has a canvas."""
UNDRAWN = """([drawn, trouble]) => Object.keys(drawn).filter(id => {
    const chart = document.querySelector(`[data-test-chart-id="${id}"]`);
    return chart === null || chart.querySelector(".loading") !== null
        || (chart.querySelector(drawn[id]) === null
            && !RegExp(trouble, "m").test(chart.innerText));
})"""
"""The charts that show neither what their kind shows nor an error.

A chart may have its data while its drawing code is still loading, and is empty until then.
"""
WRITTEN = """charts => charts.map(chart => ({
    title: chart.querySelector("[data-test='slice-header'] .header-title")?.innerText ?? "",
    number: chart.querySelector(".header-line")?.innerText,
    cells: [...chart.querySelectorAll("tbody tr")].map(
        row => [...row.querySelectorAll("td")].map(cell => cell.innerText)),
    warned: chart.querySelector("[data-test='warning'], [aria-label='warning']") !== null,
    elements: [...chart.querySelectorAll("tbody td *")].map(element => element.tagName),
    text: chart.innerText,
    canvases: chart.querySelectorAll("canvas").length,
    loading: chart.querySelectorAll(".loading").length,
}))"""
DASHBOARD = "/superset/dashboard/orchestra-"
NAVIGATE = """address => {
    history.pushState(null, "", address);
    dispatchEvent(new PopStateEvent("popstate", {state: null}));
}"""
"""Opens an address of Superset without loading the page again."""
LINKS = "links => links.map(link => link.origin + link.pathname)"


def open_dashboard(
    page: Page,
    superset: Superset,
    name: str,
    *,
    run: str | None = None,
    time_range: str | None = None,
    reload: bool = True,
) -> Shown:
    """Open a dashboard, and wait until all of its charts are drawn.

    It may be the run dashboard for this run, or a dashboard with this time range. Without `reload`
    a page that shows another dashboard keeps Superset's scripts, as with the links of its menu:
    loading them again takes half of the CPU time.
    """
    address = f"{superset.address}{DASHBOARD}{name}/"
    if run is not None:
        address += (
            "?native_filters=(NATIVE_FILTER-run:(extraFormData:"
            f"(filters:!((col:run_id,op:IN,val:!('{run}')))),"
            f"filterState:(label:'{run}',value:!('{run}')),id:NATIVE_FILTER-run,ownState:()))"
        )
    if time_range is not None:
        address += (
            f"?native_filters=(NATIVE_FILTER-time:(extraFormData:(time_range:'{time_range}'),"
            f"filterState:(value:'{time_range}'),id:NATIVE_FILTER-time,ownState:()))"
        )
    shown = urlsplit(page.url).path
    if reload or not shown.startswith(DASHBOARD) or shown == urlsplit(address).path:
        return draw(page, superset, name, lambda: page.goto(address))
    return draw(page, superset, name, lambda: page.evaluate(NAVIGATE, address))


def draw(
    page: Page,
    superset: Superset,
    name: str,
    act: Callable[[], object],
    *,
    unfiltered: Collection[str] = (),
) -> Shown:
    """Do something that makes the charts request data, and wait until they are drawn again.

    The `unfiltered` charts are not drawn again.
    """
    charts = page.request.get(
        f"{superset.address}/api/v1/dashboard/orchestra-{name}/charts"
    ).json()["result"]
    titles = {chart["id"]: chart["slice_name"] for chart in charts}
    awaited = {chart for chart, title in titles.items() if title not in unfiltered}
    drawn = {
        str(chart["id"]): DRAWN.get(chart["form_data"]["viz_type"], "canvas") for chart in charts
    }
    answers: dict[int, Response] = {}
    requests: Counter[str] = Counter()
    hosts: set[str] = set()

    def count(request: Request) -> None:
        if (chart := _chart_of(request.url)) in titles:
            requests[titles[chart]] += 1

    def note_host(request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme.startswith("http") and "csp" not in (request.failure or "").lower():
            hosts.add(f"{parts.scheme}://{parts.netloc}")

    def receive(response: Response) -> None:
        if (chart := _chart_of(response.url)) in awaited:
            answers[chart] = response

    page.on("request", count)
    page.on("response", receive)
    page.on("requestfinished", note_host)
    page.on("requestfailed", note_host)
    try:
        act()
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while undrawn := (
            awaited - answers.keys()
            or set(map(int, page.evaluate(UNDRAWN, [drawn, TROUBLE.pattern])))
        ):
            assert time.monotonic() < deadline, f"not drawn: {[titles[one] for one in undrawn]}"
            page.wait_for_timeout(100)
        before, written = None, page.locator(CHART).evaluate_all(WRITTEN)
        while written != before:
            assert time.monotonic() < deadline, "the charts keep changing"
            page.wait_for_timeout(300)
            before, written = written, page.locator(CHART).evaluate_all(WRITTEN)
    finally:
        page.remove_listener("request", count)
        page.remove_listener("response", receive)
        page.remove_listener("requestfinished", note_host)
        page.remove_listener("requestfailed", note_host)
    results, errors = {}, []
    for chart, answer in answers.items():
        if answer.status == 200:
            results[titles[chart]] = answer.json()["result"][0]
        else:
            errors.append(f"{titles[chart]}: {answer.text()}")
    errors += [one["text"] for one in written if TROUBLE.search(one["text"])]
    errors += [f"{one['title']}: a warning" for one in written if one["warned"]]
    return Shown(
        page,
        rows={title: result["data"] for title, result in results.items()},
        since={title: time_of(result["from_dttm"]) for title, result in results.items()},
        asked_at={
            title: datetime.fromisoformat(result["queried_dttm"]).replace(tzinfo=UTC)
            for title, result in results.items()
        },
        requests=requests,
        numbers={one["title"]: one["number"] for one in written if one["number"] is not None},
        tables={one["title"]: one["cells"] for one in written},
        elements={element for one in written for element in one["elements"]},
        links=set(page.locator(f"{CHART} tbody a, .dashboard-markdown a").evaluate_all(LINKS)),
        errors=errors,
        other_hosts=hosts - {superset.address},
    )


def _chart_of(url: str) -> int:
    """Return the chart that requests its data with this address; 0 for any other address."""
    parts = urlsplit(url)
    if parts.path != "/api/v1/chart/data":
        return 0
    form = json.loads(parse_qs(parts.query).get("form_data", ["{}"])[0])
    return int(form.get("slice_id", 0))


def is_disguised(text: str) -> bool:
    """Return whether the text has invisible, control or bidirectional characters, or their mark."""
    return any(
        unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp") or letter == "\ufffd"
        for letter in text
    )


def displayed(
    name: str,
    *,
    markup: bool = True,
    most: int = 200,
    kept: int = 200,
    mark: str = " #",
    digits: int = 6,
) -> str:
    """Return a name as the dashboards write it.

    A name that is long, disguised or, where charts show it, with `markup` is marked and cut. Its
    hash distinguishes it from others.
    """
    if len(name) <= most and not is_disguised(name) and not (markup and "<" in name):
        return name
    plain = "".join("\ufffd" if is_disguised(letter) else letter for letter in name)
    plain = plain.replace("<", "\u2039") if markup else plain
    return (
        plain[:kept] + mark + hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()[:digits]
    )


def milliseconds(text: str) -> float:
    """Parse a duration of the dashboards, such as `1m 11.2s`, rounded down to 0.1 s."""
    return sum(
        float(number) * MILLISECONDS[unit]
        for number, unit in re.findall(r"([\d.]+)(ms|[dhms])", text)
    )


def time_of(value: float | None) -> datetime | None:
    """Convert a time in a chart's data from milliseconds since 1970."""
    return None if value is None else datetime.fromtimestamp(value / 1000, UTC)
