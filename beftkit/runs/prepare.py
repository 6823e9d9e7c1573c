"""What a run needs, in one place: accelerator, data, model, tokenizer, objective, examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from beftkit.accelerator import check_weights, make_accelerator
from beftkit.errors import BeftError, UsageError, option
from beftkit.models import Loaded
from beftkit.objectives import Objective, for_files, has_head, kind_of, make_objective, objective_of
from beftkit.objectives.fits import fitted, most_tokens
from beftkit.objectives.shots import Demonstrated, Shots, demonstrate
from beftkit.registry import MAX_LENGTH, REGIMES, TASKS
from beftkit.runs.examples import example_notes
from beftkit.runs.loading import load_data
from beftkit.settings.evaluate import EvaluateSettings
from beftkit.settings.fisher import FisherSettings
from beftkit.settings.parts import BATCH
from beftkit.settings.resolve import Loading
from beftkit.settings.train import TrainSettings
from beftkit.tasks import Data, Encoded, Split, subsample
from beftkit.training.evaluation import load_metrics
from beftkit.tuning import Choice, choose, choose_lora

if TYPE_CHECKING:
    from accelerate import Accelerator

#: for files of the user's own: SST-2's settings
OWN_LR, OWN_EPOCHS = 4e-4, 16
#: full fine-tuning (paper section 3.1)
FULL_LR = 1e-5
#: of a LoRA: none is published beside the method, so that of LoRA's own paper for GPT-2 (table 11)
LORA_LR = 2e-4
#: of the draw of ``validation_size``, so that all seeds are evaluated on the same examples
VALIDATION_SEED = 0


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a run works on. Examples are encoded when they are first asked for.

    Attributes:
        settings: as given; of a run with everything filled in.
        seed: of the head, and of the draw of the training examples.
        accelerator: device, precision, processes.
        data: whole splits.
        objective: what understands their targets.
        loaded: model and tokenizer.
        length: tokens a row may have: what is wanted, or what the model can hold.
    """

    settings: Loading
    seed: int
    accelerator: Accelerator
    data: Data
    objective: Objective
    loaded: Loaded
    length: int

    @property
    def model(self) -> Any:
        """The model."""
        return self.loaded.model

    @cached_property
    def train(self) -> Encoded:
        """The training examples of these settings and this seed.

        Raises:
            BeftError: there are none, or not as many as asked for.
        """
        drawn = training_examples(self.settings, self.data, self.seed)
        return self.objective.compact(self._encode("train", self.objective.taught(drawn)))

    @cached_property
    def validation(self) -> dict[str, Encoded]:
        """The validation examples by split, or so many of each."""
        return {name: self._encode(name, one.split) for name, one in self.demonstrated.items()}

    @cached_property
    def demonstrated(self) -> dict[str, Demonstrated]:
        """The same as texts, behind their demonstrations where settings ask for such."""
        drawn = validation_examples(self.settings, self.data)
        if (how := shots_of(self.settings)) is None:
            return {name: Demonstrated(split) for name, split in drawn.items()}
        tokenizer = self.loaded.tokenizer
        fits = self.length, partial(self.objective.lengths, tokenizer=tokenizer), tokenizer
        # Where there are no training examples, those of the same split that are not evaluated.
        train, whole = self.data.train, self.data.validation
        pools = {name: whole[name] if train is None else train for name in drawn}
        return {name: demonstrate(one, pools[name], how, *fits) for name, one in drawn.items()}

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """What the examples that are trained and evaluated on make doubtful."""
        drawn = training_examples(self.settings, self.data, self.seed)
        return example_notes(drawn, validation_examples(self.settings, self.data), self.data.labels)

    def cut(self, encoded: Encoded) -> list[str]:
        """What is to be said of rows that were cut."""
        count = encoded.truncated
        if not count:
            return []
        return [f"{count} of {len(encoded)} examples cut to {self.length} tokens (--max-length)"]

    def filled(self, settings: TrainSettings) -> TrainSettings:
        """Another run's settings on the same data and model, with everything filled in."""
        return fill_settings(settings, self.model.config, self.data)

    def place(self) -> None:
        """Put the model on its device, unless a device map did."""
        if self.settings.device_map is None:
            self.model.to(self.accelerator.device)

    def _encode(self, name: str, split: Split) -> Encoded:
        encoded = self.objective.encode(split, self.loaded.tokenizer, self.length)
        return fitted(self.loaded, encoded, f"{self.data.name}, {name}")


def prepare(
    settings: Loading,
    seed: int,
    *,
    accelerator: Accelerator | None = None,
    data: Data | None = None,
) -> Prepared:
    """Everything a run needs, from its settings.

    Args:
        settings: of a run, a measurement or an evaluation; their model is named.
        seed: of a fresh head and of the draw of examples.
        accelerator: one that is there already, for another seed of the same call.
        data: the same.

    Raises:
        BeftError: whatever devices, data and models can be asked for in vain.
    """
    s = settings
    accelerator = accelerator or make_accelerator(s.device, s.precision)
    data = data or load_data(s, train=wants_train(s))
    objective = objective_of(data)
    if (how := shots_of(s)) is not None:
        objective.check_shots(how.count)
    loaded = objective.load(s, seed)
    check_weights(accelerator, loaded.model)
    length = most_tokens(loaded, most_wanted(s, objective))
    if isinstance(s, TrainSettings):
        s = fill_settings(s, loaded.model.config, data)
    return Prepared(s, seed, accelerator, data, objective, loaded, length)


def training_examples(settings: Loading, data: Data, seed: int) -> Split:
    """Those that settings ask for: drawn by the seed, or the first ones."""
    s, train = settings, data.train
    if isinstance(s, FisherSettings):
        if train is None:
            raise BeftError(f"{data.name}: no training examples there")
        if s.train_size is not None and s.train_size > len(train):
            raise BeftError(
                f"{data.name}: has {len(train)} training examples, not {s.train_size}; lower "
                "--train-size"
            )
        return train if s.train_size is None else train.take(range(s.train_size))
    if train is None:
        raise BeftError(f"{data.name}: no training examples there; give --train-file")
    if not isinstance(s, TrainSettings):
        return train
    count = s.train_size
    if s.regime in REGIMES and s.task:
        count = min(TASKS[s.task].sizes_as(data.kind)[s.regime], len(train))
    return train if count is None else subsample(train, count, seed)


def wants_train(settings: Loading) -> bool | None:
    """Whether training examples are read; None: if there are any, as demonstrations."""
    if not isinstance(settings, EvaluateSettings):
        return True
    return None if shots_of(settings) else False


def shots_of(settings: Loading) -> Shots | None:
    """The demonstrations that settings ask for, if any.

    Raises:
        UsageError: how they are drawn, or whence, is said, but not how many; or whence twice.
    """
    s = settings
    if not isinstance(s, EvaluateSettings):
        return None
    if s.train_file and s.task:
        raise UsageError("--train-file and --task were both given; expected one of them")
    if not s.shots and s.train_file:
        raise UsageError(
            f"{option('train_file', s.train_file)}: demonstrations are drawn from it; expected "
            "--shots beside it"
        )
    if not s.shots and s.common_shots:
        raise UsageError("--common-shots: of how many demonstrations? expected --shots beside it")
    if not s.shots and s.seed:
        raise UsageError(
            f"{option('seed', s.seed)}: draws demonstrations; expected --shots beside it"
        )
    return Shots(s.shots, s.common_shots, s.seed) if s.shots else None


def validation_examples(settings: Loading, data: Data) -> dict[str, Split]:
    """The validation examples by split, or so many of each as settings ask for."""
    count = None if isinstance(settings, FisherSettings) else settings.validation_size
    return {
        name: one if count is None else subsample(one, min(count, len(one)), VALIDATION_SEED)
        for name, one in data.validation.items()
    }


def check_metrics(names: Sequence[str], objective: Objective, data: Data, trust: bool) -> list[Any]:
    """The metrics, loaded and tried on the targets themselves: mistakes show before the training.

    Raises:
        BeftError: there is no such metric, or it does not fit the targets.
    """
    metrics = load_metrics(names, trust)
    for split in data.validation.values():
        objective.check(metrics, split)
    return metrics


def most_wanted(settings: Loading, objective: Objective) -> int:
    """Tokens that a row may have, unless the model holds fewer."""
    task = TASKS.get(settings.task or "")
    own = settings.max_length or objective.settings(task).get("max_length")
    return own or (task.max_length if task else MAX_LENGTH)


def fill_settings(settings: TrainSettings, config: Any, data: Data) -> TrainSettings:
    """Fill in what is None from the task's published settings, for this kind and size of model."""
    task = TASKS.get(settings.task or "")
    lr, epochs = task.settings(large=_is_large(config)) if task else (OWN_LR, OWN_EPOCHS)
    filled: dict[str, Any] = {
        "lr": lr,
        "epochs": epochs,
        "max_length": task.max_length if task else MAX_LENGTH,
        "batch_size": BATCH,
        "schedule": "constant",
        "regime": "all",
        **objective_of(data).settings(task),
    }
    if settings.bias == "full":
        filled["lr"] = FULL_LR
    if settings.peft:
        filled["lr"] = LORA_LR
    if settings.train_size is not None:  # a size of its own is none of the paper's
        filled["regime"] = "all"
    if task and not settings.metric:
        filled["metric"] = data.metrics
    if task and data.kind != task.kind:
        filled["as_"] = data.kind
    if not (task or has_head(data.kind)) and for_files(data.kind):
        filled["as_"] = data.kind
    missing = {key: value for key, value in filled.items() if getattr(settings, key) in (None, ())}
    return settings.model_copy(update=missing)


def with_regime(settings: TrainSettings) -> TrainSettings:
    """The settings, with the regime that `fill_settings` would give a task of the registry."""
    s = settings
    task = TASKS.get(s.task or "")
    if task is None or s.regime is not None or s.train_size is not None:
        return s
    usual = make_objective(kind_of(s)[0] or task.kind).settings(task)
    return s.model_copy(update={"regime": usual.get("regime", "all")})


def _is_large(config: Any) -> bool:
    """The geometry of BERT-large, and RoBERTa of any size: the published settings go with it."""
    return (getattr(config, "hidden_size", 0) or 0) >= 1024 or config.model_type == "roberta"


def choose_parts(settings: TrainSettings, model: Any, seed: int) -> Choice:
    """What trains in this model."""
    s = settings
    if s.peft:
        return choose_lora(model, freeze_head=s.freeze_head)
    return choose(
        model,
        s.bias,
        add_bias=s.add_bias,
        layers=s.layers,
        freeze_head=s.freeze_head,
        allow_partial=s.allow_partial,
        seed=seed,
    )
