// One operation on the page: what it takes and gives, and a form that calls it.

import { element, fill, copyButton, prose } from './dom.js';
import { allowedValues, flat, example, limits, members, shown, typeText } from './schema.js';
import { buildRequest, curlLine } from './request.js';
import { showFailure, showAnswer } from './result.js';
import { currentKey } from './key.js';

const KEYS = {
  none: 'Open to anyone.',
  optional: 'Open to anyone. A key is checked if there is one.',
  any: 'Needs an API key.',
  admin: "Needs an admin's API key.",
};

// The element of an operation. Its inside is made when it is opened first.
export function operationElement(root, operation, base) {
  const summary = element(
    'summary',
    {},
    element('span', { class: `method ${operation.method.toLowerCase()}` }, operation.method),
    element('h3', {}, element('code', {}, operation.path)),
    element('span', { class: 'what' }, operation.summary, operation.deprecated && ' (deprecated)'),
  );
  const details = element('details', { id: operation.id, class: 'operation' }, summary);
  details.addEventListener('toggle', () => {
    if (details.open && details.children.length === 1) details.append(inside(root, operation, base));
  });
  return details;
}

function inside(root, operation, base) {
  return element(
    'div',
    { class: 'inside' },
    prose('p', {}, operation.description),
    element('p', { class: 'muted' }, KEYS[operation.key]),
    element('div', { class: 'columns' }, callForm(root, operation, base), answerList(root, operation)),
  );
}

function callForm(root, operation, base) {
  const fields = operation.parameters.map((parameter, at) => ({
    parameter,
    ...parameterField(root, parameter, `${operation.id}-parameter-${at}`),
  }));
  const body = operation.body && bodyField(root, operation);
  const needsKey = operation.key === 'any' || operation.key === 'admin';
  const line = element('code');
  const result = element('div', { class: 'result' });
  const status = element('p', { class: 'state', role: 'status' });
  const send = element('button', { type: 'submit' }, 'Send');
  const cancel = element('button', { type: 'button', class: 'quiet', hidden: true }, 'Cancel');

  const request = () => {
    const values = fields.map(({ parameter, input }) => [parameter, input.value.trim()]);
    const text = body && body.input.value.trim() !== '' ? body.input.value : null;
    return buildRequest(operation, values, text, base, currentKey());
  };
  const showLine = () => {
    try {
      fill(line, curlLine(request(), needsKey));
    } catch (error) {
      fill(line, error.message);
    }
  };
  const call = async (event) => {
    event.preventDefault();
    // The button keeps the focus while the call runs, so it is not disabled.
    if (!cancel.hidden) return;
    showLine();
    fill(result);
    let made;
    try {
      made = request();
    } catch (error) {
      showFailure(status, error.message);
      fields.find(({ parameter, input }) => parameter.in === 'path' && input.value.trim() === '')?.input.focus();
      return;
    }
    const stop = new AbortController();
    cancel.onclick = () => {
      send.focus();
      stop.abort();
    };
    cancel.hidden = false;
    status.className = 'state';
    fill(status, 'Waiting for the answer …');
    await showAnswer(made, stop.signal, { status, result }, operation.key !== 'none' && currentKey() !== '');
    cancel.hidden = true;
  };
  const form = element(
    'form',
    { class: 'call', oninput: showLine, onsubmit: call, 'aria-label': `Call ${operation.method} ${operation.path}` },
    element('h4', {}, 'Request'),
    fields.length === 0 && !body && element('p', { class: 'muted' }, 'This takes no parameters.'),
    fields.filter(({ parameter }) => parameter.in !== 'header').map(({ field }) => field),
    headerFields(fields),
    body && body.field,
    element('h5', {}, 'The same with curl'),
    needsKey && element('p', { class: 'muted' }, 'The variable LARDER_KEY of the shell has the API key.'),
    element('pre', { class: 'line' }, line),
    copyButton('Copy curl line', line, () => line.textContent),
    element('div', { class: 'row send' }, send, cancel),
    status,
    result,
  );
  showLine();
  return form;
}

// Few calls need a header of their own, so the fields are folded.
function headerFields(fields) {
  const headers = fields.filter(({ parameter }) => parameter.in === 'header');
  const isNeeded = headers.some(({ parameter }) => parameter.required);
  return headers.length > 0 && element(
    'details',
    { class: 'headers', open: isNeeded },
    element('summary', {}, `Request headers (${headers.length})`),
    headers.map(({ field }) => field),
  );
}

function parameterField(root, parameter, id) {
  const schema = flat(root, parameter.schema ?? {});
  const listed = choices(root, schema);
  const facts = [typeText(root, schema), ...limits(root, schema)];
  const given = parameter.example ?? Object.values(parameter.examples ?? {})[0]?.value ?? schema.example ?? schema.examples?.[0];
  const attributes = { id, 'aria-describedby': `${id}-note`, autocomplete: 'off' };
  const input = listed
    ? selectOf(listed, parameter.required, attributes)
    : element('input', { ...attributes, type: 'text', spellcheck: 'false', autocapitalize: 'off' });
  if (parameter.in === 'path') input.value = shown(given ?? pathExample(root, schema));
  else if (given !== undefined) input.placeholder = `for example ${shown(given)}`;
  const field = element(
    'div',
    { class: 'field' },
    element(
      'label',
      { for: id },
      element('code', {}, parameter.name),
      ' ',
      element('span', { class: 'muted' }, parameter.in, parameter.required ? ', required' : ''),
    ),
    element(
      'p',
      { id: `${id}-note`, class: 'note' },
      element('span', { class: 'type' }, facts.join('; ')),
      prose('span', {}, parameter.description),
    ),
    input,
  );
  return { field, input };
}

// A text that stands for nothing real is not filled in.
function pathExample(root, schema) {
  const made = example(root, schema);
  return schema.type === 'string' && schema.enum === undefined && schema.format === undefined && schema.default === undefined ? '' : made;
}

function choices(root, schema) {
  const listed = allowedValues(root, schema)?.map(shown) ?? null;
  return schema.type === 'boolean' ? ['true', 'false'] : listed;
}

function selectOf(values, required, attributes) {
  const none = !required && element('option', { value: '' }, '(not sent)');
  return element('select', attributes, none, values.map((value) => element('option', { value }, value)));
}

function bodyField(root, operation) {
  const { body } = operation;
  const id = `${operation.id}-body`;
  const sample = JSON.stringify(body.example ?? example(root, body.schema), null, 2);
  const lines = Math.min(16, sample.split('\n').length + 1);
  const input = element('textarea', { id, rows: lines, spellcheck: 'false', autocapitalize: 'off', autocomplete: 'off', 'aria-describedby': `${id}-note` });
  input.value = sample;
  const note = element('p', { id: `${id}-note`, class: 'note', role: 'status' });
  const check = () => {
    try {
      if (input.value.trim() !== '') JSON.parse(input.value);
      fill(note);
    } catch (error) {
      fill(note, `This is not JSON: ${error.message}. It is sent as it is.`);
    }
  };
  input.addEventListener('input', check);
  const reset = () => {
    input.value = sample;
    input.dispatchEvent(new Event('input', { bubbles: true }));
  };
  const field = element(
    'div',
    { class: 'field' },
    element('label', { for: id }, 'Body ', element('span', { class: 'muted' }, body.type, body.required ? ', required' : '')),
    prose('p', { class: 'note' }, body.description),
    memberList(members(root, body.schema)),
    input,
    note,
    element('div', { class: 'row' }, element('button', { type: 'button', class: 'quiet', onclick: reset }, 'Reset to the example')),
  );
  return { field, input };
}

function answerList(root, operation) {
  return element(
    'section',
    { class: 'answers', 'aria-label': `Answers of ${operation.method} ${operation.path}` },
    element('h4', {}, 'Answers'),
    operation.answers.map((answer) => answerElement(root, answer)),
  );
}

function answerElement(root, answer) {
  const { content } = answer;
  const type = content && typeText(root, content.schema);
  const list = content ? memberList(members(root, content.schema)) : null;
  return element(
    'details',
    { class: 'answer' },
    element('summary', {}, element('span', { class: `status s${answer.status.slice(0, 1)}` }, answer.status), ' ', prose('span', {}, answer.description)),
    element(
      'div',
      { class: 'facts' },
      content ? element('p', {}, element('code', {}, content.type), `: ${[type, ...limits(root, content.schema)].join('; ')}`) : element('p', { class: 'muted' }, 'No body.'),
      list,
      content && exampleElement(root, content),
      answer.headers.length > 0 && element('h5', {}, 'Headers'),
      answer.headers.length > 0 && memberList(answer.headers.map((header) => ({
        name: header.name,
        required: false,
        type: typeText(root, header.schema ?? {}),
        limits: limits(root, header.schema ?? {}),
        description: header.description,
        members: [],
      }))),
    ),
  );
}

function exampleElement(root, content) {
  const sample = content.example ?? example(root, content.schema);
  return element(
    'details',
    { class: 'example' },
    element('summary', {}, 'Example'),
    element('pre', { class: 'line' }, element('code', {}, JSON.stringify(sample, null, 2))),
  );
}

function memberList(list) {
  return list.length > 0 && element('ul', { class: 'members' }, list.map((member) => element(
    'li',
    {},
    element('code', {}, member.name),
    ' ',
    element('span', { class: 'type' }, [member.type, ...member.limits].join('; '), member.required ? '; required' : ''),
    prose('span', { class: 'muted' }, member.description),
    memberList(member.members),
  )));
}
