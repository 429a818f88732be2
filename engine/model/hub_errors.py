"""Failures of the Hub client as errors a user can act on; for the children that ask it."""

import difflib
import errno
import importlib
from collections.abc import Iterator

from huggingface_hub import HfApi, errors, get_token

from engine.errors import HubUnreachable, NotAuthorizedError, StageError, UsageError, WizardError

# httpx up to huggingface_hub 1, httpx2 from 2 on: the base class of what its transport raises.
TRANSPORT_ERROR: type[Exception] = importlib.import_module("huggingface_hub.errors").HTTPError
_MOST_ASKED = 100  # models, for the one that was meant
_AGAIN = "Run the same command again: files that are complete are not fetched twice."


class Stopped(Exception):
    """Raised in download threads once the user has stopped the run."""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """`error`, and what it was raised from: the client wraps most failures once or twice."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def unreachable(error: BaseException) -> bool:
    """Whether the Hub could not be asked at all, so that a cached copy may serve instead."""
    for cause in _chain(error):
        if isinstance(cause, errors.HfHubHTTPError):
            return cause.response.status_code >= 500
        if isinstance(cause, (errors.OfflineModeIsEnabled, TRANSPORT_ERROR, ConnectionError, TimeoutError)):
            return True
    return False


def explain(error: BaseException, repo_id: str, revision: str, endpoint: str) -> WizardError:
    """What went wrong with `repo_id`, why, and what to do; never holds the token."""
    for cause in _chain(error):
        match cause:
            case WizardError():
                return cause
            case errors.HFValidationError():
                return UsageError(
                    f"{repo_id!r} is no model id of the Hub.", remedy="A model id has the form owner/name."
                )
            case errors.GatedRepoError():
                return _gated(repo_id, endpoint)
            case errors.DisabledRepoError():
                return UsageError(
                    f"The Hub has disabled access to {repo_id}.", remedy="Choose another model."
                )
            case errors.RevisionNotFoundError():
                return UsageError(
                    f"{repo_id} has no revision {revision!r}.",
                    why="A revision is a commit, a branch or a tag.",
                    remedy=f"See {endpoint}/{repo_id}/commits/main, or leave model.revision empty for "
                    "the newest.",
                )
            case errors.HfHubHTTPError():
                return _refused(cause.response.status_code, repo_id, endpoint)
            case OSError(errno=errno.ENOSPC | errno.EDQUOT):
                return StageError(
                    f"The disk became full while {repo_id} was fetched.",
                    remedy=f"Make room, or set HF_HOME to a folder on another disk. {_AGAIN}",
                )
            case OSError(filename=str() as path):
                return StageError(
                    f"The Hub client cannot use {path}: {cause.strerror}.",
                    remedy="Check that folder and its permissions, or set HF_HOME to one of your own.",
                )
    if unreachable(error):
        return _no_connection(error, repo_id, endpoint)
    return StageError(f"Fetching {repo_id} failed: {plain(error)}", remedy=_AGAIN)


def _gated(repo_id: str, endpoint: str) -> WizardError:
    accept = f"Sign in at {endpoint}/{repo_id} and accept the licence there"
    if not stored_token():
        return NotAuthorizedError(
            f"{repo_id} is gated: its owner wants every user to accept a licence first.",
            why="No Hub token was found, so the Hub does not know who asks.",
            remedy=f"{accept}, then run `hf auth login` or set HF_TOKEN.",
        )
    return NotAuthorizedError(
        f"{repo_id} is gated, and your Hub token may not read it.",
        why="Its licence was not accepted by this account, access is still pending, or the token lacks the "
        "right to read gated models.",
        remedy=f"{accept}; a fine-grained token also needs read access to public gated repositories.",
    )


def _refused(status: int, repo_id: str, endpoint: str) -> WizardError:
    signed_in = bool(stored_token())
    if status == 401 and signed_in:
        return NotAuthorizedError(
            f"The Hub does not accept your token (asked for {repo_id}).",
            why="It has expired or was revoked, or it is not a token of this Hub.",
            remedy="Make a new one with `hf auth login`, or correct or unset HF_TOKEN.",
        )
    if status == 401:
        return NotAuthorizedError(
            f"There is no public model {repo_id} on {endpoint}.",
            why="It does not exist, or it is private; without a token the Hub does not say which.",
            remedy=f"{_meant(repo_id)}Check the spelling. For a private model run `hf auth login` or set "
            "HF_TOKEN.",
        )
    if status == 403:
        return NotAuthorizedError(
            f"Your Hub token may not read {repo_id}.",
            remedy=f"Give the token read access to {repo_id}, or use one that has it.",
        )
    if status == 404:
        return UsageError(
            f"There is no model {repo_id} on {endpoint}.",
            why="It does not exist, or it is private and your token may not see it." if signed_in else "",
            remedy=f"{_meant(repo_id)}Check the spelling; a model id has the form owner/name.",
        )
    if status == 429:
        return HubUnreachable(
            "The Hub refuses further requests for a while.", remedy=f"Wait a minute. {_AGAIN}"
        )
    kind = HubUnreachable if status >= 500 else StageError
    return kind(f"The Hub answered with error {status} for {repo_id}.", remedy=f"Wait a minute. {_AGAIN}")


def _meant(repo_id: str) -> str:
    """A sentence with the public model whose id is most like `repo_id`, empty where there is none."""
    owner, _, name = repo_id.rpartition("/")
    # The Hub finds parts of names: a wrong owner is found by the name, a wrong name by the owner.
    for search, author in ((name, None), (None, owner)):
        try:
            models = HfApi().list_models(search=search, author=author, limit=_MOST_ASKED)
            found = {model.id.lower(): model.id for model in models}
        except Exception:  # a hint is not worth an error of its own
            return ""
        if near := difflib.get_close_matches(repo_id.lower(), found, n=1, cutoff=0.7):
            return f"Did you mean {found[near[0]]}? "
    return ""


def _no_connection(error: BaseException, repo_id: str, endpoint: str) -> WizardError:
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in _chain(error)):
        return HubUnreachable(
            f"{repo_id} is not completely in the Hub cache, and HF_HUB_OFFLINE forbids to fetch it.",
            remedy="Unset HF_HUB_OFFLINE, or name a folder instead.",
        )
    return HubUnreachable(
        f"{endpoint} cannot be reached, and {repo_id} is not completely in the Hub cache.",
        why=plain(error),
        remedy="Check the network and proxy settings (HTTPS_PROXY), or HF_ENDPOINT if you use a mirror. "
        f"{_AGAIN}",
    )


def broken(error: BaseException, repo_id: str, endpoint: str) -> StageError:
    """The Hub answered at first, and then the connection broke again and again."""
    return StageError(
        f"The connection to {endpoint} broke while {repo_id} was fetched.", why=plain(error), remedy=_AGAIN
    )


def plain(error: BaseException) -> str:
    """The first line of `error` and its type, without the token."""
    first = (str(error).strip().splitlines() or [""])[0]
    if token := stored_token():
        first = first.replace(token, "***")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def stored_token() -> str:
    """The user's token, empty where there is none or its file cannot be read."""
    try:
        return get_token() or ""
    except OSError:
        return ""
