# SPDX-License-Identifier: Apache-2.0
"""The word on compiling: once, only inside a command that is not quiet."""

from fieldfare.wireless.networks.kernels.notice import compiling, told_of_compiling


def test_said_once_inside_and_never_outside_or_when_quiet(capsys):
    compiling()
    with told_of_compiling(quiet=False):
        compiling()
        compiling()
    compiling()
    with told_of_compiling(quiet=True):
        compiling()
    assert capsys.readouterr().err.splitlines() == [
        "compiling for this processor, once: half a minute"
    ]
