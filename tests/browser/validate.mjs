// Reads {name: wgsl} from standard input and writes {name: error}: what Dawn's compiler, which is Chromium's,
// has against a shader. Dawn's null backend runs nothing, so it offers all features, and needs no GPU.
import { writeSync } from "node:fs";

import { create } from "webgpu";

let input = "";
for await (const part of process.stdin) input += part;
// Held for the whole run: a collected instance takes its devices along.
globalThis.gpu = create(["backend=null"]);
const adapter = await gpu.requestAdapter();
const device = await adapter.requestDevice({ requiredFeatures: ["shader-f16"] });
const errors = {};
for (const [name, code] of Object.entries(JSON.parse(input))) {
  device.pushErrorScope("validation");
  device.createShaderModule({ code });
  const error = await device.popErrorScope();
  if (error) errors[name] = error.message;
}
device.destroy();
writeSync(1, JSON.stringify(errors));
process.exit(0);
