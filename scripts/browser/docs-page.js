// Reads and tries /docs in Chromium. `scripts/docs-page` runs this against a larder of its own.
//
// Each check is a line on standard output. The first that fails ends the run. Whatever the checks do,
// no page may ask another host, break its content security policy, or write an error to the console.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

import { chromium } from 'playwright-core';

const BASE = process.env.LARDER_URL;
const KEY = process.env.LARDER_ADMIN_KEY;
const PICTURES = process.env.PICTURES;
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 360, height: 740 };

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: [
    // No name but this machine's can be resolved, so nothing can leave it unseen.
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
    ...(process.getuid() === 0 ? ['--no-sandbox'] : []),
  ],
});

// What went wrong outside of the checks.
const faults = [];
let requests = 0;

function done(what) {
  console.log(`ok: ${what}`);
}

// A page in a context of its own. `mayFail`: calls that answer with an error are a part of the check,
// and Chromium writes a line for each to the console.
async function open(path, { viewport = DESKTOP, dark = false, reducedMotion = 'no-preference', routes = {}, mayFail = false } = {}) {
  const context = await browser.newContext({
    viewport,
    reducedMotion,
    colorScheme: dark ? 'dark' : 'light',
    permissions: ['clipboard-read', 'clipboard-write'],
  });
  context.on('request', (request) => {
    requests += 1;
    if (new URL(request.url()).origin !== BASE) faults.push(`a request to ${request.url()}`);
    if (request.url().includes(KEY)) faults.push('the key is in a URL');
  });
  await context.addInitScript(() => {
    addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
      console.error(`content security policy: ${violatedDirective} ${blockedURI}`);
    });
  });
  const page = await context.newPage();
  page.on('pageerror', (error) => faults.push(`an error on the page: ${error}`));
  page.on('console', (message) => {
    if (!['error', 'warning'].includes(message.type())) return;
    if (mayFail && message.text().startsWith('Failed to load resource')) return;
    faults.push(`on the console: ${message.text()}`);
  });
  for (const [url, handler] of Object.entries(routes)) await page.route(`${BASE}${url}`, handler);
  await page.goto(`${BASE}${path}`);
  return page;
}

async function close(page) {
  await page.context().close();
  assert.deepEqual(faults, []);
}

async function openDocs(options) {
  const page = await open('/docs', options);
  await page.getByText(/\d+ operations?\. Open/).waitFor();
  return page;
}

async function signIn(page, key = KEY) {
  await page.getByLabel('Key for the calls of this page').fill(key);
  await page.getByRole('button', { name: 'Use key' }).click();
  await page.getByText('A key is set.').waitFor();
}

// The operation, opened.
async function operation(page, method, path) {
  const found = page.locator(`details[id="${method.toLowerCase()}${path}"]`);
  await found.evaluate((details) => { details.open = true; });
  await found.getByRole('button', { name: 'Send' }).waitFor();
  return found;
}

function field(within, name) {
  return within.locator('.call > .field').filter({ has: within.page().locator(`label code:text-is("${name}")`) }).locator('input, select');
}

// Sends the form. Returns what is read aloud about the answer.
async function send(within) {
  await within.getByRole('button', { name: 'Send' }).click();
  return answer(within);
}

async function answer(within) {
  const state = within.locator('.call > .state');
  await within.locator('.call > .state.good, .call > .state.bad').waitFor();
  return state.innerText();
}

async function body(within) {
  return JSON.parse(await within.locator('pre.body').innerText());
}

// The whole page, or as much of it as a picture can hold.
async function picture(page, name) {
  const viewport = page.viewportSize();
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  await page.evaluate(() => scrollTo(0, 0));
  await page.setViewportSize({ width: viewport.width, height: Math.min(height, 6000) });
  await page.screenshot({ path: `${PICTURES}/${name}.png` });
  await page.setViewportSize(viewport);
}

async function assertAccessible(page, what) {
  await page.evaluate(AXE);
  const { violations, passes } = await page.evaluate(() => globalThis.axe.run(document));
  assert.ok(passes.length > 15, `only ${passes.length} rules of axe-core had something to look at`);
  const told = violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html}\n${failureSummary}`));
  assert.deepEqual(told, [], what);
}

async function assertNoSidewaysScroll(page, what) {
  const wide = await page.evaluate(() => {
    const { clientWidth, scrollWidth } = document.documentElement;
    const beyond = [...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > clientWidth + 1);
    return scrollWidth > clientWidth || beyond.length > 0 ? beyond.slice(0, 5).map((one) => one.outerHTML.slice(0, 200)) : null;
  });
  assert.equal(wide, null, what);
}

// The policy holds, and what breaks it is seen: otherwise the silence of the other checks says nothing.
async function checkPolicy() {
  const page = await openDocs({ mayFail: true });
  const failed = [];
  page.on('requestfailed', (request) => failed.push([request.url(), request.failure().errorText]));
  await page.evaluate(() => {
    new Image().src = 'http://other.example/picture.png';
    const style = document.createElement('style');
    style.textContent = 'body { color: red }';
    document.head.append(style);
    fetch('http://other.example/').catch(() => {});
    try {
      document.body.innerHTML = '<p>markup</p>';
    } catch {
      console.error('content security policy: markup is refused');
    }
  });
  await page.waitForTimeout(200);
  for (const directive of ['img-src', 'style-src-elem', 'connect-src', 'markup is refused']) {
    assert.ok(faults.some((fault) => fault.includes(`content security policy: ${directive}`)), `${directive}: ${faults}`);
  }
  // Chromium may tell of a request that the policy stopped before it was sent.
  const told = faults.filter((fault) => fault.startsWith('a request to'));
  assert.equal(told.length, failed.length, `${told}: ${failed}`);
  assert.ok(failed.every(([, why]) => why === 'csp'), String(failed));
  faults.length = 0;
  await close(page);
  done('the policy stops other hosts, inline styles and markup');
}

async function checkCalls() {
  const page = await openDocs({ mayFail: true });
  await picture(page, 'desktop-light-closed');
  const articles = await operation(page, 'GET', '/articles');
  const bounded = await operation(page, 'GET', '/users/{id}');
  assert.match(await bounded.textContent(), /integer; 1 to 9223372036854775807/, 'a bound keeps its digits');
  assert.match(await send(articles), /401.*needs an API key\. Enter one at the top/s);
  await picture(page, 'desktop-light-no-key');
  await signIn(page, 'wrong-key-wrong-key-wrong-key');
  assert.match(await send(articles), /401.*does not know the API key/s);
  await page.getByRole('button', { name: 'Forget key' }).click();
  await page.getByText('No key is set.').waitFor();
  assert.match(await send(articles), /Enter one at the top/);
  done('a call without a key, and one with a wrong key: 401 says what to do');

  await signIn(page);
  await field(articles, 'category').selectOption('technology');
  await field(articles, 'limit').fill('3');
  assert.match(await send(articles), /^200 OK in [\d.]+ ms/);
  assert.equal((await body(articles)).articles.length, 3);
  assert.match(await articles.locator('.origin').innerText(), /^From the source\. larder-memory; fwd=miss/);
  await send(articles);
  assert.match(await articles.locator('.origin').innerText(), /^From the memory of this replica\. Fresh for another \d+ s\./);
  assert.match(await articles.locator('.header-list').innerText(), /etag/);
  await picture(page, 'desktop-light-good-call');
  done('signed in, a good call shows status, body, headers and where it comes from');

  const line = await articles.locator('pre.line').first().innerText();
  assert.ok(line.includes('$LARDER_KEY') && !line.includes(KEY), line);
  await articles.getByRole('button', { name: 'Copy curl line' }).click();
  await articles.getByText('Copied.').waitFor();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(copied, line);
  const output = execFileSync('sh', ['-c', copied], { env: { PATH: process.env.PATH, LARDER_KEY: KEY }, stdio: ['ignore', 'pipe', 'ignore'] });
  assert.match(output.toString(), /^HTTP\/1\.1 200 OK/);
  done('the curl line is copied, does not have the key, and works in a shell');

  await field(articles, 'limit').fill('1000');
  assert.match(await send(articles), /^400 Bad Request.*Invalid parameter: .*limit/s);
  await picture(page, 'desktop-light-bad-call');
  done('a bad call shows the 400 and its problem');

  const user = await operation(page, 'PUT', '/users/{id}');
  await field(user, 'id').fill('1');
  const text = user.locator('textarea');
  assert.deepEqual(Object.keys(JSON.parse(await text.inputValue())).sort(), ['email', 'name']);
  await text.fill('{"name":"Ada King","email":"ada@example.com"}');
  assert.match(await send(user), /^200 OK/);
  assert.deepEqual(await body(user), { id: 1, name: 'Ada King', email: 'ada@example.com' });
  await picture(page, 'desktop-light-write');
  await text.fill('{"name":');
  await user.getByText('This is not JSON').waitFor();
  assert.match(await send(user), /^400 Bad Request.*Malformed JSON/s);
  await user.getByRole('button', { name: 'Reset to the example' }).click();
  await text.fill('{"name":"Ada","email":"nobody"}');
  assert.match(await send(user), /^422 .*Invalid field: .*email/s);
  await field(user, 'id').fill('');
  assert.match(await send(user), /Fill in id/);
  await field(user, 'id').fill('..');
  assert.match(await send(user), /cannot send "\.\."/);
  done('a write with a body works; a malformed and an invalid body are told');

  const posted = await operation(page, 'POST', '/lookup');
  const queried = await operation(page, 'QUERY', '/lookup');
  assert.deepEqual(JSON.parse(await posted.locator('textarea').inputValue()), { id: 1 });
  assert.match(await send(posted), /^200 OK/);
  assert.equal((await body(posted)).id, 1);
  assert.match(await posted.locator('.header-list').innerText(), /no-store/);
  assert.match(await send(queried), /^200 OK/);
  assert.match(await queried.locator('.origin').innerText(), /^From the memory of this replica/, 'one entry for both');
  const tag = (await queried.locator('.header-list').innerText()).match(/W?\/?"[^"]+"/)[0];
  await queried.getByText('Request headers').click();
  await queried.getByLabel('If-None-Match').fill(tag);
  assert.match(await send(queried), /^304 /);
  await picture(page, 'desktop-light-query');
  const asked = await queried.locator('pre.line').first().innerText();
  assert.match(asked, /-X QUERY/);
  const answered = execFileSync('sh', ['-c', asked], { env: { PATH: process.env.PATH, LARDER_KEY: KEY }, stdio: ['ignore', 'pipe', 'ignore'] });
  assert.match(answered.toString(), /^HTTP\/1\.1 304/);
  await queried.locator('textarea').fill('{"id":0}');
  assert.match(await send(queried), /^422 .*Invalid field: .*id/s);
  done('POST and QUERY are called with a body, and QUERY with a condition');

  const created = await page.evaluate(async (key) => {
    const answer = await fetch('/keys', {
      method: 'POST',
      headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' },
      body: JSON.stringify({ name: 'slow', rate: '2/1h', admin: false }),
    });
    return (await answer.json()).key;
  }, KEY);
  await signIn(page, created);
  await field(user, 'id').fill('1');
  assert.match(await send(user), /^403 Forbidden.*key of an admin/s);
  await field(articles, 'limit').fill('3');
  await send(articles);
  await send(articles);
  assert.match(await send(articles), /^429 Too Many Requests.*Try again in \d+ s\./s);
  done('403 and 429 are told');

  assert.equal(await page.evaluate(() => localStorage.length + document.cookie.length), 0);
  assert.ok(!(await page.content()).includes(created) && !page.url().includes(created));
  await page.reload();
  await page.getByText('A key is set.').waitFor();
  await close(page);
  const other = await openDocs();
  await other.getByText('No key is set.').waitFor();
  await close(other);
  done('the key is kept for the tab only');
}

async function checkFailures() {
  let fails = true;
  const page = await open('/docs', {
    mayFail: true,
    routes: { '/openapi.json': (route) => (fails ? route.fulfill({ status: 500, body: 'x' }) : route.continue()) },
  });
  await page.getByText('The document cannot be shown. The server answered with 500').waitFor();
  await picture(page, 'desktop-light-no-document');
  fails = false;
  await page.getByRole('button', { name: 'Try again' }).click();
  await page.getByText(/\d+ operations/).waitFor();
  await signIn(page);
  const articles = await operation(page, 'GET', '/articles');
  await page.route(`${BASE}/articles*`, (route) => route.abort('connectionreset'));
  assert.match(await send(articles), /^No answer: the server cannot be reached/);
  await page.unroute(`${BASE}/articles*`);
  await page.route(`${BASE}/articles*`, () => {});
  await articles.getByRole('button', { name: 'Send' }).click();
  await articles.getByRole('button', { name: 'Cancel' }).click();
  assert.match(await answer(articles), /^Cancelled/);
  await close(page);
  for (const [text, said] of [
    ['{"openapi":"3.1.0","info":{"title":"Empty"},"paths":{}}', 'declares no resource'],
    ['not JSON', 'It is not JSON'],
    ['[]', 'It is not an OpenAPI document'],
  ]) {
    const odd = await open('/docs', { routes: { '/openapi.json': (route) => route.fulfill({ body: text, contentType: 'application/json' }) } });
    await odd.getByText(said).waitFor();
    await close(odd);
  }
  done('a missing, broken or empty document, a lost connection and a cancelled call are told');
}

async function checkHostileDocument() {
  const hostile = '<img src=x onerror=alert(1)><script>alert(2)</script>';
  const word = 'x'.repeat(400);
  const schema = {
    type: 'object', description: hostile, required: [hostile],
    properties: { [hostile]: { type: 'string', description: hostile, enum: [hostile], default: hostile }, ['__proto__']: { type: 'string', pattern: word } },
  };
  const text = JSON.stringify({
    openapi: '3.1.0',
    info: { title: hostile, version: hostile, description: `${hostile}\n${word}` },
    paths: {
      [`/${hostile}/{id}`]: {
        post: {
          summary: hostile, description: hostile, operationId: hostile,
          parameters: [
            { in: 'path', name: 'id', required: true, description: hostile, schema },
            { in: 'query', name: hostile, description: word, schema: { type: 'string', enum: [hostile, word] }, example: hostile },
            { in: 'header', name: 'X-Word', description: word, schema: { type: 'string', default: word } },
          ],
          requestBody: { description: hostile, content: { 'application/json': { schema } } },
          responses: { 200: { description: hostile, headers: { [hostile]: { description: hostile, schema } }, content: { [hostile]: { schema } } } },
        },
      },
      [`/${word}`]: { get: { summary: word, responses: { default: { description: word } } } },
    },
  });
  for (const viewport of [DESKTOP, PHONE]) {
    const page = await openDocs({ viewport, routes: { '/openapi.json': (route) => route.fulfill({ body: text, contentType: 'application/json' }) } });
    await page.evaluate(() => document.querySelectorAll('details').forEach((one) => { one.open = true; }));
    await page.getByRole('button', { name: 'Send' }).first().waitFor();
    await page.evaluate(() => document.querySelectorAll('details').forEach((one) => { one.open = true; }));
    assert.equal(await page.locator('body img, body script').count(), 0);
    assert.ok((await page.locator('body').innerText()).includes(hostile));
    await assertNoSidewaysScroll(page, 'a hostile document');
    await assertAccessible(page, 'a hostile document');
    await picture(page, `hostile-${viewport.width}`);
    await close(page);
  }
  done('markup in a document is text, and a long word does not make the page wider');
}

// Presses Tab until the focused element is the one. Every stop on the way must be visible.
async function tabTo(page, what, { id = '', tag = '', text = '' }) {
  for (let stops = 0; stops < 120; stops += 1) {
    await page.keyboard.press('Tab');
    const { reached, outline, name } = await page.evaluate((wanted) => {
      const focused = document.activeElement;
      const style = getComputedStyle(focused);
      const label = focused.labels?.[0] ?? focused;
      return {
        reached: focused.matches(wanted.tag || '*') && focused.id.startsWith(wanted.id) && label.textContent.startsWith(wanted.text),
        // After the last stop the browser itself has the focus.
        outline: focused === document.body || (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2),
        name: focused.outerHTML.slice(0, 100),
      };
    }, { id, tag, text });
    assert.ok(outline, `the focus is not visible on ${name}`);
    if (reached) return;
  }
  assert.fail(`Tab does not reach ${what}`);
}

async function checkKeyboard() {
  const page = await openDocs();
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the operations');
  await picture(page, 'keyboard-skip');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'operations');
  // From the top again: an address with a fragment begins there.
  await page.goto(`${BASE}/docs?`);
  await page.getByText(/\d+ operations/).waitFor();
  await tabTo(page, 'the field of the key', { id: 'key' });
  await page.keyboard.type(KEY);
  await page.keyboard.press('Enter');
  await page.getByText('A key is set.').waitFor();
  await tabTo(page, 'the operation', { tag: 'summary', text: 'GET/users/{id}' });
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'Send' }).waitFor();
  await tabTo(page, 'the field', { tag: 'input', text: 'id' });
  await page.keyboard.press('Control+A');
  await page.keyboard.type('2');
  await page.keyboard.press('Enter');
  const user = await operation(page, 'GET', '/users/{id}');
  assert.match(await answer(user), /^200 OK/);
  assert.equal((await body(user)).id, 2);
  await tabTo(page, 'the button', { tag: 'button', text: 'Send' });
  await page.keyboard.press('Space');
  await answer(user);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Send', 'the button keeps the focus');
  await tabTo(page, 'the body of the answer', { tag: 'pre.body' });
  await picture(page, 'keyboard-focus');
  await close(page);
  done('the keyboard alone signs in, opens an operation, calls it and reads the answer');
}

// Every operation and every part of it open, one good and one bad answer shown.
async function checkLooks(viewport, dark, name) {
  const page = await openDocs({ viewport, dark, mayFail: true });
  await assertNoSidewaysScroll(page, `${name}, closed`);
  await assertAccessible(page, `${name}, closed`);
  await picture(page, `${name}-closed`);
  await signIn(page);
  const articles = await operation(page, 'GET', '/articles');
  await send(articles);
  const user = await operation(page, 'GET', '/users/{id}');
  await field(user, 'id').fill('0');
  assert.match(await send(user), /^400/);
  await assertNoSidewaysScroll(page, `${name}, answers`);
  await picture(page, `${name}-answers`);
  // Twice: the inside of an operation is made when it opens.
  for (let rounds = 0; rounds < 2; rounds += 1) {
    await page.evaluate(() => document.querySelectorAll('details').forEach((one) => { one.open = true; }));
    await page.waitForFunction(() => [...document.querySelectorAll('.operation')].every((one) => one.querySelector('form')));
  }
  await assertNoSidewaysScroll(page, `${name}, all open`);
  await assertAccessible(page, `${name}, all open`);
  await picture(page, `${name}-open`);
  await close(page);
  done(`${name}: no sideways scroll, and axe-core finds nothing`);
}

async function checkLink() {
  const page = await openDocs();
  const put = await operation(page, 'PUT', '/users/{id}');
  await page.waitForFunction(() => location.hash !== '');
  const link = page.url();
  await close(page);
  const other = await openDocs();
  await other.goto('about:blank');
  await other.goto(link);
  await other.getByRole('button', { name: 'Send' }).waitFor();
  assert.equal(await other.locator('details.operation[open]').count(), 1);
  assert.ok(await other.locator('details.operation[open] .method.put').isVisible());
  await close(other);
  const still = await openDocs({ reducedMotion: 'reduce' });
  assert.equal(await still.locator('.operation > summary').first().evaluate((one) => getComputedStyle(one).transitionDuration), '0s');
  await close(still);
  done('an address names an operation; nothing moves for who wants no motion');
}

// As behind a proxy that serves larder below a path.
async function checkBelowPath() {
  const pass = async (route) => {
    const url = route.request().url().replace('/below/', '/');
    // The server ends idle connections. A proxy sends such a request once more, and so does this.
    await route.fulfill({ response: await route.fetch({ url, maxRetries: 3 }) });
  };
  const page = await open('/below/docs', { routes: { '/below/**': pass } });
  await page.getByText(/\d+ operations/).waitFor();
  await signIn(page);
  const user = await operation(page, 'GET', '/users/{id}');
  assert.match(await send(user), /^200 OK/);
  assert.match(await user.locator('pre.line').first().innerText(), /\/below\/users\/1'$/);
  await close(page);
  done('the page works below a path of its own');
}

async function checkFront() {
  for (const [viewport, dark, name] of [[DESKTOP, false, 'desktop-light'], [PHONE, true, 'phone-dark']]) {
    const page = await open('/', { viewport, dark });
    await assertNoSidewaysScroll(page, 'the front page');
    await assertAccessible(page, 'the front page');
    await picture(page, `${name}-front`);
    await page.getByRole('link', { name: 'Documents' }).click();
    await page.getByText(/\d+ operations/).waitFor();
    await close(page);
  }
  done('the front page leads to the documents');
}

try {
  await checkPolicy();
  await checkCalls();
  await checkFailures();
  await checkHostileDocument();
  await checkKeyboard();
  await checkLooks(DESKTOP, false, 'desktop-light');
  await checkLooks(DESKTOP, true, 'desktop-dark');
  await checkLooks(PHONE, false, 'phone-light');
  await checkLooks(PHONE, true, 'phone-dark');
  await checkLink();
  await checkBelowPath();
  await checkFront();
  assert.deepEqual(faults, []);
  console.log(`all well: ${requests} requests, all to ${BASE}; no report of the policy, no error on the console`);
} finally {
  await browser.close();
}
