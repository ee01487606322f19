/**
 * Types that follow the pattern.
 *
 * The events of a pattern are looked up in one mapped type, keyed by all patterns that cover any type. (A conditional
 * type that distributes over the types says the same and takes the compiler 60 times as long at 1,000 types.)
 */

import type { EventFrame } from './generated.js';

/** All patterns that cover an event type, by tokens: `blob.created` has itself, `blob.*`, `*.created`, `blob.>`, … */
type PatternsOf<Type extends string> = Type extends `${infer First}.${infer Rest}`
  ? `${First | '*'}.${PatternsOf<Rest> | '>'}`
  : Type | '*';

/** The events of each pattern. */
export type EventsByPattern<Events> = {
  [Type in keyof Events & string as PatternsOf<Type> | '*' | '>']: EventFrame<Pick<Events, Type>>;
};

/** The patterns that cover at least one of these events: an editor completes them, a typo does not compile. */
export type PatternFor<Events> = keyof EventsByPattern<Events> & string;

/** The events that a pattern covers, as a union that narrows by `type`. */
export type EventFor<Events, Pattern extends PatternFor<Events>> =
  EventsByPattern<Events> extends Record<Pattern, infer Event> ? Event : never;

/** `create_blob` as `createBlob`. */
type CamelCase<Name extends string> = Name extends `${infer First}_${infer Rest}`
  ? `${First}${Capitalize<CamelCase<Rest>>}`
  : Name;

/** What a command takes. */
export type RequestOf<Commands, Name extends keyof Commands> = Commands[Name] extends {
  request: infer Request;
}
  ? Request
  : never;

/** What a command brings. */
export type ReplyOf<Commands, Name extends keyof Commands> = Commands[Name] extends { reply: infer Reply }
  ? Reply
  : never;

/** A call for each command: `create_blob` is `createBlob`. */
export type Calls<Commands, Options> = {
  readonly [Name in keyof Commands & string as CamelCase<Name>]: (
    data: RequestOf<Commands, Name>,
    options?: Options,
  ) => Promise<ReplyOf<Commands, Name>>;
};

/** A family of one's own events and commands; `rivulet codegen --lang ts` writes it. */
export interface Family<Events, Commands> {
  /** The event types that it has, each with the fields that may be absent, in whose place null is read as absent. */
  readonly eventTypes: Readonly<Record<string, readonly string[]>>;
  /** For the compiler alone; never there. */
  readonly types?: { events: Events; commands: Commands };
}

/** Any family. */
export type AnyFamily = Family<object, object>;

/** All of a union's types at once. */
type All<Union> = (Union extends unknown ? (one: Union) => void : never) extends (
  all: infer Intersection,
) => void
  ? Intersection
  : never;

/** The events of several families together. */
export type EventsOf<Families extends readonly AnyFamily[]> = All<
  Families[number] extends infer One ? (One extends Family<infer Events, object> ? Events : never) : never
>;

/** The commands of several families together. */
export type CommandsOf<Families extends readonly AnyFamily[]> = All<
  Families[number] extends infer One ? (One extends Family<object, infer Commands> ? Commands : never) : never
>;
