// Runs one compute kernel as the WebLLM runtime does: storage buffers in order, then one uniform buffer
// with the plain arguments and the width of the grid. Limits are the least that WebLLM works with.
async function openDevice() {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error("no WebGPU adapter");
  return adapter.requestDevice({
    requiredLimits: {
      maxStorageBuffersPerShaderStage: 10,
      maxComputeWorkgroupStorageSize: 32768,
      maxComputeInvocationsPerWorkgroup: 256,
    },
  });
}

const devicePromise = openDevice();
const pipelines = new Map();

const fromBase64 = async (text) =>
  new Uint8Array(await (await fetch("data:application/octet-stream;base64," + text)).arrayBuffer());

const toBase64 = (bytes) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(new Blob([bytes]));
  });

async function guarded(device, work) {
  device.pushErrorScope("validation");
  device.pushErrorScope("out-of-memory");
  const result = await work();
  const errors = [await device.popErrorScope(), await device.popErrorScope()].filter((e) => e);
  if (errors.length) throw new Error(errors.map((e) => e.message).join("\n"));
  return result;
}

async function pipelineOf(device, code, entryPoint, writes) {
  const key = entryPoint + "\n" + code;
  if (!pipelines.has(key)) {
    const module = device.createShaderModule({ code });
    const info = await module.getCompilationInfo();
    const wrong = info.messages.filter((m) => m.type === "error");
    if (wrong.length) throw new Error(wrong.map((m) => `${m.lineNum}: ${m.message}`).join("\n"));
    const entries = writes.map((write, binding) => ({
      binding,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type: write ? "storage" : "read-only-storage" },
    }));
    entries.push({ binding: writes.length, visibility: GPUShaderStage.COMPUTE, buffer: { type: "uniform" } });
    const layout = device.createBindGroupLayout({ entries });
    const pipeline = await device.createComputePipelineAsync({
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint },
    });
    pipelines.set(key, { pipeline, layout });
  }
  return pipelines.get(key);
}

// buffers: base64 of each distinct buffer; bindings: which of them each argument is.
async function dispatch({ code, entryPoint, grid, buffers, bindings, writes, uniform }) {
  const device = await devicePromise;
  return guarded(device, async () => {
    const { pipeline, layout } = await pipelineOf(device, code, entryPoint, writes);
    const STORAGE = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    const made = [];
    const upload = async (text, usage) => {
      const bytes = await fromBase64(text);
      const buffer = device.createBuffer({ size: Math.max(4, Math.ceil(bytes.length / 4) * 4), usage });
      const padded = new Uint8Array(buffer.size);
      padded.set(bytes);
      device.queue.writeBuffer(buffer, 0, padded);
      made.push(buffer);
      return buffer;
    };
    const storage = [];
    for (const text of buffers) storage.push(await upload(text, STORAGE));
    const plain = await upload(uniform, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
    const entries = bindings.map((which, binding) => ({ binding, resource: { buffer: storage[which] } }));
    entries.push({ binding: bindings.length, resource: { buffer: plain } });
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout, entries }));
    pass.dispatchWorkgroups(...grid);
    pass.end();
    const written = [...new Set(bindings.filter((_, i) => writes[i]))];
    const reads = written.map((which) => {
      const size = storage[which].size;
      const buffer = device.createBuffer({ size, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
      encoder.copyBufferToBuffer(storage[which], 0, buffer, 0, size);
      made.push(buffer);
      return buffer;
    });
    device.queue.submit([encoder.finish()]);
    const results = {};
    for (const [i, buffer] of reads.entries()) {
      await buffer.mapAsync(GPUMapMode.READ);
      results[written[i]] = await toBase64(buffer.getMappedRange().slice(0));
    }
    for (const buffer of made) buffer.destroy();
    return results;
  });
}
