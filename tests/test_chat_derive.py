"""Conversation templates derived from chat templates, with real tokenizers and real jinja."""

import functools
import json
from pathlib import Path

import pytest
from chat_templates import KINDS, MODELS, model_folder, with_template
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.embedded.chat.check import KEPT_CACHE, messages
from engine.embedded.chat.choose import Choice, choose_conversation
from engine.embedded.chat.conversation import Conversation
from engine.embedded.chat.derive import outline
from engine.embedded.chat.folder import ModelFolder
from engine.embedded.chat.render import ChatTemplate, TemplateFailure
from engine.errors import UsageError

ONE, TWO, THREE = "one turn", "two turns", "three turns"
SYSTEM, SYSTEM_TWO = "system message, one turn", "system message, two turns"
PLAIN, ALL = {ONE, TWO, THREE}, {ONE, TWO, THREE, SYSTEM, SYSTEM_TWO}

# Which cases MLC's form reproduces token for token; every other one is refused by the model's own
# template, or differs in a way that the choice tells.
EXACT = {
    "gemma3_text": ALL,
    "llama3_rope": ALL,
    "llama_tied": ALL,
    "gemma": ALL,
    "phi3": ALL,
    "qwen2": ALL,
    # The system text and the question after it are two pieces: the tokenizer puts a space between.
    "llama": PLAIN,
    "mistral": PLAIN,
    "mistral-0.3": PLAIN,
    # A system text that is always there lets the next turn begin with the end of the reply, so that
    # even a chat continued on the kept cache is exact.
    "llama-3.1": ALL | {KEPT_CACHE},
    "qwen2.5": ALL | {KEPT_CACHE},
    "qwen3": ALL,
    "functiongemma": ALL,
    "gemma2": PLAIN,
    "zephyr": ALL,
    "vicuna": ALL,
    "alpaca": ALL,
    "chatml-as-text": ALL,
    "deepseek-r1": ALL,
    "preamble": PLAIN,
    "rewriting": set(),
    "single-turn": {ONE},
}
REFUSED = {
    "gemma2": {SYSTEM, SYSTEM_TWO},
    "preamble": {SYSTEM, SYSTEM_TWO},
    "single-turn": {TWO, THREE, SYSTEM, SYSTEM_TWO, KEPT_CACHE},
}


@pytest.fixture(scope="module", params=EXACT)
def chosen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ModelFolder]:
    kind = str(request.param)
    path = MODELS[kind] if kind in MODELS else model_folder(tmp_path_factory.mktemp("models"), kind)
    return kind, ModelFolder(path)


def choose(folder: Path) -> Choice:
    return choose_conversation(ModelFolder(folder))


def test_every_template_is_in_the_table() -> None:
    assert set(EXACT) == {*MODELS, *KINDS} - {"gpt_neox"}  # which has no chat template


def test_cases_are_exact_where_the_table_says_so_and_nowhere_else(chosen: tuple[str, ModelFolder]) -> None:
    kind, folder = chosen
    choice = choose_conversation(folder)
    assert {case.name for case in choice.cases if case.exact} == EXACT[kind]
    assert {case.name for case in choice.cases if not case.supported} == REFUSED.get(kind, set())
    told = [case for case in choice.cases if case.supported and not case.exact and case.name != KEPT_CACHE]
    assert all(any(case.difference in warning for warning in choice.warnings) for case in told)
    assert all(bool(case.difference) != case.exact for case in choice.cases)


@functools.cache
def derived(folder: ModelFolder) -> tuple[Choice, ChatTemplate]:
    assert folder.chat_template is not None
    return choose_conversation(folder), ChatTemplate(folder.chat_template, folder.special_tokens)


def ids(folder: ModelFolder, text: str) -> list[int]:
    return folder.tokenizer.encode(text, add_special_tokens=False).ids


# Any text at all but control characters, lone surrogates and angle brackets: a message that spells a
# special token is one for the tokenizer, and joins its neighbours differently on the two sides.
TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="<>") | st.sampled_from("\n\t  "),
    min_size=1,
    max_size=40,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(TEXT, min_size=5, max_size=5), system=TEXT)
def test_an_exact_case_is_exact_for_any_text(
    chosen: tuple[str, ModelFolder], turns: list[str], system: str
) -> None:
    kind, folder = chosen
    choice, template = derived(folder)
    # The trimming claim: what a role's text loses in the model's template is outer whitespace only.
    # Where the template trims nothing, leading and trailing whitespace are part of what must agree.
    roles = ["user", "assistant", "user", "assistant", "user"]
    texts = [
        text.strip() if role in choice.trimmed_roles else text
        for role, text in zip(roles, turns, strict=True)
    ]
    system = system.strip() if "system" in choice.trimmed_roles else system
    for name, count in ((ONE, 1), (TWO, 3), (THREE, 5), (SYSTEM, 1), (SYSTEM_TWO, 3)):
        if name not in EXACT[kind] or not all(texts[:count]):
            continue
        chat = list(messages(texts[:count], system=False))
        if name in (SYSTEM, SYSTEM_TWO):
            # WebLLM fills the system text with String.replace, where "$&" and its like mean something.
            if "$" in system or not system:
                continue
            chat.insert(0, {"role": "system", "content": system})
        assert choice.conversation.token_ids(chat, folder.tokenizer) == ids(folder, template.render(chat)), (
            name
        )


def test_bos_is_there_once(chosen: tuple[str, ModelFolder]) -> None:
    kind, folder = chosen
    conversation = choose_conversation(folder).conversation
    bos = folder.special_tokens.get("bos_token")
    fed = conversation.token_ids(messages(("Hello",), system=False), folder.tokenizer)
    own = kind not in (
        "phi3",
        "zephyr",
        "rewriting",
        "single-turn",
    )  # templates that write no BOS, so neither do we
    if bos and own:
        assert fed.count(folder.tokenizer.token_to_id(bos)) == 1
        assert fed[0] == folder.tokenizer.token_to_id(bos)
    elif bos:
        assert folder.tokenizer.token_to_id(bos) not in fed


def test_a_post_processor_that_adds_bos_is_not_run(tmp_path: Path) -> None:
    folder = with_template(tmp_path / "model", "llama_tied", ModelFolder(MODELS["llama_tied"]).chat_template)
    path = folder / "tokenizer.json"
    stated = json.loads(path.read_text(encoding="utf-8"))
    token = {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    stated["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [token, sequence],
        "pair": [token, sequence, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [1], "tokens": ["<|begin_of_text|>"]}
        },
    }
    path.write_text(json.dumps(stated), encoding="utf-8")
    choice = choose(folder)
    tokenizer = ModelFolder(folder).tokenizer
    assert tokenizer.encode("a").ids[0] == 1  # it would add one to every piece
    assert choice.conversation.token_ids(messages(("Hi", "Ho", "Hu"), system=True), tokenizer).count(1) == 1
    assert {case.name for case in choice.cases if case.exact} == ALL
    # Without a chat template plain text begins as the post-processor has it.
    bare = with_template(tmp_path / "bare", "llama_tied", None)
    path.replace(bare / "tokenizer.json")
    assert choose(bare).conversation.system_prefix_token_ids == (1,)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (
            "gemma3_text",
            {
                "system_template": "<start_of_turn>user\n{system_message}\n\n",
                "add_role_after_system_message": False,
                "render_empty_system_message": False,
                "roles": {"user": "<start_of_turn>user", "assistant": "<start_of_turn>model"},
                "seps": ["<end_of_turn>\n"],
                "stop_token_ids": [2, 5],
                "stop_str": [],
            },
        ),
        (
            "functiongemma",
            {
                "system_template": "<start_of_turn>developer\n{system_message}<end_of_turn>\n",
                "roles": {"user": "<start_of_turn>user", "assistant": "<start_of_turn>model"},
            },
        ),
        (
            "gemma2",
            {
                "system_template": "<start_of_turn>user\n{system_message}\n\n",
                "add_role_after_system_message": False,
            },
        ),
        ("qwen2.5", {"system_message": "You are a helpful assistant.", "stop_token_ids": [0, 2]}),
        ("qwen3", {"strip_reasoning_in_history": True}),
        ("deepseek-r1", {"strip_reasoning_in_history": True, "role_empty_sep": "<think>\n"}),
        ("alpaca", {"stop_str": ["### Instruction:"]}),
        ("chatml-as-text", {"stop_str": ["<|im_end|>"]}),
        ("zephyr", {"stop_token_ids": [2], "stop_str": []}),
        ("phi3", {"stop_token_ids": [2, 6], "system_prefix_token_ids": None}),
        ("preamble", {"render_empty_system_message": False}),
        ("llama", {"roles": {"user": "[INST] ", "assistant": ""}, "seps": [" [/INST]", " </s><s>"]}),
    ],
)
def test_fields(kind: str, fields: dict[str, object], tmp_path: Path) -> None:
    written = choose(MODELS[kind] if kind in MODELS else model_folder(tmp_path, kind)).conversation.to_json()
    assert {key: written.get(key) for key in fields} == fields


def test_a_template_that_writes_the_date_gets_a_fixed_one(tmp_path: Path) -> None:
    choice = choose(model_folder(tmp_path, "llama-3.1"))
    assert "Today Date: 26 Jul 2024\n\n{system_message}" in choice.conversation.system_template
    assert any("26 July 2024" in warning for warning in choice.warnings)


def test_what_the_kept_cache_lacks_is_named() -> None:
    case = next(case for case in choose(MODELS["gemma3_text"]).cases if case.name == KEPT_CACHE)
    assert not case.exact
    assert case.difference == "WebLLM does not send '<end_of_turn>\\n' after a reply"


def test_a_template_that_rewrites_messages_is_followed_as_far_as_it_goes(tmp_path: Path) -> None:
    choice = choose(model_folder(tmp_path, "rewriting"))
    assert choice.conversation.roles == {"user": "<|user|>", "assistant": "<|assistant|>"}
    assert all(case.matched == 1 for case in choice.cases if case.name in ALL)
    assert "writes '= 2\\nright?" in next(case.difference for case in choice.cases)


def test_trimming_is_told() -> None:
    assert choose(MODELS["gemma3_text"]).trimmed_roles == ("user", "assistant")
    assert choose(MODELS["llama_tied"]).trimmed_roles == ("user", "assistant", "system")
    assert choose(MODELS["qwen2"]).trimmed_roles == ()


def test_system_message_goes_into_the_first_turn_where_the_model_has_no_place_for_one(tmp_path: Path) -> None:
    choice = choose(model_folder(tmp_path, "gemma2"))
    chat = messages(("Question",), system=False)
    assert choice.conversation.pieces([{"role": "system", "content": "Be brief."}, *chat]) == [
        "<start_of_turn>user\nBe brief.\n\n",
        "Question<end_of_turn>\n",
        "<start_of_turn>model\n",
    ]
    assert any("no system role" in warning for warning in choice.warnings)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ raise_exception('not today') }}", "not today"),
        ("{{ messages[0]['content'] }}{{ messages[0]['content'] }}", "every message once"),
        ("Hello", "every message once"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_unless_another_is_named(
    source: str, reason: str, tmp_path: Path
) -> None:
    folder = ModelFolder(with_template(tmp_path / "model", "llama", source))
    with pytest.raises(UsageError) as caught:
        choose_conversation(folder)
    assert reason in caught.value.what
    assert "conv_template" in caught.value.remedy
    plain = choose_conversation(folder, "none")
    assert plain.conversation.roles == {"user": "", "assistant": ""}
    assert plain.conversation.system_prefix_token_ids == (1,)
    assert plain.conversation.stop_token_ids == (2,)
    assert plain.cases == ()
    named = choose_conversation(folder, "llama-2")
    assert named.conversation.name == "llama-2"
    assert named.cases == ()
    assert reason in named.warnings[0]


def test_a_model_without_chat_template() -> None:
    choice = choose(MODELS["gpt_neox"])
    assert choice.conversation == Conversation(name="LM", stop_token_ids=(0, 2))
    assert "no chat template" in choice.warnings[0]
    assert choice.conversation.pieces(messages(("Once upon",), system=False)) == ["Once upon", ""]


@pytest.mark.parametrize("place", ["list", "jinja file", "json file"])
def test_where_a_chat_template_may_be(place: str, tmp_path: Path) -> None:
    own = "{{ '[' + messages[0]['content'] + ']' }}"
    other = "{{ '(' + messages[0]['content'] + ')' }}"
    if place == "list":
        named = ["odd", {"name": "tool_use", "template": other}, {"name": "default", "template": own}]
        folder = with_template(tmp_path / "model", "qwen2", named)
    elif place == "jinja file":
        folder = with_template(tmp_path / "model", "qwen2", other)
        (folder / "chat_template.jinja").write_text(own, encoding="utf-8")
    else:
        folder = with_template(tmp_path / "model", "qwen2", None)
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": own}), encoding="utf-8")
    assert "".join(choose(folder).conversation.pieces(messages(("a",), system=False))) == "[a]"


def test_outline_refuses_what_does_not_hold_the_message() -> None:
    with pytest.raises(TemplateFailure, match="every message once"):
        outline(ChatTemplate("{{ messages[0]['content'] | upper }}", {}))
