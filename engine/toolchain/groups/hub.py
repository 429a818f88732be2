"""The Hugging Face Hub: who asks, and whether it answers. Its state is a warning at most."""

import os

from engine.toolchain.finding import Finding, Remedy
from engine.toolchain.probe import Probe, patience
from engine.toolchain.programs import ask, clip

_LOGIN = Remedy(
    told="Make a token with read access at https://huggingface.co/settings/tokens, then:",
    commands=("hf auth login",),
)


def _token(probe: Probe) -> Finding:
    from huggingface_hub import constants, get_token

    try:
        token = get_token()
    except OSError as error:
        return probe.finding(
            "warn",
            f"{constants.HF_TOKEN_PATH} cannot be read: {error.strerror}",
            remedy=Remedy(told="Correct its permissions, or set HF_TOKEN."),
        )
    if not token:
        return probe.finding("warn", "none", remedy=_LOGIN)
    # Where it is from; never what it is.
    variable = next((name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)), "")
    place = f"in {variable}" if variable else f"in {constants.HF_TOKEN_PATH}"
    if not token.startswith("hf_"):
        return probe.finding(
            "warn",
            f"{place}, but it does not look like one",
            why="Tokens of the Hub begin with hf_.",
            remedy=_LOGIN,
        )
    return probe.finding("ok", place)


def _reachable(probe: Probe) -> Finding:
    from huggingface_hub import HfApi, constants, errors, get_session

    from engine.model.hub_errors import plain, stored_token, unreachable

    endpoint = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        return probe.finding(
            "warn",
            "not asked: HF_HUB_OFFLINE is set",
            remedy=Remedy(told="Unset HF_HUB_OFFLINE to fetch models."),
        )
    seconds = min(patience(), 60.0)
    try:
        if token := stored_token():
            name = HfApi().whoami(token=token).get("name", "somebody")
            return probe.finding("ok", f"{endpoint} answers, and knows the token as {clip(str(name))}'s")
        answer = get_session().get(f"{endpoint}/api/models", params={"limit": 1}, timeout=seconds)
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            return probe.finding(
                "warn",
                f"{endpoint} answers, and does not accept the token",
                why="It has expired or was revoked, or it is not a token of this Hub.",
                remedy=_LOGIN,
            )
        return _odd(probe, endpoint, status)
    except Exception as error:  # the client lets through what its transport raises
        what = "cannot be reached" if unreachable(error) else "gives a strange answer"
        return probe.finding(
            "warn",
            f"{endpoint} {what}: {clip(plain(error))}",
            remedy=Remedy(
                told="Check the network, the proxy (HTTPS_PROXY), or HF_ENDPOINT if you use a mirror. Models "
                "in a folder or in the Hub cache need no network."
            ),
        )
    if answer.status_code >= 400:
        return _odd(probe, endpoint, answer.status_code)
    return probe.finding("ok", f"{endpoint} answers")


def _odd(probe: Probe, endpoint: str, status: int) -> Finding:
    return probe.finding(
        "warn",
        f"{endpoint} answers with error {status}",
        remedy=Remedy(told="Wait a minute, and look at https://status.huggingface.co."),
    )


def _git_lfs(probe: Probe) -> Finding:
    answer = ask(["git-lfs", "version"])
    if answer.answered:
        return probe.finding("ok", answer.first_line or "it says nothing of its version")
    lines = ("git lfs install",) if answer.outcome == "missing" else ()
    return probe.finding(
        answer.status,
        answer.told(),
        remedy=Remedy(
            told="Install git-lfs (apt, dnf or brew install git-lfs; on Windows it comes with Git), then:",
            commands=lines,
        ),
    )


PROBES = (
    Probe(
        id="hub",
        group="hub",
        title="Hugging Face Hub",
        wanted="an answer",
        why="Models are fetched from it, unless they are in a folder or were fetched before.",
        look=_reachable,
        seconds=8.0,
        at_worst="warn",
    ),
    Probe(
        id="hub-token",
        group="hub",
        title="Hub token",
        wanted="one with read access, for gated and private models",
        why="Gated models, as Gemma and Llama, are given to those alone who accepted their licence.",
        look=_token,
        at_worst="warn",
    ),
    Probe(
        id="git-lfs",
        group="hub",
        title="git-lfs",
        why="Models that are cloned with git have small text files in place of weights without it. "
        "mlc-wizard itself fetches models without git.",
        look=_git_lfs,
    ),
)
