"""What people paste where a path or a model is wanted: quoted, escaped, as a file:// or a Hub address."""

import os
import re
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from engine import paths

_QUOTES = "'\""
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_HUB_PATH = re.compile(r"/([^/]+/[^/]+?)(?:\.git)?/?(?:/(?:tree|blob|resolve|commit)/([^/]+).*)?")
_NO_OWNERS = ("datasets", "spaces", "collections", "docs", "blog", "papers", "models")


def path_of(text: str) -> str:
    """The path that `text` stands for: without the quotes and escapes of a shell, or a file:// before it.

    What is there as it was written is left so.
    """
    text = text.strip()
    if len(text) > 1 and text[0] in _QUOTES and text[-1] == text[0]:
        text = text[1:-1].strip()
    if text.casefold().startswith("file://"):
        return url2pathname(urlsplit(text).path)
    here = os.path.expanduser(text)  # noqa: PTH111  pathlib's raises for a ~ that is nobody's home
    if os.sep == "/" and "\\" in text and not paths.is_taken(here):
        return re.sub(r"\\(.)", r"\1", text)
    return text


def model_of(text: str) -> tuple[str, str]:
    """The model that `text` stands for, and the revision where it is the address of one on the Hub.

    The revision is empty where none is named, or the branch that is the newest anyway.
    """
    text = path_of(text)
    parts = urlsplit(text if "://" in text else f"//{text}")
    mirror = urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc
    if parts.netloc not in (*_HUB_HOSTS, *filter(None, [mirror])):
        return text, ""
    found = _HUB_PATH.fullmatch(parts.path)
    if found is None or found[1].partition("/")[0] in _NO_OWNERS:
        return text, ""
    revision = unquote(found[2] or "")
    return found[1], "" if revision == "main" else revision
