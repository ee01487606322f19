/**
 * User ids, and how they stand in NATS subjects and headers.
 *
 * An id is any 1 to 128 bytes of UTF-8, so it may hold dots, spaces and wildcards. In a subject or a header it is
 * escaped: `[A-Za-z0-9_-]` stay, every other byte becomes `=XX` with upper-case hex digits. The result is always
 * exactly one token, no two ids share one, and no id becomes a wildcard.
 */

import { InvalidUserId } from './errors.js';

/** The most bytes in a user id, before escaping. */
export const MAX_USER_ID_BYTES = 128;

/** The escaped form of a user id: one subject token of at most 384 characters. Throws {@link InvalidUserId}. */
export function escapeUserId(id: string): string {
  // What TextEncoder would replace: half of a surrogate pair, so that two ids would share a token.
  if (/\p{Surrogate}/u.test(id)) throw new InvalidUserId('not_utf8');
  const bytes = checked(new TextEncoder().encode(id));
  return Array.from(bytes, (byte) => {
    const character = String.fromCharCode(byte);
    return isPlain(character) ? character : `=${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }).join('');
}

/**
 * Reads the escaped form. Strict: the one spelling that {@link escapeUserId} writes, so that two subjects never
 * mean the same user. Throws {@link InvalidUserId}.
 */
export function unescapeUserId(token: string): string {
  // Counted as the router counts, in bytes.
  if (new TextEncoder().encode(token).length > 3 * MAX_USER_ID_BYTES) throw new InvalidUserId('too_long');
  if (!/^(?:[A-Za-z0-9_-]|=[0-9A-F]{2})*$/.test(token)) throw new InvalidUserId('escape');
  const bytes: number[] = [];
  for (const [piece] of token.matchAll(/=..|./g)) {
    const byte = piece.length === 1 ? piece.charCodeAt(0) : Number.parseInt(piece.slice(1), 16);
    if (piece.length > 1 && isPlain(String.fromCharCode(byte))) throw new InvalidUserId('escape');
    bytes.push(byte);
  }
  let id: string;
  try {
    // Without `ignoreBOM` a mark at the start would be left out, and two users be one.
    id = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
  } catch {
    throw new InvalidUserId('escape');
  }
  checked(bytes);
  return id;
}

function checked<Bytes extends ArrayLike<number>>(bytes: Bytes): Bytes {
  if (bytes.length === 0) throw new InvalidUserId('empty');
  if (bytes.length > MAX_USER_ID_BYTES) throw new InvalidUserId('too_long');
  return bytes;
}

function isPlain(character: string): boolean {
  return /[A-Za-z0-9_-]/.test(character);
}
