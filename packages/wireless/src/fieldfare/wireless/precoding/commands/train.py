# SPDX-License-Identifier: Apache-2.0
"""wl-precode train."""

from functools import partial

from fieldfare.common.errors import InputError
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import Metric

from ...networks.models import load_precoder_network
from ...networks.precoder import IcgnnPrecoder
from ...networks.quantised import learn_bits, quantise, stored_bytes
from ...networks.rounded import RoundedPrecoder, freeze
from ...training.run import train_precoder
from ...training.samples import CellBatches, CellSettings
from ...training.save import train_and_save
from ...training.validation import PrecoderValidation
from ..options import LEARN_BITS, TrainOptions


def train(options: TrainOptions) -> None:
    """Train, then write `model.safetensors` with its card."""
    low, high = options.snr_range
    if low > high:
        raise InputError(f"--snr-range {low:g},{high:g}: the lower end comes first")
    cells = CellSettings(
        users=tuple(range(2, options.max_users + 1)),
        max_antennas=options.max_antennas,
        snr_db=(low, high),
        correlated=options.correlated,
        csi_error=options.csi_error,
    )
    start = load_precoder_network(options.init)[0] if options.init else None
    if isinstance(start, RoundedPrecoder):
        raise InputError(f"{options.init}: is rounded already; train the one it was made from")
    twin = None
    if options.bits:
        if start is None:
            raise InputError("--bits: rounds a trained network; name it by --init MODEL")
        learnt = options.bits == LEARN_BITS
        twin = learn_bits(start) if learnt else quantise(start, int(options.bits))

    def run(settings: TrainSettings) -> IcgnnPrecoder:
        trained = train_precoder(
            CellBatches(cells, options.batch),
            settings,
            options.output,
            width=options.width,
            layers=options.layers,
            start=start if twin is None else twin,
            quiet=options.quiet,
        )
        return trained if twin is None else freeze(trained)

    train_and_save(
        options,
        run,
        command="wl-precode",
        noun="channel",
        summary="ICGNN precoder for any number of users and antennas.",
        data=f"channels drawn for every step: 2 to {options.max_users} users, up to "
        f"{options.max_antennas} antennas, {low:g} to {high:g} dB, a share of "
        f"{options.correlated:g} correlated, error of the estimates {options.csi_error:g}",
        measure=partial(_measure, start) if start and twin else lambda _: (),
        limits="sizes, correlation and SNR far from those of the training; compare with wmmse",
    )


def _measure(start: IcgnnPrecoder, network: IcgnnPrecoder) -> tuple[Metric, ...]:
    """Size and rate of a rounded network, beside those of the one it was made from."""
    validate = PrecoderValidation()
    what = "sum rate over that of WMMSE, without the guard, mean over validation channels"
    return (
        Metric("weight_bytes", stored_bytes(network), f"in the file; {stored_bytes(start)} before"),
        Metric("ratio_wmmse", validate(network)["ratio"], what),
        Metric("ratio_wmmse_before", validate(start)["ratio"], "the same, not rounded"),
    )
