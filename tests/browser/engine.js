// One WebLLM engine, driven by the tests: in a page (page.js) or in Node.js (node.mjs).
import * as webllm from "@mlc-ai/web-llm";

// Far below any logit, and finite at WebLLM's lowest temperature of 1e-6.
const NEVER = -1e9;

// Keeps what the model said at every step and, while there is a token to force, leaves no other choice.
class Recorder {
  constructor() {
    this.start({});
  }
  start({ force = [], keep = true }) {
    this.force = force;
    this.keep = keep;
    this.logits = [];
    this.tokens = [];
  }
  processLogits(logits) {
    if (this.keep) this.logits.push(Float32Array.from(logits));
    const token = this.force[this.tokens.length];
    if (token !== undefined) {
      logits.fill(NEVER);
      logits[token] = 0;
    }
    return logits;
  }
  processSampledToken(token) {
    this.tokens.push(token);
  }
  resetState() {}
}

function toBase64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return btoa(text);
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function joined(rows) {
  const all = new Float32Array(rows.reduce((size, row) => size + row.length, 0));
  let at = 0;
  for (const row of rows) {
    all.set(row, at);
    at += row.length;
  }
  return toBase64(new Uint8Array(all.buffer));
}

const TYPED = { float32: Float32Array, int32: Int32Array, uint32: Uint32Array };

class Harness {
  constructor() {
    this.recorder = new Recorder();
  }

  // The GPU as WebLLM sees it, before any model.
  async adapter() {
    const adapter = await navigator.gpu?.requestAdapter();
    if (!adapter) throw new Error("there is no WebGPU adapter");
    const { vendor, architecture } = adapter.info;
    return { vendor, architecture, features: [...adapter.features].sort() };
  }

  async load(record, chatOptions) {
    await this.unload();
    const progress = [];
    this.engine = new webllm.MLCEngine({
      appConfig: { model_list: [record] },
      logitProcessorRegistry: new Map([[record.model_id, this.recorder]]),
      initProgressCallback: (report) => progress.push(report.text),
      logLevel: "WARN",
    });
    await this.engine.reload(record.model_id, chatOptions);
    this.modelId = record.model_id;
    return progress;
  }

  async unload() {
    if (this.engine) await this.engine.unload();
    this.engine = undefined;
  }

  async chat(request, recording) {
    return this.recorded(recording, () => this.engine.chat.completions.create(request));
  }

  async complete(request, recording) {
    return this.recorded(recording, () => this.engine.completions.create(request));
  }

  async forward(tokens, isPrefill, recording) {
    return this.recorded(recording, () => this.engine.forwardTokensAndSample(tokens, isPrefill));
  }

  async reset() {
    await this.engine.resetChat();
  }

  // A function of the model library on arrays of {dtype, shape, data}: all of its results and, because
  // some write in place, all of its arguments afterwards.
  async call(name, inputs) {
    const { tvm, device, vm } = this.engine.loadedModelIdToPipeline.get(this.modelId);
    tvm.beginScope();
    try {
      const tensors = inputs.map(({ dtype, shape, data }) =>
        tvm.empty(shape, dtype, device).copyFrom(new TYPED[dtype](fromBase64(data).buffer)),
      );
      const result = vm.getFunction(name)(...tensors);
      const isTensor = result?.shape !== undefined;
      const results = isTensor ? [result] : Array.from({ length: result?.size?.() ?? 0 }, (_, i) => result.get(i));
      const out = [];
      for (const tensor of [...results, ...tensors]) {
        const host = tvm.empty(tensor.shape, tensor.dtype, tvm.cpu()).copyFrom(tensor);
        await device.sync();
        const data = toBase64(new Uint8Array(new Uint8Array(host.toRawBytes())));
        out.push({ dtype: tensor.dtype, shape: Array.from(tensor.shape), data });
      }
      return { results: out.slice(0, results.length), inputs: out.slice(results.length) };
    } finally {
      tvm.endScope();
    }
  }

  async recorded({ force, keep }, run) {
    this.recorder.start({ force, keep });
    const response = await run();
    const { tokens, logits } = this.recorder;
    return { response, tokens, steps: logits.length, logits: joined(logits) };
  }
}

const harness = new Harness();

// Errors cross to Python as data, whole: what WebLLM throws is not always an Error.
export async function answer(method, args) {
  try {
    return { value: await harness[method](...args) };
  } catch (error) {
    return { error: error?.stack ?? String(error) };
  }
}
