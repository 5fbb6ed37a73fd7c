// What an answer says, in words, and its JSON with line breaks. Knows no HTML.

// What `Cache-Status` (RFC 9211) says of where an answer comes from. Empty if it says nothing known.
export function cacheStatus(header) {
  // larder puts the tier that is nearest to the reader last.
  const tiers = header.split(',').map((tier) => tier.trim().split(';').map((part) => part.trim()));
  const memory = tiers.find(([name]) => name === 'larder-memory') ?? [];
  const redis = tiers.find(([name]) => name === 'larder-redis') ?? [];
  const left = (tier) => {
    const ttl = tier.find((part) => part.startsWith('ttl='))?.slice(4);
    return ttl === undefined ? '' : ` Fresh for another ${ttl} s.`;
  };
  if (memory.includes('hit')) return `From the memory of this replica.${left(memory)}`;
  if (redis.includes('hit')) return `From Redis.${left(redis)}`;
  if (memory.includes('fwd=stale')) return `A stale copy: ${STALE[detail(memory)] ?? 'policy allows it.'}`;
  if (memory.includes('collapsed')) return 'From the source, by a load that another request began.';
  if (memory.includes('fwd=miss')) return `From the source.${redis.includes('stored') ? ' Redis keeps it.' : ''}`;
  return '';
}

const STALE = {
  'stale-while-revalidate': 'a load runs in the background.',
  'soft-timeout': 'the source takes longer than soft_timeout.',
  'stale-if-error': 'the source failed.',
  'quota-spent': 'the quota of the source is spent.',
};

function detail(tier) {
  return tier.find((part) => part.startsWith('detail='))?.slice(7);
}

// What the reader can do after an answer with this status. Empty if the answer says it itself.
export function advice(status, retryAfter, hasKey) {
  const again = retryAfter ? ` Try again in ${retryAfter} s.` : '';
  switch (status) {
    case 304:
      return 'Not modified: the copy with this entity tag is still current. The answer has no body.';
    case 401:
      return hasKey ? 'The server does not know the API key of this page.' : 'This call needs an API key. Enter one at the top of this page.';
    case 403:
      return 'This call needs the API key of an admin.';
    case 429:
      return `Too many requests.${again}`;
    case 502:
      return `The source of the data failed.${again}`;
    case 503:
      return `The server cannot answer now.${again}`;
    case 504:
      return `The source of the data is too slow.${again}`;
    default:
      return '';
  }
}

// JSON text with a line for each member and item. Strings and numbers stay as they are written: no
// digit of a long number is lost. Anything else than JSON is returned as it is.
export function pretty(text) {
  try {
    JSON.parse(text);
  } catch {
    return text;
  }
  const out = [];
  let depth = 0;
  let isFirst = false;
  const line = () => out.push('\n', '  '.repeat(depth));
  for (const token of text.match(/"(?:[^"\\]|\\.)*"|[[\]{}:,]|[^\s"[\]{}:,]+/g) ?? []) {
    const closes = token === '}' || token === ']';
    if (closes) depth -= 1;
    // An empty object or array stays on its line.
    if (closes !== isFirst) line();
    isFirst = token === '{' || token === '[';
    if (isFirst) depth += 1;
    out.push(token === ':' ? ': ' : token);
    if (token === ',') line();
  }
  return out.join('');
}

// A size in words.
export function size(bytes) {
  return bytes < 1024 ? `${bytes} bytes` : `${(bytes / 1024).toFixed(1)} KiB`;
}
