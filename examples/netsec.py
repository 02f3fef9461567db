# SPDX-License-Identifier: Apache-2.0
"""Write a small capture, read its flows, classify them.

Usage: python examples/netsec.py FOLDER
"""

import sys
from pathlib import Path

from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from fieldfare.netsec.capture import FlowOptions, read_flows, to_table
from fieldfare.netsec.inference.classifier import load_classifier

HOST, SERVER = "10.0.0.2", "203.0.113.7"


def packets() -> list[Ether]:
    """A question to a name server, and a page fetched without encryption."""
    there, back = Ether() / IP(src=HOST, dst=SERVER), Ether() / IP(src=SERVER, dst=HOST)
    question = DNS(id=7, qd=DNSQR(qname="example.org"))
    request = b"GET / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: curl/8.5\r\nAccept: */*\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\nHello."
    found = [
        there / UDP(sport=50000, dport=53) / question,
        back / UDP(sport=53, dport=50000) / DNS(id=7, qr=1, qd=question.qd),
        there / TCP(sport=40000, dport=80, flags="S"),
        back / TCP(sport=80, dport=40000, flags="SA", ack=1),
        there / TCP(sport=40000, dport=80, flags="PA", seq=1) / Raw(request),
        back / TCP(sport=80, dport=40000, flags="PA", seq=1) / Raw(answer),
        there / TCP(sport=40000, dport=80, flags="FA", seq=1 + len(request)),
        back / TCP(sport=80, dport=40000, flags="FA", seq=1 + len(answer)),
    ]
    for number, packet in enumerate(found):
        packet.time = 1_700_000_000 + 0.01 * number
    return found


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    capture = folder / "capture.pcap"
    wrpcap(str(capture), packets())
    classifier, _ = load_classifier("netmamba_small")
    for batch in read_flows(capture, options=FlowOptions(**classifier.kept)):
        found = classifier.classify(batch)
        rows = to_table(batch).to_pylist()
        for row, probabilities in zip(rows, found.probabilities, strict=True):
            best = probabilities.argmax()
            print(
                f"{row['src_ip']}:{row['src_port']} -> {row['dst_ip']}:{row['dst_port']} "
                f"{classifier.classes[best]} {probabilities[best]:.2f}"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
