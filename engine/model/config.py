"""One form for the configurations that transformers 4 and transformers 5 write.

transformers 5 nests rope settings in `rope_parameters` (per layer type for Gemma 3) and says
`dtype`; transformers 4 has `rope_theta`, `rope_local_base_freq`, `rope_scaling` and `torch_dtype`.
The rest of the program sees the transformers 4 spelling only.
"""

from collections.abc import Mapping
from typing import Any


def normalise(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` in the spelling of transformers 4, every other key untouched.

    A rope scaling of type "default" is none at all; its older key `type` becomes `rope_type`.
    """
    out = dict(config)
    if "dtype" in out:
        out.setdefault("torch_dtype", out["dtype"])
        del out["dtype"]
    parameters = out.pop("rope_parameters", None)
    if parameters:
        if "full_attention" in parameters:
            # Gemma 3: the global layers' theta is rope_theta, the local layers' has its own key.
            full, local = parameters["full_attention"], parameters.get("sliding_attention", {})
            out.setdefault("rope_local_base_freq", local.get("rope_theta", 10000.0))
        else:
            full = parameters
        out.setdefault("rope_theta", full.get("rope_theta", 10000.0))
        rest = {k: v for k, v in full.items() if k not in ("rope_theta", "partial_rotary_factor")}
        if "partial_rotary_factor" in full:
            out.setdefault("partial_rotary_factor", full["partial_rotary_factor"])
        out.setdefault("rope_scaling", rest)
    out["rope_scaling"] = _scaling(out.get("rope_scaling"))
    return out


def _scaling(scaling: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not scaling:
        return None
    out = dict(scaling)
    if "type" in out:
        out.setdefault("rope_type", out["type"])
        del out["type"]
    return None if out.get("rope_type", "default") == "default" else out
