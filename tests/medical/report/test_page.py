# SPDX-License-Identifier: Apache-2.0
"""The report of a case: its numbers, its pictures, and both kinds of page opened in a browser."""

import base64
import gzip
import html
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from ball_cases import affine, ball, images
from browser import Browser
from PIL import Image

from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard
from fieldfare.common.weights.card import Metric
from fieldfare.medical.report import findings, pictures, viewing
from fieldfare.medical.report import page as report
from fieldfare.medical.report.scene import make_scene
from fieldfare.medical.volumes.images import from_canonical

SCHEME = "brats2023"
CARD = ModelCard(
    name="tiny",
    task="brain-tumour-segmentation",
    summary="A network <of> nothing.",
    config={},
    limits="None & all.",
    metrics=(Metric("dice WT", 0.5, "on nothing"),),
)


@pytest.fixture(scope="module")
def case() -> dict:
    """A head of 26 voxels with a ball on the patient's right, and what a network says of it."""
    labels = ball((9, 15, 16), 6.0, 26)
    values = images(labels)
    grid = np.stack(np.meshgrid(*[np.arange(26)] * 3, indexing="ij"))
    outside = ((grid - 12.5) ** 2).sum(axis=0) > 12.5**2
    values[:, outside], labels[outside] = 0, 0
    regions = np.stack([labels > 0, (labels == 1) | (labels == 3), labels == 3])
    return {
        "images": values,
        "seg": labels,
        "affine": affine(),
        "scheme": SCHEME,
        "probabilities": np.where(regions, 0.9, 0.02).astype(np.float32),
    }


def write(folder: Path, case: dict, **more) -> str:
    page = folder / "report.html"
    report.write_report(page, **{**case, **more})
    return page.read_text(encoding="utf-8")


def oblique() -> np.ndarray:
    turned = affine(2.0)
    turned[:3, :3] = nib.eulerangles.euler2mat(0.1, -0.2, 0.3) @ turned[:3, :3]
    turned[:3, 3] = (3, -4, 5)
    return turned


def test_volumes_centroids_and_components_are_those_of_the_voxels():
    seg = np.zeros((20, 16, 12), np.uint8)
    seg[2:6, 2:6, 2:6] = 2
    seg[3:5, 3:5, 3:5] = 3
    seg[12:14, 10, 8] = 2
    seg[14, 11, 9] = 2  # touches by a corner
    found = findings.measure(seg, oblique(), SCHEME)
    whole, core, enhancing = found.regions
    assert whole.ml == pytest.approx((64 + 3) * 8 / 1000)
    assert (whole.components, whole.small, whole.largest_ml) == (2, 1, pytest.approx(0.512))
    assert core.ml == enhancing.ml == pytest.approx(0.064)
    middle = oblique() @ [3.5, 3.5, 3.5, 1]
    assert enhancing.centroid == pytest.approx(middle[:3])
    assert found.lesions[0].centroid == pytest.approx(middle[:3])
    assert found.lesions[0].ml == pytest.approx({"WT": 0.512, "TC": 0.064, "ET": 0.064})
    assert found.lesions[1].ml == pytest.approx({"WT": 0.024, "TC": 0, "ET": 0})
    assert found.labels_ml == pytest.approx({"NCR (1)": 0, "ED (2)": 59 * 0.008, "ET (3)": 0.064})


def test_certainty_counts_the_voxels_that_may_belong_to_a_region():
    seg = np.zeros((10, 10, 10), np.uint8)
    probabilities = np.zeros((3, 10, 10, 10), np.float32)
    probabilities[0, 0] = 0.9
    probabilities[0, 1] = 0.5
    whole, core, _ = findings.measure(seg, np.eye(4), SCHEME, probabilities).regions
    assert whole.range_ml == pytest.approx((0.1, 0.2))
    assert whole.uncertain == pytest.approx(0.5)
    assert whole.entropy == pytest.approx((1 + 0.4690) / 2, abs=1e-4)
    assert (core.range_ml, core.entropy, core.uncertain) == ((0, 0), None, None)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SAL"])
def test_a_scene_is_the_same_however_the_file_is_turned(case, codes):
    turned = nib.orientations.axcodes2ornt(codes)
    image = nib.Nifti1Image(case["seg"], case["affine"])
    start = nib.orientations.io_orientation(case["affine"])
    other = image.as_reoriented(nib.orientations.ornt_transform(start, turned))
    values = np.stack([from_canonical(image, other.affine) for image in case["images"]])
    scene = make_scene(values, np.asarray(other.dataobj), other.affine, SCHEME)
    plain = make_scene(case["images"], case["seg"], case["affine"], SCHEME)
    np.testing.assert_array_equal(scene.images, plain.images)
    np.testing.assert_array_equal(scene.labels, plain.labels)
    np.testing.assert_allclose(scene.affine, plain.affine)


def test_the_patients_right_is_drawn_on_the_left_and_marked(case):
    scene = make_scene(case["images"], case["seg"], case["affine"], SCHEME)
    place = scene.world(np.argwhere(scene.regions[0]).mean(axis=0))
    middle = scene.world(np.array(scene.labels.shape) / 2)
    assert place[0] > middle[0]  # to the patient's right in RAS+
    figure = pictures.draw_planes(scene)
    axes = figure.axes[0]
    outline = axes.collections[0].get_paths()[0].vertices[:, 0].mean()
    assert outline < np.mean(axes.get_xlim())
    letters = {text.get_text(): text.get_position() for text in axes.texts}
    assert letters["R"][0] < 0.5 < letters["L"][0]


def test_outlines_are_in_the_colours_of_the_legend(case, tmp_path):
    report.write_png(tmp_path / "x.png", **{k: v for k, v in case.items() if k != "probabilities"})
    with Image.open(tmp_path / "x.png") as picture:
        found = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    for colour in pictures.COLOURS.values():
        wanted = np.array(list(bytes.fromhex(colour[1:])))
        assert (np.abs(found - wanted).max(axis=1) < 12).sum() > 50


def test_everything_said_is_in_the_page_and_escaped(case, tmp_path):
    text = write(
        tmp_path,
        case,
        facts={"case": "A<b>", "model": "tiny", "files": {"t1": "/secret/A_t1.nii.gz"}},
        card=CARD,
        warnings=["t2 is <missing>"],
    )
    assert "Not a medical device" in text
    assert "A&lt;b&gt;" in text
    assert "A<b>" not in text
    assert "t2 is &lt;missing&gt;" in text
    assert "A network &lt;of&gt; nothing." in text
    assert "None &amp; all." in text
    assert "dice WT" in text
    assert "/secret" not in text
    assert "t1: A_t1.nii.gz" in text
    assert "Uncertainty" in text
    assert "niivue" not in text
    numbers = json.loads(re.search(r'id="findings">(.*?)</script>', text, re.DOTALL)[1])
    ml = findings.measure(case["seg"], case["affine"], SCHEME).regions[0].ml
    assert numbers["regions"][0]["ml"] == pytest.approx(ml)
    shown = html.unescape(re.sub(r"<[^>]*>", " ", text))
    assert f"{ml:.1f}" in shown


def test_a_case_without_tumour_probabilities_and_a_modality_has_a_report(case, tmp_path):
    values = case["images"].copy()
    values[2] = 0
    empty = {**case, "seg": np.zeros_like(case["seg"]), "probabilities": None, "images": values}
    text = write(tmp_path, empty, viewer=True)
    assert "Nothing was found" in text
    assert "Three planes through the most of the brain" in text
    assert "through the tumour" not in text
    assert "Uncertainty" not in text


def test_bad_labels_leave_no_page(case, tmp_path):
    with pytest.raises(InputError, match="holds 9"):
        write(tmp_path, {**case, "seg": np.full_like(case["seg"], 9)})
    assert not list(tmp_path.iterdir())


def test_the_volumes_of_the_viewer_lie_where_the_file_has_them(case):
    scene = make_scene(case["images"], case["seg"], oblique(), SCHEME)
    data = viewing.viewer_data(scene, SCHEME)
    labels = decode(data["labels"])
    assert np.asarray(labels.dataobj).dtype == np.uint8
    assert set(np.unique(labels.dataobj)) == {0, 1, 2, 3}
    ours = labels.affine @ [*np.argwhere(np.asarray(labels.dataobj) == 3).mean(axis=0), 1]
    theirs = oblique() @ [*np.argwhere(case["seg"] == 3).mean(axis=0), 1]
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert data["images"][0]["title"] == "FLAIR"
    for image in data["images"]:
        assert decode(image["data"]).shape == labels.shape
    assert data["colours"]["I"] == [0, 1, 2, 3]


def test_fine_grids_are_made_coarser_over_the_same_field_of_view(case, monkeypatch):
    monkeypatch.setattr(viewing, "MOST_VOXELS", 4000)
    scene = make_scene(case["images"], case["seg"], oblique(), SCHEME)
    labels = decode(viewing.viewer_data(scene, SCHEME)["labels"])
    values = np.asarray(labels.dataobj)
    assert values.size <= 4000
    ours = labels.affine @ [*np.argwhere(values > 0).mean(axis=0), 1]
    theirs = oblique() @ [*np.argwhere(case["seg"] > 0).mean(axis=0), 1]
    assert np.linalg.norm(ours - theirs) < 1  # mm, of voxels over 2
    ml = np.count_nonzero(values) * abs(np.linalg.det(labels.affine[:3, :3]))
    assert ml == pytest.approx(np.count_nonzero(case["seg"]) * 8, rel=0.05)


def decode(data: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(data)))


@pytest.mark.parametrize("viewer", [False, True])
def test_a_browser_shows_the_page_without_network(
    case, tmp_path: Path, browser: Browser, viewer: bool
) -> None:
    write(tmp_path, case, viewer=viewer, card=CARD, warnings=["one"])
    opened = browser.open(tmp_path / "report.html", webgl=viewer)
    assert not opened.said
    assert not opened.hosts
    assert "Not a medical device" in opened.dom
    with Image.open(opened.picture) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500
    if viewer:
        section = re.search(r'<section id="viewer"[^>]*>', opened.dom)[0]
        assert 'data-state="ready"' in section
        assert int(re.search(r'data-colours="(\d+)"', section)[1]) > 50
        # The cross starts inside the tumour.
        assert re.search(r'id="viewer-status">[^<]* mm · (ET|NCR|ED)<', opened.dom)


@pytest.mark.parametrize("width", [1300, 420])
def test_nothing_is_cut_off(case, tmp_path: Path, browser: Browser, width: int) -> None:
    write(tmp_path, case, card=CARD, warnings=["one"])
    assert browser.cut_off(tmp_path / "report.html", width) == []


def test_the_report_of_a_real_case(data, tmp_path):
    from fieldfare.medical.data import cases, loading
    from fieldfare.medical.volumes import images as volumes

    folder = data / "brain" / "TCGA-FG-6692"
    loaded = loading.load(cases.find_case(folder))
    seg = volumes.read_labels(cases.find_labels(folder)).data
    page = tmp_path / "report.html"
    report.write_report(
        page,
        images=loaded.images,
        seg=seg,
        affine=loaded.reference.affine,
        scheme="brats2020",
        viewer=True,
    )
    assert 5e6 < page.stat().st_size < 20e6
    text = page.read_text(encoding="utf-8")
    numbers = json.loads(re.search(r'id="findings">(.*?)</script>', text, re.DOTALL)[1])
    assert [region["ml"] for region in numbers["regions"]] == pytest.approx([30.179, 9.317, 6.84])
    carried = json.loads(re.search(r'id="viewer-data">(.*?)</script>', text, re.DOTALL)[1])
    shown = np.asarray(decode(carried["labels"]).dataobj)
    assert [int((shown == label).sum()) for label in (1, 2, 4)] == [2477, 20862, 6840]
