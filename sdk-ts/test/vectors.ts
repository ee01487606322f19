/** The conformance vectors of `schemas/vectors/`, and which of them are known to differ. */

import { readFileSync } from 'node:fs';

/** A case of `events.json`. */
export interface EventCase {
  name: string;
  wire: string;
  expect: 'ok' | 'unknown' | 'reject';
}

/** A case of `server-frames.json`: one outcome by object. */
export interface ServerFrameCase {
  name: string;
  wire: string;
  expect: ('event' | 'frame' | 'unknown' | 'reject')[];
}

/** A case of `client-frames.json`. */
export interface ClientFrameCase {
  name: string;
  wire: string;
  expect: 'ok' | 'reject';
  code?: string;
  field?: string;
  canonical?: string;
}

/** A case of `patterns.json`: whether a text is one, and if not why; or what it covers. */
export interface PatternCase {
  pattern: string;
  valid?: boolean;
  reason?: string;
  type?: string;
  matches?: boolean;
  within?: string;
  is_within?: boolean;
}

/** A case of `user-ids.json`: an id and its token, or one of them and why it is none. */
export interface UserIdCase {
  id?: string;
  token?: string;
  valid?: false;
  reason?: string;
}

interface KnownGap {
  runner: string;
  file: string;
  reason: string;
  cases: string[];
}

// This file is compiled into sdk-ts/test/dist/test.
const folder = new URL('../../../../schemas/vectors/', import.meta.url);

/** The cases of a file. */
export function vectors<Case>(file: string): Case[] {
  return JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as Case[];
}

/** The names of a file's cases whose outcome is known to differ, in decoding or for the types. */
export function knownGaps(runner: 'typescript' | 'typescript types', file: string): Set<string> {
  const gaps = vectors<KnownGap>('known-gaps.json').filter(
    (gap) => gap.runner === runner && gap.file === file,
  );
  return new Set(gaps.flatMap((gap) => gap.cases));
}
