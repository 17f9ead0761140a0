"""Compressors that train PyTorch modules: what they learn, that training resumes, and what they refuse."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

from edgeprof.compression.progress import shown_by
from edgeprof.errors import InputError, VariantError
from edgeprof_plugins.compressors.torch import train as torch_train
from tests.plugins.compressors.torch.quarters import NETS, Quarters, X, answers, variant, weights


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))


def test_fine_tuning_learns_keeps_zeros_and_shows_how_far_it_is(tmp_path):
    seen = []
    with shown_by(lambda text, done: seen.append((text, done))):
        made, recipe = variant(f"{NETS}:make", "prune:amount=0.5,epochs=6,lr=0.01,batch=32", tmp_path, Quarters())
    facts = recipe[0]["facts"]
    assert facts["training_accuracy"][1] > max(0.9, facts["training_accuracy"][0])
    values = np.concatenate([w.reshape(-1) for w in weights(made).values()])
    assert (values == 0).mean() >= 0.5
    assert seen[0][0].startswith("prune · epoch 1/6 · loss ")
    assert [done for _, done in seen] == sorted(done for _, done in seen)
    assert seen[-1][1] == 1.0
    assert facts["trained_on"] == "quarters"


def test_trained_clusters_stay_clusters(tmp_path):
    made, _ = variant(f"{NETS}:make", "cluster:n=8,epochs=2,batch=32", tmp_path, Quarters())
    assert all(len(np.unique(w)) <= 8 for w in weights(made).values())


def test_a_run_that_was_killed_ends_with_the_file_of_one_that_was_not(tmp_path):
    data = Quarters(64)
    whole, _ = variant(f"{NETS}:make", "fine-tune:epochs=4,batch=16", tmp_path / "whole", data)

    def killed(text, done):
        if text.startswith("fine-tune · epoch 3/4"):
            raise KeyboardInterrupt

    with shown_by(killed), pytest.raises(KeyboardInterrupt):
        variant(f"{NETS}:make", "fine-tune:epochs=4,batch=16", tmp_path / "killed", data)
    assert list((tmp_path / "killed").iterdir()) == []
    (checkpoint,) = (tmp_path / "data/checkpoints").iterdir()
    resumed, recipe = variant(f"{NETS}:make", "fine-tune:epochs=4,batch=16", tmp_path / "killed", data)
    assert recipe[0]["facts"]["resumed_at_epoch"] == 2
    assert resumed.sha256 == whole.sha256
    assert not checkpoint.exists()


def test_half_a_checkpoint_is_left_out_of_account(tmp_path, monkeypatch):
    folder = tmp_path / "data/checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setattr(torch_train, "key", lambda *_: "run")
    (folder / "run.pt").write_bytes(b"PK\x03\x04 half")
    _, recipe = variant(f"{NETS}:make", "fine-tune:epochs=1,batch=32", tmp_path / "out", Quarters(32))
    assert recipe[0]["facts"]["resumed_at_epoch"] is None


def test_a_checkpoint_that_cannot_be_written_is_told_before_the_next_epoch(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/checkpoints").write_text("a file where a folder is due")
    with pytest.raises(InputError, match="cannot be written") as caught:
        variant(f"{NETS}:make", "fine-tune:epochs=2,batch=32", tmp_path / "out", Quarters(32))
    assert "EDGEPROF_DATA_DIR" in caught.value.remedy


def test_a_loss_that_is_no_number_fails_the_variant(tmp_path):
    with pytest.raises(VariantError, match="diverged") as caught:
        variant(f"{NETS}:make", "fine-tune:epochs=3,lr=10,batch=4", tmp_path, Huge(32))
    assert caught.value.code == "diverged"


class Huge(Quarters):
    def batches(self, size):
        for batch in super().batches(size):
            yield {"": np.full_like(batch[""], 3.3e38)}


@pytest.mark.parametrize(
    ("chain", "made_by"),
    [
        ("distill:student=width:0.5,epochs=1", "the model's most important channels"),
        (f"distill:student={NETS}:narrow,epochs=1", None),
        (f"distill:teacher={NETS}:make,epochs=1", None),
    ],
)
def test_a_student_learns_from_a_teacher(tmp_path, chain, made_by):
    pytest.importorskip("torch_pruning")
    made, recipe = variant(f"{NETS}:make", chain, tmp_path, Quarters(64))
    facts = recipe[0]["facts"]
    assert facts.get("made_by") == made_by
    assert set(facts["training_accuracy"]) == {"teacher", "student"}
    assert answers(made, X).shape == (8, 4)


def test_a_factory_that_takes_a_width_makes_the_student_itself(tmp_path):
    _, recipe = variant(f"{NETS}:half", "distill:student=width:0.5,epochs=1", tmp_path, Quarters(32))
    assert recipe[0]["facts"]["made_by"] == "the factory"
    assert recipe[0]["facts"]["parameters"] < 6000


def test_quantisation_aware_training_ends_in_int8(tmp_path):
    """Of a network without batch norms: torchao takes half a minute to fold them."""
    pytest.importorskip("torchao")
    made, recipe = variant(f"{NETS}:plain", "qat:epochs=2,batch=32,backend=x86", tmp_path, Quarters(64))
    assert recipe[0]["facts"]["int8_mac_share"] == 1.0
    assert recipe[0]["facts"]["epochs"] == 2
    assert np.isfinite(answers(made, X)).all()


def test_samples_with_nan_and_labels_that_do_not_fit_are_named(tmp_path):
    data = Quarters(16)
    data.x[3] = np.nan
    with pytest.raises(InputError, match="sample 3 of quarters has NaN"):
        variant(f"{NETS}:make", "fine-tune:epochs=1", tmp_path, data)
    data = Quarters(16)
    data._labels = data._labels + 7
    with pytest.raises(InputError, match="labels go from 7 to 10"):
        variant(f"{NETS}:make", "fine-tune:epochs=1", tmp_path, data)


def test_a_classifier_is_needed_for_training(tmp_path):
    data = Quarters(8)
    data._labels = data._labels.astype("float32")
    with pytest.raises(InputError, match="no class numbers"):
        variant(f"{NETS}:make", "fine-tune:epochs=1", tmp_path, data)


def test_more_samples_than_memory_holds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_train.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(InputError, match="do not fit into memory"):
        variant(f"{NETS}:make", "fine-tune:epochs=1", tmp_path, Quarters(64))
