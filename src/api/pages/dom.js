// Elements of the page.
//
// Promise: text becomes a text node or the value of an attribute, never markup. So a description
// that contains markup or a script is shown as it is written.

// An element with these attributes and children. `null`, `undefined` and `false` stand for nothing,
// as an attribute and as a child. An attribute `onclick` is a listener for `click`.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') {
      made.addEventListener(key.slice(2), value);
    } else if (value !== false && value !== null && value !== undefined) {
      made.setAttribute(key, value === true ? '' : value);
    }
  }
  made.append(...present(children));
  return made;
}

// Replaces the children of `parent`.
export function fill(parent, ...children) {
  parent.replaceChildren(...present(children));
}

// An element with a description, or nothing if there is none.
export function prose(name, attributes, text) {
  return text ? element(name, { ...attributes, class: `prose ${attributes.class ?? ''}` }, ...marked(text)) : null;
}

// A description as nodes. Of Markdown it knows code, strong text and lists, whose lines it leaves as
// they are. Everything else is text.
export function marked(text) {
  const listed = String(text).replace(/^[-*] /gm, '• ');
  return listed.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/).map((part, at) => {
    // Every second part is one that the expression matched.
    if (at % 2 === 0) return part;
    return part.startsWith('`') ? element('code', {}, part.slice(1, -1)) : element('strong', {}, part.slice(2, -2));
  });
}

// A button that copies what `text` returns. A page without HTTPS may not write to the clipboard:
// there the button selects `source`, and says so.
export function copyButton(label, source, text) {
  const said = element('span', { class: 'muted', role: 'status' });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text());
      fill(said, 'Copied.');
    } catch {
      getSelection().selectAllChildren(source);
      fill(said, 'Selected. Copy it with the keyboard.');
    }
  };
  const onblur = () => fill(said);
  const button = element('button', { type: 'button', class: 'quiet', onclick: copy, onblur }, label);
  return element('div', { class: 'row' }, button, said);
}

function present(children) {
  return children.flat().filter((child) => child !== null && child !== undefined && child !== false);
}
