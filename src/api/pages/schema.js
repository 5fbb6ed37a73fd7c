// Reads the schemas of an OpenAPI 3.1 document (JSON Schema 2020-12): what they accept, in words, and
// an example that they accept. Knows no HTML.

// Deeper levels are shown as "…". A schema that contains itself ends there too.
const DEEPEST = 6;

const BOUNDS = ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'];

// The document of this text. A bound with more digits than a number can hold, such as the largest
// integer of 64 bits, is the text of its digits. (In a browser that does not tell the text of a
// number, it is rounded.)
export function parseDocument(text) {
  return JSON.parse(text, (key, value, context) => {
    const isRounded = typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value);
    return isRounded && BOUNDS.includes(key) ? context?.source ?? value : value;
  });
}

export function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

// What a node means: the target of its `$ref`, with what stands beside the `$ref` on top.
export function resolve(root, node) {
  let own = {};
  for (let hops = 0; hops < 16 && isObject(node) && typeof node.$ref === 'string'; hops += 1) {
    const { $ref: reference, ...beside } = node;
    own = { ...beside, ...own };
    node = target(root, reference);
  }
  return isObject(node) ? { ...node, ...own } : own;
}

// The node that a reference within the document names (RFC 6901).
function target(root, reference) {
  if (!reference.startsWith('#/')) return undefined;
  let node = root;
  for (const part of reference.slice(2).split('/')) {
    const name = unescaped(part).replaceAll('~1', '/').replaceAll('~0', '~');
    const known = typeof node === 'object' && node !== null && Object.hasOwn(node, name);
    node = known ? node[name] : undefined;
  }
  return node;
}

function unescaped(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// The schema with the members of its `allOf` merged into it.
export function flat(root, schema, depth = 0) {
  const own = resolve(root, schema);
  if (!Array.isArray(own.allOf) || depth > DEEPEST) return own;
  const all = own.allOf.map((part) => flat(root, part, depth + 1));
  const merged = Object.assign({}, ...all, own);
  merged.properties = Object.assign({}, ...[...all, own].map((part) => part.properties));
  merged.required = [...all, own].flatMap((part) => part.required ?? []);
  delete merged.allOf;
  return merged;
}

function alternatives(schema) {
  const found = schema.oneOf ?? schema.anyOf;
  return Array.isArray(found) ? found : [];
}

function types(schema) {
  if (schema.type !== undefined) return [schema.type].flat().map(String);
  if (isObject(schema.properties)) return ['object'];
  return schema.items === undefined ? [] : ['array'];
}

// The type in a few words: "integer", "array of string", "object or null", or the schema's title.
export function typeText(root, schema, depth = 0) {
  if (depth > DEEPEST) return '…';
  const own = flat(root, schema);
  if (own.title !== undefined) return String(own.title);
  const either = alternatives(own).map((one) => typeText(root, one, depth + 1));
  if (either.length > 0) return [...new Set(either)].join(' or ');
  const words = types(own).map((type) => {
    if (type !== 'array' || own.items === undefined) return type;
    return `array of ${typeText(root, own.items, depth + 1)}`;
  });
  if (words.length > 0) return words.join(' or ');
  const values = own.enum ?? (own.const === undefined ? [] : [own.const]);
  return values.length > 0 ? [...new Set(values.map((value) => typeof value))].join(' or ') : 'any value';
}

// What the schema accepts beyond its type, one limit each: "1 to 100", "default 20".
export function limits(root, schema) {
  const own = flat(root, schema);
  const found = [];
  const values = allowedValues(root, own);
  if (values?.length === 1) found.push(`always ${shown(values[0])}`);
  else if (values !== null) found.push(`one of ${values.map(shown).join(', ')}`);
  found.push(range(own.minimum, own.maximum, ''));
  if (own.exclusiveMinimum !== undefined) found.push(`more than ${own.exclusiveMinimum}`);
  if (own.exclusiveMaximum !== undefined) found.push(`less than ${own.exclusiveMaximum}`);
  if (own.multipleOf !== undefined) found.push(`a multiple of ${own.multipleOf}`);
  found.push(range(own.minLength, own.maxLength, ' characters'));
  found.push(range(own.minItems, own.maxItems, ' items'));
  if (own.uniqueItems) found.push('no item twice');
  if (own.format !== undefined) found.push(`format ${own.format}`);
  if (own.pattern !== undefined) found.push(`pattern ${own.pattern}`);
  if (own.default !== undefined) found.push(`default ${shown(own.default)}`);
  if (own.readOnly) found.push('read only');
  if (own.additionalProperties === false) found.push('no other members');
  return found.filter((text) => text !== '');
}

// The values that the schema, or each of its alternatives, lists. `null` if it takes others too.
export function allowedValues(root, schema, depth = 0) {
  const own = flat(root, schema);
  if (Array.isArray(own.enum)) return own.enum;
  if (own.const !== undefined) return [own.const];
  if (depth > DEEPEST) return null;
  const each = alternatives(own).map((one) => allowedValues(root, one, depth + 1));
  return each.length === 0 || each.includes(null) ? null : [...new Set(each.flat())];
}

function range(least, most, unit) {
  if (least !== undefined && most !== undefined) return `${least} to ${most}${unit}`;
  if (least !== undefined) return `at least ${least}${unit}`;
  return most === undefined ? '' : `at most ${most}${unit}`;
}

export function shown(value) {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

// The members of an object, or of the objects in an array, each with its own members below it.
export function members(root, schema, depth = 0) {
  if (depth > DEEPEST) return [];
  const own = flat(root, schema);
  const either = alternatives(own);
  if (either.length > 0) return members(root, combined(root, either), depth + 1);
  if (own.items !== undefined) return members(root, own.items, depth + 1);
  const needed = Array.isArray(own.required) ? own.required : [];
  return Object.entries(isObject(own.properties) ? own.properties : {}).map(([name, member]) => {
    const inner = flat(root, member);
    return {
      name,
      required: needed.includes(name),
      type: typeText(root, member),
      limits: limits(root, member),
      description: inner.description,
      members: members(root, member, depth + 1),
    };
  });
}

// An object with the members of all alternatives that are objects.
function combined(root, either) {
  const objects = either.map((one) => flat(root, one)).filter((one) => isObject(one.properties));
  const found = new Map();
  for (const [name, member] of objects.flatMap((one) => Object.entries(one.properties))) {
    found.set(name, [...(found.get(name) ?? []), member]);
  }
  const needed = (name) => objects.every((one) => one.required?.includes(name));
  return {
    properties: Object.fromEntries([...found].map(([name, each]) => [name, each.length === 1 ? each[0] : { anyOf: each }])),
    required: [...found.keys()].filter(needed),
  };
}

// A value that the schema accepts, as far as types and limits say.
export function example(root, schema, depth = 0) {
  const own = flat(root, schema);
  if (own.example !== undefined) return own.example;
  if (Array.isArray(own.examples) && own.examples.length > 0) return own.examples[0];
  if (own.default !== undefined) return own.default;
  if (own.const !== undefined) return own.const;
  if (Array.isArray(own.enum) && own.enum.length > 0) return own.enum[0];
  const either = alternatives(own);
  if (either.length > 0 && depth <= DEEPEST) return example(root, either[0], depth + 1);
  const type = types(own).find((one) => one !== 'null') ?? types(own)[0];
  switch (type) {
    case 'object': {
      if (depth > DEEPEST) return {};
      const written = Object.entries(own.properties ?? {}).filter(([, member]) => !resolve(root, member).readOnly);
      // Unlike an assignment, this takes any name, `__proto__` too.
      return Object.fromEntries(written.map(([name, member]) => [name, example(root, member, depth + 1)]));
    }
    case 'array':
      return depth > DEEPEST || own.items === undefined ? [] : [example(root, own.items, depth + 1)];
    case 'integer':
    case 'number':
      return number(own);
    case 'boolean':
      return true;
    case 'string':
      return text(own);
    default:
      return null;
  }
}

// 1, or the nearest number within the bounds.
function number(schema) {
  const above = schema.exclusiveMinimum === undefined ? -Infinity : Number(schema.exclusiveMinimum) + 1;
  const below = schema.exclusiveMaximum === undefined ? Infinity : Number(schema.exclusiveMaximum) - 1;
  const least = Math.max(Number(schema.minimum ?? -Infinity), above);
  const most = Math.min(Number(schema.maximum ?? Infinity), below);
  return Math.min(Math.max(1, least), most);
}

const TEXTS = {
  date: '2026-01-31',
  'date-time': '2026-01-31T12:00:00Z',
  time: '12:00:00',
  uuid: '123e4567-e89b-42d3-a456-426614174000',
  email: 'ada@example.com',
  uri: 'urn:example:1',
};

function text(schema) {
  const known = TEXTS[schema.format] ?? 'text';
  return known.padEnd(schema.minLength ?? 0, 't').slice(0, schema.maxLength ?? 100);
}
