# SPDX-License-Identifier: Apache-2.0
"""A real browser for tests of pages: what it shows, says and calls, and what is cut off."""

import html
import json
import os
import re
import shutil
import subprocess
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import pytest

# Whom the browser calls for itself, whatever the page.
_OWN_CALLS = ("google.com", "googleapis.com", "gvt1.com")

# Looks for what sticks out of the page, or is clipped inside a box of the page.
_LOOK = """
addEventListener("load", () => setTimeout(() => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument;
  const width = page.documentElement.clientWidth, found = [];
  const scrolls = (node) => {
    for (let box = node.parentElement; box; box = box.parentElement)
      if (/auto|scroll/.test(frame.contentWindow.getComputedStyle(box).overflowX)) return true;
    return false;
  };
  const whole = page.documentElement.scrollWidth;
  if (whole > width) found.push("page " + whole);
  for (const node of page.body.querySelectorAll("*")) {
    const style = frame.contentWindow.getComputedStyle(node), box = node.getBoundingClientRect();
    const name = node.tagName + "." + node.className + " " + node.textContent.trim().slice(0, 30);
    if (box.width && box.right > width + 1 && !scrolls(node)) found.push("sticks out: " + name);
    if (style.overflowX === "hidden" && node.scrollWidth > node.clientWidth + 1)
      found.push("clipped: " + name);
  }
  document.title = "done";
  document.getElementById("found").textContent = JSON.stringify(found);
}, 500));
"""


@dataclass(frozen=True)
class Opened:
    """What a browser made of a page.

    Attributes:
        dom: the page after its scripts have run.
        said: lines of its console; a refused script or picture is told there.
        hosts: whom the page tried to call.
        picture: a screenshot (PNG).
    """

    dom: str
    said: list[str]
    hosts: set[str]
    picture: Path


class Browser:
    """Chromium without a window; skips the test, loudly, where there is none."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        if found is None:
            pytest.skip("NOT CHECKED: no chromium on PATH to open the page with")
        self._command, self._folder, self._count = found, folder, 0

    def open(
        self, page: Path, *, size: tuple[int, int] = (1000, 2400), webgl: bool = False
    ) -> Opened:
        """Open a page and wait for its scripts.

        Args:
            size: of the window, pixels.
            webgl: offer WebGL, in software.
        """
        self._count += 1
        shot = self._folder / f"shot{self._count}.png"
        log = self._folder / f"net{self._count}.json"
        command = [
            *(self._command, "--headless", "--no-sandbox", "--hide-scrollbars", "--no-first-run"),
            *(("--use-gl=angle", "--use-angle=swiftshader") if webgl else ("--disable-gpu",)),
            "--enable-unsafe-swiftshader",
            *("--disable-background-networking", "--disable-component-update"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"),
            *(f"--user-data-dir={self._folder / 'profile'}", f"--log-net-log={log}"),
            *("--virtual-time-budget=10000", f"--window-size={size[0]},{size[1]}"),
            *(f"--screenshot={shot}", "--dump-dom", page.as_uri()),
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env={**os.environ, "TZ": "UTC"},
        )
        hosts = set()
        for event in json.loads(log.read_text())["events"]:
            url = urllib.parse.urlsplit(str(event.get("params", {}).get("url", "")))
            if url.scheme in ("http", "https", "ws", "wss"):
                hosts.add(url.hostname or "")
        return Opened(
            dom=done.stdout,
            said=[line for line in done.stderr.splitlines() if "CONSOLE" in line],
            hosts={host for host in hosts if not host.endswith(_OWN_CALLS)},
            picture=shot,
        )

    def cut_off(self, page: Path, width: int) -> list[str]:
        """Parts of a page that a window of so many pixels cannot show, even by scrolling boxes."""
        text = page.read_text(encoding="utf-8")
        frame = f'<iframe width="{width}" height="4000" srcdoc="{html.escape(text)}"></iframe>'
        outer = self._folder / f"outer{width}.html"
        body = f"<p id='found'></p>{frame}<script>{_LOOK}</script>"
        outer.write_text(f"<!DOCTYPE html><body style='margin:0'>{body}", encoding="utf-8")
        dom = self.open(outer, size=(width + 50, 4200)).dom
        found = re.search(r"<p id=.found.>(.*?)</p>", dom, re.DOTALL)
        assert found, "the page was not looked at"
        listed: list[str] = json.loads(html.unescape(found[1]))
        return listed


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """A browser whose files lie in the test's folder."""
    return Browser(tmp_path)
