# SPDX-License-Identifier: Apache-2.0
"""Eight-bit networks in ONNX Runtime beside float32 there and in torch: time, bytes, error.

    python benchmarks/common/quantise.py --rounds 20 --side 128

Milliseconds of processor time for one image, one thread, the least of the rounds, which take all
forms in turn. Random weights: time does not depend on them, the error of a trained network differs.
"""

import argparse
import tempfile
import time
from pathlib import Path

import onnxruntime
import timm
import torch

from fieldfare.common.efficiency.export import export_onnx
from fieldfare.common.slim.quantise import quantise_dynamic, quantise_static

NAMES = ("resnet18", "mobilenetv3_small_100", "deit_tiny_patch16_224")
INSTALL = "fieldfare-remote-sensing[export]"


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> None:
    """Print a line for each network and form."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--side", type=int, default=128)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x = torch.randn(1, 3, options.side, options.side)
    feed = {"x": x.numpy()}
    for name in NAMES:
        sized = {"img_size": options.side} if "deit" in name else {}
        model = timm.create_model(name, **sized).eval()
        with tempfile.TemporaryDirectory() as folder:
            whole, static, dynamic = (Path(folder) / f"{n}.onnx" for n in ("whole", "s", "d"))
            export_onnx(
                model, [x], whole, input_names=["x"], output_name="y", dynamic_shapes={"x": {}},
                tolerance=1e-3, install=INSTALL,
            )  # fmt: skip
            batches = [{"x": torch.randn_like(x).numpy()} for _ in range(8)]
            found = {
                "static": quantise_static(whole, static, batches, feed, install=INSTALL),
                "dynamic": quantise_dynamic(whole, dynamic, feed, install=INSTALL),
            }
            sessions = {
                n: session(p)
                for n, p in (("float32", whole), ("static", static), ("dynamic", dynamic))
            }
            calls = {n: (lambda s=s: s.run(None, feed)) for n, s in sessions.items()}
            calls["torch"] = lambda model=model: model(x)
            best = dict.fromkeys(calls, float("inf"))
            with torch.inference_mode():
                for _ in range(options.rounds + 1):
                    for form, call in calls.items():
                        start = time.process_time()
                        call()
                        best[form] = min(best[form], time.process_time() - start)
            shown = " ".join(f"{form} {1000 * s:.1f}" for form, s in best.items())
            print(f"{name}: ms {shown}", flush=True)
            for form, result in found.items():
                share = result.bytes_after / result.bytes_before
                print(f"  {form}: {share:.2f} of the bytes, error {result.error:.3f}", flush=True)


if __name__ == "__main__":
    main()
