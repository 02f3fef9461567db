# SPDX-License-Identifier: Apache-2.0
"""The report of a case: one HTML page that needs no network, and a picture. Not a medical device.

A page carries its pictures, its style and, where asked for, the viewer niivue (BSD 2-Clause) in
itself; a content security policy in it forbids the browser to fetch anything else.
"""

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from fieldfare.common.files import atomic_path, write_text
from fieldfare.common.report import data_uri, render, versions
from fieldfare.common.weights import ModelCard

from ..data.regions import SCHEMES, region_labels, scheme_labels
from ..inference.run import Segmentation
from ..volumes.images import spacing_of
from . import pictures, viewing
from .findings import DOUBT, SMALL_ML, in_words, measure
from .scene import Scene, make_scene

Array = NDArray[Any]

FOOTER = "Not a medical device; for research only."
VIEWER_FOOTER = " Its viewer is niivue 0.69.0 (BSD 2-Clause)."

_HIDDEN_FACTS = ("case", "model", "trust", "guard", "warnings", "notice")


def write_report(
    path: Path,
    *,
    images: NDArray[np.float32],
    seg: Array,
    affine: NDArray[np.float64],
    scheme: str,
    probabilities: NDArray[np.floating] | None = None,
    facts: Mapping[str, Any] | None = None,
    card: ModelCard | None = None,
    warnings: Sequence[str] = (),
    viewer: bool = False,
) -> None:
    """Write the report of a case as one HTML file, whole or not at all.

    Args:
        path: of the page. An existing file is replaced.
        images: (4, X, Y, Z) in the order of `cases.MODALITIES`, any unit, 0 outside the brain and
            for a missing modality.
        seg: (X, Y, Z) labels in `scheme`.
        affine: (4, 4), voxel indices to world mm (RAS+).
        scheme: a key of `regions.SCHEMES`.
        probabilities: (3, X, Y, Z) of WT, TC, ET in [0, 1], for the maps and numbers of certainty.
        facts: what else to tell by name: `case` and `model` go into the head, all else into the
            table of settings.
        card: of the model.
        warnings: sentences for the box on top.
        viewer: whether to put in a three-plane viewer: 2.3 MB and up to 12 MB of images.

    Raises:
        InputError: labels outside the scheme, or no such scheme.
        ValueError: shapes that do not belong together.
    """
    facts = dict(facts or {})
    if isinstance(sources := facts.get("files"), Mapping):
        # Pages are passed on; the folders of whoever made them are nobody's business.
        facts["files"] = {name: Path(source).name for name, source in sources.items()}
    scene = make_scene(images, seg, affine, scheme, probabilities)
    findings = measure(seg, affine, scheme, probabilities)
    entropy = None
    if probabilities is not None:
        entropy = data_uri(pictures.to_bytes(pictures.draw_entropy(scene), "jpg"), "jpeg")
    names = {label: name for name, label in scheme_labels(scheme).items()}
    model = facts.get("model") or (card.name if card else None)
    about = [f"Model {model}"] * bool(model) + [_grid(seg.shape, affine)]
    parts = _viewer(scene, scheme) if viewer else None
    page = render(
        __package__,
        "report.html",
        command="med-seg",
        kind="Brain tumour segmentation",
        title=facts.get("case", "unnamed case"),
        about=about,
        warnings=warnings,
        footer=FOOTER + (VIEWER_FOOTER if viewer else ""),
        scripts=parts["scripts"] if parts else (),
        filters={"ml": _ml, "place": in_words},
        scheme=scheme,
        labels=[
            {
                "name": title,
                "ml": findings.labels_ml[f"{title} ({label})"],
                "number": label,
                "colour": pictures.LABEL_COLOURS[names[label]],
            }
            for label, title in SCHEMES[scheme].items()
        ],
        region_labels=region_labels(scheme),
        findings=findings,
        certain=probabilities is not None,
        planes=_layers(pictures.draw_planes, scene),
        series=_layers(pictures.draw_series, scene),
        entropy=entropy,
        card=card,
        settings={
            **{name: value for name, value in facts.items() if name not in _HIDDEN_FACTS},
            "label_scheme": scheme,
            "versions": versions("fieldfare-medical", "torch", "numpy", "nibabel"),
        },
        numbers={"case": facts.get("case"), "label_scheme": scheme, **asdict(findings)},
        colours=pictures.COLOURS,
        names=pictures.NAMES,
        doubt=DOUBT,
        small_ml=SMALL_ML,
        viewer=parts,
    )
    write_text(path, page)


def write_png(
    path: Path,
    *,
    images: NDArray[np.float32],
    seg: Array,
    affine: NDArray[np.float64],
    scheme: str,
) -> None:
    """Write the slices of the report as one PNG; arguments and errors as of `write_report`."""
    picture = Image.fromarray(pictures.draw_overview(make_scene(images, seg, affine, scheme)))
    with atomic_path(path) as temporary:
        picture.convert("RGB").save(temporary, format="PNG")


def write_pictures(
    images: NDArray[np.float32] | None,
    result: Segmentation,
    *,
    report: Path | None,
    png: Path | None,
    facts: Mapping[str, Any],
    card: ModelCard,
    warnings: Sequence[str],
    viewer: bool,
) -> list[Path]:
    """Write what was asked for of a case that was segmented; the rest as of `write_report`.

    Args:
        images: of the case; may be None where nothing was asked for.
    """
    common: dict[str, Any] = {
        "images": images,
        "seg": result.labels,
        "affine": result.reference.affine,
        "scheme": result.scheme,
    }
    if report is not None:
        write_report(
            report,
            **common,
            probabilities=result.probabilities,
            facts=facts,
            card=card,
            warnings=warnings,
            viewer=viewer,
        )
    if png is not None:
        write_png(png, **common)
    return [path for path in (report, png) if path is not None]


def _ml(value: float) -> str:
    if 0 < value < 0.01:
        return "< 0.01"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _layers(draw: Any, scene: Scene) -> dict[str, str]:
    """A sheet as two pictures of one size, so that a reader can take the outlines off."""
    return {
        "images": data_uri(pictures.to_bytes(draw(scene, outlines=False), "jpg"), "jpeg"),
        "outlines": data_uri(pictures.to_bytes(draw(scene, images=False), "png"), "png"),
    }


def _viewer(scene: Scene, scheme: str) -> dict[str, Any]:
    folder = files(__package__).joinpath("viewer")
    script = gzip.decompress(folder.joinpath("niivue.umd.js.gz").read_bytes()).decode("utf-8")
    own = folder.joinpath("viewer.js").read_text(encoding="utf-8")
    licence = folder.joinpath("LICENSE.txt").read_text(encoding="utf-8")
    return {
        "scripts": [script, own],
        "licence": Markup(licence.replace("--", "- -")),
        "data": viewing.viewer_data(scene, scheme),
    }


def _grid(shape: Sequence[int], affine: NDArray[np.float64]) -> str:
    size = " x ".join(map(str, shape))
    spacing = " x ".join(f"{value:.4g}" for value in spacing_of(affine))
    return f"{size} voxels of {spacing} mm, axes {''.join(nib.aff2axcodes(affine))}"
