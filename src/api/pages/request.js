// The request of a call, and the same request as a `curl` line. Knows no HTML.

// The request of `operation` with these values, each by its parameter. `base` is the URL of the
// folder that has the document. Throws an `Error` if a browser cannot send it.
export function buildRequest(operation, values, body, base, key) {
  const query = [];
  const headers = [];
  const segments = new Map();
  for (const [parameter, value] of values) {
    if (value === '' && parameter.in !== 'path') continue;
    if (parameter.in === 'path') segments.set(parameter.name, segment(parameter.name, value));
    if (parameter.in === 'query') query.push(`${escaped(parameter.name)}=${escaped(value)}`);
    if (parameter.in === 'header') headers.push([parameter.name, value]);
  }
  if (body !== null) headers.push(['Content-Type', operation.body.type]);
  const path = operation.path.replace(/\{([^{}]+)\}/g, (all, name) => segments.get(name) ?? all);
  const url = new URL(base.origin + base.pathname.replace(/\/$/, '') + path + (query.length > 0 ? `?${query.join('&')}` : ''));
  if (url.origin !== base.origin) throw new Error('The path leads to another server.');
  const withKey = operation.key !== 'none' && key !== '';
  const sent = withKey ? [...headers, ['Authorization', `Bearer ${key}`]] : headers;
  sent.forEach(([name, value]) => assertHeader(name, value));
  return { method: operation.method, url: url.href, headers, sent: new Headers(sent), body };
}

function segment(name, value) {
  if (value === '') throw new Error(`Fill in ${name}: it is a part of the path.`);
  // A browser removes such a segment, escaped or not, and would call another path.
  if (value === '.' || value === '..') throw new Error(`A browser cannot send "${value}" as ${name}. Use curl with --path-as-is.`);
  return escaped(value);
}

function escaped(text) {
  try {
    return encodeURIComponent(text);
  } catch {
    throw new Error('A value has half a character, which cannot be sent.');
  }
}

function assertHeader(name, value) {
  try {
    new Headers([[name, value]]);
  } catch {
    const what = name === 'Authorization' ? 'The API key' : `The value of ${name}`;
    throw new Error(`${what} has a character that a header cannot have.`);
  }
}

// The line never contains the key: the shell puts it in, from the variable LARDER_KEY.
export function curlLine(request, needsKey) {
  const words = ['curl', request.method === 'HEAD' ? '--head' : '-i'];
  if (!['GET', 'HEAD'].includes(request.method)) words.push('-X', request.method);
  if (needsKey) words.push('-H', '"Authorization: Bearer $LARDER_KEY"');
  for (const [name, value] of request.headers) words.push('-H', quoted(`${name}: ${value}`));
  if (request.body !== null) words.push('--data-raw', quoted(request.body));
  words.push(quoted(request.url));
  return words.join(' ');
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
