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
    if (this.isAll) return true;
    const tokens = eventType.split('.');
    for (const [index, wanted] of this.#tokens.entries()) {
      if (index >= tokens.length) return false;
      if (wanted === '>') return true;
      if (wanted !== '*' && wanted !== tokens[index]) return false;
    }
    return tokens.length === this.#tokens.length;
  }

  /** Whether every type that this pattern covers is covered by `wider` too. */
  within(wider: Pattern): boolean {
    if (wider.isAll) return true;
    // The alias covers types of any number of tokens, as only `>` does.
    if (this.isAll) return wider.text === '>';
    for (const [index, their] of wider.#tokens.entries()) {
      const our = this.#tokens[index];
      if (our === undefined) return false;
      if (their === '>') return true;
      // One token is not enough for all that `>` may bring.
      if (our === '>' || (their !== '*' && their !== our)) return false;
    }
    return this.#tokens.length === wider.#tokens.length;
  }

  toString(): string {
    return this.text;
  }
}

function checked(text: string): string[] {
  // Counted as the router counts, in bytes.
  if (new TextEncoder().encode(text).length > MAX_BYTES) throw new InvalidPattern('too_long');
  const tokens = text.split('.');
  if (tokens.length > MAX_TOKENS) throw new InvalidPattern('too_many_tokens');
  for (const [index, token] of tokens.entries()) {
    if (tokens[index - 1] === '>') throw new InvalidPattern('rest_before_end');
    if (token === '') throw new InvalidPattern('empty_token');
    if (token === '*' || token === '>') continue;
    if (/[*>]/.test(token)) throw new InvalidPattern('wildcard_in_token');
    if (/[^A-Za-z0-9_-]/.test(token)) throw new InvalidPattern('character');
  }
  return tokens;
}
