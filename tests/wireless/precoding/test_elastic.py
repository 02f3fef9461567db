# SPDX-License-Identifier: Apache-2.0
"""fieldfare elastic precoding: sizes cut out of one training, as wl-precode takes them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from fieldfare.common.cli import main
from fieldfare.common.elastic.sandwich import SandwichTask
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import Given
from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.networks.models import load_precoder_network
from fieldfare.wireless.networks.precoder import precode
from fieldfare.wireless.precoding.cli import main as wl_precode
from fieldfare.wireless.precoding.commands.elastic import SPACE, PrecodingElastic
from fieldfare.wireless.training.validation import PrecoderValidation

SMALL = SPACE.canonical({"layers": 3, "width": 6})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few validation channels."""
    init = PrecoderValidation.__init__
    monkeypatch.setattr(PrecoderValidation, "__init__", lambda self, count: init(self, 4))


def test_a_size_cut_out_is_the_one_that_ran() -> None:
    task = PrecodingElastic(Given())
    network = task.elastic("icgnn_precoder").eval()
    batch = task.lessons()[_draw()]
    batch = {name: value.unsqueeze(0) for name, value in batch.items()}
    network.set(SMALL)
    own = network.extract(SMALL)
    assert (own.config["layers"], own.config["width"]) == (3, 6)
    assert torch.equal(task.loss(network, batch), task.loss(own, batch))
    whole = network.full.layers[1].mix.weight
    kept = torch.cat([whole[:6, part * 10 : part * 10 + 6] for part in range(3)], dim=1)
    assert torch.equal(own.layers[1].mix.weight, kept)


def _draw() -> object:
    from fieldfare.common.training import Draw

    return Draw(0, (0, 0))


def test_every_step_trains_both_ends() -> None:
    task = PrecodingElastic(Given())
    network = task.elastic(None)
    batch = {name: value.unsqueeze(0) for name, value in task.lessons()[_draw()].items()}
    seen: list[dict[str, object]] = []

    def loss(one: object, batch: object) -> torch.Tensor:
        seen.append(dict(network.choice))
        return task.loss(network, batch)  # type: ignore[arg-type]

    torch.manual_seed(3)
    total = SandwichTask(loss, draws=3)(network, batch)
    assert seen[:2] == [SPACE.largest(), SPACE.smallest()]
    each = [task.loss(network.extract(choice), batch) for choice in seen]
    torch.testing.assert_close(total, torch.stack(each).sum())
    total.backward()
    first = network.full.layers[0].head.weight.grad
    assert first is not None
    assert bool((first.abs().sum(0) > 0).all())


def test_another_size_to_begin_with_is_refused(tmp_path: Path) -> None:
    task = PrecodingElastic(Given(steps=1))
    target = tmp_path / "small.safetensors"
    task.keep_size(task.elastic(None).extract(SMALL), SMALL, target)
    with pytest.raises(InputError, match="--init"):
        task.elastic(str(target))


def test_the_command_writes_sizes_that_infer_chooses_among(tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["elastic", "precoding", "-o", str(run), "--steps", "2", "--networks", "3"]
    done = CliRunner().invoke(main, [*arguments, "--repeats", "2", "--quiet", "--json"])
    assert done.exit_code == 0, done.output
    sizes = [row["size"] for row in json.loads(done.stdout)["sizes"]]
    assert (sizes[0], sizes[-1]) == ("layers2-width4", "layers6-width10")
    assert len(sizes) == 3
    network, card = load_precoder_network(str(run / "networks/layers2-width4.safetensors"))
    assert "many sizes" in card.summary
    variants = run / "precoding.variants.json"
    H = rayleigh((2, 3, 4), torch.Generator().manual_seed(0))
    channels, result = tmp_path / "c.npz", tmp_path / "p.npz"
    np.savez(channels, H=H.numpy(), power=np.full(2, 10.0), noise_power=np.ones(2))
    infer = ["infer", str(channels), "-o", str(result), "--model", str(variants)]
    chosen = CliRunner().invoke(wl_precode, [*infer, "--variant", sizes[0], "--json", "--quiet"])
    assert chosen.exit_code == 0, chosen.output
    assert json.loads(chosen.stdout)["variant"] == sizes[0]
    assert result.exists()
    assert precode(network, H, 10.0).W.shape == (2, 4, 3)
    refused = CliRunner().invoke(wl_precode, [*infer, "--overwrite"])
    assert refused.exit_code == 2
    assert "holds several models" in refused.output


def test_the_command_lists_and_plans() -> None:
    listed = CliRunner().invoke(main, ["elastic", "--json"])
    assert "precoding" in json.loads(listed.stdout)["tasks"]
    planned = CliRunner().invoke(main, ["elastic", "precoding", "--dry-run", "--json"])
    plan = json.loads(planned.stdout)
    assert plan["sizes"] == len(plan["written"]) == SPACE.count() == 16
    assert plan["smallest"] < plan["largest"]
    missing = CliRunner().invoke(main, ["elastic", "precoding"])
    assert missing.exit_code == 2
    assert "-o: name the folder" in missing.output
    unknown = CliRunner().invoke(main, ["elastic", "sheep", "--dry-run"])
    assert unknown.exit_code == 2
    assert "no sizes of 'sheep' can be trained at once" in unknown.output
