// The page at /docs: reads the server's OpenAPI document, shows its operations and calls them.
//
// Promise: everything comes from the origin of the page, and so does every call.

import { element, fill, marked } from './dom.js';
import { startKeyForm } from './key.js';
import { operationElement } from './operation.js';
import { operations } from './operations.js';
import { isObject } from './schema.js';

// The folder of the page, which has the document too. A proxy may serve it below a path of its own.
const BASE = new URL('.', location.href);
const DOCUMENT = new URL('openapi.json', BASE);

const state = document.getElementById('state');
const list = document.getElementById('list');

startKeyForm();
addEventListener('hashchange', openNamed);
// The event does not bubble.
list.addEventListener('toggle', nameOpened, { capture: true });
load();

async function load() {
  state.className = 'state';
  fill(state, 'Reading the document …');
  try {
    show(await read());
  } catch (error) {
    state.className = 'state bad';
    fill(state, `The document cannot be shown. ${error.message} `, element('button', { type: 'button', onclick: load }, 'Try again'));
  }
}

// The OpenAPI document.
async function read() {
  let response;
  try {
    response = await fetch(DOCUMENT, { cache: 'no-cache', credentials: 'omit' });
  } catch {
    throw new Error('The server cannot be reached.');
  }
  if (!response.ok) throw new Error(`The server answered with ${response.status} ${response.statusText}.`);
  let root;
  try {
    root = await response.json();
  } catch {
    throw new Error('It is not JSON.');
  }
  if (!isObject(root)) throw new Error('It is not an OpenAPI document.');
  return root;
}

function show(root) {
  const { title = 'API', version = '', description = '' } = isObject(root.info) ? root.info : {};
  document.title = String(title);
  fill(document.getElementById('title'), title);
  fill(document.getElementById('version'), version);
  const about = document.getElementById('description');
  fill(about, ...marked(description));
  about.hidden = description === '';
  const all = operations(root);
  fill(list, all.map((operation) => operationElement(root, operation, BASE)));
  if (all.length === 0) {
    fill(state, 'This server declares no resource with a path. Declare one in its configuration and reload it.');
    return;
  }
  fill(state, all.length === 1 ? '1 operation. Open it to read and try it.' : `${all.length} operations. Open one to read and try it.`);
  openNamed();
}

// The address names the operation that was opened last, so that it can be shared.
function nameOpened({ target }) {
  const isOperation = target.classList.contains('operation');
  if (isOperation && target.open) history.replaceState(null, '', `#${encodeURI(target.id)}`);
}

// Opens the operation that the address names.
function openNamed() {
  let id;
  try {
    id = decodeURI(location.hash.slice(1));
  } catch {
    return;
  }
  const named = document.getElementById(id);
  if (named?.classList.contains('operation')) {
    named.open = true;
    named.scrollIntoView();
  }
}
