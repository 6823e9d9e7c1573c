"""The options of each command, written out: a new one is a decision, and so is a name that goes."""

from __future__ import annotations

from typing import Any

import pytest
import typer.main

from beftkit.app import app

#: command -> its long options without ``--``, in alphabetical order
OPTIONS = {
    "score": """
        allow-inert allow-nonfinite candidates download fail-if-target-not fail-on-change families
        format method model-config output plot quiet target-modules tower
    """,
    "inspect": """
        download families format model-config output quiet
    """,
    "demo": """
        output seed
    """,
    "train": """
        accumulation adapter-format add-bias allow-partial answer-column as batch-size beta1 beta2
        bias choices config data-dir data-revision device device-map dry-run dtype early-stopping
        epochs eps
        eval-batch-size eval-steps format freeze-head gradient-checkpointing graphs group-by-length
        keep
        label-column label-map layers log-steps lr max-grad-norm max-length max-steps metric
        new-head no-allow-partial no-freeze-head no-gradient-checkpointing no-group-by-length
        no-new-head no-quotes no-regression no-save-snapshots no-trust-remote-code output overwrite
        peft precision push-to-hub quiet quotes regime regression report-to resume revision
        save-snapshots save-steps schedule seed seeds task template text-columns time tokenizer
        track-steps train-file train-size trust-remote-code validation-file validation-size warmup
        weight-decay
    """,
    "evaluate": """
        adapter answer-column as batch-size choices common-shots data-dir data-revision device
        device-map dtype eval-batch-size format graphs label-column label-map max-length metric
        no-common-shots no-quotes no-trust-remote-code output precision quiet quotes revision seed
        shots task template
        text-columns tokenizer train-file trust-remote-code validation-file validation-size
    """,
    "predict": """
        adapter all-probabilities as base batch-size choices device device-map dtype eval-batch-size
        file
        format graphs max-length no-all-probabilities no-quotes no-trust-remote-code output
        precision quiet quotes revision task template text-columns threshold tokenizer
        trust-remote-code
    """,
    "export": """
        base dtype format no-trust-remote-code output overwrite quiet revision tokenizer
        trust-remote-code
    """,
    "fisher": """
        add-bias allow-inert answer-column as batch-size buffer-mib candidates choices data-dir
        data-revision device
        device-map dry-run dtype examples format gradient-checkpointing graphs head-seeds
        label-column
        label-map max-length new-head no-allow-inert no-gradient-checkpointing no-new-head no-quotes
        no-regression no-trust-remote-code output precision quiet quotes reduce regression revision
        seed snapshots task template text-columns time tokenizer tower train-file train-size
        trust-remote-code variant
    """,
    "select": """
        accumulation add-bias allow-inert answer-column as batch-size beta1 beta2 candidates choices
        config data-dir
        data-revision device device-map dry-run dtype early-stopping epochs eps eval-batch-size
        eval-steps fisher format gradient-checkpointing graphs group-by-length label-column
        label-map
        log-steps lr lrs max-grad-norm max-length metric new-head no-allow-inert no-fisher
        no-gradient-checkpointing no-group-by-length no-new-head no-quotes no-regression
        no-trust-remote-code no-verify output overwrite precision probe-steps quiet quotes regime
        regimes regression report-to resume revision save-steps schedule seed seeds task template
        text-columns time tokenizer train-file train-size trust-remote-code validation-file
        validation-size verify warmup weight-decay
    """,
    "report": """
        output quiet title
    """,
    "paper": """
        batch-size cells data-dir device dry-run epochs eval-steps format model output part
        precision quiet seed seeds time train-size validation-size
    """,
    "extract": """
        adapter-format bias deep download families format model-config output overwrite quiet tower
    """,
    "average": """
        base format head output overwrite quiet scale weights
    """,
    "compare": """
        base download families format model-config output plot quiet tower
    """,
    "merge": """
        dtype format link no-trust-remote-code output overwrite quiet revision tokenizer
        trust-remote-code
    """,
    "survey": """
        download families format from limit max-bytes output quiet resume sort task tower
    """,
}


def opened() -> tuple[Any, Any]:
    """The command line and the context it asks for its commands in."""
    group: Any = typer.main.get_command(app)
    return group, group.make_context("beftkit", [], resilient_parsing=True)


def long_options(command: Any) -> list[str]:
    """Both names of a switch count."""
    names = [name for one in command.params for name in (*one.opts, *one.secondary_opts)]
    return sorted(name.removeprefix("--") for name in names if name.startswith("--"))


def test_every_command_is_listed() -> None:
    group, context = opened()
    assert set(group.list_commands(context)) == set(OPTIONS)
    assert long_options(group) == ["install-completion", "show-completion", "version"]


@pytest.mark.parametrize("command", OPTIONS)
def test_no_option_comes_or_goes_unnoticed(command: str) -> None:
    group, context = opened()
    assert long_options(group.get_command(context, command)) == OPTIONS[command].split()
