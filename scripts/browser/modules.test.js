// The modules of the page that know no HTML. `scripts/docs-page` runs this.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import test from 'node:test';

import { advice, cacheStatus, pretty } from './modules/answer.js';
import { operations } from './modules/operations.js';
import { buildRequest, curlLine } from './modules/request.js';
import { example, limits, members, parseDocument, resolve, typeText } from './modules/schema.js';

test('JSON gets line breaks and loses no digit', () => {
  const text = '{"a":12345678901234567890.10,"b":[],"c":{ },"d":[1,{"e":"x, {y} \\" \\\\"}],"a":null}';
  assert.equal(pretty(text), [
    '{', '  "a": 12345678901234567890.10,', '  "b": [],', '  "c": {},', '  "d": [', '    1,', '    {',
    '      "e": "x, {y} \\" \\\\"', '    }', '  ],', '  "a": null', '}',
  ].join('\n'));
  for (const same of ['', 'not JSON', '{"open":', '1.50', '"text"', '[]', '{}']) assert.equal(pretty(same), same);
  const many = `[${'{"a":[1]},'.repeat(100_000)}0]`;
  assert.deepEqual(JSON.parse(pretty(many)), JSON.parse(many));
});

test('Cache-Status is told in words', () => {
  for (const [header, words] of [
    ['larder-memory; hit; ttl=27', 'From the memory of this replica. Fresh for another 27 s.'],
    ['larder-redis; hit; ttl=270, larder-memory; fwd=miss', 'From Redis. Fresh for another 270 s.'],
    ['larder-redis; fwd=miss; stored, larder-memory; fwd=miss', 'From the source. Redis keeps it.'],
    ['larder-memory; fwd=miss', 'From the source.'],
    ['larder-redis; fwd=miss, larder-memory; fwd=miss; collapsed', 'From the source, by a load that another request began.'],
    ['larder-memory; fwd=stale; detail=stale-if-error; ttl=-5', 'A stale copy: the source failed.'],
    ['larder-memory; fwd=stale; detail=new', 'A stale copy: policy allows it.'],
    ['ExampleCache; hit', ''],
  ]) assert.equal(cacheStatus(header), words, header);
});

test('an answer with an error comes with advice', () => {
  assert.match(advice(401, null, false), /Enter one/);
  assert.match(advice(401, null, true), /does not know/);
  assert.equal(advice(429, '7', true), 'Too many requests. Try again in 7 s.');
  assert.equal(advice(200, null, true), '');
});

const root = {
  components: {
    schemas: {
      Tree: {
        type: 'object',
        required: ['name'],
        properties: { name: { type: 'string' }, below: { type: 'array', items: { $ref: '#/components/schemas/Tree' } } },
      },
      Loop: { $ref: '#/components/schemas/Loop' },
      Either: { oneOf: [{ $ref: '#/components/schemas/Either' }, { type: 'null' }] },
      'a/b ~c': { type: 'integer' },
    },
  },
};

test('schemas are told in words, and one that contains itself ends', () => {
  const tree = { $ref: '#/components/schemas/Tree' };
  assert.equal(typeText(root, tree), 'object');
  assert.equal(typeText(root, { type: 'array', items: { type: ['string', 'null'] } }), 'array of string or null');
  assert.equal(typeText(root, { $ref: '#/components/schemas/a~1b%20~0c' }), 'integer');
  assert.equal(typeText(root, {}), 'any value');
  assert.equal(typeText(root, { enum: ['a', 1] }), 'string or number');
  assert.equal(typeText(root, { anyOf: [{ title: 'JSON', anyOf: [{ type: 'string' }] }, { type: 'null' }] }), 'JSON or null');
  const first = members(root, tree);
  assert.deepEqual(first.map(({ name, required }) => [name, required]), [['name', true], ['below', false]]);
  assert.equal(JSON.stringify(example(root, tree)).startsWith('{"name":"text","below":[{"name":"text"'), true);
  for (const endless of ['Loop', 'Either']) {
    const schema = { $ref: `#/components/schemas/${endless}` };
    typeText(root, schema);
    members(root, schema);
    example(root, schema);
  }
  assert.deepEqual(resolve(root, { $ref: 'https://other.example/x', description: 'kept' }), { description: 'kept' });
  assert.deepEqual(resolve(root, { $ref: '#/constructor/prototype' }), {});
  const both = { allOf: [{ type: 'object', properties: { a: { type: 'string' } }, required: ['a'] }, { properties: { b: {} } }] };
  assert.deepEqual(members(root, both).map(({ name }) => name), ['a', 'b']);
});

test('limits are told in words', () => {
  assert.deepEqual(limits(root, { type: 'integer', minimum: 1, maximum: 100, default: 20 }), ['1 to 100', 'default 20']);
  assert.deepEqual(limits(root, { type: 'string', maxLength: 5, pattern: '[A-Z]+' }), ['at most 5 characters', 'pattern [A-Z]+']);
  assert.deepEqual(limits(root, { enum: ['a', 'b'] }), ['one of a, b']);
  assert.deepEqual(limits(root, { enum: ['a'] }), ['always a']);
  const problem = (type, more) => ({ properties: { type: { enum: [type] }, ...more }, required: ['type'] });
  const either = members(root, { anyOf: [problem('a', {}), problem('b', { field: { type: 'string' } }), { type: 'null' }] });
  assert.deepEqual(either.map((member) => [member.name, member.required, ...member.limits]), [['type', true, 'one of a, b'], ['field', false]]);
});

test('a bound keeps its digits', () => {
  const schema = parseDocument('{"type":"integer","minimum":-9223372036854775808,"maximum":18446744073709551615,"title":1e300}');
  assert.equal(schema.title, 1e300);
  assert.equal(example(root, schema), 1);
  // Node.js 20 does not tell the text of a number, Chromium does.
  const told = typeof schema.maximum === 'string';
  assert.deepEqual(limits(root, schema), [told ? '-9223372036854775808 to 18446744073709551615' : '-9223372036854776000 to 18446744073709552000']);
});

test('an example is within the limits', () => {
  const schema = {
    type: 'object',
    properties: {
      id: { type: 'integer', readOnly: true },
      least: { type: 'integer', minimum: 3 },
      most: { type: 'number', maximum: 0.5 },
      name: { type: 'string', minLength: 6 },
      short: { type: 'string', maxLength: 2 },
      day: { type: 'string', format: 'date' },
      either: { anyOf: [{ type: 'boolean' }, { type: 'string' }] },
      nothing: { type: ['null', 'string'] },
      ['__proto__']: { type: 'integer' },
    },
  };
  assert.equal(
    JSON.stringify(example(root, schema)),
    '{"least":3,"most":0.5,"name":"texttt","short":"te","day":"2026-01-31","either":true,"nothing":"text","__proto__":1}',
  );
});

const BASE = new URL('http://127.0.0.1:1/below/');

function operation(path, method, parameters, more = {}) {
  const document = { paths: { [path]: { [method]: { parameters, ...more } } } };
  return operations(document)[0];
}

function built(made, values, body = null, key = '') {
  return buildRequest(made, made.parameters.map((one) => [one, values[one.name] ?? '']), body, BASE, key);
}

test('a request has its values escaped, and an empty one is left out', () => {
  const made = operation('/users/{id}', 'get', [
    { in: 'path', name: 'id' }, { in: 'query', name: 'q' }, { in: 'query', name: 'none' }, { in: 'header', name: 'Larder-After' },
  ]);
  const request = built(made, { id: 'a/b?c#d%', q: 'x&y=z é', 'Larder-After': '7' });
  assert.equal(request.url, 'http://127.0.0.1:1/below/users/a%2Fb%3Fc%23d%25?q=x%26y%3Dz%20%C3%A9');
  assert.equal(request.sent.get('Larder-After'), '7');
  assert.equal(request.sent.has('Authorization'), false);
  for (const id of ['', '.', '..']) assert.throws(() => built(made, { id }), Error, id);
  assert.throws(() => built(made, { id: '1', 'Larder-After': '\u2603' }), /Larder-After has a character/);
  assert.throws(() => built(made, { id: '\ud800' }), /half a character/);
});

test('a QUERY is an operation with a body, written for 3.1 or 3.2', () => {
  const more = { requestBody: { required: true, content: { 'application/json': { schema: {} } } } };
  for (const member of ['x-query', 'query']) {
    const made = operation('/answers', member, [], more);
    assert.deepEqual([made.method, made.id, made.body.required], ['QUERY', 'query/answers', true]);
    const request = built(made, {}, '{"question":"why?"}');
    assert.deepEqual([request.method, request.body], ['QUERY', '{"question":"why?"}']);
    assert.match(curlLine(request, false), /^curl -i -X QUERY /);
  }
});

test('a request never leaves the server', () => {
  for (const path of ['//other.example/x', '/\\other.example/x', '@other.example/', '.other.example/']) {
    const made = operation(path, 'get', [], { security: [{ bearer: [] }] });
    let url;
    try {
      url = new URL(built(made, {}, null, 'secret').url);
    } catch {
      continue;
    }
    assert.equal(url.host, '127.0.0.1:1', path);
  }
});

test('the key goes only where one is needed, and never into the curl line', () => {
  const open = operation('/a', 'get', []);
  assert.equal(open.key, 'none');
  assert.equal(built(open, {}, null, 'secret').sent.has('Authorization'), false);
  const closed = operation('/a', 'put', [], {
    security: [{ bearer: [] }], requestBody: { content: { 'application/json': { schema: {} } } },
  });
  const request = built(closed, {}, '{"a":"it\'s $HOME `id`"}', 'secret');
  assert.equal(request.sent.get('Authorization'), 'Bearer secret');
  const line = curlLine(request, true);
  assert.equal(line.includes('secret'), false);
  // A shell makes the same words of it.
  const words = execFileSync('sh', ['-c', line.replace('curl', 'printf "%s\\n"')], { env: { LARDER_KEY: 'k' } });
  assert.deepEqual(words.toString().trimEnd().split('\n'), [
    '-i', '-X', 'PUT', '-H', 'Authorization: Bearer k', '-H', 'Content-Type: application/json', '--data-raw',
    '{"a":"it\'s $HOME `id`"}', 'http://127.0.0.1:1/below/a',
  ]);
});

test('operations have the parameters of their path, and their own win', () => {
  const document = {
    security: [{ bearer: [] }],
    paths: {
      '/a/{id}': {
        parameters: [{ in: 'path', name: 'id', description: 'path' }, { in: 'query', name: 'q', description: 'path' }],
        get: { parameters: [{ in: 'query', name: 'q', description: 'own' }] },
        delete: { security: [{ bearer: ['admin'] }] },
        'x-other': {},
      },
      '/open': { get: { security: [] }, head: { security: [{}, { bearer: [] }] } },
    },
  };
  const all = operations(document);
  assert.deepEqual(all.map(({ method, key }) => [method, key]), [['GET', 'any'], ['DELETE', 'admin'], ['GET', 'none'], ['HEAD', 'optional']]);
  assert.deepEqual(all[0].parameters.map(({ description }) => description), ['path', 'own']);
  assert.equal(new Set(all.map(({ id }) => id)).size, all.length);
  for (const odd of [{}, { paths: [] }, { paths: { '/a': null, '/b': { get: null } } }]) assert.deepEqual(operations(odd), []);
});
