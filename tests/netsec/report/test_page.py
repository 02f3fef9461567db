# SPDX-License-Identifier: Apache-2.0
"""The report of a run: its sums, its timeline, and the page opened in a browser."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from browser import Browser
from hypothesis import given
from hypothesis import strategies as st

from fieldfare.netsec.report import page as report
from fieldfare.netsec.report.page import (
    COLUMNS,
    UNKNOWN,
    FlowReport,
    amount_text,
    duration_text,
    time_text,
)
from fieldfare.netsec.report.timeline import MOST_BINS, Timeline

HOSTILE = '</script><script>alert("x")</script><b>&\'"'


def table(count: int, seed: int = 0, labels: tuple = ("DNS", "TLS", HOSTILE, None)) -> pa.Table:
    rng = np.random.default_rng(seed)
    start = 1.7e9 + np.sort(rng.uniform(0, 3000, count))
    confidence = rng.random(count)
    return pa.table(
        {
            "src_ip": [f"10.0.{i % 7}.{i % 251}" for i in range(count)],
            "src_port": pa.array(rng.integers(1024, 65535, count), pa.uint16()),
            "dst_ip": ["2001:db8::1"] * count,
            "dst_port": pa.array(np.full(count, 53), pa.uint16()),
            "protocol": pa.array(np.full(count, 17), pa.uint8()),
            "start": start,
            "end": start + rng.exponential(5, count),
            "packets_fwd": rng.integers(1, 9, count),
            "packets_bwd": rng.integers(0, 9, count),
            "bytes_fwd": rng.integers(40, 9000, count),
            "bytes_bwd": rng.permutation(count) + 7,
            "label": pa.array([labels[i % len(labels)] for i in range(count)], pa.string()),
            "probability": confidence,
            "confidence": confidence,
            "model": ["netmamba-small"] * count,
        }
    )


def write(folder: Path, tables: list[pa.Table], **more) -> str:
    made = FlowReport()
    for some in tables:
        made.add(some)
    given = {"captures": ["/secret/day <1>.pcap"], "counts": {"packets": 9, "damaged": 3}} | more
    made.write(folder / "report.html", **given)
    return (folder / "report.html").read_text(encoding="utf-8")


def rows_of(text: str) -> dict[str, list]:
    data = re.search(r'id="flow-data">(.*?)</script>', text, re.DOTALL)[1]
    return dict(zip(COLUMNS, json.loads(data), strict=True))


def test_sums_are_those_of_the_flows_however_they_are_cut():
    whole, cut = FlowReport(), FlowReport()
    flows = table(400)
    whole.add(flows)
    for first in range(0, 400, 90):
        cut.add(flows.slice(first, 90))
    cut.add(flows.slice(0, 0))
    classes = whole.classes()
    assert [entry["name"] for entry in cut.classes()] == [entry["name"] for entry in classes]
    for mine, theirs in zip(classes, cut.classes(), strict=True):
        assert mine == pytest.approx(theirs)
    assert {entry["flows"] for entry in classes} == {100}
    assert {entry["name"] for entry in classes} == {"DNS", "TLS", HOSTILE, UNKNOWN}
    amounts = np.asarray(flows["bytes_fwd"]) + np.asarray(flows["bytes_bwd"])
    assert sum(entry["bytes"] for entry in classes) == amounts.sum()
    assert [entry["bytes"] for entry in classes] == sorted(
        (int(amounts[i::4].sum()) for i in range(4)), reverse=True
    )
    assert sum(entry["flow_share"] for entry in classes) == pytest.approx(1)


def test_the_page_holds_what_was_found_and_escapes_it(tmp_path):
    text = write(
        tmp_path,
        [table(300)],
        counts={"packets": 5000, "damaged": 17, "cut_off": 2},
        settings={"threshold <x>": "0.5 & more"},
        warnings=["<i>one</i>"],
    )
    assert HOSTILE not in text
    assert "alert(&#34;x&#34;)" in text
    assert "day &lt;1&gt;.pcap" in text
    assert "/secret" not in text
    assert "&lt;i&gt;one&lt;/i&gt;" in text
    assert "0.5 &amp; more" in text
    assert "netmamba-small" in text
    assert ">17<" in text
    assert "5,000" in text
    assert "cut off" in text
    assert "75 flows" not in text
    rows = rows_of(text)
    assert len(rows["label"]) == 300
    assert rows["label"][2:4] == [HOSTILE, UNKNOWN]
    flows = table(300)
    duration = np.asarray(flows["end"]) - np.asarray(flows["start"])
    np.testing.assert_allclose(rows["end"], duration, atol=1e-6)


def test_the_table_holds_the_first_flows_only(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MOST_ROWS", 250)
    text = write(tmp_path, [table(100, seed) for seed in range(4)])
    assert len(rows_of(text)["label"]) == 250
    assert "The first 250 of 400 flows" in text
    assert rows_of(text)["bytes_fwd"][200:] == table(100, 2)["bytes_fwd"].to_pylist()[:50]


def test_no_flows_and_many_classes_make_a_page(tmp_path):
    assert "No flow was found" in write(tmp_path, [], counts={"packets": 0})
    text = write(tmp_path, [table(300, labels=tuple(f"C{i}" for i in range(30)))])
    assert "The 12 largest of 30 classes" in text
    assert "others</span>" in text


def test_a_table_of_other_columns_is_refused():
    with pytest.raises(ValueError, match="'label'"):
        FlowReport().add(table(3).drop_columns(["label"]))


flows = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.floats(0, 9.2e9),
        st.floats(0, 1e5) | st.floats(0, 9e9),
        st.integers(0, 10**9),
    ),
    min_size=1,
    max_size=30,
)


@given(parts=st.lists(flows, min_size=1, max_size=4))
def test_a_timeline_keeps_all_bytes_in_few_bins(parts):
    line = Timeline()
    totals = np.zeros(3)
    for part in parts:
        number, start, long, amount = map(np.array, zip(*part, strict=True))
        line.add(number, start, start + long, amount)
        totals += np.bincount(number, amount, 3)
    assert line.values.shape[1] <= MOST_BINS
    sums = np.zeros(3)
    sums[: len(line.values)] = line.values.sum(axis=1)
    np.testing.assert_allclose(sums, totals, rtol=1e-9, atol=1e-3)
    assert line.values.min() > -1e-3


def test_a_flow_is_spread_over_its_time():
    line = Timeline()
    seconds = np.array([100.0, 100.2])
    line.add(np.array([0, 1]), seconds, np.array([100.0, 100.59]), np.array([6.0, 40.0]))
    assert line.width == 0.01
    assert line.first == 10000
    np.testing.assert_allclose(line.values[0, 0], 6)
    np.testing.assert_allclose(line.values[1, 20:], 1)
    line.add(np.array([0]), np.array([40.0]), np.array([30.0]), np.array([5.0]))
    assert line.width == 1
    assert line.first == 40
    np.testing.assert_allclose(line.values[:, [0, -1]], [[5, 6], [0, 40]])


def test_amounts_and_times_as_people_read_them():
    assert [amount_text(n) for n in (0, 999, 999.6, 1234, 5.678e9, 2.5e15)] == [
        "0 B",
        "999 B",
        "1 kB",
        "1.23 kB",
        "5.68 GB",
        "2,500 TB",
    ]
    assert time_text(1.7e9) == "2023-11-14 22:13:20"
    assert time_text(1e15) == "1000000000000000 s"
    widths = (0.5, 30, 1200, 7200, 70 * 86_400)
    assert [duration_text(width) for width in widths] == [
        "0.5 s", "30 s", "20 min 00 s", "2 h 00 min", "70 days",
    ]  # fmt: skip


CLICKS = """<script>
const click = (name) => [...document.querySelectorAll("#flows thead button")]
  .find((button) => button.textContent === name).click();
const first = () => document.querySelector("#flows tbody tr").textContent;
click("Bytes ←"); const most = first();
click("Bytes ←"); const least = first();
click("Class"); const named = first();
const filter = document.querySelector("#flows input");
filter.value = "dns"; filter.dispatchEvent(new Event("input"));
document.querySelectorAll(".pages button")[1].click();
document.body.insertAdjacentText("beforeend",
  `CLICKED ${JSON.stringify([most, least, named, document.querySelector("output").textContent])}`);
</script></body>"""


def test_a_browser_shows_the_page_without_network(tmp_path: Path, browser: Browser) -> None:
    text = write(tmp_path, [table(450)], warnings=["one"])
    assert "script-src 'sha256-" in text
    opened = browser.open(tmp_path / "report.html", size=(1300, 1800))
    assert not opened.said  # what is refused would be told in the console
    assert not opened.hosts
    assert 'data-state="ready"' in opened.dom
    assert "450 flows, page 1 of 5" in opened.dom
    assert opened.dom.count("<rect ") > 50
    body = opened.dom.split("<tbody>")[-2]
    assert body.count("<tr>") == 100
    assert "<b>" not in opened.dom
    assert opened.picture.stat().st_size > 50_000


@pytest.mark.parametrize("width", [1300, 420])
def test_nothing_is_cut_off(tmp_path: Path, browser: Browser, width: int) -> None:
    write(tmp_path, [table(450)], warnings=["one"])
    assert browser.cut_off(tmp_path / "report.html", width) == []


def test_headings_sort_and_the_filter_filters(tmp_path: Path, browser: Browser) -> None:
    text = write(tmp_path, [table(450)])
    # The page itself runs no other script than its own.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    page = tmp_path / "clicked.html"
    page.write_text(text.replace("</body>", CLICKS), encoding="utf-8")
    told = re.search(r"CLICKED (\[.*?\])", browser.open(page).dom)[1]
    most, least, named, status = json.loads(told.replace("&lt;", "<").replace("&gt;", ">"))
    assert most.endswith("456")
    assert least.endswith("7")
    assert named.startswith("<")
    assert status == "113 flows, page 2 of 2"
