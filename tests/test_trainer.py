"""The loop in memory: against a plain loop, and what it reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.nn import functional

import beftkit_kernels
from beftkit.accelerator import make_accelerator
from beftkit.errors import BeftError
from beftkit.objectives import make_objective
from beftkit.settings.train import TrainSettings
from beftkit.tasks import Encoded, higher_is_better, plan
from beftkit.training.course import Course, scores_backend
from beftkit.training.evaluation import evaluate_model
from beftkit.training.job import Job
from beftkit.training.journal import Progress
from beftkit.training.trainer import Trainer
from beftkit.tuning import Tuner, checkpoint_activations, choose, store_for_autocast
from beftkit.watching import Unwatched
from beftkit_kernels import Track
from tests import tiny_models
from tests.tiny_models import BY_ID

LABELS = ("no", "yes")


class Seen(Unwatched):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[Mapping[str, Any]] = []

    def logged(self, record: Mapping[str, Any]) -> None:
        self.records.append(record)


def encoded(count: int, seed: int, regression: bool = False) -> Encoded:
    """Random rows of 2 to 9 tokens; the label says whether small tokens are the more."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 10, (count,), generator=generator)
    rows = [torch.randint(2, 50, (int(n),), generator=generator) for n in lengths]
    shares = torch.tensor([float((row < 26).float().mean()) for row in rows])
    return Encoded(
        ids=torch.cat(rows).to(torch.int32), type_ids=None,
        starts=torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        first_row=torch.arange(count + 1), truncated=0, pad_id=0,
        targets=shares if regression else (shares > 0.5).long(),
    )  # fmt: skip


def model(id: str = "bert", dropout: float = 0.0, labels: int = 2, **options: Any) -> Any:
    torch.manual_seed(0)
    rest = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return tiny_models.build(id, num_labels=labels, **(rest if id == "bert" else {}), **options)


def job(
    net: Any, bias: str = "v", seed: int = 0, count: int = 50, labels: tuple[str, ...] = LABELS,
    metrics: tuple[str, ...] = ("accuracy",), watcher: Unwatched | None = None,
    freeze_head: bool = False, device: str = "cpu", **settings: Any,
) -> Job:  # fmt: skip
    """A job of few examples; settings as in `TrainSettings`."""
    settings = {"lr": 1e-2, "epochs": 2, "batch_size": 8, **settings}
    s = TrainSettings(model="m", train_file="none", bias=bias, **settings)
    accelerator = make_accelerator(device, s.precision)
    net = net.to(accelerator.device)
    tuner = Tuner(net, choose(net, bias, freeze_head=freeze_head), accelerator.device)
    objective = make_objective("classes" if labels else "values", labels)
    return Job(
        settings=s, seed=seed, model=net, tuner=tuner, train=encoded(count, 1, not labels),
        validation={"validation": encoded(31, 2, not labels)}, objective=objective,
        metrics=metrics, better=higher_is_better(metrics[0]), accelerator=accelerator, folder=None,
        watcher=watcher or Unwatched(),
    )  # fmt: skip


def values(tuner: Tuner) -> torch.Tensor:
    return torch.cat([value.detach().reshape(-1) for value in tuner.values])


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("labels", [LABELS, ()], ids=["classes", "values"])
def test_it_is_the_plain_loop(accumulation: int, labels: tuple[str, ...]) -> None:
    """Every update of a loop written out here, on padded whole batches, whole parameters."""
    ours = job(
        model(labels=max(1, len(labels))), labels=labels, accumulation=accumulation,
        metrics=("accuracy",) if labels else ("mse",),
        schedule="linear", warmup=3, max_grad_norm=0.5, weight_decay=0.1,
    )  # fmt: skip
    progress = Trainer(ours).run()
    net, data = model(labels=max(1, len(labels))), ours.train
    trained = [p for n, p in net.named_parameters() if n.endswith("value.bias")
               or n.startswith("classifier") or n == "bert.pooler.dense.bias"]  # fmt: skip
    adam = torch.optim.AdamW(trained, lr=1e-2, eps=1e-6, weight_decay=0.1, betas=(0.9, 0.999))
    total, done = 2 * math.ceil(7 / accumulation), 0
    for epoch in range(2):
        batches = plan(data.lengths, 8, seed=0, epoch=epoch)
        for begin in range(0, len(batches), accumulation):
            chosen = torch.cat(batches[begin : begin + accumulation])
            adam.param_groups[0]["lr"] = 1e-2 * min(done / 3, (total - done) / (total - 3))
            ids = torch.zeros(len(chosen), 9, dtype=torch.int64)
            for row, number in enumerate(chosen.tolist()):
                part = data.ids[data.starts[number] : data.starts[number + 1]]
                ids[row, : len(part)] = part
            logits = net(input_ids=ids, attention_mask=(ids > 0).long()).logits
            targets = data.targets[chosen]
            loss = (functional.cross_entropy(logits, targets) if labels
                    else functional.mse_loss(logits.squeeze(-1), targets))  # fmt: skip
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 0.5)
            adam.step()
            done += 1
    assert progress.step == done == total
    mine = {unit.part.parameter: unit.values for unit in ours.tuner.units}
    for name, parameter in net.named_parameters():
        expected = mine.get(name, parameter)
        torch.testing.assert_close(expected, parameter, rtol=1e-4, atol=2e-6)


def test_same_seed_same_result_and_another_another() -> None:
    found = []
    for seed in (0, 0, 1):
        ours = job(model(dropout=0.2), seed=seed)
        torch.manual_seed(seed)
        Trainer(ours).run()
        found.append(values(ours.tuner))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_it_learns_and_says_so() -> None:
    seen = Seen()
    ours = job(model(), "full", count=200, epochs=8, lr=3e-3, watcher=seen)
    progress = Trainer(ours).run()
    losses = [record["loss"] for record in seen.records if "loss" in record and "lr" in record]
    assert len(losses) == 8 and losses[-1] < 0.7 * losses[0]
    assert progress.best is not None and progress.last is not None
    assert (
        (progress.best.metrics["accuracy"] or 0) >= (progress.last.metrics["accuracy"] or 0) > 0.6
    )
    assert progress.scores["v"] and progress.scores["v"] > 0
    assert progress.scores["k"] is not None and progress.scores["k"] < 1e-2  # inert
    lines = [record for record in seen.records if "metrics" in record]
    assert [record["epoch"] for record in lines] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_is_logged_is_what_was_there() -> None:
    """Loss of the first update, learning rate, clipped norm's raw value, scores."""
    seen = Seen()
    ours = job(model(), log_steps=1, watcher=seen, max_grad_norm=1e-3, epochs=1)
    net = model()
    first = plan(ours.train.lengths, 8, seed=0, epoch=0)[0]
    batch = ours.train.batch(first)
    loss = functional.cross_entropy(net(**batch.inputs).logits, batch.targets)
    loss.backward()
    trained = {unit.part.parameter for unit in ours.tuner.units}
    squares = [
        parameter.grad.square().sum()
        for name, parameter in net.named_parameters()
        if name in trained and parameter.grad is not None
    ]
    Trainer(ours).run()
    record = seen.records[0]
    assert record["step"] == 1 and record["lr"] == 1e-2
    assert record["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert record["grad_norm"] == pytest.approx(float(torch.stack(squares).sum().sqrt()), rel=1e-4)
    before = {n: p.detach().double() for n, p in model().named_parameters()}
    ratios = []
    for unit in ours.tuner.units:
        if unit.part.sites:
            a, b = before[unit.part.parameter], unit.values.detach().double()
            ratios.append(1 - (a @ b) / max(a @ a, b @ b))
    last = [record for record in seen.records if "lr" in record][-1]
    assert last["scores"]["v"] == pytest.approx(float(torch.stack(ratios).mean()), rel=1e-6)


def test_scores_of_every_step() -> None:
    seen = Seen()
    Trainer(job(model(), "q,v", watcher=seen, track_steps=1, epochs=1)).run()
    steps = [record["step"] for record in seen.records if record.keys() == {"step", "scores"}]
    assert steps == [1, 2, 3, 4, 5, 6, 7]
    assert all(set(r["scores"]) == {"q", "v"} for r in seen.records if "scores" in r)


@pytest.mark.parametrize("graphs", ["off", "on"])
def test_a_tracked_step_has_the_scores_of_its_own_values(graphs: str) -> None:
    """They are written to the log later, when the next ones have been computed."""
    long, short = Seen(), Seen()
    how: dict[str, Any] = {"track_steps": 1, "graphs": graphs, "epochs": 1, "lr": 0.05}
    Trainer(job(model(), watcher=long, **how)).run()
    Trainer(job(model(), watcher=short, **how, log_steps=1)).run()
    tracked, logged = (
        {r["step"]: r["scores"]["v"] for r in seen.records if ("lr" in r) is own and "scores" in r}
        for seen, own in ((long, False), (short, True))
    )
    assert len(set(tracked.values())) == 7
    assert tracked == pytest.approx(logged, rel=1e-12)


def test_a_kernel_is_compiled_for_scores_where_they_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compiling takes seconds; which it is follows from the settings, whatever was done before."""
    course = Course(per_epoch=100, updates=9_000, evaluations=90)
    rare = TrainSettings(model="m", train_file="none")
    each = TrainSettings(model="m", train_file="none", track_steps=1)
    both = TrainSettings(model="m", train_file="none", track_steps=1, log_steps=9)
    assert [scores_backend(s, course) for s in (rare, each, both)] == ["torch", "torch", "auto"]
    asked: list[str] = []
    monkeypatch.setattr(
        beftkit_kernels, "Track", lambda *what, backend: asked.append(backend) or Track(*what)
    )
    Trainer(job(model(), track_steps=1))
    Trainer(job(model(), track_steps=1, epochs=2_000))
    assert asked == ["torch", "auto"]


def test_evaluation_every_few_steps_and_early_stopping() -> None:
    seen = Seen()
    ours = job(model(), epochs=4, eval_steps=3, early_stopping=2, lr=1e-9, watcher=seen)
    progress = Trainer(ours).run()
    assert progress.stopped_early and progress.step == 9, "3 is the best, 6 and 9 are no better"
    assert [r["step"] for r in seen.records if "metrics" in r] == [3, 6, 9]


def test_max_steps_ends_within_an_epoch_and_is_evaluated() -> None:
    seen = Seen()
    progress = Trainer(job(model(), max_steps=3, watcher=seen)).run()
    assert progress.step == 3 and progress.epoch == 0 and progress.update == 3
    assert progress.last is not None and progress.last.step == 3


def test_the_best_state_can_be_kept() -> None:
    ours = job(model(), epochs=3, keep="best", lr=0.3)
    trainer = Trainer(ours)
    seen = []
    plain = trainer.evaluate

    def evaluate() -> None:
        plain()
        assert trainer.progress.last is not None
        seen.append((trainer.progress.last.metrics["accuracy"], values(ours.tuner)))

    trainer.evaluate = evaluate  # type: ignore[method-assign]
    trainer.run()
    best = max(seen, key=lambda one: one[0])  # the first of equals
    kept = torch.cat([trainer.best_values[u.part.parameter].reshape(-1) for u in ours.tuner.units])
    assert torch.equal(kept, best[1])


def test_nothing_to_train_is_an_evaluation() -> None:
    ours = job(model(), "none", freeze_head=True)
    before = {n: p.detach().clone() for n, p in ours.model.named_parameters()}
    progress = Trainer(ours).run()
    assert progress.last is not None and not ours.tuner.values
    assert all(torch.equal(p, before[n]) for n, p in ours.model.named_parameters())


@pytest.mark.parametrize("id", ["bert", "gpt2"])
def test_gradient_checkpointing_changes_nothing(id: str) -> None:
    found = []
    for checkpointing in (False, True):
        net = model() if id == "bert" else classifier_gpt2()
        if checkpointing:
            checkpoint_activations(net)
        ours = job(net, "q,v", epochs=1)
        Trainer(ours).run()
        found.append(values(ours.tuner))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)


def classifier_gpt2() -> Any:
    from dataclasses import replace

    case = replace(BY_ID["gpt2"], model="GPT2ForSequenceClassification")
    return tiny_models.build(case, num_labels=2, pad_token_id=0, attn_pdrop=0.0, embd_pdrop=0.0,
                             resid_pdrop=0.0)  # fmt: skip


def test_autocast_trains_float32_biases() -> None:
    precision, half = "bf16", torch.bfloat16
    found = {}
    for name in ("fp32", precision):
        ours = job(model(), "all", precision=name)
        if name != "fp32":
            assert store_for_autocast(ours.model, half) > 10
        before = values(ours.tuner).clone()
        Trainer(ours).run()
        assert all(value.dtype == torch.float32 for value in ours.tuner.values)
        found[name] = values(ours.tuner) - before
    alike = functional.cosine_similarity(found["fp32"], found[precision], dim=0)
    assert 0.9 < alike < 1, "near, and not the same arithmetic"


def test_fp16_needs_a_gpu() -> None:
    """Accelerate would take it and compute in float32."""
    with pytest.raises(BeftError, match="precision='fp16': needs a GPU"):
        make_accelerator("cpu", "fp16")


@pytest.mark.parametrize("device", ["cuda:7", "what"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(BeftError, match=f"device=.?{device}"):
        make_accelerator(device)


def test_evaluation_puts_the_mode_back_and_is_in_order() -> None:
    ours = job(model(dropout=0.5))
    ours.model.train()
    split = ours.validation["validation"]
    found = evaluate_model(ours.model, {"validation": split}, ours.objective, ("accuracy",),
                           ours.accelerator, 7)  # fmt: skip
    assert ours.model.training
    ours.model.eval()
    right, loss = 0, 0.0
    with torch.no_grad():
        for number in range(len(split)):
            batch = split.batch(torch.tensor([number]))
            logits = ours.model(**batch.inputs).logits
            right += int(logits.argmax() == batch.targets[0])
            loss += float(functional.cross_entropy(logits, batch.targets))
    assert found.metrics["accuracy"] == right / 31
    assert found.loss == pytest.approx(loss / 31, rel=1e-5)
    two = evaluate_model(ours.model, {"validation_matched": split, "validation_mismatched": split},
                         ours.objective, ("accuracy", "f1"), ours.accelerator, 64)  # fmt: skip
    assert list(two.metrics) == ["accuracy_matched", "f1_matched", "accuracy_mismatched",
                                 "f1_mismatched"]  # fmt: skip


def test_no_validation_is_no_evaluation() -> None:
    from dataclasses import replace

    progress: Progress = Trainer(replace(job(model()), validation={})).run()
    assert progress.best is None and progress.last is None and progress.step == 14
