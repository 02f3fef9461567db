# SPDX-License-Identifier: Apache-2.0
"""Mean and standard deviation over classifiers of several seeds, on val and on test.

    python benchmarks/netsec/seeds.py run0/model.safetensors run1/model.safetensors ... \\
        --labels "$FIELDFARE_DATA/pcaps/labels.csv"

All scores come from `net-traffic eval`, with ports hidden from the audit. Which one to package is
chosen by macro-F1 on val with ports hidden; `pack.py` writes it.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from fieldfare.common import console
from fieldfare.common.weights import read_card
from fieldfare.netsec.cli import main as net_traffic


def evaluate(model: Path, labels: Path, *more: str) -> dict[str, Any]:
    """What `net-traffic eval --json` says."""
    command = ["eval", str(labels), "--model", str(model), "--json", "--quiet", *more]
    answer = CliRunner().invoke(net_traffic, command, catch_exceptions=False)
    if answer.exit_code:
        raise SystemExit(answer.stderr)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def hidden(found: dict[str, Any]) -> dict[str, float]:
    """Scores with ports hidden."""
    row: dict[str, float] = next(row for row in found["audit"] if row["hidden"] == "ports")
    return row


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} +- {deviation:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    baselines: dict[str, dict[str, float]] = {}
    for model in options.models:
        val = evaluate(model, options.labels, "--split", "val")
        test = evaluate(model, options.labels, *([] if baselines else ["--trees"]))
        baselines = baselines or test["baselines"]
        row = {
            "model": str(model),
            "seed": read_card(model).seed,
            "val_hidden_f1": hidden(val)["macro_f1"],
            "hidden_f1": hidden(test)["macro_f1"],
            "hidden_accuracy": hidden(test)["accuracy"],
            "macro_f1": test["macro_f1"],
            "accuracy": test["accuracy"],
            "ece": test["expected_calibration_error"],
        }
        rows.append(row)
        print(console.table([row]), flush=True)
    print(console.table(rows))
    for name in list(rows[0])[2:]:
        print(f"{name}: {spread([row[name] for row in rows])}")
    for name, scores in baselines.items():
        print(f"{name}: macro-F1 {scores['macro_f1']:.3f}, accuracy {scores['accuracy']:.3f}")


if __name__ == "__main__":
    main()
