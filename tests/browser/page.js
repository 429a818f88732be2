// The page side of harness.py.
import { answer } from "./engine.js";

window.harness = (method, ...args) => answer(method, args);
