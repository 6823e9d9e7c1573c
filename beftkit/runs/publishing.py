"""An adapter's model card beside it, and both on the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from beftkit.adapters import BIASES_NAME, CONFIG_NAME, WEIGHTS_NAME
from beftkit.checkpoints.fetch import Connection, Offline
from beftkit.errors import BeftError, UsageError, option
from beftkit.files import write_whole
from beftkit.objectives import Objective
from beftkit.runs import manifest
from beftkit.runs.cards import model_card
from beftkit.runs.folders import ADAPTER
from beftkit.runs.results import Run, TrainResult
from beftkit.runs.standing import Standing
from beftkit.settings.train import TrainSettings
from beftkit.weights import adapter_info

CARD = "README.md"
#: what every tokenizer has; what an adapter before this one had in a repository goes with it
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
_MESSAGE = "Upload adapter trained with beftkit"
_LIMIT = 1_000_000


def write_card(folder: str | Path, result: TrainResult, run: Run, objective: Objective) -> None:
    """Write the model card beside an adapter.

    Args:
        folder: the adapter's.
        result: of all seeds.
        run: the one whose adapter this is.
        objective: of its task.

    Raises:
        BeftError: it cannot be written; a card that was there is untouched.
    """
    names = _beside(Path(folder))
    own = bool(names) and all((Path(folder) / name).is_file() for name in names)
    card = model_card(result, run, objective, own_tokenizer=own)
    write_whole(Path(folder) / CARD, card.encode())


def check_push(repo_id: str) -> None:
    """Refuse a push that cannot succeed, before any work is done for it: one request.

    Raises:
        BeftError: no repository's name, nobody logged in, a token that may not write, or a hub that
            does not answer.
    """
    import huggingface_hub.utils
    from huggingface_hub import constants, get_token

    tools: Any = huggingface_hub.utils
    place = option("push_to_hub", repo_id)
    try:
        tools.validate_repo_id(repo_id)
    except tools.HFValidationError as error:
        raise UsageError(f"{place}: {_first(error)}") from None
    if "/" not in repo_id:
        raise UsageError(f"{place}: expected owner/name")
    if get_token() is None:
        raise BeftError(f"{place}: nobody is logged in; run `hf auth login`, or set HF_TOKEN")
    url = f"{constants.ENDPOINT}/api/whoami-v2"
    try:
        said = json.loads(Connection(repo_id, None).whole(url, repo_id, _LIMIT))
        role = said.get("auth", {}).get("accessToken", {}).get("role")
    except Offline:
        what = "offline mode (HF_HUB_OFFLINE) forbids to ask the hub"
        raise BeftError(f"{place}: {what}") from None
    except BeftError as error:
        raise BeftError(f"--push-to-hub: {error.told}") from None
    except (ValueError, AttributeError, RecursionError):
        what = f"{constants.ENDPOINT} answers, but not as a hub does; is HF_ENDPOINT right?"
        raise BeftError(f"{place}: {what}") from None
    if role == "read":
        what = "the token may only read; make one that may write, then `hf auth login`"
        raise BeftError(f"{place}: {what}")


def push(
    folder: str | Path, repo_id: str, *, private: bool | None = None, revision: str | None = None
) -> str:
    """Upload an adapter and its card in one commit; the repository is made if it is not there.

    Args:
        folder: the adapter's; its tokenizer's files go along, others in it stay here.
        repo_id: ``owner/name``.
        private: of a repository that is made; None: as the owner's account has it.
        revision: branch to commit to, which has to be there; None: main.

    Returns:
        The repository's address.

    Raises:
        BeftError: the hub refuses or cannot be reached; nothing here was changed.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

    from beftkit import __version__

    folder = Path(folder)
    wanted = (CONFIG_NAME, WEIGHTS_NAME, BIASES_NAME, CARD, *_TOKENIZER, *_beside(folder))
    there = [name for name in dict.fromkeys(wanted) if (folder / name).is_file()]
    if not {WEIGHTS_NAME, BIASES_NAME} & {*there}:
        raise BeftError(f"{folder}: no adapter; expected {WEIGHTS_NAME} or {BIASES_NAME} in it")
    check_push(repo_id)
    with _one_line(folder, repo_id):
        api = HfApi(library_name="beftkit", library_version=__version__)
        api.create_repo(repo_id, private=private, exist_ok=True)
        held = api.model_info(repo_id, revision=revision).siblings or ()
        stale = {*wanted} - {*there, CARD} & {one.rfilename for one in held}
        operations: list[Any] = [CommitOperationAdd(name, folder / name) for name in there]
        operations += [CommitOperationDelete(name) for name in sorted(stale)]
        api.create_commit(repo_id, operations, commit_message=_MESSAGE, revision=revision)
    return f"{constants.ENDPOINT}/{repo_id}"


def _beside(folder: Path) -> tuple[str, ...]:
    """The tokenizer's files beside an adapter, as its header names them."""
    try:
        return Standing.of(adapter_info(folder)).tokenizer_files
    except BeftError:
        return ()


@contextmanager
def _one_line(folder: Path, repo_id: str) -> Iterator[None]:
    """What an upload can meet, in one line that says how to do it later."""
    import huggingface_hub.utils
    from huggingface_hub import constants, errors

    tools: Any = huggingface_hub.utils
    client: Any = errors.HfHubHTTPError.__bases__[0]  # of httpx2, or httpx before it
    later = f"the adapter is whole in {folder}: `hf upload {repo_id} {folder} .` sends it later"
    shown = not tools.are_progress_bars_disabled()
    if shown:
        tools.disable_progress_bars()
    try:
        yield
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        said = _first(error.server_message or error)
        if isinstance(error, errors.RevisionNotFoundError):
            why = "no such branch in the repository"
        elif status in (401, 403):
            owner = repo_id.partition("/")[0]
            why = f"the hub does not let you write there ({status}: {said}); may the token write "
            why += f"for {owner}?"
        else:
            why = f"the hub answers {status} ({said})"
        raise BeftError(f"{option('push_to_hub', repo_id)}: {why}; {later}") from None
    except (client, OSError, ValueError, RuntimeError) as error:  # RuntimeError: of hf_xet
        why = f"the upload to {constants.ENDPOINT} failed ({_first(error)})"
        raise BeftError(f"{option('push_to_hub', repo_id)}: {why}; {later}") from None
    finally:
        if shown:
            tools.enable_progress_bars()


def _first(error: object) -> str:
    """The first line of what was said, shortened."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160].rstrip(".")


def check_wanted(settings: TrainSettings) -> None:
    """Refuse ``push_to_hub`` where it cannot succeed, before any work is done for it.

    Raises:
        BeftError: by `check_push`, or a run that ends with no adapter, or with several.
    """
    s = settings
    if s.push_to_hub is None:
        return
    if s.output is None:
        raise UsageError("--push-to-hub: lacks --output, the folder that keeps it too")
    if len(s.seeds) > 1:
        raise UsageError(
            f"--push-to-hub: takes one adapter, and {len(s.seeds)} seeds make as many; give "
            "--seeds=N, one"
        )
    if s.bias.partition(":")[0] in ("full", "rand"):
        raise UsageError(
            f"--push-to-hub: takes adapters, and {option('bias', s.bias)} makes a whole model; "
            "upload it with `hf upload owner/name OUTPUT/model .`"
        )
    check_push(s.push_to_hub)


def hand_over(result: TrainResult, settings: TrainSettings, objective: Objective) -> str | None:
    """Write the card of every adapter of a run, and push where that is asked for.

    Args:
        result: of a run that came to its end.
        settings: of this call.
        objective: of its task.

    Returns:
        The address that was pushed to, or None.
    """
    if settings.output is None:
        return None
    # A run that is pushed later has its card name the place.
    said = result.settings.model_copy(update={"push_to_hub": settings.push_to_hub})
    result = replace(result, settings=said)
    folder = Path(settings.output)
    for run in result.runs:
        if run.adapter == ADAPTER:
            own = folder if len(result.runs) == 1 else folder / f"seed-{run.seed}"
            manifest.add(own, f"{ADAPTER}/{CARD}")
            write_card(own / ADAPTER, result, run, objective)
    if settings.push_to_hub is None:
        return None
    return push(folder / ADAPTER, settings.push_to_hub)
