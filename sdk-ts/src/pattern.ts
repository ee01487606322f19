/**
 * Patterns: which event types a client wants.
 *
 * The grammar is that of NATS subjects: tokens with dots between, `*` for exactly one token, a final `>` for one
 * or more. The bare `*` is Rivulet's alias for "all that I may see": it matches every type.
 */

import { InvalidPattern } from './errors.js';

const MAX_TOKENS = 8;
const MAX_BYTES = 128;

/** A checked pattern. */
export class Pattern {
  readonly #tokens: readonly string[];

  /** Throws {@link InvalidPattern} for what is none: 1 to 8 tokens of `[A-Za-z0-9_-]`, at most 128 characters. */
  constructor(
    /** The text. */
    readonly text: string,
  ) {
    this.#tokens = checked(text);
  }

  /** Whether this is the bare `*`. */
  get isAll(): boolean {
    return this.text === '*';
  }

  /** Whether the pattern covers this event type. */
  matches(eventType: string): boolean {
    return this.isAll || covers(this.#tokens, eventType.split('.'));
  }

  /** Whether every type that this pattern covers is covered by `wider` too. */
  within(wider: Pattern): boolean {
    // The alias covers types of any number of tokens, as only `>` does.
    if (wider.isAll || this.isAll) return wider.isAll || wider.text === '>';
    return covers(wider.#tokens, this.#tokens);
  }

  toString(): string {
    return this.text;
  }
}

/** Whether `wider` covers all that `tokens` do: those of a pattern, or of a type, which is a pattern without wildcards. */
function covers(wider: readonly string[], tokens: readonly string[]): boolean {
  const rest = wider.at(-1) === '>' ? wider.length - 1 : undefined;
  if (rest === undefined ? tokens.length !== wider.length : tokens.length <= rest) return false;
  return tokens.every(
    // One token is not enough for all that `>` may bring.
    (token, index) =>
      index === rest ||
      index > (rest ?? index) ||
      token === wider[index] ||
      (wider[index] === '*' && token !== '>'),
  );
}

function checked(text: string): string[] {
  // Counted as the router counts, in bytes.
  if (new TextEncoder().encode(text).length > MAX_BYTES) throw new InvalidPattern(text, 'too_long');
  const tokens = text.split('.');
  if (tokens.length > MAX_TOKENS) throw new InvalidPattern(text, 'too_many_tokens');
  for (const [index, token] of tokens.entries()) {
    if (tokens[index - 1] === '>') throw new InvalidPattern(text, 'rest_before_end');
    if (!token) throw new InvalidPattern(text, 'empty_token');
    if (token === '*' || token === '>') continue;
    if (/[*>]/.test(token)) throw new InvalidPattern(text, 'wildcard_in_token');
    if (/[^A-Za-z0-9_-]/.test(token)) throw new InvalidPattern(text, 'character');
  }
  return tokens;
}
