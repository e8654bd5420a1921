// Runs the submission of a sealed function task in JavaScript and answers calls to it, as subject.py
// does for Python; wire.py says what a frame is.
//
// stdin: the entry point's name in the first line, the submission's source in the rest.
// fd 4: frames. Nothing that a verdict depends on is in this process.
//
// From Python to here: int is a number, and a BigInt beyond 2^53; list and tuple are arrays; bytes is
// a Uint8Array; a dict with text keys is an object, any other a Map; set and frozenset are Sets. Back:
// a number without a fraction is an int up to 2^53, -0 stays a float; undefined is None. Objects with a
// class of their own, proxies, functions, symbols and dates can't cross. Arguments, and in results keys
// and members of Sets, go back as the kinds that they came as.
"use strict";
const fs = require("fs");
const { types } = require("util");

const FD = 4;
const MAX_FRAME = 4 << 20;
const MAX_DEPTH = 100;

class CannotCross extends Error {}

// What Python calls a tuple. Messages are tuples.
class Tuple {
  constructor(...items) {
    this.items = items;
  }
}

// The arguments of a call, after it.
class Arguments extends Tuple {}

// What stands here for values that never change in Python, whatever becomes of it: the tag that each
// came with, and what it held.
const unchanging = new WeakMap();

// The bytes of one value, as they grow.
class Writer {
  constructor() {
    this.data = Buffer.alloc(256);
    this.size = 0;
    this.inArguments = this.inKey = false;
  }

  // Returns where so many bytes go; `data` is another buffer afterwards, maybe.
  room(count) {
    if (this.size + count > MAX_FRAME) throw new CannotCross(`a value of more than ${MAX_FRAME} bytes can't cross`);
    if (this.size + count > this.data.length) {
      const more = Buffer.alloc(Math.max(this.size + count, this.data.length * 2));
      this.data.copy(more, 0, 0, this.size);
      this.data = more;
    }
    this.size += count;
    return this.size - count;
  }

  tag(letter) {
    const at = this.room(1);
    this.data.write(letter, at, "latin1");
  }

  // Each of so many items or bytes takes a byte at least.
  count(number) {
    if (number > MAX_FRAME) throw new CannotCross(`a value of more than ${MAX_FRAME} bytes can't cross`);
    const at = this.room(4);
    this.data.writeUInt32BE(number, at);
  }

  bytes(letter, raw) {
    this.tag(letter);
    this.count(raw.length);
    const at = this.room(raw.length);
    this.data.set(raw, at);
  }

  float(number) {
    this.tag("f");
    const at = this.room(8);
    this.data.writeDoubleBE(number, at);
  }

  int(big) {
    // Two's complement in as many bytes as hold the sign, too.
    const magnitude = big < 0n ? -big - 1n : big;
    const digits = magnitude.toString(16);
    const length = (digits.length >> 1) + 1;
    if (length > MAX_FRAME) throw new CannotCross("an int of that size can't cross");
    const raw = Buffer.from(digits.padStart(length * 2, "0"), "hex");
    if (big < 0n) for (let i = 0; i < length; i++) raw[i] ^= 0xff;
    this.bytes("i", raw);
  }

  value(value, depth) {
    if (depth > MAX_DEPTH) throw new CannotCross(`a value nested deeper than ${MAX_DEPTH} levels can't cross`);
    switch (typeof value) {
      case "undefined": return this.tag("N");
      case "boolean": return this.tag(value ? "T" : "F");
      case "string": return this.bytes("s", utf8(value));
      case "bigint": return this.int(value);
      case "number":
        return Number.isSafeInteger(value) && !Object.is(value, -0) ? this.int(BigInt(value)) : this.float(value);
      case "object": return value === null ? this.tag("N") : this.object(value, depth);
      default: throw new CannotCross(`a ${typeof value} can't cross`);
    }
  }

  // Each property is read once: a getter may say something else the next time.
  object(value, depth) {
    if (types.isProxy(value)) throw new CannotCross("a Proxy can't cross");
    const prototype = Object.getPrototypeOf(value);
    const came = (this.inArguments || this.inKey) && unchanging.get(value);
    if (this.inKey && !came) {
      throw new CannotCross("an object that is a Map's key or a Set's member can't cross, unless it came as a tuple");
    }
    if (came) {
      const held = this.inArguments ? came.held : [...value];
      this.unchanging(came.tag, held, depth);
    } else if (prototype === Tuple.prototype || prototype === Arguments.prototype) {
      this.inArguments = prototype === Arguments.prototype;
      this.tag("t");
      this.count(value.items.length);
      for (const item of value.items) this.value(item, depth + 1);
    } else if (Array.isArray(value) && prototype === Array.prototype) {
      const length = value.length;
      this.tag("l");
      this.count(length);
      for (let i = 0; i < length; i++) this.value(value[i], depth + 1);
    } else if (types.isUint8Array(value)) {
      this.bytes("b", new Uint8Array(value));
    } else if (types.isTypedArray(value)) {
      this.value(Array.from(value), depth);
    } else if (types.isMap(value) && prototype === Map.prototype) {
      const items = [...Map.prototype.entries.call(value)];
      const seen = new Set();
      this.tag("d");
      this.count(items.length);
      for (const [key, item] of items) {
        this.key(key, depth, seen);
        this.value(item, depth + 1);
      }
    } else if (types.isSet(value) && prototype === Set.prototype) {
      const items = [...Set.prototype.values.call(value)];
      const seen = new Set();
      this.tag("S");
      this.count(items.length);
      for (const item of items) this.key(item, depth, seen);
    } else if (prototype === null || (prototype === Object.prototype && !types.isBoxedPrimitive(value))) {
      const keys = Object.keys(value);
      this.tag("d");
      this.count(keys.length);
      for (const key of keys) {
        this.bytes("s", utf8(key));
        this.value(value[key], depth + 1);
      }
    } else {
      const name = Object.getOwnPropertyDescriptor(prototype, "constructor")?.value?.name;
      throw new CannotCross(`an object of class ${String(name).slice(0, 80)} can't cross`);
    }
  }

  unchanging(tag, held, depth) {
    if (tag === "b") return this.bytes(tag, held);
    this.tag(tag);
    this.count(held.length);
    for (const item of held) this.value(item, depth + 1);
  }

  // Python wants keys and members that can be hashed, and that differ by what they hold.
  key(key, depth, seen) {
    if (typeof key !== "object" || key === null) return this.value(key, depth + 1);
    const [start, within] = [this.size, this.inKey];
    this.inKey = true;
    this.value(key, depth + 1);
    this.inKey = within;
    const text = this.data.toString("latin1", start, this.size);
    if (seen.has(text)) throw new CannotCross("two keys or members that hold the same can't cross");
    seen.add(text);
  }
}

// UTF-8 of a text, where half a surrogate pair is three bytes, as in Python's "surrogatepass".
function utf8(text) {
  if (text.length > MAX_FRAME) throw new CannotCross("a text of that length can't cross");
  if (!/\p{Surrogate}/u.test(text)) return Buffer.from(text);
  const parts = Array.from(text, (char) => {
    const code = char.codePointAt(0);
    if (code < 0xd800 || code > 0xdfff) return Buffer.from(char);
    return Buffer.from([0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63)]);
  });
  return Buffer.concat(parts);
}

// The reverse. What `toString` makes of half a pair is three replacement characters.
function text(raw) {
  const plain = raw.toString("utf8");
  if (!plain.includes("\ufffd")) return plain;
  let out = "";
  for (let at = 0; at < raw.length; ) {
    const byte = raw[at];
    const length = byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    const half = byte === 0xed && raw[at + 1] >= 0xa0;
    out += half
      ? String.fromCharCode(((byte & 15) << 12) | ((raw[at + 1] & 63) << 6) | (raw[at + 2] & 63))
      : raw.toString("utf8", at, at + length);
    at += length;
  }
  return out;
}

// The values of one frame. It comes from the grader, which is ours, so it is well formed.
class Reader {
  constructor(data) {
    this.data = data;
    this.at = 0;
  }

  take(count) {
    this.at += count;
    return this.data.subarray(this.at - count, this.at);
  }

  items(read) {
    const count = this.take(4).readUInt32BE();
    return Array.from({ length: count }, read);
  }

  unchanging(tag, held, make) {
    const value = make(held);
    unchanging.set(value, { tag, held });
    return value;
  }

  int(raw) {
    const big = BigInt.asIntN(raw.length * 8, BigInt(`0x${raw.toString("hex")}`));
    const number = Number(big);
    return Number.isSafeInteger(number) ? number : big;
  }

  value() {
    const tag = this.take(1).toString("latin1");
    switch (tag) {
      case "N": return null;
      case "T": return true;
      case "F": return false;
      case "f": return this.take(8).readDoubleBE();
      case "i": return this.int(this.take(this.take(4).readUInt32BE()));
      case "s": return text(this.take(this.take(4).readUInt32BE()));
      case "b": return this.unchanging(tag, this.take(this.take(4).readUInt32BE()), (held) => Uint8Array.from(held));
      case "l": return this.items(() => this.value());
      case "t": return this.unchanging(tag, this.items(() => this.value()), (held) => [...held]);
      case "S": return new Set(this.items(() => this.value()));
      case "z": return this.unchanging(tag, this.items(() => this.value()), (held) => new Set(held));
      case "d": {
        const items = this.items(() => [this.value(), this.value()]);
        if (!items.every(([key]) => typeof key === "string")) return new Map(items);
        return Object.fromEntries(items);
      }
      default: throw new CannotCross(`a value of tag ${tag} can't cross to JavaScript`);
    }
  }
}

// Encodes first: what can't cross raises before anything is written.
function send(...message) {
  const writer = new Writer();
  writer.value(new Tuple(...message), 0);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(writer.size);
  const data = Buffer.concat([head, writer.data.subarray(0, writer.size)]);
  for (let at = 0; at < data.length; ) at += fs.writeSync(FD, data, at);
}

// Returns so many bytes, or null at the end.
function read(count) {
  const data = Buffer.alloc(count);
  for (let at = 0; at < count; ) {
    const got = fs.readSync(FD, data, at, count - at, null);
    if (got === 0) return null;
    at += got;
  }
  return data;
}

function describe(error) {
  try {
    const isError = error instanceof Error;
    const name = isError ? String(error.name) : typeof error;
    return [name.slice(0, 80), String(isError ? error.message : error).slice(0, 500)];
  } catch {
    return ["Error", "an error that can't describe itself"];
  }
}

// Finds the entry point in a script, a CommonJS module or an ES module.
async function load(entry, source) {
  const script = `${source}\n;return typeof ${entry} === "undefined" ? undefined : ${entry};`;
  const module = { exports: {} };
  let run;
  try {
    run = new Function("module", "exports", "require", script);
  } catch (error) {
    if (!/^\s*(import|export)\b/m.test(source)) throw error;
    const names = await import(`data:text/javascript,${encodeURIComponent(source)}`);
    return names[entry] ?? names.default;
  }
  const found = run(module, module.exports, require);
  return found ?? module.exports[entry] ?? module.exports;
}

async function main() {
  const input = fs.readFileSync(0, "utf8");
  const end = input.indexOf("\n");
  const entry = input.slice(0, end);
  let called;
  try {
    called = await load(entry, input.slice(end + 1));
  } catch (error) {
    return send("broken", describe(error).join(": "));
  }
  if (typeof called !== "function") return send("broken", `the submission does not define \`${entry}\``);
  send("ready");
  for (;;) {
    const head = read(4);
    const data = head && read(head.readUInt32BE());
    if (!data) return undefined;
    try {
      const [args, named] = new Reader(data).value();
      if (Object.keys(named).length > 0) throw new CannotCross("JavaScript has no named arguments");
      const changeable = args.some((arg) => typeof arg === "object" && arg !== null && !unchanging.has(arg));
      let answer;
      try {
        const result = called(...args);
        answer = ["ok", types.isPromise(result) ? await result : result];
      } catch (error) {
        answer = ["raised", ...describe(error)];
      }
      send(...answer, changeable ? new Arguments(...args) : null);
    } catch (error) {
      send("stuck", describe(error)[1]);
    }
  }
}

main().then(() => process.exit(0));
