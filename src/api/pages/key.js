// The API key of this page.
//
// Promise: the key is kept for this tab only. It is in no URL, in no text that the page shows, and in
// no storage that outlives the tab.

import { fill } from './dom.js';

const NAME = 'larder.key';
// Used alone where the browser refuses storage.
let kept = '';

// The key, or an empty text.
export function currentKey() {
  try {
    return sessionStorage.getItem(NAME) ?? kept;
  } catch {
    return kept;
  }
}

function keep(key) {
  kept = key;
  try {
    if (key === '') sessionStorage.removeItem(NAME);
    else sessionStorage.setItem(NAME, key);
  } catch {
    // The page keeps it until it is reloaded.
  }
}

// Makes the form of the page work.
export function startKeyForm() {
  const input = document.getElementById('key');
  const state = document.getElementById('key-state');
  const tell = () => fill(state, currentKey() === '' ? 'No key is set.' : 'A key is set.');
  document.getElementById('key-form').addEventListener('submit', (event) => {
    event.preventDefault();
    if (input.value.trim() === '') {
      fill(state, 'The field is empty: nothing is changed.');
      return;
    }
    keep(input.value.trim());
    input.value = '';
    tell();
  });
  document.getElementById('key-forget').addEventListener('click', () => {
    keep('');
    input.value = '';
    tell();
  });
  tell();
}
