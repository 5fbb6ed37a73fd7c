// The operations of an OpenAPI document, as the page shows them. Knows no HTML.

import { isObject, resolve } from './schema.js';

// OpenAPI 3.1 has no place for QUERY (RFC 10008). Larder writes `x-query`, and OpenAPI 3.2 has `query`.
const METHODS = ['get', 'x-query', 'query', 'post', 'put', 'patch', 'delete', 'head', 'options'];

// All operations, in the order of the document.
export function operations(root) {
  const found = [];
  for (const [path, item] of Object.entries(isObject(root.paths) ? root.paths : {})) {
    const shared = resolve(root, item);
    for (const method of METHODS) {
      if (isObject(shared[method])) found.push(operation(root, path, method.replace('x-', ''), shared[method], shared));
    }
  }
  return found;
}

function operation(root, path, method, own, shared) {
  return {
    id: `${method}${path}`.replace(/\s/g, '-'),
    method: method.toUpperCase(),
    path,
    summary: own.summary ?? shared.summary ?? '',
    description: String(own.description ?? shared.description ?? ''),
    deprecated: own.deprecated === true,
    parameters: parameters(root, shared.parameters, own.parameters),
    body: body(root, own.requestBody),
    answers: answers(root, own.responses),
    key: neededKey(own.security ?? root.security ?? []),
  };
}

// The parameters of the path and of the operation. The operation's win.
function parameters(root, ...lists) {
  const found = new Map();
  for (const parameter of lists.flatMap((list) => (Array.isArray(list) ? list : []))) {
    const own = resolve(root, parameter);
    found.set(`${own.in} ${own.name}`, own);
  }
  return [...found.values()].filter((own) => ['path', 'query', 'header'].includes(own.in));
}

function body(root, requestBody) {
  if (requestBody === undefined) return null;
  const own = resolve(root, requestBody);
  const media = content(own);
  return media && { ...media, required: own.required === true, description: own.description };
}

function answers(root, responses) {
  return Object.entries(isObject(responses) ? responses : {}).map(([status, response]) => {
    const own = resolve(root, response);
    return {
      status,
      description: own.description ?? '',
      content: content(own),
      headers: Object.entries(isObject(own.headers) ? own.headers : {}).map(([name, header]) => ({
        ...resolve(root, header),
        name,
      })),
    };
  });
}

// The first content type, with its schema and its example.
function content(own) {
  const [first] = Object.entries(isObject(own.content) ? own.content : {});
  if (first === undefined) return null;
  const [type, media] = first;
  const named = Object.values(isObject(media.examples) ? media.examples : {}).find(isObject);
  return { type, schema: media.schema ?? {}, example: media.example ?? named?.value };
}

// Which key the operation needs: 'none', 'optional', 'any' or 'admin'.
function neededKey(security) {
  const ways = Array.isArray(security) ? security.filter(isObject) : [];
  const isOpen = (way) => Object.keys(way).length === 0;
  if (ways.every(isOpen)) return 'none';
  if (ways.some(isOpen)) return 'optional';
  const isAdmin = (way) => Object.values(way).flat().includes('admin');
  return ways.every(isAdmin) ? 'admin' : 'any';
}
