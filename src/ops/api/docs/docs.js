'use strict';

// Everything from the document is put into the page as text, never as markup.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made[key] = value;
  made.append(...children.filter((child) => child !== undefined));
  return made;
}

let api;

function resolve(schema) {
  if (!schema || !schema.$ref) return schema || {};
  return schema.$ref.slice(2).split('/').reduce((place, part) => place[part], api);
}

// A schema in one line: `[{queue: string, points: […]}]`.
function outline(schema, depth = 0) {
  const one = resolve(schema);
  const choices = one.oneOf || one.anyOf;
  if (choices) return choices.map((choice) => outline(choice, depth)).join(' | ');
  if (one.allOf) return one.allOf.map((part) => outline(part, depth)).join(' & ');
  if (one.enum) return one.enum.map((value) => JSON.stringify(value)).join(' | ');
  const type = [].concat(one.type || 'any').filter((part) => part !== 'null').join(' | ');
  if (type === 'array') return `[${outline(one.items, depth)}]`;
  if (type !== 'object' || !one.properties) return one.format || type;
  if (depth > 3) return '{…}';
  const indent = '  '.repeat(depth + 1);
  const members = Object.entries(one.properties).map(([name, member]) => {
    const optional = (one.required || []).includes(name) ? '' : '?';
    return `${indent}${name}${optional}: ${outline(member, depth + 1)}`;
  });
  return `{\n${members.join(',\n')}\n${'  '.repeat(depth)}}`;
}

function parameterRow(parameter, inputs) {
  const schema = resolve(parameter.schema);
  const choices = schema.enum || (schema.oneOf || []).map(resolve).find((choice) => choice.enum)?.enum;
  const input = choices
    ? element('select', {}, ...['', ...choices].map((value) => element('option', { value, textContent: value })))
    : element('input', { type: 'text', placeholder: schema.format || [].concat(schema.type)[0] || '' });
  inputs.push({ parameter, input });
  const name = element('label', {}, element('code', { textContent: parameter.name }), parameter.required ? ' *' : '');
  return element('tr', {}, element('td', {}, name), element('td', {}, input, element('small', { textContent: parameter.description || '' })));
}

function bodyInput(requestBody) {
  if (!requestBody) return undefined;
  const types = Object.keys(requestBody.content);
  const type = element('select', {}, ...types.map((value) => element('option', { value, textContent: value })));
  const text = element('textarea', { spellcheck: false });
  const fill = () => {
    const example = requestBody.content[type.value].example;
    text.value = typeof example === 'string' ? example : JSON.stringify(example ?? {}, null, 2);
  };
  type.addEventListener('change', fill);
  fill();
  return { type, text };
}

async function send(method, path, inputs, body, result) {
  let place = path;
  const query = new URLSearchParams();
  for (const { parameter, input } of inputs) {
    if (parameter.in === 'path') place = place.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    else if (input.value !== '') query.set(parameter.name, input.value);
  }
  const headers = {};
  const key = document.getElementById('key').value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers['Content-Type'] = body.type.value;
  const url = query.size ? `${place}?${query}` : place;
  result.textContent = `${method.toUpperCase()} ${url} …`;
  try {
    const answer = await fetch(url, { method, headers, body: body?.text.value });
    const text = await answer.text();
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* lines or CSV: as they are */ }
    result.textContent = `${method.toUpperCase()} ${url}\n${answer.status} ${answer.statusText}\n\n${shown}`;
  } catch (error) {
    result.textContent = `${method.toUpperCase()} ${url}\n${error}`;
  }
}

function operationDetails(path, method, operation) {
  const inputs = [];
  const rows = (operation.parameters || []).map((parameter) => parameterRow(resolve(parameter), inputs));
  const body = bodyInput(operation.requestBody);
  const result = element('pre', { hidden: true });
  const button = element('button', { type: 'button', textContent: 'Send' });
  button.addEventListener('click', () => {
    result.hidden = false;
    send(method, path, inputs, body, result);
  });
  const role = (operation.security || [])[0]?.key?.[0];
  const answers = Object.entries(operation.responses).map(([status, response]) => {
    const contents = Object.entries(response.content || {});
    const types = contents.map(([type]) => type).join(', ');
    const shape = status === '200' ? contents.filter(([type]) => type === 'application/json') : [];
    return element('tr', {},
      element('td', {}, element('code', { textContent: status })),
      element('td', {}, response.description, element('small', { textContent: types }),
        ...shape.map(([, content]) => element('pre', { textContent: outline(content.schema) }))));
  });
  return element('details', {},
    element('summary', {},
      element('span', { className: 'method', textContent: method }), element('code', { textContent: path }),
      ` ${operation.summary || ''}`, role && element('span', { className: 'role', textContent: `role ${role}` })),
    element('p', { textContent: operation.description || '' }),
    rows.length ? element('table', {}, ...rows) : undefined,
    body && element('p', {}, body.type, body.text),
    element('p', {}, button), result,
    element('h3', { textContent: 'Answers' }), element('table', {}, ...answers));
}

async function show() {
  api = await (await fetch('/v1/openapi.json')).json();
  document.getElementById('title').textContent = `${api.info.title} ${api.info.version}`;
  document.getElementById('description').textContent = api.info.description || '';
  const groups = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      const tag = (operation.tags || ['other'])[0];
      if (!groups.has(tag)) groups.set(tag, element('section', {}, element('h2', { textContent: tag })));
      groups.get(tag).append(operationDetails(path, method, operation));
    }
  }
  document.getElementById('operations').replaceChildren(...groups.values());
}

show().catch((error) => {
  document.getElementById('operations').textContent = `The document cannot be shown: ${error}`;
});
