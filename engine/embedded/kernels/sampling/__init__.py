"""From logits to a token: kernels and the functions of a library that call them.

One body serves every device; its loops are bound to threads on a GPU and plain on a CPU. Bodies that need
barriers have one for each. `rows` says what kernels are made for, `functions` puts them into a module.
"""

from engine.embedded.kernels.sampling.functions import attach_sampling
from engine.embedded.kernels.sampling.logits import FORBIDDEN
from engine.embedded.kernels.sampling.rows import Rows

__all__ = ["FORBIDDEN", "Rows", "attach_sampling"]
