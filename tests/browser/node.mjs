// WebLLM in Node.js, on Dawn with its Vulkan backend: reads {method, args} from standard input, a line each,
// and writes what engine.js answers to standard output. Everything else that is said goes to standard error.
import { Console } from "node:console";
import process from "node:process";
import { createInterface } from "node:readline";

import { create, globals } from "webgpu";

// What WebLLM keeps files in. A real one outlives the page; this one's life is as long.
class Caches {
  #stores = new Map();
  async open(name) {
    if (!this.#stores.has(name)) this.#stores.set(name, new Store());
    return this.#stores.get(name);
  }
}

class Store {
  #responses = new Map();
  async match(request) {
    return this.#responses.get(request.url ?? request)?.clone();
  }
  async add(request) {
    const response = await fetch(request);
    if (!response.ok) throw new TypeError(`Request failed: ${response.status} ${response.url}`);
    await this.put(request, response);
  }
  async put(request, response) {
    this.#responses.set(request.url ?? request, response);
  }
  async keys() {
    return [...this.#responses.keys()].map((url) => new Request(url));
  }
  async delete(request) {
    return this.#responses.delete(request.url ?? request);
  }
}

const [origin] = process.argv.slice(2);
Object.assign(globalThis, globals);
const browsers = {
  caches: new Caches(),
  console: new Console(process.stderr),
  location: new URL(origin),
  navigator: { gpu: create(["backend=vulkan"]) },
  // Emscripten's code inside WebLLM would take Node.js for what it is, and fail: its bundle is made for browsers.
  process: undefined,
};
for (const [name, value] of Object.entries(browsers)) {
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
}

const { answer } = await import("./engine.js");
for await (const line of createInterface({ input: process.stdin })) {
  const { method, args } = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(await answer(method, args))}\n`);
}
process.exit(0);
