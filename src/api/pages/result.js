// Sends a request, and shows its answer.

import { element, fill, copyButton, marked } from './dom.js';
import { advice, cacheStatus, pretty, size } from './answer.js';

// A longer body is shown in part: a browser takes long to lay out megabytes of text.
const MOST_SHOWN = 200_000;

// Says that there is no answer, and why.
export function showFailure(status, why) {
  status.className = 'state bad';
  fill(status, why);
}

// Sends the request and shows its answer in `status`, which is read aloud, and in `result`.
export async function showAnswer(request, signal, { status, result }, hasKey) {
  const began = performance.now();
  let response;
  let bytes;
  try {
    response = await fetch(request.url, {
      method: request.method,
      headers: request.sent,
      body: request.body ?? undefined,
      signal,
      // The answer comes from the server, not from the browser's cache.
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'manual',
      referrerPolicy: 'no-referrer',
    });
    bytes = await response.arrayBuffer();
  } catch (error) {
    if (signal.aborted) showFailure(status, 'Cancelled. The server may have handled the request.');
    else showFailure(status, `No answer: the server cannot be reached, or it ended the connection. (${error.message})`);
    return;
  }
  const took = performance.now() - began;
  if (response.type === 'opaqueredirect') {
    showFailure(status, 'The answer is a redirect, which this page does not follow.');
    return;
  }
  const text = new TextDecoder().decode(bytes);
  const problem = problemOf(response, text);
  const good = response.status < 400;
  status.className = `state ${good ? 'good' : 'bad'}`;
  fill(
    status,
    element('strong', {}, `${response.status} ${response.statusText}`),
    ` in ${took.toFixed(1)} ms, ${size(bytes.byteLength)}. `,
    problem,
    problem !== '' && ' ',
    advice(response.status, response.headers.get('Retry-After'), hasKey),
  );
  fill(result, originElement(response), bodyElement(text), headerElement(response));
}

// Title and detail of `application/problem+json` (RFC 9457).
function problemOf(response, text) {
  if (!(response.headers.get('Content-Type') ?? '').startsWith('application/problem+json')) return '';
  try {
    const { title, detail } = JSON.parse(text);
    return marked(`${title}: ${detail}`);
  } catch {
    return '';
  }
}

function originElement(response) {
  const header = response.headers.get('Cache-Status');
  const said = header === null ? '' : cacheStatus(header);
  return said !== '' && element('p', { class: 'origin' }, said, ' ', element('code', {}, header));
}

function bodyElement(text) {
  if (text === '') return element('p', { class: 'muted' }, 'The answer has no body.');
  const whole = pretty(text);
  const code = element('code', {}, whole.slice(0, MOST_SHOWN));
  return element(
    'div',
    {},
    element('h5', {}, 'Body'),
    element('pre', { class: 'body', tabindex: '0', role: 'group', 'aria-label': 'Body of the answer' }, code),
    whole.length > MOST_SHOWN && element('p', { class: 'muted' }, `Only the first ${MOST_SHOWN} characters of ${whole.length} are shown.`),
    copyButton('Copy body', code, () => whole),
  );
}

function headerElement(response) {
  return element(
    'div',
    {},
    element('h5', {}, 'Headers'),
    element('dl', { class: 'header-list' }, [...response.headers].map(([name, value]) => element(
      'div',
      {},
      element('dt', {}, name),
      element('dd', {}, value),
    ))),
  );
}
