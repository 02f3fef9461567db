# SPDX-License-Identifier: Apache-2.0
"""Labelled tables from Python: the same as those of the command, however they are made."""

import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from labelled_captures import name, web
from make_captures import pcap

from fieldfare.netsec.capture import FlowOptions, read_flows
from fieldfare.netsec.cli import main
from fieldfare.netsec.data.flow_files import FLOW_SCHEMA, LABEL_SCHEMA
from fieldfare.netsec.inference.classifier import load_classifier
from fieldfare.netsec.inference.label import LabelSettings, label_stream, write_labels


@pytest.fixture(scope="module")
def classifier():
    return load_classifier("traffic_pair")[0]


@pytest.fixture
def capture(tmp_path):
    path = tmp_path / "c.pcap"
    path.write_bytes(pcap([*web(2001), *name(2003), *web(2009)]))
    return path


def test_three_lines_of_python_do_what_the_command_does(classifier, capture, tmp_path):
    flows = read_flows(capture, options=FlowOptions(**classifier.kept))
    counts = write_labels(classifier, flows, tmp_path / "python.parquet")
    done = CliRunner().invoke(
        main, ["infer", str(capture), "-o", str(tmp_path / "command.parquet"), "--quiet"]
    )
    assert done.exit_code == 0, done.output
    python, command = (tmp_path / f"{who}.parquet" for who in ("python", "command"))
    assert python.read_bytes() == command.read_bytes()
    assert sum(counts.values()) == 3
    assert set(counts) == set(pa.parquet.read_table(python)["label"].to_pylist())


def test_tables_have_the_columns_of_their_settings(classifier, capture):
    flows = list(read_flows(capture, options=FlowOptions(**classifier.kept)))
    settings = LabelSettings(embeddings=True, unknown_below=1.0, first_packets=1)
    (table,) = label_stream(classifier, flows, settings, at_once=True)
    assert table.schema == settings.schema
    assert table.column_names == [*FLOW_SCHEMA.names, *LABEL_SCHEMA.names, "embedding"]
    assert set(table["label"].to_pylist()) == {"unknown"}
    seen = []
    assert LabelSettings().schema == pa.schema([*FLOW_SCHEMA, *LABEL_SCHEMA])
    assert list(label_stream(classifier, iter(seen), settings)) == []
