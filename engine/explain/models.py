"""Failures that the model, its files or the flags cause."""

from engine.errors import NotAuthorizedError, UsageError
from engine.explain.known import Known

MODELS = (
    Known(
        code="unknown-model-type",
        title="mlc_llm does not know this kind of model.",
        texts=("Unknown model type: …. Available ones: [",),
        cause="The model_type of its config.json is none that this version of mlc_llm has.",
        remedy="Update mlc_llm; or, where the model is a member of a known family, name that "
        "(model.model_type = llama).",
        error=UsageError,
    ),
    Known(
        code="not-authorized",
        title="The Hub does not let this user read the model.",
        texts=(
            "GatedRepoError",
            "Cannot access gated repo",
            "401 Client Error",
            "403 Client Error",
            "Password authentication in git is no longer supported",
        ),
        cause="Its licence must be accepted first, or the token is missing, wrong or without the right to "
        "read it.",
        remedy="Accept the licence on the model's page, then: hf auth login",
        error=NotAuthorizedError,
    ),
    Known(
        code="git-clone-failed",
        title="git could not fetch the model.",
        texts=("git…returned non-zero exit status 128",),
        cause="The repository is gated or private, its name is misspelled, or there is no network.",
        remedy="Read git's own message above this line; or fetch it with: hf download NAME --local-dir "
        "FOLDER",
    ),
    Known(
        code="lfs-pointer",
        title="The weights are pointers of git-lfs, a hundred bytes each, instead of weights.",
        texts=(
            "Error while deserializing header: HeaderTooLarge",
            "Error while deserializing header: header too large",
            "invalid load key, 'v'.",
        ),
        cause="The repository was cloned without git-lfs.",
        remedy="In the model's folder: git lfs install && git lfs pull; or fetch it anew: hf download "
        "NAME --local-dir FOLDER",
        error=UsageError,
    ),
    Known(
        code="parameters-mismatch",
        title="The weights are not those of the model that config.json describes.",
        texts=(
            "The following extern parameters do not exist in the weight files",
            "Parameter not found in model: ",
            "Parameter not found in source: ",
            "Parameter …has shape …, but expected ",
            "KeyError: 'lm_head.weight'",
        ),
        cause="A LoRA adapter without its base model, a wrong model type, or a fine-tune that changed the "
        "vocabulary or tied the output to the embedding.",
        remedy="Merge the adapter (merge_and_unload, then save_pretrained), and compare "
        "tie_word_embeddings and vocab_size in config.json with the weights. Shards that were written "
        "meanwhile are incomplete.",
        error=UsageError,
    ),
    Known(
        code="rope-theta-missing",
        title="config.json was written by transformers 5, which this mlc_llm does not read.",
        texts=("__init__() missing 1 required positional argument: 'rope_theta'",),
        cause="transformers 5 writes rope_theta into rope_parameters. For Llama, Mistral and Gemma the "
        "same fault goes unnoticed: the base becomes 10000 and the model talks nonsense.",
        remedy="Copy rope_parameters.rope_theta of config.json to its top level, as rope_theta; or use "
        "the embedded backend, which reads both (engine.backend = embedded).",
        error=UsageError,
        backends=("mlc_llm", "docker"),
    ),
    Known(
        code="conv-template",
        title="The conversation template is none that mlc_llm knows.",
        texts=(
            "argument --conv-template: invalid choice: ",
            "the following arguments are required: --conv-template",
            "Unknown conversation template: ",
            "validation error for MLCChatConfig…conv_template",
            "\nconv_template\n",
        ),
        cause="It wants one name of a fixed list; gemma, for one, is called gemma_instruction or "
        "gemma3_instruction.",
        remedy="Have the template derived from the model's own (model.conv_template = auto).",
        error=UsageError,
    ),
    Known(
        code="wrong-suffix",
        title="The library's file name does not end as its target wants it.",
        texts=('assert output.suffix == "',),
        cause="mlc_llm asserts it without a word: .wasm for webgpu, .tar for iphone and android, .so, "
        ".dylib or .dll else.",
        remedy="Give -o a name with the suffix of the target, or leave the name to mlc-wizard.",
        error=UsageError,
    ),
    Known(
        code="renamed-manifest",
        title="The manifest of the weights has the other of its two names.",
        texts=(
            "No such file or directory: '…ndarray-cache.json'",
            "No such file or directory: '…tensor-cache.json'",
            "Failed to execute 'add' on 'Cache': Request failed",
        ),
        cause="Since September 2025 runtimes read tensor-cache.json, older ones ndarray-cache.json, and "
        "neither reads the other's; or a file is not where the address says.",
        remedy="Export again: mlc-wizard writes both names. See that the address of the model answers "
        "with tensor-cache.json and mlc-chat-config.json.",
    ),
    Known(
        code="old-commands",
        title="A command or a flag of an older mlc_llm.",
        texts=(
            "No module named mlc_llm.build",
            "No module named 'mlc_llm.build'",
            "No module named mlc_chat",
            "No module named 'mlc_chat'",
            "mlc_chat: command not found",
            "unrecognized arguments: …--prefill_chunk_size",
        ),
        cause="mlc_llm.build and mlc_chat have become mlc_llm convert_weight, gen_config and compile, and "
        "flags have hyphens.",
        remedy="See the commands as they are now: mlc-wizard --preset NAME --dry-run",
        error=UsageError,
    ),
    Known(
        code="out-of-memory",
        title="The system ended the process, because memory ran out.",
        texts=(
            "\nKilled\n",
            ": Killed\n",
            " Killed  ",
            "died with <Signals.SIGKILL: 9>",
            "returned non-zero exit status 137",
            "exited with code 137",
            "exit code 137",
            "OOMKilled",
        ),
        cause="mlc_llm holds whole files of weights in memory, and merging an adapter the whole model.",
        remedy="Close other programs, add swap, give Docker more memory, or save the model in smaller "
        'files: save_pretrained(DIR, max_shard_size="1GB"). The embedded backend reads a block of rows at '
        "a time.",
    ),
    Known(
        code="disk-full",
        title="The disk is full.",
        texts=("No space left on device", "There is not enough space on the disk", "Disk quota exceeded"),
        cause="An export needs the room of its weights, and while it is made that of one more file.",
        remedy="Make room, or export into a folder on another disk.",
    ),
)
