# SPDX-License-Identifier: Apache-2.0
"""Made-up flows of three classes, and small untrained classifiers with evidence on them."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from make_captures import ethernet, ipv4, ipv6, pcap, tcp, udp

from fieldfare.netsec.capture import FlowOptions, read_flows
from fieldfare.netsec.data.dataset import LabelledFlows
from fieldfare.netsec.data.flow_rows import concatenate
from fieldfare.netsec.data.labels import Matched
from fieldfare.netsec.evaluation.fitting import fit_evidence
from fieldfare.netsec.inference.classifier import ClassifierConfig, FlowClassifier
from fieldfare.netsec.networks.architectures import architecture
from fieldfare.netsec.networks.netfound import NetFoundConfig
from fieldfare.netsec.networks.netmamba import NetMambaConfig

CLASSES = ("ICMP", "NAME", "WEB")
CONFIGS = {
    "netmamba": NetMambaConfig(
        byte_length=128, packets=2, header_bytes=40, embed_dim=16, depth=1, decoder_embed_dim=8,
        decoder_depth=1,
    ),
    "netfound": NetFoundConfig(16, 1, 2, 32, vocabulary="bytes", payload_tokens=2, max_bursts=4),
}  # fmt: skip
ECHO, NEIGHBOUR = bytes([8, 0, 0, 0, 0, 1, 0, 1]) + bytes(24), bytes([135, 0, 0, 0]) + bytes(20)


def icmp(number):
    """An echo request from its own address."""
    return [(float(number), ethernet(ipv4(ECHO, 1, f"10.1.0.{number}", "10.0.0.2")))]


def ask(number):
    """A flow of UDP to port 53, of its own bytes."""
    rng = np.random.default_rng(number)
    payload = rng.integers(0, 256, int(rng.integers(8, 60)), np.uint8).tobytes()
    packet = ethernet(ipv6(udp(2000 + number, 53, payload), 17), 0x86DD)
    return [(float(number), packet)]


def fetch(number):
    """A flow of TCP to port 80, of its own path."""
    path = "/" + "xyz"[number % 3] * (1 + number)
    payload = f"GET {path} HTTP/1.1".encode()
    packet = ethernet(ipv4(tcp(3000 + number, 80, payload=payload), 6, "10.0.0.1", "10.0.0.2"))
    return [(float(number), packet)]


def make_flows(path: Path) -> LabelledFlows:
    """Thirty flows a class, of the capture that is written to `path`."""
    packets = [p for n in range(30) for p in (*icmp(n + 1), *ask(n), *fetch(n))]
    packets.append((9e3, ethernet(ipv6(NEIGHBOUR, 58), 0x86DD)))
    path.write_bytes(pcap(packets))
    options = FlowOptions(keep_packets=72, keep_header=128, keep_payload=256)
    flows = concatenate(list(read_flows(path, options=options)))
    label = np.array([{1: 0, 58: 0, 17: 1, 6: 2}[p] for p in flows.protocol.tolist()])
    zero = np.zeros(len(flows), np.int64)
    return LabelledFlows(flows, label, zero, zero, CLASSES, ("c.pcap",), Matched())


def member(kind_name):
    torch.manual_seed(0)
    kind, config = architecture(kind_name), CONFIGS[kind_name]
    network = kind.classifier(config, len(CLASSES)).eval()
    described = ClassifierConfig(kind_name, config.to_dict(), CLASSES, ("addresses", "ports"))
    return FlowClassifier(network, described, kind_name)


def together(data, window):
    first, second = member("netmamba"), member("netfound")
    evidence = dataclasses.replace(fit_evidence([first, second], data, data), window=window)
    return FlowClassifier(first.network, first.config, "pair", evidence=evidence, second=second)
