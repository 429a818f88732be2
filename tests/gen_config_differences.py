"""Where mlc-chat-config.json is not what mlc_llm writes for the golden models, and why."""

OWN_TEMPLATE = "ours is derived from the model's own chat template, mlc_llm's is a template by name"
NO_PLACEHOLDERS = (
    "WebLLM fills role_templates with JavaScript's String.replace, which garbles messages with '$$' or '$&'; "
    "every MLC runtime takes a message as it is where there is no entry"
)
EMPTY_SYSTEM = "the model's template writes nothing for a chat without system message, and so must WebLLM"
NO_DEFAULT = "the model's own template has no default system message"
ABSENT_IDS = "mlc_llm's ids are those of another tokenizer; these are of this one"
IDS_STOP = "WebLLM stops at the token id before it is text, so a string for it is not needed"
COMMON = {
    "conv_template.name": OWN_TEMPLATE,
    "conv_template.role_templates.user": NO_PLACEHOLDERS,
    "conv_template.role_templates.assistant": NO_PLACEHOLDERS,
    "conv_template.role_templates.tool": NO_PLACEHOLDERS,
    "conv_template.render_empty_system_message": EMPTY_SYSTEM,
}
LLAMA_3 = COMMON | {
    "conv_template.system_message": NO_DEFAULT,
    "conv_template.system_prefix_token_ids": ABSENT_IDS,
    "conv_template.roles.tool": "the model's own template calls the role of tool messages tool, not ipython",
    "conv_template.stop_token_ids": ABSENT_IDS,
}
# What mlc_llm takes from a template by name, and the model's own template says otherwise.
NOT_NAMED = "mlc_llm's is of the template by name; this is what the model's own template says"
TOOL_ROLE = "the model's own template has a role of that name for tool messages"
PLAIN = (
    "the model has no chat template, and nothing says that it is a chat model: plain text, with a warning; "
    "--conv-template sets mlc_llm's"
)
WINDOWS = "WebLLM refuses two window sizes; the layers' own is sliding_window, and masked exactly"
NO_SINKS = "exact windows have no attention sinks"
WITH_TOOLS = COMMON | {
    "conv_template.roles.tool": TOOL_ROLE,
    "conv_template.stop_str": IDS_STOP,
    "conv_template.stop_token_ids": ABSENT_IDS,
}
GEMMA = WITH_TOOLS | {
    "conv_template.system_prefix_token_ids": ABSENT_IDS,
    "conv_template.system_template": NOT_NAMED,
}
QWEN = WITH_TOOLS | {"conv_template.system_message": NO_DEFAULT}
WITHOUT_TEMPLATE = {
    "conv_template.name": PLAIN,
    "conv_template.role_templates.user": NO_PLACEHOLDERS,
    "conv_template.role_templates.assistant": NO_PLACEHOLDERS,
    "conv_template.role_templates.tool": NO_PLACEHOLDERS,
    "conv_template.roles.user": PLAIN,
    "conv_template.roles.assistant": PLAIN,
    "conv_template.role_content_sep": PLAIN,
    "conv_template.role_empty_sep": PLAIN,
    "conv_template.seps": PLAIN,
    "conv_template.stop_str": PLAIN,
    "conv_template.stop_token_ids": ABSENT_IDS,
}
DIFFERENCES = {
    "llama_tied": LLAMA_3,
    "llama3_rope": LLAMA_3,
    "llama": COMMON
    | {
        "conv_template.system_message": NO_DEFAULT,
        "conv_template.roles.user": "BOS is in the prefix ids and in seps; mlc_llm may write it twice",
        "conv_template.roles.assistant": "' [/INST]' ends the question, so that it is tokenized with it",
        "conv_template.roles.tool": "the model's own template has no tool messages",
        "conv_template.seps": "' [/INST]' ends the question, and BOS follows each reply",
        "conv_template.role_content_sep": "the tokenizer itself puts the space before a piece",
        "conv_template.role_empty_sep": "the model's template ends at [/INST], without a space",
        "conv_template.stop_str": IDS_STOP,
    },
    "gemma3_text": COMMON
    | {
        "sliding_window_size": "WebLLM refuses two windows; Gemma 3's are of layers, in text_config",
        "model_config.sliding_window_size": "as above: the model as a whole has none",
        "model_config.text_config.context_window_size": "the model says 512; mlc_llm raises it to 8192",
        "model_config.text_config.prefill_chunk_size": "it cannot be above that context",
        "conv_template.system_template": "the system message stands in the first user turn, not before it",
        "conv_template.add_role_after_system_message": "as above: that turn's role is already written",
        "conv_template.system_prefix_token_ids": ABSENT_IDS,
        "conv_template.stop_str": IDS_STOP,
        "conv_template.stop_token_ids": ABSENT_IDS,
    },
    "gemma": GEMMA,
    "gemma2": GEMMA
    | {
        "context_window_size": "mlc_llm cuts the context to the window; each layer has its own here",
        "model_config.context_window_size": "as above",
    },
    "gpt_neox": WITHOUT_TEMPLATE,
    "mistral": COMMON
    | {
        "sliding_window_size": WINDOWS,
        "attention_sink_size": NO_SINKS,
        "model_config.sliding_window_size": WINDOWS,
        "model_config.sliding_window": WINDOWS,
        "conv_template.system_message": NO_DEFAULT,
        "conv_template.system_template": NOT_NAMED,
        "conv_template.roles.user": "BOS stands before each question, and a space that is tokenized with it",
        "conv_template.roles.assistant": "' [/INST]' ends the question, so that it is tokenized with it",
        "conv_template.roles.tool": "the model's own template has no tool messages",
        "conv_template.seps": "' [/INST]' ends the question, and BOS follows each reply",
        "conv_template.role_content_sep": "the tokenizer itself puts the space before a piece",
        "conv_template.stop_str": IDS_STOP,
    },
    "olmo2": WITHOUT_TEMPLATE
    | {
        "conv_template.system_prefix_token_ids": "mlc_llm's id is of another tokenizer, this one has no BOS",
        "conv_template.system_template": PLAIN,
    },
    "phi3": WITH_TOOLS
    | {
        "conv_template.system_message": NO_DEFAULT,
        "conv_template.system_prefix_token_ids": "the model's own template writes no BOS",
        "conv_template.system_template": NOT_NAMED,
    },
    "qwen2": QWEN,
    "qwen3": QWEN
    | {"conv_template.strip_reasoning_in_history": "this model's own template does not drop reasoning"},
    "stablelm": WITH_TOOLS
    | {
        "conv_template.roles.user": NOT_NAMED,
        "conv_template.roles.assistant": NOT_NAMED,
        "conv_template.seps": NOT_NAMED,
        "conv_template.system_template": NOT_NAMED,
    },
}
