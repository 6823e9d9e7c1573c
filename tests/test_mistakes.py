"""Wrong usage and what is like it, through both doors: each says the same in its own tongue."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import beftkit as package
from beftkit.errors import BeftError, UsageError
from tests.command import Beftkit, refused

OWN = {"train_file": "train.jsonl", "validation_file": "dev.jsonl", "device": "cpu"}
RUN = {**OWN, "output": "out"}
TASK = {"task": "rte", "output": "out"}
#: command, settings, exit code, what the terminal says, what Python says
CASES: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("train", {**TASK, "task": "rtee"}, 2, "--task rtee: expected one of cola", "task='rtee': exp"),
    ("train", {**TASK, "regime": "all", "train_size": 0}, 2,
     "--train-size 0: expected a number above 0", "train_size=0: expected a number above 0"),
    ("train", {**TASK, "task": "cb", "regime": "high"}, 2,
     "--regime high: cb has low; --train-size N takes any number",
     "regime='high': cb has low; train_size=N takes any number"),
    ("train", {**TASK, "train_file": "x.csv"}, 2,
     "--task and --train-file were both given", "task and train_file were both given"),
    ("train", {**TASK, "regime": "low", "train_size": 3}, 2,
     "--regime and --train-size were both", "regime and train_size were both"),
    ("train", {"output": "out"}, 2, "neither --task nor --train", "neither task nor train_file"),
    ("train", {**RUN, "bias": "z"}, 2, "--bias z: expected roles out of", "bias='z': expected ro"),
    ("train", {**RUN, "bias": "z", "train_file": "gone.csv", "model": "gone"}, 2,
     "--bias z: expected", "bias='z': expected"),  # before anything is read
    ("train", {**RUN, "bias": "it's"}, 2, "--bias 'it'\"'\"'s': expected", "bias=\"it's\": expec"),
    ("train", {**RUN, "layers": "x"}, 2, "--layers x: expected numbers", "layers='x': expected n"),
    ("train", {**RUN, "layers": "7"}, 1, "--layers 7: no layer 7", "layers='7': no layer 7"),
    ("train", {**RUN, "metric": "acuracy"}, 2, "allow it with --trust-remote-code; did you mean ac",
     "allow it with trust_remote_code=True; did you mean accuracy?"),
    ("train", {**RUN, "metric": "x.py"}, 1, "--metric x.py: no script", "metric='x.py': no scr"),
    ("train", {**RUN, "precision": "fp16"}, 2, "--precision fp16: need", "precision='fp16': need"),
    ("train", {**RUN, "device": "gpu"}, 2, "--device gpu: expected", "device='gpu': expected"),
    ("train", {**RUN, "device": "cuda:99"}, 1, "use --device cpu, or", "use device='cpu', or"),
    ("train", {**RUN, "report_to": "x"}, 2, "--report-to x: expected", "report_to='x': expected"),
    ("train", {**RUN, "push_to_hub": "mine"}, 2, "--push-to-hub mine: e", "push_to_hub='mine': e"),
    ("train", {**RUN, "push_to_hub": "a/b", "seeds": "0,1"}, 2,
     "make as many; give --seeds N, one", "make as many; give seeds=N, one"),
    ("train", {**RUN, "label_map": "x"}, 2, "--label-map x: expected", "label_map='x': expected"),
    ("train", {**RUN, "label_map": "x=y"}, 1, "--label-map: base has", "label_map: base has"),
    ("train", {**RUN, "text_columns": "a,b,c"}, 2, "--text-columns a,b,c", "text_columns='a,b,c'"),
    ("train", {**RUN, "text_columns": "title"}, 1, "no column 'title'", "no column 'title'"),
    ("train", {**RUN, "max_length": 1}, 1, "--max-length 1 leaves", "max_length=1 leaves no room"),
    ("train", {**RUN, "model": "gone"}, 1, "gone: not in the cache", "gone: not in"),
    ("train", {"resume": True, "output": "gone", "model": None}, 1,
     "expected the --output of a run", "expected the output of a run"),
    ("train", {**RUN, "seeds": "1,1"}, 2, "--seeds 1,1: expected diff", "seeds='1,1': expected d"),
    ("train", {**RUN, "bias": "full", "layers": "0"}, 2, "--layers 0: is of biases by their role",
     "layers='0': is of biases by their role, and bias='full' names none; leave it out"),
    ("train", {**RUN, "bias": "rand:5", "adapter_format": "lora"}, 2,
     "--adapter-format lora: --bias rand:5 makes", "adapter_format='lora': bias='rand:5' makes a"),
    ("train", {**RUN, "bias": "head", "freeze_head": True}, 2,
     "--bias head and --freeze-head: nothing would", "bias='head' and freeze_head=True: nothing w"),
    ("train", {**RUN, "precision": "bf16", "dtype": "float16"}, 1,
     "--precision bf16: on a CPU it does not go with weights in float16; give --dtype bfloat16",
     "precision='bf16': on a CPU it does not go with weights in float16; give dtype='bfloat16'"),
    ("train", {**RUN, "seeds": "4294967296"}, 2, "--seeds 4294967296: expected different whole",
     "seeds='4294967296': expected different whole numbers from 0 to 4294967295"),
    ("train", {**RUN, "lr": "inf"}, 2, "--lr inf: expected a finite", "lr='inf': expected a fin"),
    ("train", {**RUN, "lr": "Find"}, 2, "--lr Find: expected a number, or find", "a number, or fi"),
    ("train", {**OWN, "output": ""}, 2, "--output '': empty; expected a path", "output='': empty"),
    ("predict", {"file": "dev.jsonl", "threshold": 2}, 2,
     "--threshold 2: expected a number up to 1", "threshold=2: expected a number up to 1"),
    ("train", {**RUN, "lr": 1e30, "batch_size": 4}, 1, "try a lower --lr, or --precision fp32",
     "try a lower lr, or precision='fp32'"),
    ("train", {**RUN, "output": "full"}, 1, "give another --output", "give another output"),
    ("evaluate", {"model": None, "task": "rte"}, 2, "nor --adapter was", "nor adapter was given"),
    ("evaluate", {"device": "cpu"}, 2, "neither --task nor --valid", "neither task nor validation"),
    ("evaluate", {"validation_file": "dev.jsonl", "batch_size": 2, "eval_batch_size": 3}, 2,
     "--batch-size 2 and --eval-batch-size 3", "batch_size=2 and eval_batch_size=3 are one"),
    ("evaluate", {"validation_file": "dev.jsonl", "device": "cpu"}, 1, "or its --adapter",
     "or its adapter"),
    ("fisher_all", {"train_file": "train.jsonl", "train_size": 3, "examples": 4}, 2,
     "--train-size 3 and --examples 4 are one", "train_size=3 and examples=4 are one setting"),
    ("fisher_all", {"train_file": "train.jsonl", "device": "cpu", "train_size": 999}, 1,
     "not 999; lower --train-size", "not 999; lower train_size"),
    ("fisher_all", {"train_file": "train.jsonl", "device": "cpu", "tower": "x", "train_size": 1}, 1,
     "--tower x: expected one of text", "tower='x': expected one of text"),
    ("select", {**TASK, "candidates": "value"}, 2, "--candidates value: expected some of q, k, v",
     "candidates='value': expected some of q, k, v"),
    ("select", {**TASK, "regimes": "low,hgh"}, 2, "--regimes hgh: expected one of low, medium",
     "regimes='hgh': expected one of low, medium, high, all; did you mean high?"),
    ("select", {**RUN, "verify": True, "validation_file": None}, 2,
     "--verify: compares metrics; give --validation-file", "verify=True: compares metrics; give v"),
    ("select", {"resume": True, "output": "base", "model": None}, 1,
     "base: holds no selection, so there is nothing to resume", "base: holds no selection, so"),
]  # fmt: skip
_OPTION = re.compile(r"(?<![\w/-])--[a-z]")
_BACKTICKS = re.compile(r"`[^`]*`")


def typed(settings: dict[str, Any]) -> list[str]:
    """The same settings as a command line has them; None: left out."""
    words = []
    for name, value in settings.items():
        if name != "model" and value is not None:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


@pytest.mark.parametrize("case", CASES, ids=[f"{c[0]}: {c[3][:40]}" for c in CASES])
def test_both_doors(
    case: tuple[str, dict[str, Any], int, str, str], workplace: Path, beftkit: Beftkit
) -> None:
    command, settings, code, at_terminal, in_python = case
    (workplace / "full").mkdir()
    (workplace / "full/thesis.txt").write_text("precious")
    settings = {"model": "base", **settings}
    model = [settings["model"]] if settings["model"] else []
    ran = beftkit(command.removesuffix("_all"), *model, *typed(settings), "--quiet")
    refused(ran, at_terminal, limit=500, code=code)
    shutil.rmtree("out", ignore_errors=True)
    with pytest.raises(BeftError) as error:
        getattr(package, command)(settings.pop("model"), **settings)
    assert in_python in str(error.value)
    assert isinstance(error.value, UsageError) is (code == 2)
    assert not _OPTION.search(_BACKTICKS.sub("", str(error.value)))
    assert ran.err == f"beftkit: error: {' '.join(error.value.at_terminal.split())}\n"
    assert (workplace / "full/thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("scor a b", "scor: no such command; did you mean score?"),
        ("bert-base-cased", "bert-base-cased: no such command; expected one of score, inspect"),
        ("train base --learning-rate 1", "--learning-rate: no such option; did you mean --lr?"),
        ("train base --learning_rate=1", "--learning_rate: no such option; did you mean --lr?"),
        ("select base --learning-rate 1", "did you mean --lr?"),
        ("train base --num_train_epochs 1", "did you mean --epochs?"),
        ("train base --num-epochs 1", "did you mean --epochs?"),
        ("train base --per_device_train_batch_size 1", "did you mean --batch-size?"),
        ("train base --per_device_eval_batch_size 1", "did you mean --eval-batch-size?"),
        ("evaluate base --per_device_eval_batch_size 1", "did you mean --batch-size?"),
        ("train base --output_dir x", "did you mean --output?"),
        ("train base --max_seq_length 1", "did you mean --max-length?"),
        ("train base --gradient_accumulation_steps 1", "did you mean --accumulation?"),
        ("train base --fp16", "--fp16: no such option; did you mean --precision fp16?"),
        ("train base --bf16", "did you mean --precision bf16?"),
        ("evaluate --adapter_name_or_path x", "did you mean --adapter?"),
        ("train --model_name_or_path x", "it is an argument: beftkit train MODEL"),
        ("train base --max_length 1", "did you mean --max-length?"),
        ("train base --batchsize 1", "did you mean --batch-size?"),
        ("train base --regres", "did you mean --regression?"),
        ("fisher base --example 3", "--example: no such option (beftkit fisher --help)"),
        ("report d --format json", "--format: no such option (beftkit report --help)"),
        ("train base -z", "-z: no such option (beftkit train --help)"),
        ("train base --bias", "--bias: needs a value (beftkit train --help)"),
        ("train base --resume=3", "--resume: takes no value (beftkit train --help)"),
        ("train base --dtype float", "--dtype float: expected one of float32, bfloat16, float16"),
        (
            "score a b --format jsn",
            "expected one of table, json, csv, markdown; did you mean json?",
        ),
        ("demo --seed x", "--seed: expected a whole number (beftkit demo --help)"),
        ("demo --seed -1", "--seed -1: expected a whole number from 0 to 4294967295"),
        ("score", "no PRE was given (beftkit score --help)"),
        ("inspect a b", "b: more arguments than beftkit inspect takes (beftkit inspect --help)"),
        ("--verion", "--verion: no such option; did you mean --version? (beftkit --help)"),
        ("report x -o x.pdf", "x.pdf: expected a file name that ends in .md or .html"),
        ("train base", "no --output was given"),
        ("train --resume", "no --output was given"),
    ],
)
def test_the_parsers_errors_are_ours(arguments: str, message: str, beftkit: Beftkit) -> None:
    refused(beftkit(*arguments.split()), message, code=2)


def test_what_a_user_typed_is_printable(beftkit: Beftkit) -> None:
    ran = beftkit("sc\x1b[31more")
    refused(ran, "sc?[31more: no such command", code=2)
    refused(beftkit("train", "base", "--b\x1bas", "v"), "--b?as: no such option", code=2)
    refused(beftkit("score", "a", "b", "--method", "\x1b"), "--method '\\x1b': expected", code=2)


def test_one_name_where_two_are_wanted(workplace: Path, beftkit: Beftkit) -> None:
    refused(beftkit("score", "base"), "`beftkit score PRE POST`; `beftkit inspect base`", code=2)
    refused(beftkit("score", "gone"), "one name alone has to be an adapter's, two are compared by")


def test_adapters_and_runs_where_models_are_wanted(workplace: Path, beftkit: Beftkit) -> None:
    made = beftkit("train", "base", *typed(RUN), "--max-steps", "1", "--quiet")
    assert made.code == 0, made
    own = typed({**OWN, "output": "new"})
    ran = beftkit("train", "out/adapter", *own)
    refused(ran, "`beftkit predict` and `beftkit evaluate` take it")
    refused(beftkit("train", "out", *own), "out: holds no model but an adapter, out/adapter")
    Path("out/seed-1").mkdir()
    ran = beftkit("train", "--resume", "-o", "out/seed-1")
    refused(ran, "out/seed-1: is one seed of a run; `beftkit train --output out --resume` takes")
    Path("out/seed-1").rmdir()
    ran = beftkit("select", "--resume", "-o", "out")
    refused(ran, "out: holds a run, not a selection; `beftkit train --output out --resume` takes")
    Path("out/run.yaml").rename("out/select.yaml")
    ran = beftkit("train", "--resume", "-o", "out")
    refused(ran, "out: holds a selection, not a run; `beftkit select --output out --resume` takes")
    Path("chosen/select").mkdir(parents=True)
    Path("out/select.yaml").rename("chosen/select/select.yaml")
    ran = beftkit("train", "--resume", "-o", "chosen")
    refused(
        ran, "chosen: its bias was not chosen yet; give the run's settings again, with --bias a"
    )


def test_a_wrong_value_in_a_file_is_the_files(workplace: Path, beftkit: Beftkit) -> None:
    """What was typed is right; and what is typed as well counts."""
    Path("run.yaml").write_text("model: base\ntask: sst2\nlr: fast\n")
    refused(
        beftkit("train", "--config", "run.yaml", "-o", "out"), "run.yaml: lr='fast': expected a"
    )
    ran = beftkit("train", "--config", "run.yaml", "-o", "out", "--lr", "slow")
    refused(ran, "--lr slow: expected a number", code=2)
    Path("run.yaml").write_text("model: base\ntask: sst2\nbias: v\n")
    ran = beftkit("select", "--config", "run.yaml", "-o", "out")
    refused(ran, "run.yaml: bias is set by the selection itself")


def test_former_names_are_taken_and_not_shown(workplace: Path) -> None:
    from beftkit.settings import EvaluateSettings, FisherSettings
    from beftkit.settings.resolve import resolve

    given: dict[str, Any] = {"model": "m", "task": "rte"}
    for kind, old, now in (
        (FisherSettings, "examples", "train_size"),
        (EvaluateSettings, "eval_batch_size", "batch_size"),
    ):
        file = workplace / "old.yaml"
        file.write_text(f"{old}: 5\n")
        assert getattr(resolve(kind, None, {**given, old: 5}), now) == 5
        assert getattr(resolve(kind, None, {**given, old: 5, now: 5}), now) == 5
        assert getattr(resolve(kind, file, given), now) == 5
        assert getattr(resolve(kind, file, {**given, now: 6}), now) == 6  # flags win, as ever
        assert getattr(kind(**given, **{old: 5}), now) == 5
        with pytest.raises(UsageError, match=f"{now}=6 and {old}=5 are one setting"):
            resolve(kind, None, {**given, old: 5, now: 6})
