# SPDX-License-Identifier: Apache-2.0
"""Classifiers without training on embeddings: they know what they were shown."""

import numpy as np
import pytest
from judged_flows import CLASSES, make_flows

from fieldfare.netsec.evaluation.compare import compare
from fieldfare.netsec.evaluation.embeddings import SingularKernel


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_flows(tmp_path_factory.mktemp("captures") / "c.pcap")


def by_place(flows):
    """Embeddings whose angle tells the protocol and, a little, the flow."""
    angle = flows.protocol.astype(float) + 1e-3 * np.arange(len(flows))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * (1 + flows.protocol[:, None])


@pytest.mark.parametrize("nearest", [False, True])
def test_it_interpolates_and_gives_shares(nearest, data):
    kernel = SingularKernel(by_place, 3, nearest=nearest).fit(data.flows, data.label)
    shares = kernel(data.flows)
    assert np.array_equal(shares.argmax(axis=1), data.label)
    assert shares.sum(axis=1) == pytest.approx(np.ones(len(data)))


def test_eval_sets_them_beside_a_network(data):
    from judged_flows import member

    found = compare(member("netmamba"), data, "train", neighbours=True)
    kernel, nearest = (
        found.rivals[f"{name} of the embeddings"] for name in ("singular kernel", "nearest flow")
    )
    # they have seen just these flows
    assert kernel.accuracy == nearest.accuracy == 1
    assert set(found.rivals) == {"port lookup"} | {
        f"{name} of the embeddings" for name in ("singular kernel", "nearest flow")
    }
    assert tuple(found.scores.classes) == CLASSES
    assert set(compare(member("netmamba"), data, "train").rivals) == {"port lookup"}
