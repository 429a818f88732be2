"""What the logits of a model ought to be: a DecoderSpec evaluated in float32 with numpy.

It shares no code with the compiler and none with the quantizer, runs over the whole sequence at once,
and holds one layer in memory at a time. An export is checked against it on its stored weights, so a
difference is the compiler's; the formulas are those of transformers' Llama and Gemma 3 models.

    parameters = family.parameters(spec)
    weights = stored_weights(folder, parameters, quantization)    # or SourceWeights(parameters, tensor)
    logits(spec, weights, input_ids)                              # [n] -> float32 [n, vocab_size]
"""

from engine.embedded.evaluate.decoder import logits
from engine.embedded.evaluate.formulas import rope_frequencies
from engine.embedded.evaluate.weights import SourceWeights, Weights, stored_weights

__all__ = ["SourceWeights", "Weights", "logits", "rope_frequencies", "stored_weights"]
