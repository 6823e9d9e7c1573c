"""What other libraries fetch from the hub: at once or not at all, and in our words if not."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_COMMIT = re.compile("[0-9a-f]{40}")
_answered: set[str] = set()


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """While it lasts, a hub where nobody answers counts as offline mode: the cache is asked alone.

    huggingface_hub itself tries for 23 s, file by file, with a line on stderr for every attempt.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT):
        yield
        return
    told: list[Any] = [constants]
    if "datasets" in sys.modules:  # keeps a copy
        told.append(sys.modules["datasets"].config)
    for module in told:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module in told:
            module.HF_HUB_OFFLINE = False


def _answers(endpoint: str) -> bool:
    """Whether somebody answers there, whatever it is; asked until the first answer only."""
    from huggingface_hub import constants, errors, get_session

    client: Any = errors.HfHubHTTPError.__bases__[0]  # of httpx2, or httpx before it
    if endpoint not in _answered:
        try:
            get_session().head(endpoint, timeout=float(constants.HF_HUB_ETAG_TIMEOUT))
        except (client, OSError):
            return False
        _answered.add(endpoint)
    return True


def hub_reason(error: BaseException, reference: str) -> str | None:
    """What the hub had against it, in one line; None where it had nothing."""
    from huggingface_hub import constants, errors

    cause: BaseException | None = error
    while cause is not None and not isinstance(
        cause, (errors.HfHubHTTPError, errors.LocalEntryNotFoundError)
    ):
        cause = cause.__cause__ or cause.__context__
    hub, login = constants.ENDPOINT, "log in with `hf auth login`"
    if isinstance(cause, errors.GatedRepoError):  # a RepositoryNotFoundError too
        return f"{reference}: gated; accept its terms at {hub}/{reference} and {login}"
    if isinstance(cause, errors.RepositoryNotFoundError):
        return f"{reference}: no such folder; nor is it at {hub}, or it is private: then {login}"
    if isinstance(cause, errors.RevisionNotFoundError):
        return f"{reference}: no such revision in the repository"
    if isinstance(cause, errors.LocalEntryNotFoundError):
        return (
            f"{reference}: not in the cache {constants.HF_HUB_CACHE}, and {hub} cannot be reached, "
            "or must not be (HF_HUB_OFFLINE)"
        )
    return None


def cached_folder(reference: str, revision: str | None) -> Path | None:
    """Where a repository lies whose ``config.json`` was just read; None for a folder here."""
    from huggingface_hub import try_to_load_from_cache

    if Path(reference).exists():
        return None
    found = try_to_load_from_cache(reference, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def cached_commit(reference: str, revision: str | None) -> str | None:
    """The commit of a repository whose ``config.json`` was just read; None for a folder here."""
    folder = cached_folder(reference, revision)
    return folder.name if folder and _COMMIT.fullmatch(folder.name) else None
